"""What the comparisons of `experiments.rivals` found: a table, a figure, and the files that a command leaves."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from scipy.optimize import isotonic_regression

from mpo_tutorial.course import figures, plots
from mpo_tutorial.course.plots import BLUE, GREY, ORANGE, ends_of
from mpo_tutorial.course.tables import per_cent, sentences_of_comparison, to_store
from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.compare import Comparison, difference
from mpo_tutorial.experiments.rivals import COST_STEPS, FULL, LORA, TURNS, costs

HEAD = (
    "",
    "trained",
    "of all",
    "test accuracy [95 %]",
    f"minus {FULL} [95 %]",
    f"minus {LORA} [95 %]",
    "seeds",
    "rate",
    "a step",
    "peak memory",
    "to store",
)
GAP = 0.075  # in powers of ten, between two points' places on the axis of trained parameters


def cells(summary: Mapping, comparison: Comparison, spent: Mapping[str, Mapping[str, float]]) -> list[tuple[str, ...]]:
    """Rows under `HEAD`, as text, of what was tested.

    Parameters
    ----------
    summary : dict
        As `compare.summarise` gives it.
    spent : dict
        As `rivals.costs` gives it; a variant that is missing has empty cells.
    """
    rows = []
    for name in summary["final"]:
        row, cost = summary["variants"][name], spent.get(name)
        against = (difference(summary, name, other) for other in yardsticks(comparison, name))
        rows.append(
            (
                name,
                f"{row['trained']:,}",
                f"{100 * row['trained'] / row['total']:.2f} %",
                f"{per_cent(row['test'])} %",
                *("" if found is None else per_cent(found, "+") for found in against),
                str(row["test"]["seeds"]),
                f"{row['rate']:g}",
                *(("", "") if cost is None else (f"{cost['seconds_a_step']:.2f} s", _gigabytes(cost))),
                to_store(row["stored_bytes"]),
            )
        )
    return rows


def _gigabytes(cost: Mapping[str, float]) -> str:
    return f"{cost['peak_memory_bytes'] / 1e9:.2f} GB"


def yardsticks(comparison: Comparison, name: str) -> tuple[str, str]:
    """Full fine-tuning and LoRA with the data of a variant, by name; they need not be among the tested."""
    beside = comparison.variants[name].beside
    place = beside.removeprefix(FULL) if beside.startswith(FULL) else ""
    return FULL + place, LORA + place


def pareto(found: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of what nothing else beats: of (cost, value) pairs those for which none costs as little and is worth more, or less
    and as much; by rising cost.
    """
    front: list[str] = []
    for name in sorted(found, key=lambda name: (found[name][0], -found[name][1])):
        if not front or found[name][1] > found[front[-1]][1]:
            front.append(name)
    return front


def accuracy_by_size(ax: Axes, summary: Mapping, names: Sequence[str]) -> Axes:
    """Test accuracy of the named variants against trained parameters, with intervals over seeds and the Pareto front of the means.

    Points whose numbers are nearly equal stand side by side, in their order.
    """
    rows = sorted((summary["variants"][name]["trained"], name) for name in names)
    spread = GAP * np.arange(len(rows))
    places = 10 ** (isotonic_regression(np.log10([trained for trained, _ in rows]) - spread).x + spread)
    means = {name: (trained, summary["variants"][name]["test"]["mean"]) for trained, name in rows}
    front = pareto(means)
    at = dict(zip((name for _, name in rows), places, strict=True))
    ax.plot([at[name] for name in front], [100 * means[name][1] for name in front], color=ORANGE, lw=2, zorder=0)
    for name, place in at.items():
        found = summary["variants"][name]["test"]
        mean, (low, high) = 100 * found["mean"], (100 * end for end in ends_of(found))
        colour = BLUE if name.startswith("light") else GREY
        ax.errorbar([place], [mean], [[mean - low], [high - mean]], fmt="o", color=colour, ms=8, lw=2.5)
        ax.annotate(
            name, (place, high), (0, 6), textcoords="offset points", rotation=90, ha="center", va="bottom", size=12
        )
    ax.set_xscale("log")
    ax.margins(0.05, 0.1)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.5 * (high - low))  # for the names
    ax.set_title("Accuracy against what is trained")
    ax.set_xlabel("trained parameters; orange: nobody is better with fewer")
    ax.set_ylabel("test accuracy, %, 95 % over seeds")
    return ax


def in_words(summary: Mapping, names: Sequence[str]) -> str:
    """The figure of `accuracy_by_size` as a sentence."""
    rows = {name: summary["variants"][name] for name in names}
    said = (f"{name} {row['trained']:,} trained, {per_cent(row['test'])} %" for name, row in rows.items())
    front = pareto({name: (row["trained"], row["test"]["mean"]) for name, row in rows.items()})
    return f"Test accuracy against trained parameters: {'; '.join(said)}. The front: {', '.join(front)}."


def markdown(summary: Mapping, comparison: Comparison, cost_points: Sequence[dict]) -> str:
    """The table, what decides, and how all was measured, of what `compare.summarise` gives."""
    lines = [f"| {' | '.join(of)} |" for of in (HEAD, *cells(summary, comparison, costs(cost_points)))]
    lines.insert(1, "|" + "---|" * len(HEAD))
    return "\n\n".join(["\n".join(lines), *sentences(summary, comparison, cost_points)])


def sentences(summary: Mapping, comparison: Comparison, cost_points: Sequence[dict]) -> list[str]:
    """What decides, how all was measured, and where the costs were."""
    said = sentences_of_comparison(summary, comparison)
    if cost_points:
        hardware = cost_points[0]["hardware"]
        said.append(
            f"A step and peak memory: medians over {TURNS} turns of up to {COST_STEPS} steps in a process of their own, "
            f"{hardware['gpu'] or hardware['cpu']}, {hardware['threads']} threads. Child-Tuning D's look at the training set "
            "beforehand is not counted."
        )
    return said


def write(summary: Mapping, comparison: Comparison, cost_points: Sequence[dict], out: Path) -> list[Path]:
    """Write to a folder `table.md`, `summary.json` and `accuracy.png`; the paths.

    Errors as of any file that cannot be written: an OSError.
    """
    spent = costs(cost_points)
    table, told, picture = (out / name for name in ("table.md", "summary.json", "accuracy.png"))
    with records.replacing(table) as partial:
        partial.write_text(markdown(summary, comparison, cost_points) + "\n", encoding="utf-8")
    variants = {
        name: {
            **summary["variants"][name],
            **{
                key: difference(summary, name, other)
                for key, other in zip(("minus_full", "minus_lora"), yardsticks(comparison, name), strict=True)
            },
            **spent.get(name, {}),
        }
        for name in summary["final"]
    }
    records.write_record({"primary": summary.get("primary"), "variants": variants}, told)
    names = [name for name in summary["final"] if yardsticks(comparison, name)[0] == FULL]
    with plots.styled(1, (10, 8)) as (figure, (ax,)):
        accuracy_by_size(ax, summary, names)
    figures.save(figure, picture, in_words(summary, names))
    return [table, told, picture]
