"""Is light fine-tuning as good as full? The study that decides it, with what stands beside it; four stages.

The primary comparison was fixed before anything was run: light fine-tuning in the centred gauge, biases and normalisations trained
besides, minus full fine-tuning, both read by the mean, on rotten_tomatoes, paired by seeds, against a margin of one point. Rates
are chosen on the validation sentences and the first thousand unused training sentences; the last unused ones, the confirmation
set, are looked at by the final stage of the primary comparison and by nothing else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.statistics import correct_sentences, over_seeds, seeds_needed
from mpo_tutorial.experiments.study import Point, Setting, Study
from mpo_tutorial.experiments.tasks import MOST_TRAIN_BY_DEFAULT, Task, load_task

VERSION = 1
MARGIN = 0.01
PRIMARY = ("light", "full")
TUNING_SEEDS = (100, 101, 102)  # none of a final run
SEEDS, MOST_SEEDS, SEEDS_BESIDE = 10, 30, 5
TUNED_ON = ("validation", "unused")
UNUSED = 1000  # first unused training sentences, which the study of cuts looks at, too

CORES = (1e-4, 2e-4, 4e-4, 8e-4, 1.6e-3)
WHOLE = (3e-5, 6e-5, 1.2e-4, 2.4e-4, 4.8e-4)
FEW = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
LAYERS = (*WHOLE, 9.6e-4, 1.92e-3)  # of the first five, the last layers chose the largest
BESIDE = (
    2e-4,
    4e-4,
    8e-4,
)  # around what light fine-tuning chooses: for cores of other shapes, which are tuned and not tested

# The usual legs put in and out legs into both blocks. These train as many numbers, with one side's legs in each block.
LEGS = {
    "in, out": "96.4.1 x 1.4.96, 192.2.1 x 1.12.128, 192.8.1 x 1.3.128",
    "out, in": "1.4.96 x 96.4.1, 1.3.128 x 192.8.1, 1.12.128 x 192.2.1",
}


@dataclass(frozen=True)
class Variant:
    """A way of fine-tuning on one task, the rates that it chooses from, and with how many seeds it is tested."""

    rates: Sequence[float]
    options: dict = field(default_factory=dict)
    seeds: int = SEEDS_BESIDE


_NORMS = {"method": "light", "rest": "norms"}
_POOLER = {"pooling": "pooler"}
_IMDB = {"task": "imdb", "max_length": 128}
_FEWER = {"train_size": 500}

VARIANTS = {
    "light": Variant(CORES, _NORMS, SEEDS),
    "full": Variant(WHOLE, {"method": "full"}, SEEDS),
    "light, gauge tt-svd": Variant(CORES, {**_NORMS, "gauge": "tt-svd"}),
    "light, gauge amb": Variant(CORES, {**_NORMS, "gauge": "amb"}),
    "light, head": Variant(CORES, {"method": "light"}),
    "light, as the paper counts": Variant(CORES, {"method": "light", "matrices": "all", "rest": "all"}),
    "light, left block": Variant(BESIDE, {**_NORMS, "gauge": "amb", "blocks": "left"}, seeds=0),
    "light, right block": Variant(BESIDE, {**_NORMS, "gauge": "amb", "blocks": "right"}, seeds=0),
    "light, 3 cores": Variant(BESIDE, {**_NORMS, "cores": 3}, seeds=0),
    "light, 7 cores": Variant(BESIDE, {**_NORMS, "cores": 7}, seeds=0),
    **{
        f"light, legs {name}": Variant(BESIDE, {**_NORMS, "gauge": "amb", "legs": legs}, seeds=0)
        for name, legs in LEGS.items()
    },
    "head only": Variant(FEW, {"method": "head"}),
    "BitFit": Variant(FEW, {"method": "bitfit"}),
    "last layer": Variant(LAYERS, {"method": "last-1"}),
    "last 2 layers": Variant(LAYERS, {"method": "last-2"}),
    "last 3 layers": Variant(LAYERS, {"method": "last-3"}),
    "random mask": Variant(FEW, {"method": "mask", "rest": "norms"}),
    "random subspace": Variant(FEW, {"method": "subspace", "rest": "norms"}),
    "light, pooler": Variant(CORES, {**_NORMS, **_POOLER}),
    "light, head, pooler": Variant(CORES, {"method": "light", **_POOLER}),
    "full, pooler": Variant(WHOLE, {"method": "full", **_POOLER}),
    "light, imdb": Variant(CORES, {**_NORMS, **_IMDB}),
    "full, imdb": Variant(WHOLE, {"method": "full", **_IMDB}),
    "light, 500 sentences": Variant(CORES, {**_NORMS, **_FEWER}),
    "full, 500 sentences": Variant(WHOLE, {"method": "full", **_FEWER}),
}


def study(base: RunConfig, variants: Sequence[str] = tuple(VARIANTS)) -> Study:
    """Rates chosen for each variant, then its seeds on the test set; those of the primary pair on the confirmation set as well.

    Parameters
    ----------
    base : RunConfig
        Model, sizes of batches and device; variants say the rest.
    variants : sequence of str
        Of `VARIANTS`.

    Raises
    ------
    ValueError
        If a variant is unknown; and as in `load_task`.
    """
    if unknown := sorted(set(variants) - set(VARIANTS)):
        raise ValueError(f"variants are {'; '.join(VARIANTS)}, got {unknown[0]!r}")
    configs = {name: _config(base, VARIANTS[name]) for name in variants}

    def setting(name: str, rate: float, seed: int, splits: Sequence[str]) -> Setting:
        config = replace(configs[name], learning_rate=rate, seed=seed)
        return {"variant": name, "config": config.as_dict(), "splits": [*splits]}

    def tuning(_points: list[Point]) -> Iterator[Setting]:
        for name in variants:
            for rate in VARIANTS[name].rates:
                for seed in TUNING_SEEDS:
                    yield setting(name, rate, seed, TUNED_ON)

    def final(points: list[Point]) -> Iterator[Setting]:
        primary = seeds_of_primary(points) if set(PRIMARY) <= set(variants) else SEEDS
        for name, rate in chosen_rates(points).items():
            also = ["confirmation"] if name in PRIMARY else []
            for seed in range(primary if name in PRIMARY else VARIANTS[name].seeds):
                yield setting(name, rate, seed, ["validation", "test", *also])

    here = partial(
        measure, device=base.device
    )  # where a point is made is said by its hardware, and is no part of its setting
    return Study("light", VERSION, here, {"tuning": tuning, "final": final}, describe=describe)


def _config(base: RunConfig, variant: Variant) -> RunConfig:
    config = replace(base, learning_rate=None, device=RunConfig.device, **variant.options)
    return config.settled(load_task(config.task))


def measure(setting: Setting, device: str = RunConfig.device) -> dict:
    """Fine-tune once; counts, seconds, and which sentences of each split were put into the right class."""
    from mpo_tutorial.experiments.finetune import prepare, run  # loads transformers, which a summary does not need

    with TemporaryDirectory() as folder:
        prepared = prepare(replace(RunConfig(**setting["config"]), device=device))
        prepared.task.splits.update(more_splits(prepared.task))
        record = run(prepared, Path(folder), progress=False, splits=tuple(setting["splits"]), keep_weights=False)
    names = ("parameters", "stored_bytes", "train_sentences", "seconds", *setting["splits"])
    return {name: record[name] for name in names}


def more_splits(task: Task) -> dict[str, list]:
    """What no run of up to the default size trains on: "unused", its first thousand sentences, and "confirmation", the others."""
    used = set(task.train(min(MOST_TRAIN_BY_DEFAULT, len(task.splits["train"]))))
    left = [row for row in task.splits["train"] if row not in used]
    return {"unused": left[:UNUSED], "confirmation": left[UNUSED:]}


def describe(point: Point) -> str:
    setting, result = point["setting"], point["result"]
    accuracies = ", ".join(f"{split} {result[split]['accuracy']:.3f}" for split in setting["splits"])
    config = setting["config"]
    return (
        f"{point['stage']}: {setting['variant']}, rate {config['learning_rate']:g}, seed {config['seed']}: {accuracies}"
    )


def tuned_accuracy(point: Point) -> float:
    """Share of right answers among all sentences that rates are chosen by."""
    return float(np.concatenate([correct_sentences(point["result"][split]) for split in TUNED_ON]).mean())


def tuned(points: Sequence[Point]) -> dict[str, dict[float, list[float]]]:
    """Of each variant, for each rate, the accuracies of its tuning seeds."""
    found: dict[str, dict[float, list[float]]] = {}
    for point in points:
        if point["stage"] == "tuning":
            rates = found.setdefault(point["setting"]["variant"], {})
            rates.setdefault(point["setting"]["config"]["learning_rate"], []).append(tuned_accuracy(point))
    return found


def chosen_rates(points: Sequence[Point]) -> dict[str, float]:
    """Of each variant the rate with the best mean over the tuning seeds."""
    return {name: max(rates, key=lambda rate: np.mean(rates[rate])) for name, rates in tuned(points).items()}


def seeds_of_primary(points: Sequence[Point]) -> int:
    """As many seeds as the pilot's spread asks for, from 10 to 30; the pilot is the tuning at the chosen rates."""
    rates, found = chosen_rates(points), tuned(points)
    light, full = (np.array(found[name][rates[name]]) for name in PRIMARY)
    spread = float((light - full).std(ddof=1))
    return min(MOST_SEEDS, max(SEEDS, seeds_needed(spread, MARGIN) if spread else SEEDS))


