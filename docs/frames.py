"""The widgets of a chapter as the book has them, without a kernel: a frame for each setting, walked through when the book is built.

Where each bond has a slider of its own there are too many settings: there the page gets Schmidt values and computes. Both is done
by `book/widgets.js`.
"""

import ast
import hashlib
import json
import re
from base64 import b64decode
from collections.abc import Iterator, Sequence
from html import escape, unescape
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mpo_tutorial.course.dashboard import Dashboard
from mpo_tutorial.course.explorers import BondExplorer

if TYPE_CHECKING:
    from ipywidgets import HTML, Widget

MOST = 32  # settings of one slider; of a longer one some are left out
ON_THE_BOARD, MOST_ON_THE_BOARD = ("cut", "cut in", "all bonds"), 10  # what of chapter 11's can be walked through
PRESSES = 6  # of a button that goes on step by step
FOLDER = "frames"  # in the book
TO_PRESS: "list[Widget]" = []  # a button changes what later cells find, so its turn comes after them


def with_frames(source: str, folder: Path) -> str:
    """The code of a cell that ends in a widget, changed to end in its frames; their images go to a folder."""
    module = ast.parse(source)
    *before, last = module.body
    shown = ast.parse(f"frames.still(None, {str(folder)!r})").body[0]
    shown.value.args[0] = last.value  # the widget in the place of None
    imports = ast.parse(f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import frames").body
    return ast.unparse(ast.Module([*imports, *before, shown], []))


def still(widget: "Widget", folder: str) -> None:
    """Display a widget's frames in its place."""
    from IPython.display import HTML, display

    controls, (*_, shown), _ = _parts(widget)
    if not controls:
        TO_PRESS.append(widget)
    elif isinstance(shown.explorer, BondExplorer):
        display(HTML(bonds_of(shown.explorer)))
    else:
        display(HTML(html_of(tree_of(widget, Path(folder)))))


def press(folder: str) -> None:
    """Display the frames of those widgets that are a button, in the order of their cells."""
    from IPython.display import HTML, display

    for widget in TO_PRESS:
        display(HTML(html_of(tree_of(widget, Path(folder)))))


def bonds_of(explorer: BondExplorer) -> str:
    """What the page computes a chain's counts, bound and entropies from."""
    shape = explorer.mpo.shape
    data = {
        "inLegs": shape.in_legs,
        "outLegs": shape.out_legs,
        "values": [[float(f"{value:.6g}") for value in values] for values in explorer.spectra.values],
        "presets": {"reset" if name == "full" else name: bonds for name, bonds in explorer.presets().items()},
    }
    return (
        f'<div class="bonds"><script type="application/json">{json.dumps(data)}</script><div class="controls"></div>'
        '<p aria-live="polite"></p><div class="picture"></div></div>'
    )


def html_of(tree: dict) -> str:
    """A tree of settings as the page has it: its first frame, which needs no script, and all others as data."""
    leaf = tree
    while "below" in leaf:
        leaf = leaf["below"][leaf["start"]]
    data = json.dumps(tree, ensure_ascii=False).replace("</", "<\\/")
    source = f"../{FOLDER}/{leaf['image']}"
    return (
        f'<div class="frames"><script type="application/json">{data}</script><div class="controls"></div>'
        f'<p aria-live="polite">{escape(leaf["words"])}</p><img alt="the figure that these words describe" src="{source}"></div>'
    )


def tree_of(widget: "Widget", folder: Path) -> dict:
    """Every setting of a widget: a control with its name, its kind, the labels of its options, which of them it starts with, and
    for each what is "below" it, another control or a frame: words, and the name of an image in a folder.
    """
    controls, (*_, shown), buttons = _parts(widget)
    folder.mkdir(parents=True, exist_ok=True)
    most = MOST
    if isinstance(shown.explorer, Dashboard):
        named = {control.description: control for control in controls}
        controls, most = [named[name] for name in ON_THE_BOARD], MOST_ON_THE_BOARD

    def walk(left: "Sequence[Widget]") -> dict:
        if not left:
            return _frame(shown, folder)
        control, *others = left
        labels, below, start = [], [], 0
        for k, (label, is_start) in enumerate(_settings(control, most)):
            labels.append(label)
            start = k if is_start else start
            below.append(walk(others))
        kind = "select" if type(control).__name__ == "Dropdown" else "range"
        return {"control": control.description, "kind": kind, "options": labels, "start": start, "below": below}

    if controls:
        return walk(controls)
    (button,) = buttons
    frames = [_frame(shown, folder)]
    while len(frames) <= PRESSES and not button.disabled:
        button.click()
        frames.append(_frame(shown, folder))
    times = [str(k) for k in range(len(frames))]
    return {"control": f"{button.description}: times", "kind": "range", "options": times, "start": 0, "below": frames}


def _parts(widget: "Widget") -> "tuple[list[Widget], list[HTML], list[Widget]]":
    """Controls with a value, what is shown, and buttons."""
    import ipywidgets

    found = ([], [], [])
    kinds = (
        (ipywidgets.Dropdown, ipywidgets.SelectionSlider, ipywidgets.IntSlider, ipywidgets.FloatSlider),
        ipywidgets.HTML,
    )
    for child in widget.children:
        if isinstance(child, ipywidgets.Box):
            for mine, theirs in zip(found, _parts(child), strict=True):
                mine.extend(theirs)
        for place, kind in enumerate((*kinds, ipywidgets.Button)):
            if isinstance(child, kind):
                found[place].append(child)
    return found


def _settings(control: "Widget", most: int) -> Iterator[tuple[str, bool]]:
    """Set a control to one value after the other; give each one's label, and whether it is the one that it began with."""
    if hasattr(control, "options"):
        first = control.index
        for k in range(len(control.options)):
            control.index = k
            yield control.label, k == first
        control.index = first
        return
    first, values = control.value, _thinned(control, most)
    for value in values:
        control.value = value
        yield format(value, control.readout_format), value == first
    control.value = first


def _thinned(control: "Widget", most: int) -> list:
    """The values of a slider, or where there are many some of them, both ends and the present one among them: those of one that
    begins at 1 lie the closer the smaller they are.
    """
    if isinstance(control.value, float):
        n = round((control.max - control.min) / control.step) + 1
        return [round(control.min + k * control.step, 10) for k in range(n)]
    ends = control.min, control.max
    if control.max - control.min < most:
        return [*range(control.min, control.max + 1)]
    spaced = np.geomspace(*ends, most) if control.min > 0 else np.linspace(*ends, most)
    return sorted({control.value, *(int(value) for value in spaced.round())})


def _frame(shown: "HTML", folder: Path) -> dict[str, str]:
    words, picture = re.search(r'<img alt="([^"]*)" .*src="data:image/png;base64,([^"]*)">$', shown.value).groups()
    name = f"{hashlib.sha256(picture.encode()).hexdigest()[:16]}.webp"
    if not (folder / name).exists():
        (folder / name).write_bytes(_smaller(Image.open(BytesIO(b64decode(picture))).convert("RGB")))
    return {"words": unescape(words), "image": name}


def _smaller(image: Image.Image) -> bytes:
    """As WebP: in few colours without loss, which suits lines, or in all of them with some, which suits what looks like noise."""
    few = image.quantize(64, dither=Image.Dither.NONE).convert("RGB")
    encoded = []
    for version, options in ((few, {"lossless": True}), (image, {"quality": 40})):
        buffer = BytesIO()
        version.save(buffer, "WEBP", **options)
        encoded.append(buffer.getvalue())
    return min(encoded, key=len)
