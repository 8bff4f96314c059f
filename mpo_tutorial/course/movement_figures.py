"""Figures of how far full fine-tuning moves a model, and of what of that light fine-tuning has in reach."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mpo_tutorial.course.plots import BLUE, GREEN, GREY, ORANGE, ends_of, styled
from mpo_tutorial.experiments.movement import EDGES, TRAINED_HEAD, UPDATE
from mpo_tutorial.experiments.movement_results import LARGE, MOVED_ROWS, SIZES, SMALL, TABLE_1

LIGHT_BLUE = "#56B4E9"  # of the same palette
OF_SIZES = ((GREY, "up to $10^{-4}$"), (LIGHT_BLUE, "to $10^{-3}$"), (BLUE, "more"))
MARKS = {TRAINED_HEAD: (ORANGE, "s", "gradient at the start"), UPDATE: (BLUE, "o", "full's update")}


def changes_by_kind(ax: Axes, record: dict) -> Axes:
    """Shares of the numbers of each kind of matrix by the size of their change; below them the paper's Table 1, of BERT on SST-2.

    Parameters
    ----------
    record : dict
        As `movement_results.summarise` returns it.
    """
    ours = _shares_by_kind(record)
    bars = {**ours, **{f"{part} (paper)": [100 * share for share in shares] for part, shares in TABLE_1.items()}}
    starts = np.zeros(len(bars))
    for k, (colour, label) in enumerate(OF_SIZES):
        widths = np.array([shares[k] for shares in bars.values()])
        drawn = ax.barh([*bars], widths, left=starts, color=colour, label=label)
        texts = [f"{width:.0f}" if width >= 5 else "" for width in widths]
        ax.bar_label(drawn, texts, label_type="center", color="black" if colour == LIGHT_BLUE else "white")
        starts += widths
    ax.axhline(len(ours) - 0.5, color="black", lw=1)
    ax.invert_yaxis()
    ax.grid(False)
    ax.set_xlim(0, 100)
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=3, columnspacing=1, handlelength=1)
    ax.set_title("How much each number moved")
    ax.set_xlabel("% of the numbers, by size of change")
    ax.set_ylabel("")
    return ax


def _shares_by_kind(record: dict) -> dict[str, list[float]]:
    """Of each kind, in per cent, the numbers that changed little, more and much; also of its rows that moved, where not all did."""
    bars = {}
    for kind, found in record["kinds"].items():
        bars[kind] = [100 * found[name]["mean"] for name in SIZES]
        if among := found.get("in_moved_rows"):
            bars[f"its {MOVED_ROWS}"] = [100 * among[name]["mean"] for name in SIZES]
    return bars


def gains(ax: Axes, record: dict) -> Axes:
    """What is in reach over the share of dimensions, for each choice of legs and order, of gradient and update.

    The mean over matrices with its 95 % interval over seeds, and thin, from the least to the most of a matrix.
    """
    for shift, (change, (colour, marker, label)) in zip((-0.17, 0.17), MARKS.items(), strict=True):
        found = record["reach"][change]
        places = np.arange(len(found)) + shift
        means = np.array([row["gain"]["mean"] for row in found.values()])
        ends = np.array([ends_of(row["gain"]) for row in found.values()]).T
        ax.hlines(
            places,
            *([row[end] for row in found.values()] for end in ("least", "most")),
            color=colour,
            lw=1.5,
            alpha=0.5,
        )
        ax.errorbar(means, places, xerr=np.abs(ends - means), fmt=marker, color=colour, ms=8, lw=4, label=label)
        ax.set_yticks(range(len(found)), [*found])
    ax.axvline(1, color="black", ls="--", lw=1.5)
    ax.invert_yaxis()
    ax.legend(loc="upper center", bbox_to_anchor=(0.4, -0.12), ncols=2, columnspacing=1, handletextpad=0.2)
    ax.set_title("In reach of the trained cores")
    ax.set_xlabel("share in reach / share of dimensions")
    ax.set_ylabel("")
    return ax


def movement_picture(record: dict) -> Figure:
    """Table 1 remade, and beside it what is in reach."""
    with styled(2, (10, 7.2)) as (figure, (left, right)):
        changes_by_kind(left, record)
        gains(right, record)
    return figure


def movement_alt_text(record: dict) -> str:
    """The picture in words."""
    kinds = [
        f"{kind} {', '.join(f'{share:.0f}' for share in shares)}" for kind, shares in _shares_by_kind(record).items()
    ]
    ways = []
    for way in record["reach"][UPDATE]:
        means = [record["reach"][change][way]["gain"]["mean"] for change in MARKS]
        ways.append(f"{way} {', '.join(f'{mean:.2f}' for mean in means)}")
    return (
        f"Two panels. Left, per cent of the numbers that full fine-tuning changed by at most {SMALL:g}, by at most {LARGE:g}, by "
        f"more: {'; '.join(kinds)}. Right, what of the gradient at the start, and of the update, is in reach of the trained cores, "
        f"over the share of dimensions: {'; '.join(ways)}."
    )


def sizes_of_changes(ax: Axes, sizes: Sequence[float]) -> Axes:
    """The numbers of a matrix by the size of their change, on a logarithmic axis; what is below its end stands there."""
    steps = np.log10(EDGES)
    width = steps[1] - steps[0]
    ax.bar(np.append(steps, steps[-1] + width) - width / 2, 100 * np.asarray(sizes), 0.9 * width, color=BLUE)
    for bound in (SMALL, LARGE):
        ax.axvline(np.log10(bound), color=GREY, ls="--", lw=2)
    ax.set_xticks(range(-6, 0), [f"$10^{{{power}}}$" for power in range(-6, 0)])
    ax.set_title("Sizes of the changes")
    ax.set_xlabel("change of a number")
    ax.set_ylabel("% of the numbers")
    return ax


def update_by_rank(ax: Axes, ranks: Sequence[int], kept: Sequence[float], in_reach: float | None = None) -> Axes:
    """How much of an update the best matrix of each rank holds, and how much is in reach of trained cores."""
    ax.plot(ranks, 100 * np.asarray(kept), "o-", color=BLUE, lw=3, ms=8)
    if in_reach is not None:
        ax.axhline(100 * in_reach, color=GREEN, ls="--", lw=2)
        ax.annotate(
            "in reach of trained cores",
            (ranks[-1], 100 * in_reach),
            (0, 5),
            textcoords="offset points",
            ha="right",
            color=GREEN,
        )
    ax.set_xscale("log", base=2)
    ax.set_xticks(ranks, [str(rank) for rank in ranks])
    ax.set_ylim(0, 102)
    ax.set_title("What the update is made of")
    ax.set_xlabel("rank")
    ax.set_ylabel("% of its squared norm")
    return ax
