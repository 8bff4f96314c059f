"""Tables and sentences made of records."""

from collections.abc import Sequence
from dataclasses import dataclass

from mpo_tutorial.experiments.compare import Comparison, summarise
from mpo_tutorial.models.images import IMAGE_TASKS

METRIC_NAMES = {
    "accuracy": "accuracy",
    "f1": "F1",
    "matthews": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
}


@dataclass(frozen=True)
class TableRow:
    """One method in the table that a demo ends with.

    Accuracy and interval are shares, not per cent; with another `metric` they are what was measured instead.
    """

    method: str
    trained: int
    total: int
    accuracy: float
    interval: Sequence[float] | None
    seconds: float | None
    stored_bytes: int
    metric: str = "accuracy"

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `table_head`."""
        unit, form = (1, ".3f") if self.metric != "accuracy" else (100, ".1f")
        measured = f"{unit * self.accuracy:{form}}{' %' if unit == 100 else ''}"
        if self.interval is not None:
            measured += f" [{', '.join(f'{unit * end:{form}}' for end in self.interval)}]"
        return (
            self.method,
            f"{self.trained / 1e6:.2f} M",
            f"{self.total / 1e6:.2f} M",
            measured,
            "" if self.seconds is None else f"{self.seconds:.0f} s",
            f"{self.stored_bytes / 1e6:.1f} MB",
        )


def table_head(metric: str = "accuracy") -> tuple[str, ...]:
    """The names of the columns of `TableRow.cells`."""
    return "method", "trained", "total", f"test {METRIC_NAMES[metric]} [95 %]", "training", "to store"


TABLE_HEAD = table_head()


def metrics_of(part: dict) -> dict[str, dict]:
    """The metrics of a part of a record, the main one first: by name a value and its interval."""
    return part.get("metrics") or {"accuracy": {"value": part["accuracy"], "interval": part["interval"]}}


def row_of_run(name: str, record: dict, metric: str = "accuracy") -> TableRow:
    """A run's row. Its interval is over test sentences alone: there is one seed.

    Parameters
    ----------
    metric : str
        One of those `measured`, or the accuracy, which every task with classes has.
    """
    test = record["test"]
    of_metric = metrics_of(test).get(metric) or {"value": test["accuracy"], "interval": test["interval"]}
    return TableRow(
        name,
        record["parameters"]["trained"],
        record["parameters"]["total"],
        of_metric["value"],
        of_metric["interval"],
        record["seconds"]["train"],
        record["stored_bytes"],
        metric,
    )


def sentence_on_metrics(record: dict) -> str:
    """All that a run measured, in a line: "validation: accuracy 0.712, F1 0.801; test: ..."."""
    splits = {split: part for split, part in record.items() if isinstance(part, dict) and "n" in part}
    found = (
        f"{split}: "
        + ", ".join(f"{METRIC_NAMES[name]} {metric['value']:.3f}" for name, metric in metrics_of(part).items())
        for split, part in splits.items()
    )
    return "; ".join(found)


def row_of_comparison(name: str, summary: dict, variant: str) -> TableRow:
    """A variant's row of what `compare.summarise` gives: mean and Student's t interval over its seeds, without seconds."""
    row = summary["variants"][variant]
    test = row["test"]
    return TableRow(name, row["trained"], row["total"], test["mean"], test["interval"], None, row["stored_bytes"])


def same_budget(summary: dict, run: dict) -> bool:
    """Whether a run had the model, the data and the training of a recorded comparison, so that the two may stand together."""
    recorded = summary["final"]["full"][0]
    names = ("model", "task", "epochs", "batch_size", "max_length", "pooling")
    return run["train_sentences"] == recorded["result"]["train_sentences"] and all(
        run["config"][name] == recorded["setting"]["config"][name] for name in names
    )


COMPARISON_HEAD = ("", "trained", "test accuracy [95 %]", "minus full [95 %]", "seeds", "rate", "to store")


NETWORKS_HEAD = tuple(cell.replace("minus full", "minus its rival") for cell in COMPARISON_HEAD)


def cells_of_comparison(summary: dict, names: Sequence[str] | None = None) -> list[tuple[str, ...]]:
    """Rows under `COMPARISON_HEAD`, as text: the named variants of what `compare.summarise` gives, or all that were tested."""
    rows = []
    for name in names or summary["variants"]:
        row = summary["variants"][name]
        beside = row["minus_beside"]
        cells = (
            f"{row['trained'] / 1e6:.3f} M" if row["trained"] >= 10_000 else f"{row['trained']}",
            f"{per_cent(row['test'])} %",
            "" if beside is None else per_cent(beside, "+"),
        )
        tuned = ("", "") if row["rate"] is None else (str(row["test"]["seeds"]), f"{row['rate']:g}")
        rows.append((name, *cells, *tuned, to_store(row["stored_bytes"])))
    return rows


def to_store(n_bytes: int) -> str:
    """A number of bytes as text."""
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 50_000 else f"{n_bytes / 1e3:.1f} kB"


TUNING_HEAD = ("", "trained", "best rate", "right while tuning [95 %]", "seeds")


def cells_of_tuning(summary: dict, names: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows under `TUNING_HEAD`, as text: the named variants at the best of their rates, on what rates are chosen by."""
    rows = []
    for name in names:
        rate, found = max(summary["rates"][name].items(), key=lambda item: item[1]["mean"])
        trained = f"{summary['trained'][name] / 1e6:.3f} M"
        rows.append((name, trained, f"{rate:g}", f"{per_cent(found)} %", str(found["seeds"])))
    return rows


