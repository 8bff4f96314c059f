"""Ways of fine-tuning compared: each chooses its learning rate on sentences it is not tested on, then is tested; two stages."""

import hashlib
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mpo_tutorial.experiments import floors, forms
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.plans import Plan
from mpo_tutorial.experiments.statistics import correct_sentences, over_seeds, seeds_needed
from mpo_tutorial.experiments.study import Point, Setting, Study, key_of
from mpo_tutorial.experiments.tasks import MOST_TRAIN_BY_DEFAULT, Task, load_task, require_classes
from mpo_tutorial.models.stored import holds_mpos

TUNING = "tuning"  # what the names of all stages begin with in which rates are tried
UNUSED = 1000  # first unused training sentences, which the study of cuts looks at, too
# Five rates each, a factor of two apart.
CORES = (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3)
WHOLE = (3e-5, 6e-5, 1.2e-4, 2.4e-4, 4.8e-4)


@dataclass(frozen=True)
class Variant:
    """A way of fine-tuning: what it changes in a config, the rates it chooses from, and how many seeds it is tested with.

    Parameters
    ----------
    seeds : int
        With 0 it is tuned and not tested.
    beside : str
        The variant that it is set against, paired by seeds.
    plan : Plan, optional
        How the model is squeezed, from a light run with the method's own rate; the rates are those of the squeezing.
    rate_of : str, optional
        The variant whose rate it takes instead of choosing its own.
    """

    rates: Sequence[float]
    options: dict = field(default_factory=dict)
    seeds: int = 3
    beside: str = "full"
    plan: Plan | None = None
    rate_of: str | None = None


@dataclass(frozen=True)
class Comparison:
    """What is compared, fixed before anything is run.

    Parameters
    ----------
    name : str
        Of the study and its record.
    version : int
    variants : mapping of str to Variant
    primary : pair of str
        The variants whose difference, first minus second, decides.
    tuning_seeds : sequence of int
        With none nothing is tuned: each variant takes the first of its rates.
    tuned_on : sequence of str
        Splits whose sentences, all together, rates are chosen by.
    opened : sequence of str
        Splits that the primary pair's tests look at besides "validation" and "test", and nothing else does.
    margin : float
        How much worse the first of the pair may be, as a share of the sentences.
    most_seeds : int
        Up to as many the primary pair is tested with, if the tuning's spread asks for more than the variants say.
    tuned_for : float
        Share of a run's epochs that rates are tried with, rounded up to whole ones.
    moves : int
        How often a grid whose best rate is its least or its largest gets one more beyond, as many times as large as that is
        against its neighbour.
    """

    name: str
    version: int
    variants: Mapping[str, Variant]
    primary: tuple[str, str] = ("light", "full")
    tuning_seeds: Sequence[int] = (0,)
    tuned_on: Sequence[str] = ("validation",)
    opened: Sequence[str] = ()
    margin: float = 0.01
    most_seeds: int = 0
    tuned_for: float = 1.0
    moves: int = 0


# What `mpo-tutorial compare` makes of any task: a trial, three seeds.
TRIAL = Comparison(
    "compare", 2, {"light": Variant(CORES, {"method": "light"}), "full": Variant(WHOLE, {"method": "full"})}
)


