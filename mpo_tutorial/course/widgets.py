"""Controls over the explorers. Only what ipywidgets 7.7 and 8 share."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from mpo_tutorial.course import plots
from mpo_tutorial.course.comparisons import RateExplorer
from mpo_tutorial.course.cut_explorers import DepthExplorer, TradeoffExplorer
from mpo_tutorial.course.cut_figures import JUDGED_BY
from mpo_tutorial.course.dashboard import CUTS, LIGHT, TASKS, Dashboard, Setting
from mpo_tutorial.course.explorers import BondExplorer, EntropyExplorer, MovementExplorer, RankExplorer
from mpo_tutorial.course.model_explorers import LedgerExplorer, MemoryExplorer, ModelMap
from mpo_tutorial.course.network_explorers import NetworkExplorer
from mpo_tutorial.course.squeeze_explorers import LiveSqueeze, SqueezeExplorer
from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.cut_results import summarise
from mpo_tutorial.maths.shapes import Shape

if TYPE_CHECKING:
    from ipywidgets import HTML, Widget

    from mpo_tutorial.experiments.tuned import Tuned

SENTENCES = 300


def rank_explorer(matrix: np.ndarray, rank: int = 1) -> "Widget":
    """A slider for the rank; picture, error and number of parameters follow it.

    A matrix that cannot be decomposed gets a sentence in the widget's place.
    """
    import ipywidgets

    try:
        explorer = RankExplorer(matrix)
    except ValueError as error:
        return ipywidgets.HTML(f"<p>{escape(str(error))}</p>")
    slider = ipywidgets.IntSlider(
        value=rank, min=1, max=explorer.largest_rank, description="rank", continuous_update=False
    )
    return ipywidgets.VBox([slider, _following([slider], explorer)[0]])


def entropy_explorer(n_sites: int = 12, field: float = 2.0) -> "Widget":
    """A slider for the field of an Ising ring; the entropy of half of it follows. Errors as in `EntropyExplorer`."""
    import ipywidgets

    slider = ipywidgets.FloatSlider(
        value=field, min=0.05, max=2, step=0.05, description="field", continuous_update=False
    )
    return ipywidgets.VBox([slider, _following([slider], EntropyExplorer(n_sites))[0]])


def bond_explorer(matrix: Tensor, shape: Shape | tuple[Sequence[int], Sequence[int]]) -> "Widget":
    """A slider for each bond of a matrix's MPO, with presets; sizes, error, bound, entropies and picture follow.

    A matrix that cannot be decomposed gets a sentence in the widget's place.
    """
    import ipywidgets

    try:
        explorer = BondExplorer(matrix, shape)
    except ValueError as error:
        return ipywidgets.HTML(f"<p>{escape(str(error))}</p>")
    sliders = [
        ipywidgets.IntSlider(value=full, min=1, max=full, description=f"bond {k}", continuous_update=False)
        for k, full in enumerate(explorer.full_bonds, start=1)
    ]
    shown, update = _following(sliders, explorer)

    def go_to(bonds: Sequence[int]) -> None:
        for slider, bond in zip(sliders, bonds, strict=True):
            slider.unobserve(update, names="value")
            slider.value = bond
            slider.observe(update, names="value")
        update()

    buttons = []
    for name, bonds in explorer.presets().items():
        buttons.append(ipywidgets.Button(description="reset" if name == "full" else name))
        buttons[-1].on_click(lambda _, bonds=bonds: go_to(bonds))
    return ipywidgets.VBox([*sliders, ipywidgets.HBox(buttons), shown])


def model_map(model_map: ModelMap) -> "Widget":
    """Dropdowns for layer and matrix; sizes, entropies and spectrum follow."""
    import ipywidgets

    layer = ipywidgets.Dropdown(options=model_map.layers, description="layer")
    kind = ipywidgets.Dropdown(options=model_map.kinds, description="matrix")
    return ipywidgets.VBox([layer, kind, _following([layer, kind], model_map)[0]])


def ledger_explorer(explorer: LedgerExplorer) -> "Widget":
    """Dropdowns for the model and for what of it becomes MPOs; counts and bars follow."""
    import ipywidgets

    name = ipywidgets.Dropdown(options=explorer.names, description="model")
    choice = ipywidgets.Dropdown(options=explorer.choices, description="matrices")
    return ipywidgets.VBox([name, choice, _following([name, choice], explorer)[0]])


def memory_explorer(explorer: MemoryExplorer) -> "Widget":
    """Which model, how many sentences at once, and in which precision; what a step holds follows."""
    import ipywidgets

    name = ipywidgets.Dropdown(options=explorer.names, description="model")
    sentences = ipywidgets.SelectionSlider(options=[2**k for k in range(7)], value=32, description="sentences")
    precision = ipywidgets.Dropdown(options=explorer.PRECISIONS, description="products")
    controls = [name, sentences, precision]
    return ipywidgets.VBox([*controls, _following(controls, explorer)[0]])


def depth_explorer(explorer: DepthExplorer, ratio: float | None = None) -> "Widget":
    """Which matrices to cut, to which share, and what to judge by; errors through the depth and what is left follow."""
    import ipywidgets

    part = ipywidgets.Dropdown(options=explorer.parts, description="cut in")
    share = ipywidgets.SelectionSlider(
        options=explorer.ratios, value=ratio or explorer.ratios[-1], description="ratio", continuous_update=False
    )
    judged = _measures()
    return ipywidgets.VBox([part, share, judged, _following([part, share, judged], explorer)[0]])


def movement_explorer(explorer: MovementExplorer) -> "Widget":
    """Dropdowns for layer and matrix; how far full fine-tuning moved it follows, from the record."""
    import ipywidgets

    layer = ipywidgets.Dropdown(options=explorer.layers, description="layer")
    kind = ipywidgets.Dropdown(options=explorer.kinds, description="matrix")
    return ipywidgets.VBox([layer, kind, _following([layer, kind], explorer)[0]])


def rate_explorer(explorer: RateExplorer) -> "Widget":
    """A dropdown for the variant and a slider over the rates; what that makes of it follows, from the record."""
    import ipywidgets

    name = ipywidgets.Dropdown(options=explorer.names, description="cores")
    rate = ipywidgets.SelectionSlider(
        options=[(f"{rate:g}", rate) for rate in explorer.rates],
        value=explorer.best(explorer.names[0]),
        description="rate",
        continuous_update=False,
    )
    return ipywidgets.VBox([name, rate, _following([name, rate], explorer)[0]])


def squeeze_replay(explorers: Mapping[str, SqueezeExplorer], step: int = 2) -> "Widget":
    """A dropdown for the squeezing and a slider over its steps; what was cut and what is left follow, from the record."""
    import ipywidgets

    name = ipywidgets.Dropdown(options=[*explorers], description="squeezed")
    slider = ipywidgets.IntSlider(
        value=step, min=0, max=explorers[name.value].last, description="step", continuous_update=False
    )
    shown, update = _following([slider], explorers[name.value])

    def choose(_) -> None:
        nonlocal update
        slider.unobserve(update, names="value")
        slider.max = explorers[name.value].last  # the value with it, if it lies beyond
        update = _show([slider], explorers[name.value], shown)

    name.observe(choose, names="value")
    return ipywidgets.VBox([name, slider, shown])


def network_explorer(explorer: NetworkExplorer) -> "Widget":
    """A slider over the bond dimension of a network's first layer; accuracy, numbers and entropies on record follow."""
    import ipywidgets

    bond = ipywidgets.SelectionSlider(options=explorer.bonds, value=min(explorer.bonds), description="bond")
    shown, _ = _following([bond], explorer)
    return ipywidgets.VBox([bond, shown])


