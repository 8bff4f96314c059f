"""What the capstone found, beside what was published."""

from collections.abc import Mapping, Sequence

import numpy as np

from mpo_tutorial.course.tables import per_cent
from mpo_tutorial.experiments.capstone import CONTENDERS, Capstone
from mpo_tutorial.experiments.glue import GLUE, PUBLISHED
from mpo_tutorial.experiments.statistics import over_seeds
from mpo_tutorial.experiments.tasks import load_task

CLOCK_HEAD = ("", "a step", "micro-batch", "peak memory", "estimated", "trained", "a run")


def clock_cells(clocked: Sequence[Mapping]) -> list[tuple[str, ...]]:
    """Rows under `CLOCK_HEAD`, as text, of the points of `capstone.clock`."""
    rows = []
    for point in clocked:
        found = point["result"]
        minutes = (found["steps"] * found["seconds_a_step"] + found["sentences"] * found["seconds_a_sentence"]) / 60
        rows.append(
            (
                point["setting"]["variant"],
                f"{found['seconds_a_step']:.2f} s",
                str(found["micro_batch_size"]),
                f"{found['peak_memory_bytes'] / 1e9:.2f} GB",
                f"{found['estimated_bytes'] / 1e9:.2f} GB",
                f"{found['trained'] / 1e6:.2f} M",
                f"{minutes:.1f} min",
            )
        )
    return rows


def head(capstone: Capstone) -> tuple[str, ...]:
    return "", *(_short(task) for task in capstone.tasks), "trained / all (M)"


def _short(task: str) -> str:
    name = task.removeprefix("glue/")
    metric = _metric(task)
    return name if metric == "accuracy" else f"{name} ({metric})"


def _metric(task: str) -> str:
    name = task.removeprefix("glue/")
    return GLUE[name].metrics[0] if name in GLUE else "accuracy"


def cells(summary: Mapping, capstone: Capstone) -> list[tuple[str, ...]]:
    """Rows under `head`, as text: guessing, ours as mean and interval over seeds, and what was published, from one run each.

    Parameters
    ----------
    summary : dict
        As `compare.summarise` gives it.
    """
    rows = [("guessing", *(f"{100 * _guessing(task):.1f}" for task in capstone.tasks), "")]
    for title in CONTENDERS:
        found = [summary["final"][capstone.name(title, task)] for task in capstone.tasks]
        numbers = (found[0][0]["result"]["parameters"][name] / 1e6 for name in ("trained", "total"))
        figures = (per_cent(_over_seeds(points, task)) for points, task in zip(found, capstone.tasks, strict=True))
        rows.append((title, *figures, " / ".join(f"{number:.1f}" for number in numbers)))
    return [*rows, *published(capstone.base.model, capstone.tasks)]


def published(model: str, tasks: Sequence[str]) -> list[tuple[str, ...]]:
    """What the paper has of a model on some tasks, in such rows."""
    rows = []
    for row, (figures, numbers) in PUBLISHED.get(model, {}).items():
        told = [figures.get(task.removeprefix("glue/")) for task in tasks]
        if any(told):
            rows.append((row, *("" if figure is None else f"{figure:.1f}" for figure in told), numbers))
    return rows


def _guessing(task: str) -> float:
    """The score of an answer that is always the commonest class of the training sentences."""
    if _metric(task) != "accuracy":
        return 0.0
    loaded = load_task(task)
    commonest = np.bincount([label for _, label in loaded.train(None)]).argmax()
    return float(np.mean([label == commonest for _, label in loaded.splits["test"]]))


def _over_seeds(points: Sequence[Mapping], task: str) -> dict:
    metric = _metric(task)
    tests = [point["result"]["test"] for point in points]
    return over_seeds(
        [test["accuracy"] if metric == "accuracy" else test["metrics"][metric]["value"] for test in tests]
    )