def study(comparison: Comparison, base: RunConfig, names: Sequence[str] | None = None) -> Study:
    """The study that makes a comparison.

    Parameters
    ----------
    base : RunConfig
        What the variants do not say.
    names : sequence of str, optional
        Of variants; None: all.

    Raises
    ------
    ValueError
        If a variant is unknown, a task has no classes, or the model is a folder whose matrices are MPOs already; and as in
        `load_task`.
    """
    variants = comparison.variants
    names = [*variants] if names is None else list(names)
    if unknown := sorted(set(names) - set(variants)):
        raise ValueError(f"variants are {'; '.join(variants)}; got {unknown[0]!r}")
    names += sorted({variants[name].rate_of or name for name in names} - set(names))
    require_classes(base.task)
    if holds_mpos(base.model):
        raise ValueError(f"{base.model} is compressed; full fine-tuning is for the dense model, compare that one")
    found = {name: replace(base, learning_rate=None, **variants[name].options) for name in names}
    tasks = {task: load_task(task) for task in {config.task for config in found.values()}}
    configs = {name: config.settled(tasks[config.task]) for name, config in found.items()}

    def setting(name: str, rate: float, seed: int, splits: Sequence[str]) -> Setting:
        config, plan = replace(configs[name], learning_rate=rate, seed=seed), variants[name].plan
        squeezed = {} if plan is None else {"plan": plan.as_dict()}
        return {"variant": name, "config": config.as_dict(), **squeezed, "splits": [*splits]}

    def tried(rates: Sequence[tuple[str, float]]) -> list[Setting]:
        settings = [setting(*pair, seed, comparison.tuned_on) for pair in rates for seed in comparison.tuning_seeds]
        for each in settings:
            each["config"]["epochs"] = math.ceil(comparison.tuned_for * each["config"]["epochs"])
        return settings

    def tuning(_points: list[Point]) -> list[Setting]:
        return tried([(name, rate) for name in names for rate in variants[name].rates])

    def moved(points: list[Point], before: int) -> list[Setting]:
        """After so many moves. Who has not moved the last time has its best rate inside its grid."""
        found = tuned(points, comparison)
        beyond = {
            name: _beyond(rates) for name, rates in found.items() if len(rates) == len(variants[name].rates) + before
        }
        return tried([(name, beyond[name]) for name in names if beyond.get(name) is not None])

    def final(points: list[Point]) -> list[Setting]:
        rates = chosen_rates(points, comparison)
        opened = {name: comparison.opened if name in comparison.primary else () for name in names}
        return [
            setting(name, rates[variants[name].rate_of or name], seed, ["validation", "test", *opened[name]])
            for name in names
            for seed in range(_seeds(points, comparison, name))
        ]

    def floor(_points: list[Point]) -> list[Setting]:
        config = replace(base, method="head", learning_rate=None, seed=0)
        setting = {"config": config.settled(load_task(config.task)).as_dict(), "splits": ["validation", "test"]}
        return [{"variant": name, **setting, "tuned_on": [*comparison.tuned_on]} for name in floors.FLOORS]

    moves = {f"{TUNING}, moved {k + 1}": partial(moved, before=k) for k in range(comparison.moves)}
    stages: dict[str, Callable] = {TUNING: tuning, **moves, "final": final, "floors": floor}
    return Study(comparison.name, comparison.version, measure, stages, describe=describe, form=form)


def form(setting: Setting) -> forms.Form:
    """Of what `measure` gives."""
    costs = floors.COSTS if setting["variant"] in floors.FLOORS else forms.COSTS
    return {**costs, **dict.fromkeys(setting["splits"], forms.SCORE)}


def measure(setting: Setting, device: str | None = None, state: Path | None = None, judged: int | None = None) -> dict:
    """Fine-tune once, or take a floor; counts, seconds, and which sentences of each split were put into the right class.

    Parameters
    ----------
    device : str, optional
        Another than the config's. Where a point is made is said by its hardware, and need be no part of its setting.
    state : Path, optional
        A folder where a run that is cut off keeps what the next call for the same setting goes on with. None: it keeps nothing.
    judged : int, optional
        The first so many sentences of each split are judged, not all.
    """
    from mpo_tutorial.experiments.finetune import prepare, run  # loads transformers, which a summary does not need

    config = RunConfig(**setting["config"])
    prepared = prepare(replace(config, device=device or config.device))
    tuned_on = setting.get("tuned_on", [])
    open_left_out(prepared.task, [*setting["splits"], *tuned_on])
    if judged is not None:
        splits = {name: rows if name == "train" else rows[:judged] for name, rows in prepared.task.splits.items()}
        prepared.task = replace(prepared.task, splits=splits)
    if setting["variant"] in floors.FLOORS:
        return floors.measure(prepared, setting["variant"], setting["splits"], tuned_on)
    options = {"progress": False, "splits": tuple(setting["splits"]), "keep_weights": False}
    if state is None:
        with TemporaryDirectory() as folder:
            record = run(prepared, Path(folder), **options)
    else:
        own = state / hashlib.sha256(key_of(setting).encode()).hexdigest()[:16]
        record = run(prepared, own, resume=True, **options)
        shutil.rmtree(own)
    return kept_of(record, setting["splits"])


