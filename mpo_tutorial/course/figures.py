"""Figures of records: accuracy against parameters, trained or left."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mpo_tutorial.course.plots import BLUE, GREEN, GREY, ORANGE, styled
from mpo_tutorial.course.tables import TableRow
from mpo_tutorial.experiments.records import replacing
from mpo_tutorial.models.ledger import Ledger, Trained

# Ways of cutting: colour, marker, and what they are called.
WAYS = {
    "plain": (BLUE, "o", "plain"),
    "allotted": (GREY, "^", "plain, bonds allotted"),
    "bias": (ORANGE, "s", "plain, bias corrected"),
    "fitted": (GREEN, "D", "fitted to the inputs"),
}


def trained_against_accuracy(ax: Axes, rows: list[TableRow]) -> Axes:
    """Test accuracy of each method against the parameters that it trained, with its interval."""
    marks = zip(
        rows, (BLUE, GREEN, ORANGE), "osD", (0.92, 1.08, 1), strict=False
    )  # the last: apart where they coincide
    for row, colour, marker, shift in marks:
        x, y = shift * row.trained / 1e6, 100 * row.accuracy
        low, high = (100 * end for end in row.interval or (row.accuracy, row.accuracy))
        ax.errorbar(x, y, [[y - low], [high - y]], fmt=marker, ms=12, color=colour, capsize=7, lw=2.5)
        side = -1 if shift < 1 else 1
        ax.annotate(
            f"{row.method}\n{y:.1f} %",
            (x, y),
            (14 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            color=colour,
            weight="bold",
        )
    least, most = min(row.trained for row in rows) / 1e6, max(row.trained for row in rows) / 1e6
    ax.set_xscale("log")
    ax.set_xlim(least / 12, most * 12)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.margins(y=0.3)
    ax.set_title(
        f"Train {100 * least / most if len(rows) > 1 else 100 * least * 1e6 / rows[0].total:.1f} % of the parameters"
    )
    ax.set_xlabel("parameters trained (millions)")
    ax.set_ylabel("test accuracy (%), 95 % intervals")
    return ax


def truncation_curve(ax: Axes, curve: list[dict], chance: float) -> Axes:
    """Validation accuracy against what is left of the matrices when their bonds are cut, without retraining.

    Parameters
    ----------
    curve : list of dict
        As in a demo's record: "max_bond", "ratio" and "validation" of each point.
    chance : float
        Accuracy of always giving the commonest answer.
    """
    ratios = [100 * point["ratio"] for point in curve]
    accuracies = [100 * point["validation"]["accuracy"] for point in curve]
    lows, highs = zip(*([100 * end for end in point["validation"]["interval"]] for point in curve), strict=True)
    ax.fill_between(ratios, lows, highs, color=BLUE, alpha=0.15, lw=0)
    ax.plot(ratios, accuracies, "o-", color=BLUE, ms=9, lw=2.5)
    for k, point in enumerate(curve):
        above = k % 2 == 0  # alternately, so that neighbours do not collide
        ax.annotate(
            point["max_bond"],
            (ratios[k], accuracies[k]),
            (0, 12 if above else -12),
            textcoords="offset points",
            ha="center",
            va="bottom" if above else "top",
            color=BLUE,
        )
    ax.axhline(100 * chance, color=GREY, ls=":", lw=2)
    ax.annotate("guessing", (97, 100 * chance), (0, -6), textcoords="offset points", ha="right", va="top", color=GREY)
    ax.axvline(100, color=GREY, ls="--", lw=1.5)
    ax.annotate("size of the \ndense matrices ", (100, max(highs) + 2), ha="right", va="bottom", color=GREY)
    ax.set_ylim(100 * chance - 8, max(highs) + 10)
    ax.set_title("Cut the bonds, no more training")
    ax.set_xlabel("parameters left in the matrices (% of dense)")
    ax.set_ylabel("validation accuracy (%)")
    return ax


def tradeoff(
    ax: Axes, curves: dict[str, list[dict]], chance: float, chosen: dict, measured: Sequence[tuple[dict, dict]] = ()
) -> Axes:
    """Accuracy against parameters as bonds are cut in some part of a model, with one point chosen.

    Parameters
    ----------
    curves : dict of lists of points
        By part; points as in a tradeoff's record.
    chance : float
        Accuracy of always giving the commonest answer.
    chosen : dict
        The point to mark.
    measured : pairs of a point and a score
        Accuracies measured anew, of the same settings.
    """
    for (part, points), colour, marker in zip(curves.items(), (BLUE, ORANGE, GREEN), "osD", strict=False):
        x, y = [100 * p["ratio"] for p in points], [100 * p["validation"]["accuracy"] for p in points]
        wide = 5 if part == "all" else 2  # where curves coincide, the one beneath is seen
        ax.plot(x, y, marker + "-", color=colour, ms=3 * wide**0.5 + 2, lw=wide, label=f"cut: {part}")
    low, high = (100 * end for end in chosen["validation"]["interval"])
    x, y = 100 * chosen["ratio"], 100 * chosen["validation"]["accuracy"]
    ax.errorbar(x, y, [[y - low], [high - y]], fmt="o", ms=17, mfc="none", mew=3, color="black", capsize=8, lw=2.5)
    for k, (point, score) in enumerate(measured):
        label = "measured here" if k == 0 else None
        ax.plot(100 * point["ratio"], 100 * score["accuracy"], "X", ms=14, color="black", mec="white", label=label)
    ax.axhline(100 * chance, color=GREY, ls=":", lw=2)
    ax.annotate("guessing", (0, 100 * chance), (0, -6), textcoords="offset points", va="top", color=GREY)
    ax.axvline(100, color=GREY, ls="--", lw=1.5)
    ax.set_ylim(100 * chance - 6, 90)
    ax.legend(loc="upper left")
    ax.set_title("Cut the bonds of a tuned model")
    ax.set_xlabel("parameters left in the matrices (% of dense)")
    ax.set_ylabel("validation accuracy (%)")
    return ax


def shares_kept(ax: Axes, whole: dict, chosen: dict, entropy: float) -> Axes:
    """Shares of central and auxiliary numbers and of entropy that a point of a tradeoff keeps."""
    shares = [100 * chosen[name] / whole[name] for name in ("central", "auxiliary")] + [100 * entropy]
    bars = ax.barh(["central\ncores", "auxiliary\ncores", "entropy"], shares, color=[ORANGE, GREEN, BLUE])
    ax.bar_label(bars, [f"{share:.0f} %" for share in shares], padding=4)
    ax.invert_yaxis()
    ax.set_xlim(0, 118)
    ax.set_title("What the cut keeps")
    ax.set_xlabel("% of what it was at full bond")
    ax.set_ylabel("")
    return ax


def accuracy_of_ways(ax: Axes, record: dict, part: str, ratio: float | None = None) -> Axes:
    """Accuracy against what is left of a part's matrices, a line for each way of cutting, with intervals.

    Parameters
    ----------
    record : dict
        As `cut_results.summarise` returns it.
    ratio : float, optional
        Marked.
    """
    rows = [row for row in record["summary"] if row["part"] == part]
    for k, way in enumerate(dict.fromkeys(row["way"] for row in rows)):
        colour, marker, name = WAYS[way]
        found = [row for row in rows if row["way"] == way]
        x = [100 * row["ratio"] + 0.6 * (k - 1) for row in found]  # side by side, so that intervals can be told apart
        y = np.array([row["accuracy"]["mean"] for row in found])
        ends = np.array([ends_of(row["accuracy"]) for row in found]).T
        style = {"fmt": marker + "-", "color": colour, "ms": 8, "lw": 2, "capsize": 4, "label": name}
        ax.errorbar(x, 100 * y, 100 * np.abs(ends - y), **style)
    uncut = next(row for row in record["summary"] if row["way"] == "uncut")["accuracy"]["mean"]
    for level, name in ((uncut, "uncut"), (record["chance"]["unused"], "guessing")):
        ax.axhline(100 * level, color=GREY, ls=":", lw=2)
        ax.annotate(name, (88, 100 * level), (0, 3), textcoords="offset points", ha="right", color=GREY)
    if ratio is not None:
        ax.axvline(100 * ratio, color="black", lw=1.5)
    ax.set_xlim(right=88)
    ax.set_ylim(45, 90)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=1)
    ax.set_title(f"Cut: {part}")
    ax.set_xlabel("parameters left in the part (% of dense)")
    ax.set_ylabel("accuracy (%), 95 % intervals")
    return ax


def ends_of(found: dict) -> Sequence[float]:
    """The ends of an interval over seeds; where a single seed gives none, the mean twice."""
    return found["interval"] or (found["mean"], found["mean"])


def losses(ax: Axes, record: dict, parts: Sequence[str]) -> Axes:
    """Accuracy that is lost when single parts are cut, by way of cutting, with intervals."""
    rows = {(row["part"], row["way"]): row for row in record["summary"] if row["ratio"] == record["layer_ratio"]}
    for k, way in enumerate(("plain", "bias", "fitted")):
        colour, marker, name = WAYS[way]
        found = [rows[part, way]["minus_uncut"] for part in parts]
        y, ends = np.array([loss["mean"] for loss in found]), np.array([ends_of(loss) for loss in found]).T
        x = np.arange(len(parts)) + 0.12 * (k - 1)
        ax.errorbar(x, 100 * y, 100 * np.abs(ends - y), fmt=marker, color=colour, ms=10, lw=2.5, capsize=5, label=name)
    ax.axhline(0, color=GREY, ls=":", lw=2)
    ax.set_xticks(range(len(parts)), [part.replace(" ", "\n", 1) for part in parts])
    ax.legend(loc="lower right")
    ax.set_title(f"Cut to {100 * record['layer_ratio']:.0f} %, all others whole")
    ax.set_xlabel("")
    ax.set_ylabel("change of accuracy (points), 95 %")
    return ax


def errors_by_layer(ax: Axes, errors: dict[str, Sequence[float]]) -> Axes:
    """Relative error of the states after each layer of the encoder, a line for each way of cutting."""
    for way, values in errors.items():
        colour, marker, name = WAYS[way]
        ax.plot(range(len(values)), values, marker + "-", color=colour, ms=9, lw=2.5, label=name)
    ax.set_ylim(0)
    ax.legend(loc="best")
    ax.set_title("Error through the depth")
    ax.set_xlabel("after layer")
    ax.set_ylabel("error / norm of the states")
    return ax


def ledger(ax: Axes, parts: dict[str, Ledger]) -> Axes:
    """A bar for each part of a ledger: its central and auxiliary numbers, and a mark where the dense matrices end."""
    names, tables = list(parts), list(parts.values())
    central, auxiliary, dense = (
        np.array([getattr(table, name) for table in tables]) / 1e6 for name in ("central", "auxiliary", "dense")
    )
    ax.barh(names, central, color=ORANGE, label="central cores")
    ax.barh(names, auxiliary, left=central, color=GREEN, label="auxiliary cores")
    ax.plot(dense, names, "|", color="black", ms=16, mew=2.5, label="dense matrix")
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.legend(loc="best")
    ax.set_title("What each matrix holds")
    ax.set_xlabel("parameters (millions)")
    ax.set_ylabel("")
    return ax


def trained_shares(ax: Axes, views: Sequence[Trained]) -> Axes:
    """Two bars for each model: the share of its parameters in auxiliary cores, and outside of central ones."""
    places = np.arange(len(views))
    for shift, colour, name, label in (
        (-0.2, GREEN, "auxiliary", "auxiliary cores"),
        (0.2, BLUE, "everything", "all but central cores"),
    ):
        shares = [100 * getattr(view, name) / view.dense for view in views]
        bars = ax.barh(places + shift, shares, 0.38, color=colour, label=label)
        ax.bar_label(bars, [f"{share:.1f}" for share in shares], padding=4)
    ax.set_yticks(places, [view.name.rpartition("/")[2].partition("-")[0] for view in views])
    ax.invert_yaxis()
    ax.margins(x=0.2)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=1)
    ax.set_title("What would be trained")
    ax.set_xlabel("% of the dense model")
    ax.set_ylabel("")
    return ax


def demo_picture(rows: list[TableRow], curve: list[dict], chance: float) -> Figure:
    """The demo's two results side by side."""
    with styled(2, (15, 6.5)) as (figure, (left, right)):
        trained_against_accuracy(left, rows)
        truncation_curve(right, curve, chance)
    return figure


