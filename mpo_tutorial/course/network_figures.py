"""Figures of networks that are chains from the start: accuracy against the bond, and what each core sees of an image."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpo_tutorial.course.plots import BLUE, GREY, ORANGE, ends_of, styled
from mpo_tutorial.models.images import SIDE


def accuracy_by_bond(ax: Axes, summary: Mapping, names: Mapping[int, str], dense: str, chosen: int) -> Axes:
    """Test accuracy of networks against the bond dimension of their first layer, beside the dense one, with intervals over seeds.

    Parameters
    ----------
    summary : mapping
        As `compare.summarise` gives it.
    names : mapping of bonds to variants
    dense : str
        The variant to draw as a band.
    chosen : int
        The bond to mark; wider ones are not shown.
    """
    for bond, name in names.items():
        if bond > chosen:
            continue
        found = summary["variants"][name]["test"]
        mean, (low, high) = 100 * found["mean"], (100 * end for end in ends_of(found))
        colour = ORANGE if bond == chosen else BLUE
        ax.errorbar([bond], [mean], [[mean - low], [high - mean]], fmt="o", color=colour, ms=10, lw=3, capsize=5)
    found = summary["variants"][dense]["test"]
    low, high = (100 * end for end in ends_of(found))
    ax.axhspan(low, high, color=GREY, alpha=0.3, lw=0)
    ax.axhline(100 * found["mean"], color=GREY, lw=2)
    ax.annotate("dense", (min(names), high), (0, 4), textcoords="offset points", color=GREY)
    ax.set_xscale("log", base=2)
    ax.set_xticks([*names], [str(bond) for bond in names])
    ax.set_xlim(min(names) / 1.3, 1.3 * max(names))
    lowest = min(100 * ends_of(summary["variants"][name]["test"])[0] for name in names.values())
    ax.set_ylim(lowest - 0.3, high + 0.6)
    ax.minorticks_off()
    ax.set_title("Accuracy")
    ax.set_xlabel("bond dimension D")
    ax.set_ylabel("test images right (%)")
    return ax


def what_cores_see(in_legs: Sequence[int], order: np.ndarray | None = None) -> Figure:
    """For each core an image of 28 x 28 pixels, a shade for each value of its in leg: pixels of one shade look the same to it.

    Parameters
    ----------
    in_legs : sequence of an even number of int
        Their product is 784.
    order : array of 784 int, optional
        Which pixel comes at which place; None: row by row.
    """
    digits = np.array(np.unravel_index(np.arange(SIDE**2), in_legs))
    places = np.empty_like(digits)
    places[:, np.arange(SIDE**2) if order is None else order] = digits
    with styled(2, (9, 4.7 * len(in_legs) / 2), rows=len(in_legs) // 2) as (figure, axes):
        for k, (ax, leg) in enumerate(zip(axes, in_legs, strict=True)):
            ax.imshow(places[k].reshape(SIDE, SIDE), cmap="cividis", vmin=0, vmax=leg - 1)
            ax.set_title(f"core {k}, leg {leg}")
            ax.set_xticks([])
            ax.set_yticks([])
            ax.grid(visible=False)
    return figure
