"""Light against full fine-tuning: learning rates tuned alike, several seeds, one record."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mpo_tutorial.experiments import records, statistics
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import finished, prepare, run
from mpo_tutorial.experiments.records import locked
from mpo_tutorial.experiments.tasks import require_classes

# Five rates for each, spaced alike, around what first trials found to work.
GRIDS = {"light": (1e-4, 2e-4, 3e-4, 5e-4, 1e-3), "full": (3e-5, 6e-5, 9e-5, 1.5e-4, 3e-4)}
TUNING_SEEDS = (0,)
SEEDS = (0, 1, 2)
MARGIN = 0.02


def compare(
    base: RunConfig,
    out: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    show: Callable[[str], None] = lambda _: None,
) -> dict:
    """Choose each method's learning rate on the validation set, then measure on the test set, over three seeds.

    Parameters
    ----------
    base : RunConfig
        Everything but method, learning rate and seed.
    out : Path
        Holds a folder a run, and `record.json` at the end.
    resume : bool
        Keep the runs that are finished in `out`.
    show : callable
        Gets a line about each run.

    Returns
    -------
    dict : the record, every run of the grids included

    Raises
    ------
    ValueError
        If the task has no classes, or as in `prepare` and `run`. What `prepare` refuses is refused before anything is trained.
    """
    require_classes(base.task)
    for method in GRIDS:
        prepare(replace(base, method=method))

    def one(config: RunConfig, folder: Path, splits: tuple[str, ...]) -> dict:
        record = finished(config, folder) if resume else None
        if record is None:
            record = run(prepare(config), folder, resume=resume, progress=progress, splits=splits, keep_weights=False)
        show(f"{folder.name}: " + ", ".join(f"{split} {record[split]['accuracy']:.3f}" for split in splits))
        return {
            name: value for name, value in record.items() if name != "command"
        }  # the comparison's own makes them all

    with locked(out):
        grid, final, chosen = [], {}, {}
        for method, rates in GRIDS.items():
            means = {}
            for rate in rates:
                runs = [
                    one(
                        replace(base, method=method, learning_rate=rate, seed=seed),
                        out / f"grid-{method}-{rate:g}-seed{seed}",
                        ("validation",),
                    )
                    for seed in TUNING_SEEDS
                ]
                grid += runs
                means[rate] = np.mean([record["validation"]["accuracy"] for record in runs])
            chosen[method] = max(means, key=means.get)
            show(f"{method}: learning rate {chosen[method]:g} has the best validation accuracy")
        for method, rate in chosen.items():
            final[method] = [
                one(
                    replace(base, method=method, learning_rate=rate, seed=seed),
                    out / f"final-{method}-seed{seed}",
                    ("validation", "test"),
                )
                for seed in SEEDS
            ]
        record = {
            "kind": "compare",
            **records.provenance(),
            "tuning_seeds": list(TUNING_SEEDS),
            "seeds": list(SEEDS),
            "grids": {method: list(rates) for method, rates in GRIDS.items()},
            "chosen": chosen,
            "summary": summarise(final),
            "final": final,
            "grid": grid,
        }
        records.write_record(record, out / "record.json")
    return record


def summarise(final: dict[str, list[dict]]) -> dict:
    """Accuracies over seeds with their intervals, and the paired difference light minus full with its own."""
    right = {
        method: np.array([statistics.correct_sentences(record["test"]) for record in runs])
        for method, runs in final.items()
    }
    difference = right["light"].astype(float) - right["full"].astype(float)
    interval = list(statistics.bootstrap_interval(difference))
    return {
        **{
            method: {"accuracy": float(values.mean()), "interval": list(statistics.bootstrap_interval(values))}
            for method, values in right.items()
        },
        "difference": {
            "mean": float(difference.mean()),
            "interval": interval,
            "margin": MARGIN,
            "not_inferior": interval[0] > -MARGIN,
        },
    }
