"""How fast: beside other libraries, beside `nn.Linear`, and beside the multiplications that the work needs; a study.

Contenders take turns, one step each, so that a busy minute slows them all; the median counts. Peak memory is that of a
process of its own for each.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from importlib import metadata

import torch

from mpo_tutorial.experiments import forms
from mpo_tutorial.experiments.contenders import (
    Networks,
    Sizes,
    bert_like,
    decomposer,
    image_step,
    layer_of,
    layer_step,
    model_step,
    of_tensorly_torch,
)
from mpo_tutorial.experiments.races import peak, race
from mpo_tutorial.experiments.steps import FULL, LIGHT, WORK, Work, step_of
from mpo_tutorial.experiments.study import Point, Setting, Study
from mpo_tutorial.maths.contraction import multiplications
from mpo_tutorial.maths.entropy import Spectra, cheapest_truncation
from mpo_tutorial.maths.linalg import relative_error
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape, balanced_shape
from mpo_tutorial.models import convert
from mpo_tutorial.models.layers import MPOLinear, cached
from mpo_tutorial.models.networks import network

VERSION = 1
PEERS = ("tensorly", "tensorly-torch", "quimb", "torchTT")
NOT_INSTALLED = "not installed"
LIMIT = "counted limit"
EVALUATED = ("nn.Linear", "MPOLinear in cached")
ESTIMATED = ("estimate", "truncate and measure")
LAYERS = ("nn.Linear", "MPOLinear", "tensorly-torch, reconstructed", "tensorly-torch, factorized")
WHERE = ("tokens", "bond", "work", "images", "network", "in_legs", "out_legs")
TOLD = ("part", "bond", "tokens", "network", "images", "model", "task")


def study(
    sizes: Sizes | None = None,
    *,
    device: str = "cpu",
    repeat: int = 15,
    work: Sequence[Work] | None = None,
    networks: Networks | None = None,
) -> Study:
    """Every part measured once, one after the other.

    Parameters
    ----------
    sizes : Sizes
    device : {"cpu", "cuda"}
    repeat : int
        Turns of each contender; the median of their seconds counts.
    work : sequence of Work, optional
        What the steps of the optimiser are of; None: what `steps.WORK` has for the device.
    networks : Networks, optional

    Raises
    ------
    ValueError
        As `check_options`.
    """
    check_options(device, repeat)
    sizes = sizes or Sizes()
    work = WORK[device] if work is None else work
    common = {"device": device, "repeat": repeat, "sizes": asdict(sizes)}

    def parts(_points: list[Point]) -> list[Setting]:
        settings: list[Setting] = [{"part": "decomposition"}]
        settings += [{"part": "layer", "bond": bond, "tokens": n} for bond in sizes.bonds for n in sizes.tokens]
        settings += [{"part": "evaluation", "tokens": n} for n in sizes.tokens]
        settings += [{"part": "model", "bond": bond, "tokens": n} for bond in sizes.bonds for n in sizes.model_tokens]
        return [{**setting, **common} for setting in [*settings, {"part": "slider"}, {"part": "estimate"}]]

    def steps(_points: list[Point]) -> list[Setting]:
        return [{"part": "step", "work": asdict(each), **common} for each in work]

    images = networks or Networks()
    legs = {"in_legs": list(images.in_legs), "out_legs": list(images.out_legs)}

    def of_networks(_points: list[Point]) -> list[Setting]:
        settings: list[Setting] = [
            {"part": "wide layer", **legs, "bond": bond, "images": n} for bond in images.bonds for n in images.images
        ]
        settings += [{"part": "network", "network": name, "images": images.batch} for name in images.names]
        return [{**setting, **common} for setting in settings]

    stages = {"parts": parts, "steps": steps, "networks": of_networks}
    return Study("bench", VERSION, measure, stages, serial=True, describe=describe, form=form)


def measure(setting: Setting) -> dict:
    """The rows of one part, and the versions of the libraries."""
    return {"peers": _versions(), "rows": MEASURES[setting["part"]](sizes_of(setting), setting)}


def form(setting: Setting) -> forms.Form:
    """Of what `measure` gives."""
    return {"peers": forms.OBJECT, "rows": ROWS[setting["part"]]}


def _rows(who: str, needed: Sequence[str], numbers: Sequence[str] = ("seconds",)) -> forms.Leaf:
    """The form of rows, each with the name of a contender and its numbers or, if it is not needed, why it is missing."""

    def fits(row) -> bool:
        if not isinstance(row, dict) or not forms.is_text(row.get(who)):
            return False
        if "missing" in row:
            return forms.is_text(row["missing"]) and row[who] not in needed
        return all(map(_is_positive, (*(row.get(name) for name in numbers), row.get("peak_bytes", 1))))

    rows = forms.items("", fits)
    what = f"rows of {' and '.join(needed)}, with {' and '.join(numbers)}"
    return forms.Leaf(what, lambda value: rows.fits(value) and {row[who] for row in value} >= {*needed})


def _is_positive(value) -> bool:
    return forms.is_number(value) and value > 0


def _is_slider(rows) -> bool:
    lone = isinstance(rows, list) and len(rows) == 1 and isinstance(rows[0], dict)
    return lone and _is_positive(rows[0].get("answer_seconds"))


def describe(point: Point) -> str:
    setting = point["setting"]
    told = setting | setting.get("work", {})
    return ", ".join(f"{name} {told[name]}" for name in TOLD if name in told)


def summarise(points: Sequence[Point]) -> dict:
    """The parts together, with a counted limit for the passes: what `course.bench_tables` shows.

    The limit is the time of `nn.Linear` and, at the speed of its multiplications, that of rebuilding the matrices from their
    cores.

    Returns
    -------
    dict
        "decomposition", "layer", "evaluation", "model", "step", "estimate", "wide layer", "network": lists of rows; "slider": a
        dict; "device", "repeat"; "made": of each part date and hardware; "peers", "command" and "versions" of the first point.
    """
    first = points[0]
    sizes = sizes_of(first["setting"])
    layer_shape = balanced_shape(sizes.hidden, sizes.feed_forward)
    model_shapes = [
        (count, balanced_shape(*size)) for kind, (count, *size) in sizes.matrices().items() if kind != "embedding"
    ]
    found: dict = {part: [] for part in MEASURES if part != "slider"}
    speed = None  # seconds a multiplication, of the first layer
    for point in points:
        setting, rows = point["setting"], point["result"]["rows"]
        where = {name: setting[name] for name in WHERE if name in setting}
        rows = [{**row, **where} for row in rows]
        if setting["part"] in ("layer", "model"):
            dense = next(row for row in rows if row["contender"] == "nn.Linear")
            if setting["part"] == "layer":
                own = dense["seconds"] / (3 * dense["tokens"] * sizes.hidden * sizes.feed_forward)
                speed = own if speed is None else speed
                more = own * _rebuilding([(1, layer_shape)], setting["bond"])
            else:
                more = speed * _rebuilding(model_shapes, setting["bond"])
            measured = [row for row in rows if "missing" not in row]
            limit = {**where, "contender": LIMIT, "seconds": dense["seconds"] + more}
            rows = [*measured, limit, *(row for row in rows if "missing" in row)]
        if setting["part"] == "slider":
            (found["slider"],) = rows
        else:
            found[setting["part"]] += rows
    head = {name: first["setting"][name] for name in ("device", "repeat")}
    made = {name: first[name] for name in ("command", "versions")}
    where = {point["setting"]["part"]: {name: point[name] for name in ("date", "hardware")} for point in points}
    return {**found, **head, **made, "made": where, "peers": first["result"]["peers"]}


def _rebuilding(shapes: Sequence[tuple[int, Shape]], bond: int | None) -> int:
    """Multiplications that rebuild so many matrices of each shape from their cores, with a cap on the bonds."""
    return sum(count * multiplications(shape, MPO.random(shape, bond).bonds) for count, shape in shapes)


def sizes_of(setting: Setting) -> Sizes:
    return Sizes(**_tuples(setting["sizes"]))


def _tuples(fields: dict) -> dict:
    """Fields of a frozen dataclass, which JSON has made lists of."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def check_options(device: str, repeat: int) -> None:
    """Refuse, by a ValueError, less than one turn and a device that is not there."""
    if repeat < 1:
        raise ValueError(f"repeat is at least 1, got {repeat}")
    if device not in ("cpu", "cuda"):
        raise ValueError(f"the device is cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda needs an NVIDIA GPU that torch can see, there is none; take --device cpu")


