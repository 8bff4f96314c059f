"""Figures of records: accuracy against parameters trained, the demo's picture, ledgers."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from mpo_tutorial.course.cut_figures import truncation_curve
from mpo_tutorial.course.plots import BLUE, GREEN, ORANGE, styled
from mpo_tutorial.course.tables import TableRow
from mpo_tutorial.experiments.cut_results import MEASURES
from mpo_tutorial.experiments.records import replacing
from mpo_tutorial.models.ledger import Ledger, Trained


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
    """The demo's two results, one below the other."""
    with styled(1, (10, 11), rows=2) as (figure, (above, below)):
        trained_against_accuracy(above, rows)
        truncation_curve(below, curve, chance)
    return figure


def save(figure: Figure, path: Path, alt_text: str) -> None:
    """Write a figure as PNG, whole or not at all, with its description inside, and close it."""
    import matplotlib.pyplot as plt

    with replacing(path) as partial:
        figure.savefig(partial, format="png", dpi=150, metadata={"Description": alt_text})
    plt.close(figure)


def accuracies_in_words(rows: list[TableRow]) -> str:
    """What `trained_against_accuracy` draws."""
    methods = "; ".join(
        f"{row.method}, {row.trained / 1e6:.1f} million parameters trained: {100 * row.accuracy:.1f} %" for row in rows
    )
    return f"test accuracy against parameters trained: {methods}."


def demo_alt_text(rows: list[TableRow], curve: list[dict]) -> str:
    """The picture in words."""
    points = ", ".join(
        f"{100 * point['validation']['accuracy']:.0f} % at bond {point['max_bond']} ({100 * point['ratio']:.0f} % of the size)"
        for point in curve
    )
    for measure, named in (("refitted", "with the head's bias fitted again"), ("auc", "AUC, times 100,")):
        found = [MEASURES[measure](point["validation"]) for point in curve]
        if None not in found:
            points += f"; {named} " + ", ".join(f"{100 * value:.0f}" for value in found)
    return (
        f"Two panels. Above, {accuracies_in_words(rows)} "
        f"Below, validation accuracy as the bonds are cut without retraining: {points}."
    )


INCHES_PER_MATRIX = 0.3


def draw_ledger(view: Trained, folder: Path) -> Path:
    """Write a model's ledger as a picture, a bar a matrix."""
    rows = view.ledger.rows
    with styled(1, (10, 2 + INCHES_PER_MATRIX * len(rows))) as (figure, (ax,)):
        ledger(ax, {row.label: Ledger((row,)) for row in rows}).set_title(view.name)
    path = folder / f"ledger-{re.sub(r'[^A-Za-z0-9.-]+', '-', view.name)}.png"
    save(figure, path, f"Central and auxiliary numbers of the {len(rows)} matrices of {view.name}")
    return path