def save(figure: Figure, path: Path, alt_text: str) -> None:
    """Write a figure as PNG, whole or not at all, with its description inside, and close it."""
    import matplotlib.pyplot as plt

    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=120, metadata={"Description": alt_text})
    plt.close(figure)


def demo_alt_text(rows: list[TableRow], curve: list[dict]) -> str:
    """The picture in words."""
    methods = "; ".join(
        f"{row.method}, {row.trained / 1e6:.1f} million parameters trained: {100 * row.accuracy:.1f} %" for row in rows
    )
    points = ", ".join(
        f"{100 * point['validation']['accuracy']:.0f} % at bond {point['max_bond']} ({100 * point['ratio']:.0f} % of the size)"
        for point in curve
    )
    return (
        f"Two panels. Left, test accuracy against parameters trained: {methods}. "
        f"Right, validation accuracy as the bonds are cut without retraining: {points}."
    )


INCHES_PER_MATRIX = 0.3


def draw_ledger(view: Trained, folder: Path) -> Path:
    """Write a model's ledger as a picture, a bar a matrix."""
    rows = view.ledger.rows
    with styled(1, (12, 2 + INCHES_PER_MATRIX * len(rows))) as (figure, (ax,)):
        ledger(ax, {row.label: Ledger((row,)) for row in rows}).set_title(view.name)
    path = folder / f"ledger-{re.sub(r'[^A-Za-z0-9.-]+', '-', view.name)}.png"
    save(figure, path, f"Central and auxiliary numbers of the {len(rows)} matrices of {view.name}")
    return path
