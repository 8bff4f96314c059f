"""Tables and sentences made of records."""

from dataclasses import dataclass

METHOD_NAMES = {"light": "light fine-tuning", "full": "full fine-tuning"}
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
    interval: tuple[float, float]
    seconds: float
    stored_bytes: int
    metric: str = "accuracy"

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `table_head`."""
        low, high = self.interval
        measured = f"{100 * self.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        if self.metric != "accuracy":
            measured = f"{self.accuracy:.3f} [{low:.3f}, {high:.3f}]"
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
        tuple(of_metric["interval"]),
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
    """A method's row from a comparison: mean over its seeds, with an interval over seeds and sentences."""
    runs, summary = comparison["final"][method], comparison["summary"][method]
    return TableRow(
        name,
        runs[0]["parameters"]["trained"],
        runs[0]["parameters"]["total"],
        summary["accuracy"],
        tuple(summary["interval"]),
        sum(run["seconds"]["train"] for run in runs) / len(runs),
        runs[0]["stored_bytes"],
    )


def same_budget(comparison: dict, run: dict) -> bool:
    """Whether a run had the model, the data and the training of a recorded comparison, so that the two may stand together."""
    recorded = comparison["final"]["full"][0]
    names = ("model", "task", "epochs", "batch_size", "max_length")
    return run["train_sentences"] == recorded["train_sentences"] and all(
        run["config"][name] == recorded["config"][name] for name in names
    )


def markdown_of_comparison(comparison: dict) -> str:
    """The README's table and the sentences under it, made from the record."""
    rows = [row_of_comparison(METHOD_NAMES[method], comparison, method) for method in ("light", "full")]
    lines = ["| " + " | ".join(TABLE_HEAD) + " |", "|" + "---|" * len(TABLE_HEAD)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    run, hardware = comparison["final"]["light"][0], comparison["hardware"]
    rates = " and ".join(f"{rate:g} ({method})" for method, rate in comparison["chosen"].items())
    tuning = len(comparison["tuning_seeds"])
    threads = " or ".join(
        sorted({str(r["hardware"]["threads"]) for runs in comparison["final"].values() for r in runs})
    )
    lines += [
        "",
        f"{len(comparison['seeds'])} seeds, {run['train_sentences']:,} training sentences of {run['config']['task']}, "
        f"{run['config']['epochs']} epochs, batches of {run['config']['batch_size']}, {run['test']['n']:,} test sentences. "
        f"Learning rates {rates}, each the best of {len(comparison['grids']['light'])} on the validation set, over {tuning} "
        f"seed{'s' if tuning > 1 else ''}. {_paired(comparison)} Measured on {comparison['date']}, {hardware['cpu']}, {threads} "
        f"thread{'' if threads == '1' else 's'} a run, torch {comparison['versions']['torch']}, by `{comparison['command']}`.",
    ]
    return "\n".join(lines)


def second_comparison(comparison: dict) -> str:
    """A paragraph on a comparison that was made beside the one in the table, with other settings."""
    config, summary = comparison["final"]["light"][0]["config"], comparison["summary"]
    light, full, difference = (
        f"{100 * value:.1f} [{', '.join(f'{100 * end:.1f}' for end in summary[name]['interval'])}]"
        for name, value in (
            ("light", summary["light"]["accuracy"]),
            ("full", summary["full"]["accuracy"]),
            ("difference", summary["difference"]["mean"]),
        )
    )
    return (
        f"A second comparison, with {config['epochs']} epochs, batches of {config['batch_size']} and rates tuned over "
        f"{len(comparison['tuning_seeds'])} seeds: light {light} %, full {full} %, paired difference {difference} points: the "
        f"margin is {'kept' if summary['difference']['not_inferior'] else 'missed'}."
    )


def _paired(comparison: dict) -> str:
    difference = comparison["summary"]["difference"]
    low, high = (100 * end for end in difference["interval"])
    lies = "lies above" if difference["not_inferior"] else "does not lie above"
    return (
        f"Light minus full, paired: {100 * difference['mean']:+.1f} points, 95 % interval [{low:+.1f}, {high:+.1f}], which "
        f"{lies} the margin of -{100 * difference['margin']:g} points that was set beforehand."
    )