def live_squeeze(live: LiveSqueeze) -> "Widget":
    """A button that takes the next step of a squeezing; what was cut and what is left follow."""
    import ipywidgets

    button = ipywidgets.Button(description="cut once more", layout={"width": "auto"})
    shown, update = _following([], live)

    def go_on(_) -> None:
        button.disabled = True
        try:
            live.advance()
            update()
        finally:
            button.disabled = live.squeeze.stopped is not None

    button.on_click(go_on)
    return ipywidgets.VBox([button, shown])


def tradeoff_explorer(tuned: "Callable[[], Tuned] | None" = None) -> "Widget":
    """Which matrices to cut, to which bond, what to judge by, and a button that measures the setting on some 300 sentences.

    Parameters
    ----------
    tuned : callable, optional
        Gives the tuned model; without it, the one that is shipped.
    """
    import ipywidgets

    explorer = TradeoffExplorer(summarise(records.shipped_points("cuts")), tuned)
    part = ipywidgets.Dropdown(options=explorer.parts, description="cut in")
    bond = ipywidgets.SelectionSlider(
        options=explorer.bonds, value=max(explorer.bonds), description="bond", continuous_update=False
    )
    button = ipywidgets.Button(description=f"measure on {SENTENCES} sentences", layout={"width": "auto"})
    bar = ipywidgets.FloatProgress(min=0, max=1)
    judged = _measures()
    shown, update = _following([part, bond, judged], explorer)

    def measure(_) -> None:
        controls = (part, bond, judged, button)
        for control in controls:
            control.disabled = True
        bar.value = 0
        try:
            explorer.measure(part.value, bond.value, SENTENCES, lambda share: setattr(bar, "value", share))
            update()
        except (OSError, ValueError) as error:  # packages that are missing or damaged: the message says what to type
            shown.value = f"<p>{escape(str(error))}</p>"
        finally:
            for control in controls:
                control.disabled = False

    button.on_click(measure)
    return ipywidgets.VBox([part, bond, judged, ipywidgets.HBox([button, bar]), shown])


