"""Light against full fine-tuning: learning rates tuned alike, several seeds; a study in two stages."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mpo_tutorial.experiments import forms
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.statistics import correct_sentences, over_seeds, seeds_needed
from mpo_tutorial.experiments.study import Point, Setting, Study
from mpo_tutorial.experiments.tasks import load_task, require_classes
from mpo_tutorial.models.stored import holds_mpos

VERSION = 1
# Five rates for each, spaced alike, around what first trials found to work.
GRIDS = {"light": (1e-4, 2e-4, 3e-4, 5e-4, 1e-3), "full": (3e-5, 6e-5, 9e-5, 1.5e-4, 3e-4)}
TUNING_SEEDS = (0,)
SEEDS = (0, 1, 2)
MARGIN = 0.02
MEASURED = ("parameters", "stored_bytes", "train_sentences", "validation", "test")


def study(base: RunConfig, tuning_seeds: Sequence[int] = TUNING_SEEDS, seeds: Sequence[int] = SEEDS) -> Study:
    """Each method's learning rate is chosen on the validation set; then all seeds are measured on the test set.

    The primary comparison is light minus full, paired by seeds, against the margin of two points.

    Parameters
    ----------
    base : RunConfig
        Everything but method, learning rate and seed.

    Raises
    ------
    ValueError
        If the task has no classes, or the model is a folder whose matrices are MPOs already; and as in `load_task`.
    """
    require_classes(base.task)
    if holds_mpos(base.model):
        raise ValueError(f"{base.model} is compressed; full fine-tuning is for the dense model, compare that one")
    base = base.settled(load_task(base.task))

    def setting(method: str, rate: float, seed: int, splits: Sequence[str]) -> Setting:
        config = replace(base, method=method, learning_rate=rate, seed=seed)
        return {"config": config.as_dict(), "splits": [*splits]}

    def tuning(_points: list[Point]) -> list[Setting]:
        rates = [(method, rate) for method, grid in GRIDS.items() for rate in grid]
        return [setting(method, rate, seed, ["validation"]) for method, rate in rates for seed in tuning_seeds]

    def final(points: list[Point]) -> list[Setting]:
        chosen = chosen_rates(points)
        return [
            setting(method, rate, seed, ["validation", "test"]) for method, rate in chosen.items() for seed in seeds
        ]

    return Study("compare", VERSION, measure, {"tuning": tuning, "final": final}, describe=describe, form=form)


def form(setting: Setting) -> forms.Form:
    """Of what `measure` gives."""
    return {**forms.COSTS, **dict.fromkeys(setting["splits"], forms.SCORE)}


def measure(setting: Setting) -> dict:
    """Fine-tune once; what was measured, the seconds of training and of evaluation included."""
    from mpo_tutorial.experiments.finetune import prepare, run  # loads transformers, which a summary does not need

    with TemporaryDirectory() as folder:
        prepared = prepare(RunConfig(**setting["config"]))
        record = run(prepared, Path(folder), progress=False, splits=tuple(setting["splits"]), keep_weights=False)
    return {name: record[name] for name in (*MEASURED, "seconds") if name in record}


def describe(point: Point) -> str:
    config, result = point["setting"]["config"], point["result"]
    accuracies = ", ".join(f"{split} {result[split]['accuracy']:.3f}" for split in point["setting"]["splits"])
    return (
        f"{point['stage']}: {config['method']}, rate {config['learning_rate']:g}, seed {config['seed']}: {accuracies}"
    )


def chosen_rates(points: Sequence[Point]) -> dict[str, float]:
    """Of each method the learning rate with the best mean accuracy on the validation set, of the tuning stage."""
    found: dict[str, dict[float, list[float]]] = {}
    for point in points:
        if point["stage"] == "tuning":
            config = point["setting"]["config"]
            rates = found.setdefault(config["method"], {})
            rates.setdefault(config["learning_rate"], []).append(point["result"]["validation"]["accuracy"])
    return {method: max(rates, key=lambda rate: np.mean(rates[rate])) for method, rates in found.items()}


def summarise(points: Sequence[Point]) -> dict:
    """What a comparison says, made from its points.

    Returns
    -------
    dict
        "chosen": of each method the learning rate. "rates", "tuning_seeds": what it was chosen from. "final": of each method
        its points, by seed. "accuracy": of each method what `over_seeds` gives. "difference": the same of light minus full,
        paired by seeds, with the margin, whether the interval lies above it, and, if it does not, how many seeds would show
        equal methods to be so, by the spread of these.
    """
    final: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point["setting"]["config"]["seed"]):
        if point["stage"] == "final":
            final.setdefault(point["setting"]["config"]["method"], []).append(point)
    tuned = [point["setting"]["config"] for point in points if point["stage"] == "tuning"]
    accuracies = {
        method: np.array([correct_sentences(point["result"]["test"]).mean() for point in found])
        for method, found in final.items()
    }
    paired = accuracies["light"] - accuracies["full"]
    difference = over_seeds(paired)
    shown = difference["interval"] is not None and difference["interval"][0] > -MARGIN
    spread = float(paired.std(ddof=1)) if len(paired) > 1 else 0.0
    return {
        "chosen": chosen_rates(points),
        "rates": {method: sorted({c["learning_rate"] for c in tuned if c["method"] == method}) for method in final},
        "tuning_seeds": sorted({config["seed"] for config in tuned}),
        "final": final,
        "accuracy": {method: over_seeds(values) for method, values in accuracies.items()},
        "difference": {
            **difference,
            "margin": MARGIN,
            "not_inferior": shown,
            "seeds_needed": seeds_needed(spread, MARGIN) if spread else None,
        },
    }
