"""What the study of formats found: a table, beside what the paper's Table 2 counts, and in words how it was measured."""

from collections.abc import Mapping, Sequence

import numpy as np

from mpo_tutorial.course.tables import per_cent, sentences_of_comparison
from mpo_tutorial.experiments.changes import AWARE, FITTED, PLAIN
from mpo_tutorial.experiments.formats import COMPARISON
from mpo_tutorial.experiments.statistics import over_seeds

HEAD = (
    "",
    "numbers",
    "of dense",
    "error of weights",
    "of outputs",
    "before tuning",
    "AUC",
    "after [95 %]",
    "AUC",
    f"minus {AWARE} [95 %]",
    "rate",
    "made in",
    "a pass",
    "rebuilt",
    "by Table 2",
)
# Multiplications at inference by Table 2 of Liu et al. 2021, which n cores, m the largest leg, d the largest bond or rank are for.
TABLE_2 = {
    **dict.fromkeys(("SVD", AWARE), "O(2 m d³)"),
    **dict.fromkeys((PLAIN, FITTED), "O(n m d³)"),
    "CP": "O(n m d²)",
    "Tucker": "O(n m d + dⁿ)",
}


def cells(summary: Mapping, cost_points: Sequence[dict]) -> list[tuple[str, ...]]:
    """Rows under `HEAD`, as text, of what was tested.

    Parameters
    ----------
    summary : dict
        As `compare.summarise` gives it.
    cost_points : sequence of dict
        Of `format_costs.study`; what is missing has empty cells.
    """
    spent = {point["setting"]["format"]: point["result"] for point in cost_points}
    rows = []
    for name, points in summary["final"].items():
        row, results = summary["variants"][name], [point["result"] for point in points]
        matrices, cost = results[0]["matrices"], spent.get(name)
        errors = (np.mean([result["errors"][of] for result in results]) for of in ("weights", "outputs"))
        before, after = ([result["judged"][when] for result in results] for when in ("before", "after"))
        beside = row["minus_beside"]
        rows.append(
            (
                name,
                f"{matrices['parameters']:,}",
                f"{100 * matrices['parameters'] / matrices['dense']:.1f} %",
                *(f"{error:.3f}" for error in errors),
                f"{100 * np.mean([of['accuracy'] for of in before]):.1f} %",
                _auc(before),
                f"{per_cent(over_seeds([of['accuracy'] for of in after]))} %",
                _auc(after),
                "" if beside is None else per_cent(beside, "+"),
                f"{row['rate']:g}",
                *(("", "", "") if cost is None else _seconds(cost)),
                TABLE_2.get(name, ""),
            )
        )
    return rows


def _auc(judged: Sequence[Mapping]) -> str:
    found = [of["auc"] for of in judged]
    return "" if None in found else f"{np.mean(found):.3f}"


def _seconds(cost: Mapping) -> tuple[str, str, str]:
    """Passes as multiples of a dense one."""
    run = cost["run"]
    return f"{cost['make']:.1f} s", *(f"{run[way] / run['dense']:.2f}" for way in ("contracted", "rebuilt"))


def sentences(summary: Mapping, cost_points: Sequence[dict]) -> list[str]:
    """What decides, how all was measured, and where the costs were."""
    said = sentences_of_comparison(summary, COMPARISON)
    if cost_points:
        hardware, tokens = cost_points[0]["hardware"], cost_points[0]["setting"]["tokens"]
        said.append(
            f"A pass, of {tokens:,} tokens through all matrices, takes so many times as long as with dense ones: factor by factor, "
            f"or through the matrices rebuilt each time. {hardware['gpu'] or hardware['cpu']}, {hardware['threads']} threads."
        )
    return said