def markdown_of_comparison(points: Sequence[dict], comparison: Comparison, names: Sequence[str] | None = None) -> str:
    """A table of a comparison's points, and under it what decides and how it was measured, in Markdown; variants as in
    `cells_of_comparison`.
    """
    summary = summarise(points, comparison)
    lines = [f"| {' | '.join(cells)} |" for cells in (COMPARISON_HEAD, *cells_of_comparison(summary, names))]
    lines.insert(1, "|" + "---|" * len(COMPARISON_HEAD))
    *decided, how = sentences_of_comparison(summary, comparison)  # on several sets; the test set is in the table
    return "\n".join([*lines, "", *decided[:1], how])


def sentences_of_comparison(summary: dict, comparison: Comparison) -> list[str]:
    """What decides, and how all was measured; the first only where both of the pair were tested."""
    final = [point for found in summary["final"].values() for point in found]
    config, result = final[0]["setting"]["config"], final[0]["result"]
    what = "images" if config["task"] in IMAGE_TASKS else "sentences"
    decided = [
        f"{ours[:1].upper()}{ours[1:]} minus {other}, paired by {found['seeds']} seed{'s' * (found['seeds'] > 1)}, on the {split} "
        f"set ({n:,} {what}): "
        f"{per_cent(found, '+')} points; {_verdict(found)}"
        for split, found in summary.get("primary", {}).items()
        for ours, other in [comparison.primary]
        for n in [summary["final"][ours][0]["result"][split]["n"]]
    ]
    short = f", tried with {comparison.tuned_for:.0%} of the epochs," if comparison.tuned_for < 1 else ""
    seeds = f"{len(comparison.tuning_seeds)} seed{'s' if len(comparison.tuning_seeds) > 1 else ''}"
    rates = (
        "Rates were known beforehand"
        if not comparison.tuning_seeds
        else (
            f"Rates{short} are the best in their grids on the {' and '.join(comparison.tuned_on)} {what}, over {seeds}"
        )
    )
    return [
        *decided,
        f"{result['train_sentences']:,} training {what} of {config['task']}, {config['epochs']} epochs, batches of "
        f"{config['batch_size']}. {rates}. Intervals are Student's t over the seeds. Measured {_when_and_where(final)}.",
    ]


def _when_and_where(points: Sequence[dict]) -> str:
    days = sorted({point["date"] for point in points})
    machines = sorted({point["hardware"].get("gpu") or point["hardware"]["cpu"] for point in points})
    torches = sorted({point["versions"]["torch"] for point in points})
    when = f"on {days[0]}" if len(days) == 1 else f"from {days[0]} to {days[-1]}"
    return f"{when}, {' and '.join(machines)}, torch {' and '.join(torches)}"


def _verdict(difference: dict) -> str:
    """What the interval says about the margin, and how many seeds could say it."""
    if difference["interval"] is None:
        return "a single seed has no interval."
    margin = f"above the margin of {-100 * difference['margin']:g} that was set beforehand"
    if difference["not_inferior"]:
        return f"all of it {margin}."
    low, high = difference["interval"]
    held = "with 0 in it, and " if low <= 0 <= high else "all of it below 0, and " if high < 0 else ""
    many = difference["seeds_needed"]
    return f"{held}not all {margin}." + (
        "" if many is None else f" Equal methods of this spread would show it with {many} seeds, four times in five."
    )


def per_cent(found: dict, sign: str = "") -> str:
    """A mean over seeds with its interval, times 100."""
    low, high = found["interval"] or (None, None)
    ends = "" if low is None else f" [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"
    return f"{100 * found['mean']:{sign}.1f}{ends}"
