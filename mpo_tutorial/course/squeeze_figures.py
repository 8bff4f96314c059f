"""Figures of squeezing: what is left of each matrix, the way down, estimates against the truth, and the race."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from mpo_tutorial.course.plots import BLUE, COLOURS, GREEN, GREY, ORANGE, ends_of
from mpo_tutorial.models.families import place

MARKERS = ("o", "s", "D", "^", "v", "P")


def matrices_left(ax: Axes, shares: Mapping[str, float], picked: Sequence[str] = ()) -> Axes:
    """A square for each matrix of a model, the darker the more of it is left, a column for each encoder layer.

    Parameters
    ----------
    shares : mapping of matrices' names to float
        Numbers in its cores, as a share of the dense matrix's.
    picked : sequence of str
        Names of those to frame.
    """
    places = {name: place(name) for name in shares}
    kinds = list(dict.fromkeys(found.kind for found in places.values()))
    layers = sorted({found.layer for found in places.values()}, key=lambda layer: (layer is None, layer))
    picture = np.full((len(kinds), len(layers)), np.nan)
    for name, share in shares.items():
        row, column = kinds.index(places[name].kind), layers.index(places[name].layer)
        picture[row, column] = 100 * share
        colour = "white" if share > 0.6 else "black"
        ax.text(column, row, f"{100 * share:.0f}", ha="center", va="center", color=colour, fontsize=13)
        if name in picked:
            ax.add_patch(_frame(column, row))
    ax.imshow(picture, cmap="Blues", vmin=0, vmax=120, aspect="auto")
    ax.set_xticks(range(len(layers)), ["-" if layer is None else str(layer) for layer in layers])
    ax.set_yticks(range(len(kinds)), [kind.replace("feed-forward", "ff") for kind in kinds])
    ax.grid(visible=False)
    ax.set_title("Numbers left (% of dense)")
    ax.set_xlabel("layer")
    return ax


def _frame(column: int, row: int):
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=ORANGE, lw=4)


def way_down(ax: Axes, steps: Sequence[Mapping], dense: int, chosen: int) -> Axes:
    """Accuracy and AUC on the validation sentences against what is left of the matrices, step after step.

    Parameters
    ----------
    steps : sequence of mappings
        As `Step.as_dict` gives them, in order; those that nobody looked at are left out.
    dense : int
        Numbers of all dense matrices.
    chosen : int
        Number of the step to mark.
    """
    seen = [step for step in steps if step["validation"] is not None]
    shares = [100 * step["parameters"] / dense for step in seen]
    for name, colour, marker, told in (("accuracy", BLUE, "o", "accuracy"), ("auc", ORANGE, "s", "AUC")):
        found = [100 * step["validation"][name] for step in seen]
        ax.plot(shares, found, marker + "-", color=colour, ms=6, lw=2, label=told)
        for share, value, step in zip(shares, found, seen, strict=True):
            if step["number"] == chosen:
                ax.plot(share, value, marker, ms=16, mfc="none", mec="black", mew=3)
    ax.axhline(50, color=GREY, ls=":", lw=2)
    ax.annotate("guessing", (max(shares), 50), (0, 3), textcoords="offset points", color=GREY)
    ax.invert_xaxis()
    ax.set_ylim(46, 96)
    ax.legend(loc="upper right", ncols=2)
    ax.set_title("The way down")
    ax.set_xlabel("numbers left (% of dense)")
    ax.set_ylabel("on validation sentences (%)")
    return ax


def estimates(ax: Axes, found: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> Axes:
    """Estimated errors of cuts against the true ones, and the line on which both are equal.

    Parameters
    ----------
    found : mapping of what is told to pairs of sequences of float
        Estimates and true errors.
    """
    for (told, (estimated, true)), colour, marker in zip(found.items(), COLOURS, MARKERS, strict=False):
        ax.plot(estimated, true, marker, color=colour, ms=7, alpha=0.7, label=told)
    both = [value for pair in found.values() for part in pair for value in part]
    ends = (min(both), max(both))
    ax.plot(ends, ends, color=GREY, ls="--", lw=2, label="equal")
    ax.legend(loc="upper left")
    ax.set_title("Estimate and truth")
    ax.set_xlabel("estimated error")
    ax.set_ylabel("true error")
    return ax


def race(ax: Axes, summary: Mapping, names: Mapping[str, str], level: str | None = None) -> Axes:
    """Test accuracy of ways to one size after equally many steps, with intervals over seeds.

    Parameters
    ----------
    summary : mapping
        As `compare.summarise` returns it.
    names : mapping of variants to str
        What they are called.
    level : str, optional
        A variant whose mean is a line: the uncut model.
    """
    for k, name in enumerate(names):
        found = summary["variants"][name]["test"]
        low, high = (100 * end for end in ends_of(found))
        mean = 100 * found["mean"]
        ax.errorbar([mean], [k], xerr=[[mean - low], [high - mean]], fmt="o", color=BLUE, ms=9, lw=3, capsize=5)
    if level is not None:
        uncut = 100 * summary["variants"][level]["test"]["mean"]
        ax.axvline(uncut, color=GREEN, ls="--", lw=2, label=f"{level} {uncut:.1f}")
        ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16))
    ax.set_yticks(range(len(names)), names.values())
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_xlabel("test accuracy (%), 95 % over seeds")
    ax.set_ylabel("")
    return ax