def _versions() -> dict[str, str]:
    found = {}
    for name in PEERS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = NOT_INSTALLED
    return found


def _decomposition(sizes: Sizes, setting: Setting) -> list[dict]:
    device, repeat = setting["device"], setting["repeat"]
    libraries = ("mpo_tutorial", "tensorly", "quimb", "torchTT")
    kinds = sizes.matrices()
    rows = {library: {"library": library, "seconds": 0.0, "error": 0.0, "kinds": {}} for library in libraries}
    for kind, (count, *size) in kinds.items():
        steps = {library: decomposer(library, *size, device) for library in libraries}
        missing = [library for library, step in steps.items() if step is None]
        steps = {library: step for library, step in steps.items() if step is not None}
        for library in missing:
            rows[library] = {"library": library, "missing": NOT_INSTALLED}
        matrix = bert_like(*size)
        for library, seconds in race(steps, device, max(1, repeat // 2)).items():
            rows[library]["kinds"][kind] = seconds
            rows[library]["seconds"] += count * seconds
            rows[library]["error"] = max(rows[library]["error"], relative_error(steps[library]()().cpu(), matrix))
    _, *largest = kinds["embedding"]
    for library, row in rows.items():
        if "missing" not in row:
            row["peak_bytes"] = peak(decomposer, library, *largest, device)
    return list(rows.values())


def _layer(sizes: Sizes, setting: Setting) -> list[dict]:
    shape, bond, tokens = balanced_shape(sizes.hidden, sizes.feed_forward), setting["bond"], setting["tokens"]
    # The last one leaves the order to einsum. Without opt_einsum that goes core by core, which takes all memory there is.
    names = LAYERS if torch.backends.opt_einsum.is_available() else LAYERS[:3]
    arguments = {name: (name, shape, tokens, bond, setting["device"]) for name in names}
    return _passes(layer_step, arguments, setting["device"], setting["repeat"], with_memory=True)


def _model(sizes: Sizes, setting: Setting) -> list[dict]:
    bond, tokens, device = setting["bond"], setting["tokens"], setting["device"]
    arguments = {name: (name, sizes, tokens, bond, device) for name in LAYERS[:3]}
    largest = tokens == max(sizes.model_tokens)
    return _passes(model_step, arguments, device, max(1, setting["repeat"] // 2), with_memory=largest)


def _passes(make: Callable, arguments: dict[str, tuple], device: str, repeat: int, *, with_memory: bool) -> list[dict]:
    """Seconds, and where asked for the peak memory, of the steps that `make` makes of each contender's arguments."""
    steps = {name: make(*given) for name, given in arguments.items()}
    missing = [name for name, step in steps.items() if step is None]
    seconds = race({name: step for name, step in steps.items() if step is not None}, device, repeat)
    del steps
    rows = [{"contender": name, "seconds": value} for name, value in seconds.items()]
    if with_memory:
        rows = [{**row, "peak_bytes": peak(make, *arguments[row["contender"]])} for row in rows]
    return rows + [{"contender": name, "missing": NOT_INSTALLED} for name in missing]


def _evaluation(sizes: Sizes, setting: Setting) -> list[dict]:
    """A forward pass without gradients, as in `cached`."""
    shape, device = balanced_shape(sizes.hidden, sizes.feed_forward), setting["device"]
    dense, layer = (layer_of(name, shape, None).to(device) for name in LAYERS[:2])
    x = torch.randn(setting["tokens"], shape.in_size).to(device)
    with torch.inference_mode(), cached(layer):
        steps = dict(zip(EVALUATED, (lambda: dense(x), lambda: layer(x)), strict=True))
        seconds = race(steps, device, 3 * setting["repeat"])
    return [{"contender": name, "seconds": value} for name, value in seconds.items()]


def _slider(sizes: Sizes, _setting: Setting) -> list[dict]:
    """Schmidt values once, then what a slider shows: counts, ratio, bound and entropies."""
    shape = balanced_shape(sizes.hidden, sizes.feed_forward)
    matrix = bert_like(sizes.hidden, sizes.feed_forward)
    started = time.perf_counter()
    spectra = Spectra.of(matrix, shape)
    once = time.perf_counter() - started
    bonds = tuple(max(1, full // 2) for full in shape.full_bonds)
    answer = race(
        {"": lambda: (spectra.bound(bonds, relative=True), spectra.entropies(), shape.n_params(bonds))}, "cpu", 7
    )[""]
    return [{"schmidt_values_seconds": once, "answer_seconds": answer}]


def _estimate(sizes: Sizes, setting: Setting) -> list[dict]:
    """The error of a cut of the central bonds: from Schmidt values that are there, and by making it."""
    shape = balanced_shape(sizes.hidden, sizes.feed_forward)
    matrix = bert_like(sizes.hidden, sizes.feed_forward)
    mpo, spectra = MPO.from_matrix(matrix, shape), Spectra.of(matrix, shape)
    _, bonds = cheapest_truncation({"": spectra}, {"": shape.full_bonds}, max(shape.full_bonds) // 3)
    steps = (lambda: spectra.bound(bonds), lambda: relative_error(mpo.truncate(bonds).to_matrix(), matrix))
    seconds = race(dict(zip(ESTIMATED, steps, strict=True)), "cpu", setting["repeat"])
    return [{"contender": name, "seconds": value} for name, value in seconds.items()]


def _step(sizes: Sizes, setting: Setting) -> list[dict]:
    """A whole step of the optimiser of each contender."""
    work, device = Work(**_tuples(setting["work"])), setting["device"]
    steps = {name: step_of(name, work, sizes, device) for name in work.contenders}
    there = {name: step for name, step in steps.items() if step is not None}
    seconds = race(there, device, setting["repeat"])
    rows = [{"contender": name, "seconds": seconds[name], **step.held()} for name, step in there.items()]
    del steps, there
    rows = [{**row, "peak_bytes": peak(step_of, row["contender"], work, sizes, device)} for row in rows]
    return rows + [{"contender": name, "missing": NOT_INSTALLED} for name in work.contenders if name not in seconds]


def _wide_layer(_sizes: Sizes, setting: Setting) -> list[dict]:
    """A forward pass without gradients, as in `cached`, where a chain of small bonds may be cheaper than the matrix."""
    shape, device = Shape(setting["in_legs"], setting["out_legs"]), setting["device"]
    torch.manual_seed(0)
    layer = MPOLinear.random(shape, setting["bond"])
    layers = {
        **dict(zip(EVALUATED, (layer.to_dense(), layer), strict=True)),
        LAYERS[3]: of_tensorly_torch(layer, "factorized"),
    }
    x = torch.randn(setting["images"], shape.in_size).to(device)
    there = {name: made.to(device) for name, made in layers.items() if made is not None}
    with torch.inference_mode(), cached(layer):
        seconds = race({name: partial(made, x) for name, made in there.items()}, device, setting["repeat"])
        chained = layer.route(setting["images"]) is not None
    rows = [{"contender": name, "seconds": value, "chained": chained} for name, value in seconds.items()]
    return rows + [{"contender": name, "missing": NOT_INSTALLED} for name in layers if name not in there]


def _network(_sizes: Sizes, setting: Setting) -> list[dict]:
    """A step of the optimiser of a network, dense and with MPOs, and how many numbers it has."""
    dense = setting["network"]
    arguments = {name: (name, setting["images"], setting["device"]) for name in (dense, f"{dense}-mpo")}
    rows = _passes(image_step, arguments, setting["device"], max(1, setting["repeat"] // 3), with_memory=True)
    return [
        row if "missing" in row else {**row, "parameters": convert.count(network(row["contender"]))} for row in rows
    ]


MEASURES = {
    "decomposition": _decomposition,
    "layer": _layer,
    "evaluation": _evaluation,
    "model": _model,
    "slider": _slider,
    "estimate": _estimate,
    "step": _step,
    "wide layer": _wide_layer,
    "network": _network,
}
ROWS = {
    "decomposition": _rows("library", ("mpo_tutorial", "tensorly"), ("seconds", "error")),
    "layer": _rows("contender", LAYERS[:2]),
    "evaluation": _rows("contender", EVALUATED),
    "model": _rows("contender", LAYERS[:2]),
    "slider": forms.Leaf("a row with answer_seconds", _is_slider),
    "estimate": _rows("contender", ESTIMATED),
    "wide layer": _rows("contender", EVALUATED),
    "network": _rows("contender", (), ("seconds", "parameters")),
    "step": _rows(
        "contender",
        (FULL, LIGHT),
        ("seconds", "tokens", "trained", "gradient_bytes", "optimiser_bytes", "multiplications"),
    ),
}