def summarise(points: Sequence[Point]) -> dict:
    """What the study says, made from its points.

    Returns
    -------
    dict
        "variants": of each variant with final points "rate", "trained", "total", "stored_bytes", "seeds", and of each
        split that was measured what `over_seeds` gives; "minus_full": of the test set, the difference from full fine-tuning on
        the same task and readout, paired by seeds, None for full fine-tuning itself. "tuning": of each variant, of each rate what
        `over_seeds` gives. "primary": of "confirmation" and "test" the paired difference light minus full with "margin",
        "not_inferior", "seeds_needed".
    """
    final: dict[str, dict[int, Point]] = {}
    for point in points:
        if point["stage"] == "final":
            final.setdefault(point["setting"]["variant"], {})[point["setting"]["config"]["seed"]] = point
    variants = {name: _summary(found) for name, found in final.items()}
    for name, row in variants.items():
        other = _full_beside(name)
        row["minus_full"] = paired(final[name], final[other], "test") if other != name and other in final else None
    rates = {name: {rate: over_seeds(found) for rate, found in of.items()} for name, of in tuned(points).items()}
    summary = {"variants": variants, "tuning": rates}
    if set(PRIMARY) <= set(final):
        summary["primary"] = {
            split: paired(*(final[name] for name in PRIMARY), split, MARGIN) for split in ("confirmation", "test")
        }
    return summary