def dashboard(board: Dashboard, query: str | None = None) -> "Widget":
    """Everything that the course turns, in one place: controls for a `Setting`, what is known of it beside another one that was
    kept, a button that measures it, and the setting as a text that restores it.

    Parameters
    ----------
    query : str, optional
        What `Setting.as_query` gave; None: the end of the page's address, where Voila shows it, or nothing cut. What cannot be
        restored gets a sentence.
    """
    import ipywidgets

    widest = board.widest
    task = ipywidgets.Dropdown(options=[*TASKS], description="task")
    method = ipywidgets.Dropdown(options=board.methods(task.value), value=LIGHT, description="method")
    matrices = ipywidgets.Dropdown(options=board.parts, description="cut in")
    cut = ipywidgets.Dropdown(options=CUTS, description="cut")
    every = ipywidgets.IntSlider(
        value=max(widest), min=1, max=max(widest), description="all bonds", continuous_update=False
    )
    sliders = [
        ipywidgets.IntSlider(value=most, min=1, max=most, description=f"bond {k}", continuous_update=False)
        for k, most in enumerate(widest, start=1)
    ]
    keep = ipywidgets.Button(description="keep for comparison", layout={"width": "auto"})
    button = ipywidgets.Button(description=f"measure on {SENTENCES} sentences", layout={"width": "auto"})
    bar = ipywidgets.FloatProgress(min=0, max=1)
    text = ipywidgets.Text(description="setting", layout={"width": "95%"})
    restore = ipywidgets.Button(description="restore", layout={"width": "auto"})
    told, shown = ipywidgets.HTML(), ipywidgets.HTML()
    shown.explorer = board
    watched, kept, putting = [task, method, matrices, cut, *sliders], [], False

    def now() -> Setting:
        return Setting(task.value, method.value, matrices.value, cut.value, tuple(slider.value for slider in sliders))

    def update(_=None) -> None:
        if putting:
            return
        setting = now()
        settings = [setting, *(one for one in kept if one != setting)]
        text.value = setting.as_query()
        for control in (matrices, cut, every, *sliders, button):
            control.disabled = not setting.is_here
        picture = plots.html(board.figure(*settings), board.in_words(setting))
        shown.value = f"{_table_of([board.table(one) for one in settings])}{picture}"

    def put(setting: Setting) -> None:
        nonlocal putting
        putting = True
        task.value = setting.task
        method.options = board.methods(setting.task)
        method.value, matrices.value, cut.value = setting.method, setting.matrices, setting.cut
        for slider, cap in zip(sliders, setting.caps, strict=True):
            slider.value = cap
        every.value = max(setting.caps)
        putting = False
        update()

    def choose_task(_) -> None:
        if not putting:
            put(replace(now(), method=LIGHT))

    def move_all(_) -> None:
        if not putting:
            put(replace(now(), caps=tuple(min(every.value, most) for most in widest)))

    def go_to(query: str) -> None:
        try:
            put(board.setting_of(query))
            told.value = ""
        except ValueError as error:
            told.value = f"<p>{escape(str(error))}</p>"

    def keep_it(_) -> None:
        kept[:] = [now()]
        update()

    def measure(_) -> None:
        for control in (*watched, every, button, keep, restore):
            control.disabled = True
        try:
            board.measure(now(), SENTENCES, lambda share: setattr(bar, "value", share))
        except (OSError, ValueError) as error:
            told.value = f"<p>{escape(str(error))}</p>"
        finally:
            for control in (*watched, every, button, keep, restore):
                control.disabled = False
        update()

    for control in watched[1:]:
        control.observe(update, names="value")
    task.observe(choose_task, names="value")
    every.observe(move_all, names="value")
    button.on_click(measure)
    keep.on_click(keep_it)
    restore.on_click(lambda _: go_to(text.value))
    put(Setting(cut="plain", caps=widest))
    if query := os.environ.get("QUERY_STRING", "") if query is None else query:
        go_to(query)
    rows = [[task, method], [matrices, cut], [every], sliders[:2], sliders[2:], [button, bar, keep], [text, restore]]
    layout = {"flex_flow": "row wrap"}
    return ipywidgets.VBox([*(ipywidgets.HBox(row, layout=layout) for row in rows), told, shown])


