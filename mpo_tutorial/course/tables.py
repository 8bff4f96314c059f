"""Tables and sentences made of records."""

from collections.abc import Sequence
from dataclasses import dataclass

from mpo_tutorial.experiments.compare import summarise
from mpo_tutorial.models.methods import METHODS

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
    seconds: float
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
            f"{self.seconds:.0f} s",
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


def row_of_comparison(name: str, comparison: dict, method: str) -> TableRow:
    """A method's row of what `compare.summarise` gives: mean and Student's t interval over its seeds."""
    results = [point["result"] for point in comparison["final"][method]]
    accuracy = comparison["accuracy"][method]
    return TableRow(
        name,
        results[0]["parameters"]["trained"],
        results[0]["parameters"]["total"],
        accuracy["mean"],
        accuracy["interval"],
        sum(result["seconds"]["train"] for result in results) / len(results),
        results[0]["stored_bytes"],
    )


def same_budget(comparison: dict, run: dict) -> bool:
    """Whether a run had the model, the data and the training of a recorded comparison, so that the two may stand together."""
    recorded = comparison["final"]["full"][0]
    names = ("model", "task", "epochs", "batch_size", "max_length")
    return run["train_sentences"] == recorded["result"]["train_sentences"] and all(
        run["config"][name] == recorded["setting"]["config"][name] for name in names
    )


def markdown_of_comparison(points: Sequence[dict]) -> str:
    """The README's table and the sentences under it, made from the points of a comparison."""
    comparison = summarise(points)
    rows = [row_of_comparison(METHODS[method].title, comparison, method) for method in comparison["final"]]
    lines = ["| " + " | ".join(TABLE_HEAD) + " |", "|" + "---|" * len(TABLE_HEAD)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    final = [point for found in comparison["final"].values() for point in found]
    first = final[0]
    config, result, hardware = first["setting"]["config"], first["result"], first["hardware"]
    rates = " and ".join(f"{rate:g} ({method})" for method, rate in comparison["chosen"].items())
    tuning = len(comparison["tuning_seeds"])
    threads = " or ".join(sorted({str(point["hardware"]["threads"]) for point in final}))
    lines += [
        "",
        f"{comparison['difference']['seeds']} seeds, {result['train_sentences']:,} training sentences of {config['task']}, "
        f"{config['epochs']} epochs, batches of {config['batch_size']}, {result['test']['n']:,} test sentences. "
        f"Learning rates {rates}, each the best of {len(comparison['rates']['light'])} on the validation set, over {tuning} "
        f"seed{'s' if tuning > 1 else ''}. {_paired(comparison['difference'])} Intervals are Student's t over the seeds. Measured "
        f"on {first['date']}, {hardware['cpu']}, {threads} thread{'' if threads == '1' else 's'} a run, torch "
        f"{first['versions']['torch']}, by `{first['command']}`.",
    ]
    return "\n".join(lines)


def second_comparison(points: Sequence[dict]) -> str:
    """A paragraph on a comparison that was made beside the one in the table, with other settings."""
    comparison = summarise(points)
    config, difference = comparison["final"]["light"][0]["setting"]["config"], comparison["difference"]
    return (
        f"A second comparison, with {config['epochs']} epochs, batches of {config['batch_size']} and rates tuned over "
        f"{len(comparison['tuning_seeds'])} seeds: light {_per_cent(comparison['accuracy']['light'])} %, full "
        f"{_per_cent(comparison['accuracy']['full'])} %, paired difference {_per_cent(difference)} points: "
        f"{_verdict(difference)}"
    )


def _paired(difference: dict) -> str:
    return f"Light minus full, paired by seeds: {_per_cent(difference)} points: {_verdict(difference)}"


def _verdict(difference: dict) -> str:
    """What the interval says about the margin, and how many seeds could say it."""
    margin = f"the margin of -{100 * difference['margin']:g} points that was set beforehand"
    if difference["not_inferior"]:
        return f"the interval lies above {margin}."
    many = (
        ""
        if difference["seeds_needed"] is None
        else (
            f" If the two were equal, {difference['seeds_needed']} seeds with this spread would show it four times in five."
        )
    )
    low, high = difference["interval"] or (-1.0, 1.0)
    return f"the interval does not lie above {margin}{', and it holds 0' if low <= 0 <= high else ''}.{many}"


def _per_cent(found: dict) -> str:
    """A mean over seeds with its interval, times 100."""
    mean = f"{100 * found['mean']:.1f}"
    return (
        mean
        if found["interval"] is None
        else mean + " [{:.1f}, {:.1f}]".format(*(100 * end for end in found["interval"]))
    )