def _summary(found: dict[int, Point]) -> dict:
    first, *_ = found.values()
    results = [point["result"] for point in found.values()]
    return {
        "rate": first["setting"]["config"]["learning_rate"],
        "trained": first["result"]["parameters"]["trained"],
        "total": first["result"]["parameters"]["total"],
        "stored_bytes": first["result"]["stored_bytes"],
        "seeds": len(results),
        **{
            split: over_seeds([result[split]["accuracy"] for result in results]) for split in first["setting"]["splits"]
        },
    }


def table(points: Sequence[Point]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows of the variants, as text; accuracies in per cent."""

    def text(found: dict | None, sign: str = "") -> str:
        if found is None:
            return ""
        ends = (
            ""
            if found["interval"] is None
            else " [{:{s}.1f}, {:{s}.1f}]".format(*(100 * e for e in found["interval"]), s=sign)
        )
        return f"{100 * found['mean']:{sign}.1f}{ends}"

    head = ("variant", "trained", "rate", "seeds", "test [95 %]", "minus full")
    rows = [
        (
            name,
            f"{row['trained']:,}",
            f"{row['rate']:g}",
            str(row["seeds"]),
            text(row["test"]),
            text(row["minus_full"], "+"),
        )
        for name, row in summarise(points)["variants"].items()
    ]
    return head, rows


def _full_beside(name: str) -> str:
    """The full fine-tuning that a variant is set against: the one with its task, size and readout."""
    ending = next((ending for ending in ("pooler", "imdb", "500 sentences") if name.endswith(f", {ending}")), None)
    return f"full, {ending}" if ending else "full"


def paired(light: dict[int, Point], full: dict[int, Point], split: str, margin: float | None = None) -> dict:
    """The difference of two variants on a split, paired by the seeds that both have, as `over_seeds` gives it; with a margin
    also whether the interval lies above minus the margin, and how many seeds equal methods would need.
    """
    seeds = sorted(light.keys() & full.keys())
    pairs = [light[s]["result"][split]["accuracy"] - full[s]["result"][split]["accuracy"] for s in seeds]
    found = over_seeds(pairs)
    if margin is None:
        return found
    spread = float(np.std(pairs, ddof=1)) if len(pairs) > 1 else 0.0
    return {
        **found,
        "margin": margin,
        "not_inferior": found["interval"] is not None and found["interval"][0] > -margin,
        "seeds_needed": seeds_needed(spread, margin) if spread else None,
    }