def kept_of(record: dict, splits: Sequence[str]) -> dict:
    """What a point keeps of a run's record."""
    return {name: record[name] for name in ("parameters", "stored_bytes", "train_sentences", "seconds", *splits)}


def open_left_out(task: Task, splits: Sequence[str]) -> None:
    """Add to a task the splits that no run of up to the default size trains on, if one is asked for: the first thousand such
    sentences are "unused", the others "confirmation".
    """
    if not {"unused", "confirmation"} & set(splits):
        return
    used = set(task.train(min(MOST_TRAIN_BY_DEFAULT, len(task.splits["train"]))))
    left = [row for row in task.splits["train"] if row not in used]
    task.splits.update({"unused": left[:UNUSED], "confirmation": left[UNUSED:]})


def describe(point: Point) -> str:
    setting, result = point["setting"], point["result"]
    accuracies = ", ".join(f"{split} {result[split]['accuracy']:.3f}" for split in setting["splits"])
    if setting["variant"] in floors.FLOORS:
        return f"{point['stage']}: {setting['variant']}: {accuracies}"
    rate, seed = setting["config"]["learning_rate"], setting["config"]["seed"]
    return f"{point['stage']}: {setting['variant']}, rate {rate:g}, seed {seed}: {accuracies}"


def tuned(points: Sequence[Point], comparison: Comparison) -> dict[str, dict[float, list[float]]]:
    """Of each variant, for each rate, the tuning seeds' shares of right answers among all sentences that rates are chosen by."""
    found: dict[str, dict[float, list[float]]] = {}
    for point in points:
        if point["stage"].startswith(TUNING):
            right = [correct_sentences(point["result"][split]) for split in comparison.tuned_on]
            rates = found.setdefault(point["setting"]["variant"], {})
            of_rate = rates.setdefault(point["setting"]["config"]["learning_rate"], [])
            of_rate.append(float(np.concatenate(right).mean()))
    return found


def chosen_rates(points: Sequence[Point], comparison: Comparison) -> dict[str, float]:
    """Of each variant the rate with the best mean over the tuning seeds; its first, if nothing is tuned."""
    if not comparison.tuning_seeds:
        return {name: variant.rates[0] for name, variant in comparison.variants.items()}
    found = tuned(points, comparison)
    return {name: max(rates, key=lambda rate: np.mean(rates[rate])) for name, rates in found.items()}


def _beyond(rates: Mapping[float, list[float]]) -> float | None:
    """The rate after the end of a grid at which it is better than beside it; None if there is no such end, or a single rate."""
    grid = sorted(rates)
    means = [float(np.mean(rates[rate])) for rate in grid]
    best = max(means)
    for end, beside in ((0, 1), (-1, -2)):
        if len(grid) > 1 and means[end] == best > means[beside]:
            return float(f"{grid[end] ** 2 / grid[beside]:.6g}")
    return None


def _seeds(points: Sequence[Point], comparison: Comparison, name: str) -> int:
    """How many seeds a variant is tested with; the primary pair's pilot is the tuning at the chosen rates."""
    seeds, rates, found = (
        comparison.variants[name].seeds,
        chosen_rates(points, comparison),
        tuned(points, comparison),
    )
    if comparison.most_seeds and name in comparison.primary and found.keys() >= set(comparison.primary):
        ours, other = (np.array(found[which][rates[which]]) for which in comparison.primary)
        needed = _seeds_needed(ours - other, comparison.margin) or seeds
        return max(seeds, min(comparison.most_seeds, needed))
    return seeds


