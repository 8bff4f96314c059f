"""What the study of cuts says: its points as rows, means over seeds, and differences paired by seeds."""

import re
from collections.abc import Sequence
from statistics import mean

from mpo_tutorial.experiments.statistics import over_seeds
from mpo_tutorial.experiments.study import Point


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
        way, ratio and part, over seeds, the accuracy and the differences from the uncut models and from the plain way, as
        `over_seeds` gives them. "layer_ratio": at which single layers were cut, None if there are none.
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
        "sentences": first["result"]["accuracy"]["n"],
        "bonds": bonds,
        "ratios": ratios,
        "summary": _summary(ratios),
        "layer_ratio": next((row["ratio"] for row in ratios if row["part"].startswith("layer ")), None),
    }


def _summary(rows: Sequence[dict]) -> list[dict]:
    accuracies: dict[tuple, dict[int, float]] = {}
    for row in rows:
        accuracies.setdefault((row["way"], row["ratio"], row["part"]), {})[row["seed"]] = row["accuracy"]["accuracy"]

    def minus(found: dict[int, float], setting: tuple) -> dict:
        return over_seeds([accuracy - accuracies[setting][seed] for seed, accuracy in found.items()])

    summary = []
    for (way, ratio, part), found in accuracies.items():
        row = {"way": way, "ratio": ratio, "part": part, "accuracy": over_seeds(list(found.values()))}
        if way != "uncut":
            row["minus_uncut"] = minus(found, ("uncut", None, "none"))
        if way not in ("uncut", "plain"):
            row["minus_plain"] = minus(found, ("plain", ratio, part))
        summary.append(row)
    return summary


def table(points: Sequence[Point]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the summary, as text."""

    def text(found: dict | None, sign: str = "") -> str:
        if found is None:
            return ""
        mean = f"{100 * found['mean']:{sign}.1f}"
        return (
            mean
            if found["interval"] is None
            else mean + " [{:{s}.1f}, {:{s}.1f}]".format(*(100 * end for end in found["interval"]), s=sign)
        )

    head = ("part", "ratio", "way", "accuracy [95 %]", "minus uncut", "minus plain")
    rows = [
        (
            row["part"],
            "" if row["ratio"] is None else f"{row['ratio']:g}",
            row["way"],
            text(row["accuracy"]),
            text(row.get("minus_uncut"), "+"),
            text(row.get("minus_plain"), "+"),
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