def _table_of(columns: Sequence[Mapping[str, str]]) -> str:
    """Settings side by side: what is said of the present one, and of the one that was kept."""
    heads = ("", "now", "kept")[: len(columns) + 1]
    rows = [
        (name, *(column.get(name, "") for column in columns))
        for name in dict.fromkeys(name for column in columns for name in column)
    ]
    cells = [
        [("th", text) for text in heads],
        *([("th", name), *(("td", text) for text in row)] for name, *row in rows),
    ]
    lines = ("".join(f'<{tag} style="text-align: left">{escape(text)}</{tag}>' for tag, text in line) for line in cells)
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _measures() -> "Widget":
    import ipywidgets

    options = [(name, measure) for measure, (_, _, name) in JUDGED_BY.items()]
    return ipywidgets.Dropdown(options=options, description="judged by")


def _following(controls: "Sequence[Widget]", explorer) -> "tuple[HTML, Callable]":
    """Words and figure that follow some controls, and what brings them up to date."""
    import ipywidgets

    shown = ipywidgets.HTML()
    shown.explorer = explorer  # for the book, which has no kernel to ask
    return shown, _show(controls, explorer, shown)


def _show(controls: "Sequence[Widget]", explorer, shown: "HTML") -> Callable:
    """Let what is shown follow some controls, and return what brings it up to date."""

    def update(_=None) -> None:
        values = [control.value for control in controls]
        words = explorer.in_words(*values)
        shown.value = f"<p>{escape(words)}</p>{plots.html(explorer.figure(*values), words)}"

    for control in controls:
        control.observe(update, names="value")
    update()
    return update
