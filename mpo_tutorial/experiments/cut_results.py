"""What the study of cuts says: its points as rows, means over seeds, and differences paired by seeds."""

import re
from collections.abc import Sequence
from statistics import mean

from mpo_tutorial.experiments.statistics import over_seeds
from mpo_tutorial.experiments.study import Point

# By what a cut model is judged: how to find it in what `threshold.judge` gives; None where that has none.
MEASURES = {
    "accuracy": lambda judged: judged["accuracy"],
    "refitted": lambda judged: judged["refitted"] and judged["refitted"]["accuracy"],
    "auc": lambda judged: judged["auc"],
}


def part_of(matrices: str) -> str:
    """What a reader calls a choice of matrices.

    >>> part_of("attention"), part_of("*.layer.3.*")
    ('attention', 'layer 3')
    """
    number = re.fullmatch(r"\*\.layers?\.(\d+)\.\*", matrices)
    return f"layer {number[1]}" if number else matrices


def summarise(points: Sequence[Point]) -> dict:
    """The study's points in the form that explorers and figures take.

    Returns
    -------
    dict
        "config", "dense", "layers" of the first run; "chance": accuracy of always giving the commonest answer, by what is
        measured on; "seeds"; "sentences". "bonds": rows with part, max_bond and what was measured. "ratios": rows with seed, way,
        ratio, part and what was measured, the uncut models first, their way "uncut", their part "none". "summary": for each
        way, ratio and part, over seeds, the `MEASURES` and, in "minus_uncut", "minus_plain" and "minus_fitted", their differences
        from the uncut models and, where there is one, from the plain and the fitted cut of the same size, as `over_seeds` gives
        them; None where a point has none. "layer_ratio": at which single layers were cut, None if there are none.
    """
    first = next(point for point in points if point["stage"] == "uncut")
    bonds = [
        {
            "part": point["setting"]["cut"]["matrices"],
            "max_bond": point["setting"]["cut"]["max_bond"],
            **point["result"],
        }
        for point in points
        if point["stage"] == "bonds"
    ]
    ratios = []
    for point in points:
        seed = point["setting"]["seed"]
        if point["stage"] == "uncut":
            ratios.append({"seed": seed, "way": "uncut", "ratio": None, "part": "none", **point["result"]})
        elif point["stage"] == "ratios":
            cut = point["setting"]["cut"]
            where = {"way": point["setting"]["way"], "ratio": cut["ratio"], "part": part_of(cut["matrices"])}
            ratios.append({"seed": seed, **where, **point["result"]})
    return {
        "config": first["setting"]["config"],
        "dense": first["result"]["dense"],
        "chance": first["result"]["chance"],
        "seeds": [row["seed"] for row in ratios if row["way"] == "uncut"],
        "sentences": first["result"]["unused"]["n"],
        "bonds": bonds,
        "ratios": ratios,
        "summary": _summary(ratios),
        "layer_ratio": next((row["ratio"] for row in ratios if row["part"].startswith("layer ")), None),
    }


def _summary(rows: Sequence[dict]) -> list[dict]:
    found: dict[tuple, dict[int, dict]] = {}
    for row in rows:
        measured = {name: of(row["unused"]) for name, of in MEASURES.items()}
        found.setdefault((row["way"], row["ratio"], row["part"]), {})[row["seed"]] = measured

    def over(values: list[float | None]) -> dict | None:
        return None if None in values else over_seeds(values)

    def minus(of: dict[int, dict], other: dict[int, dict]) -> dict:
        pairs = [(measured, other[seed]) for seed, measured in of.items()]
        return {m: over([None if None in (a[m], b[m]) else a[m] - b[m] for a, b in pairs]) for m in MEASURES}

    summary = []
    for (way, ratio, part), of in found.items():
        row = {"way": way, "ratio": ratio, "part": part}
        row |= {name: over([measured[name] for measured in of.values()]) for name in MEASURES}
        if way != "uncut":
            row["minus_uncut"] = minus(of, found["uncut", None, "none"])
        for base in ("plain", "fitted"):
            if way not in ("uncut", base) and (base, ratio, part) in found:
                row[f"minus_{base}"] = minus(of, found[base, ratio, part])
        summary.append(row)
    return summary


def table(points: Sequence[Point]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the summary, as text; all in per cent, the differences those of the accuracy with the bias fitted."""

    def text(found: dict | None, sign: str = "") -> str:
        if found is None:
            return ""
        mean = f"{100 * found['mean']:{sign}.1f}"
        return (
            mean
            if found["interval"] is None
            else mean + " [{:{s}.1f}, {:{s}.1f}]".format(*(100 * end for end in found["interval"]), s=sign)
        )

    head = ("part", "ratio", "way", "accuracy [95 %]", "AUC", "bias fitted", "minus uncut", "minus plain")
    rows = [
        (
            row["part"],
            "" if row["ratio"] is None else f"{row['ratio']:g}",
            row["way"],
            *(text(row[name]) for name in ("accuracy", "auc", "refitted")),
            *(text(row.get(name, {}).get("refitted"), "+") for name in ("minus_uncut", "minus_plain")),
        )
        for row in summarise(points)["summary"]
    ]
    return head, rows


def output_errors(points: Sequence[Point]) -> list[dict]:
    """Of the record "legwise": for each ratio and way the mean error over matrices, of all seeds and of each."""
    means: dict[tuple, list[float]] = {}
    for point in points:
        setting = point["setting"]
        means.setdefault((setting["ratio"], setting["way"]), []).append(mean(point["result"]["errors"].values()))
    return [{"ratio": ratio, "way": way, "error": mean(of), "seeds": of} for (ratio, way), of in means.items()]
