"""Is it better than LoRA? All methods on one bench, tuned alike; and what a step of each costs.

Fixed before anything was run: light fine-tuning minus LoRA of rank 27, which trains as many numbers, on rotten_tomatoes, paired by
seeds, against a margin of one point. Every method begins with three rates, a factor of two apart around a first guess, tried
with half of a run's epochs and three seeds on the validation sentences and the first thousand unused training sentences; a grid
whose best rate is at its end goes on beyond it, up to three times. The confirmation set was opened before, by the studies `light`
and `squeeze`, and is here by the primary pair alone.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from mpo_tutorial.experiments import compare, forms
from mpo_tutorial.experiments.compare import Comparison, Variant
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.study import Point, Setting, Study
from mpo_tutorial.experiments.tasks import load_task
from mpo_tutorial.models.methods import METHODS

SEEDS, SEEDS_BESIDE, MOST_SEEDS, SEEDS_OF_TRIAL = 10, 5, 20, 3
FULL, LORA, LIGHT = "full", "LoRA", "light"
RULE = {"tuning_seeds": (100, 101, 102), "tuned_for": 0.5, "moves": 3}
COST_STEPS, TURNS = 20, 3


def name_of(method: str) -> str:
    """How a method is called in a table."""
    return METHODS[method].title.removesuffix(" fine-tuning")


def around(rate: float) -> tuple[float, float, float]:
    return rate / 2, rate, 2 * rate


def _variant(method: str, *, beside: str = FULL, seeds: int = SEEDS_BESIDE, **options) -> Variant:
    return Variant(around(METHODS[method].learning_rate), {"method": method, **options}, seeds, beside)


_LIGHT = {"method": "light", "rest": "norms"}
# About a twentieth of the model where a method can train as much: OFT's largest blocks train a little more, VeRA's largest rank
# less, LoRETTA a hundredth (and less than a twentieth even at rank 256), the others what they always train.
_TWENTIETH = {
    LIGHT: _variant(**_LIGHT, seeds=SEEDS),
    LORA: _variant("lora", size=27, seeds=SEEDS),
    FULL: _variant("full"),
    "light, bond 128": _variant(**_LIGHT, bond=128),
    name_of("mpo"): _variant("mpo", size=0.101),
    "DoRA": _variant("dora", size=26),
    "AdaLoRA": _variant("adalora", size=18),
    "IA3": _variant("ia3"),
    "OFT": _variant("oft", size=128),
    "VeRA": _variant("vera", size=2048),
    "adapter": _variant("adapter", size=119),
    "LoRETTA": _variant("loretta", size=27),
    "prefix, 242 keys": _variant("prefix", size=242),
    "prefix, 16 keys": _variant("prefix", size=16),
    "Child-Tuning F": _variant("child-f"),
    "Child-Tuning D": _variant("child-d"),
    "BitFit": _variant("bitfit"),
    "last layer": _variant("last-1"),
    "last 2 layers": _variant("last-2"),
    "last 3 layers": _variant("last-3"),
    "head only": _variant("head"),
}
_FEWER = {
    "LoRA, 1 %": _variant("lora", size=5),
    "light, 1 %": _variant("mpo", size=0.02),
    "adapter, 1 %": _variant("adapter", size=22),
    "LoRA, 0.1 %": _variant("lora", size=2, matrices="query, value"),
    "light, 0.1 %": _variant("mpo", size=0.002),
    "adapter, 0.1 %": _variant("adapter", size=1),
}
ELSEWHERE = {"imdb": {"task": "imdb", "max_length": 128}, "500 sentences": {"train_size": 500}}


def _elsewhere(place: str) -> dict[str, Variant]:
    return {
        f"{name}, {place}": replace(
            variant, seeds=SEEDS_BESIDE, beside=f"{FULL}, {place}", options={**variant.options, **ELSEWHERE[place]}
        )
        for name, variant in _TWENTIETH.items()
        if name in (LIGHT, LORA, FULL, "adapter")
    }


RIVALS = Comparison(
    "rivals",
    1,
    {**_TWENTIETH, **_FEWER, **{name: variant for place in ELSEWHERE for name, variant in _elsewhere(place).items()}},
    primary=(LIGHT, LORA),
    tuned_on=("validation", "unused"),
    opened=("confirmation",),
    most_seeds=MOST_SEEDS,
    **RULE,
)


def study(base: RunConfig, names: Sequence[str] | None = None) -> Study:
    """The study that makes it; parameters and errors as in `compare.study`. The device is no part of its settings."""
    made = compare.study(RIVALS, replace(base, device=RunConfig.device, rest="head"), names)
    return replace(made, measure=partial(compare.measure, device=base.device))


def among(methods: Sequence[str], base: RunConfig, n_params: int | None = None) -> tuple[Comparison, list[str]]:
    """A comparison of some methods on the task of a config, by the same rule with three seeds; the first minus the second decides.

    Parameters
    ----------
    methods : sequence of str
    n_params : int, optional
        About so many numbers each method trains that has a size; None: each has its usual one.

    Returns
    -------
    Comparison, list of str
        With a sentence for each method whose size was chosen, or could not be.

    Raises
    ------
    ValueError
        If a method is unknown or there twice, or there are less than two; and as in `finetune.within_budget`.
    """
    if unknown := [method for method in methods if method not in METHODS]:
        raise ValueError(f"methods are {', '.join(METHODS)}; got {unknown[0]!r}")
    if len(set(methods)) < max(2, len(methods)):
        raise ValueError(f"two or more methods are compared, each given once, got {', '.join(methods)}")
    sizes: dict[str, dict] = {method: {} for method in methods}
    told = []
    for method in methods if n_params is not None else ():
        if METHODS[method].knob is None:
            told.append(f"{name_of(method)} has no size to choose.")
            continue
        from mpo_tutorial.experiments.finetune import within_budget

        chosen, said = within_budget(replace(base, method=method, size=None, learning_rate=None), n_params)
        sizes[method] = {"size": chosen.size}
        told.append(said)
    beside = FULL if "full" in methods else name_of(methods[0])
    variants = {name_of(m): _variant(m, beside=beside, seeds=SEEDS_OF_TRIAL, **sizes[m]) for m in methods}
    return Comparison("rivals-trial", 1, variants, (name_of(methods[0]), name_of(methods[1])), **RULE), told


def costs_study(comparison: Comparison, base: RunConfig, names: Sequence[str] | None = None) -> Study:
    """What a step of each variant costs: the variants take turns, each in a process of its own; parameters as in `compare.study`.

    Variants that differ from another by having fewer sentences are left out.
    """
    device = base.device
    names = [name for name in names or comparison.variants if "train_size" not in comparison.variants[name].options]
    tuning = compare.study(comparison, replace(base, device=RunConfig.device), names).stages[compare.TUNING]([])
    configs = {setting["variant"]: RunConfig(**setting["config"]) for setting in tuning}
    tasks = {task: load_task(task) for task in {config.task for config in configs.values()}}
    for name, config in configs.items():
        there = len(tasks[config.task].train(config.train_size))
        short = min(there, COST_STEPS * config.batch_size)
        configs[name] = replace(config, epochs=1, train_size=short, seed=0)

    def settings(_points: list[Point]) -> list[Setting]:
        return [
            {"variant": name, "config": config.as_dict(), "turn": turn}
            for turn in range(TURNS)
            for name, config in configs.items()
        ]

    return Study(
        f"{comparison.name}-costs",
        1,
        partial(measure_costs, device=device),
        {"costs": settings},
        serial=True,
        describe=_describe_costs,
        form=lambda _: {"seconds_a_step": forms.NUMBER, "peak_memory_bytes": forms.COUNT},
    )


def measure_costs(setting: Setting, device: str) -> dict:
    """The mean "seconds_a_step" over an epoch of up to `COST_STEPS` steps of the optimiser, and "peak_memory_bytes" of a process
    that does nothing else. What Child-Tuning D looks at before its first step is not counted.
    """
    from mpo_tutorial.experiments.races import alone

    seconds, peak = alone(_train_briefly, replace(RunConfig(**setting["config"]), device=device))
    return {"seconds_a_step": seconds, "peak_memory_bytes": peak}


def _train_briefly(config: RunConfig) -> float:
    from mpo_tutorial.experiments.finetune import prepare
    from mpo_tutorial.experiments.training import train

    prepared = prepare(config)
    dataset = prepared.dataset("train")
    with TemporaryDirectory() as folder:
        trained = train(prepared.model, prepared.tokenizer, dataset, prepared.config, Path(folder))
    return trained.seconds / math.ceil(len(dataset) / config.batch_size)


def _describe_costs(point: Point) -> str:
    result = point["result"]
    return (
        f"turn {point['setting']['turn'] + 1}: {point['setting']['variant']}: {result['seconds_a_step']:.3f} s a step, "
        f"{result['peak_memory_bytes'] / 1e9:.2f} GB"
    )


def costs(points: Sequence[Point]) -> dict[str, dict[str, float]]:
    """Of each variant the medians over the turns of what `measure_costs` gives."""
    found: dict[str, list[dict]] = {}
    for point in points:
        found.setdefault(point["setting"]["variant"], []).append(point["result"])
    names = ("seconds_a_step", "peak_memory_bytes")
    return {variant: {name: median(of[name] for of in turns) for name in names} for variant, turns in found.items()}