def summarise(points: Sequence[Point], comparison: Comparison) -> dict:
    """What a comparison says, made from its points.

    Returns
    -------
    dict
        "rates": of each variant, of each rate that it was tuned with, what `over_seeds` gives. "trained": of each variant that was
        tuned, how many parameters are. "final": of each variant that was
        tested, its points by seed. "variants": of each of these "rate", "trained", "total", "stored_bytes", of each split what
        `over_seeds` gives, and "minus_beside", the difference on the test set from the variant it is set against, paired by
        seeds, None where that is itself or lacks; of each floor the same, without a rate, set against the second of the pair.
        "primary", where both were tested: of "test" and each opened split the pair's difference with "margin", "not_inferior",
        whether the interval lies above minus the margin, and "seeds_needed", with which equal methods of this spread would be
        shown to be so four times in five.
    """
    final: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: point["setting"]["config"]["seed"]):
        if point["stage"] == "final":
            final.setdefault(point["setting"]["variant"], []).append(point)
    summary: dict = {
        "rates": {
            name: {rate: over_seeds(values) for rate, values in rates.items()}
            for name, rates in tuned(points, comparison).items()
        },
        "trained": {
            point["setting"]["variant"]: point["result"]["parameters"]["trained"]
            for point in points
            if point["stage"].startswith(TUNING)
        },
        "final": {name: final[name] for name in comparison.variants if name in final},
        "variants": {name: _summary(final[name]) for name in comparison.variants if name in final},
    }
    for name, row in summary["variants"].items():
        beside = comparison.variants[name].beside
        row["minus_beside"] = difference(summary, name, beside)
    against = [point["result"]["test"]["accuracy"] for point in final.get(comparison.primary[1], [])]
    for point in points:
        if point["stage"] == "floors":
            own = point["result"]["test"]["accuracy"]
            beside = over_seeds(own - np.array(against)) if against else None
            summary["variants"][point["setting"]["variant"]] = {
                **_summary([point]),
                "rate": None,
                "minus_beside": beside,
            }
    if set(comparison.primary) <= set(final):
        ours, other = (final[name] for name in comparison.primary)
        summary["primary"] = {
            split: _decision(paired(ours, other, split), comparison.margin) for split in (*comparison.opened, "test")
        }
    return summary


def _summary(found: list[Point]) -> dict:
    setting, result = found[0]["setting"], found[0]["result"]
    return {
        "rate": setting["config"]["learning_rate"],
        **{name: result["parameters"][name] for name in ("trained", "total")},
        "stored_bytes": result["stored_bytes"],
        **{split: over_seeds([point["result"][split]["accuracy"] for point in found]) for split in setting["splits"]},
    }


def paired(ours: Sequence[Point], other: Sequence[Point], split: str) -> np.ndarray:
    """Differences of two variants' accuracies on a split, first minus second, by rising seed, of the seeds that both have."""
    by_seed = [
        {point["setting"]["config"]["seed"]: point["result"][split]["accuracy"] for point in found}
        for found in (ours, other)
    ]
    return np.array([by_seed[0][seed] - by_seed[1][seed] for seed in sorted(by_seed[0].keys() & by_seed[1].keys())])


def difference(summary: Mapping, ours: str, other: str) -> dict | None:
    """What `over_seeds` says of two variants' accuracies on the test set, first minus second, paired by seeds, from what
    `summarise` gives; None if one was not tested, or both are the same.
    """
    final = summary["final"]
    if ours == other or not {ours, other} <= final.keys():
        return None
    return over_seeds(paired(final[ours], final[other], "test"))


def _decision(differences: np.ndarray, margin: float) -> dict:
    found = over_seeds(differences)
    return {
        **found,
        "margin": margin,
        "not_inferior": found["interval"] is not None and found["interval"][0] > -margin,
        "seeds_needed": _seeds_needed(differences, margin),
    }


def _seeds_needed(differences: np.ndarray, margin: float) -> int | None:
    """None where the seeds do not differ, or there is one."""
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else 0.0
    return seeds_needed(spread, margin) if spread else None
