"""Is light fine-tuning as good as full? The comparison that decides it, and what stands beside it.

Fixed before anything was run: light fine-tuning in the centred gauge, biases and normalisations trained besides, minus full
fine-tuning, both read by the mean, on rotten_tomatoes, paired by seeds, against a margin of one point. Rates are chosen on the
validation sentences and the first thousand unused training sentences; the last unused ones, the confirmation set, are looked
at by the tests of that pair and by nothing else.
"""

from dataclasses import replace
from functools import partial

from mpo_tutorial.experiments.compare import CORES, WHOLE, Comparison, Variant, measure
from mpo_tutorial.experiments.compare import study as study_of
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.study import Study

SEEDS, SEEDS_BESIDE, MOST_SEEDS = 10, 5, 30

FEW = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
LAYERS = (*WHOLE, 9.6e-4, 1.92e-3, 3.84e-3)  # of the first five, and of seven, the last layer chose the largest
NEAR = (
    2e-4,
    4e-4,
    8e-4,
)  # around what light fine-tuning chooses: for cores of other shapes, which are tuned and not tested

# The usual legs put in and out legs into both blocks. These train as many numbers, with one side's legs in each block.
LEGS = {
    "in, out": "96.4.1 x 1.4.96, 192.2.1 x 1.12.128, 192.8.1 x 1.3.128",
    "out, in": "1.4.96 x 96.4.1, 1.3.128 x 192.8.1, 1.12.128 x 192.2.1",
}

_NORMS = {"method": "light", "rest": "norms"}
_AMB = {**_NORMS, "gauge": "amb"}
_POOLER = {"pooling": "pooler"}
_IMDB = {"task": "imdb", "max_length": 128}
_FEWER = {"train_size": 500}

beside = partial(Variant, seeds=SEEDS_BESIDE)
untested = partial(Variant, NEAR, seeds=0)

LIGHT = Comparison(
    "light",
    1,
    {
        "light": Variant(CORES, _NORMS, SEEDS),
        "full": Variant(WHOLE, {"method": "full"}, SEEDS),
        "light, gauge tt-svd": beside((5e-5, *CORES), {**_NORMS, "gauge": "tt-svd"}),
        "light, gauge amb": beside(CORES, _AMB),
        "light, head": beside(CORES, {"method": "light", "rest": "head"}),
        "light, as the paper counts": beside(CORES, {"method": "light", "matrices": "all", "rest": "all"}),
        "light, left block": untested({**_AMB, "blocks": "left"}),
        "light, right block": untested({**_AMB, "blocks": "right"}),
        "light, 3 cores": untested({**_NORMS, "cores": 3}),
        "light, 7 cores": untested({**_NORMS, "cores": 7}),
        **{f"light, legs {name}": untested({**_AMB, "legs": legs}) for name, legs in LEGS.items()},
        "head only": beside(FEW, {"method": "head"}),
        "BitFit": beside(FEW, {"method": "bitfit"}),
        "last layer": beside(LAYERS, {"method": "last-1"}),
        "last 2 layers": beside(LAYERS, {"method": "last-2"}),
        "last 3 layers": beside(LAYERS, {"method": "last-3"}),
        "random mask": beside(FEW, {"method": "mask", "rest": "norms"}),
        "random subspace": beside(FEW, {"method": "subspace", "rest": "norms"}),
        "light, pooler": beside(CORES, {**_NORMS, **_POOLER}, beside="full, pooler"),
        "light, head, pooler": beside(CORES, {"method": "light", "rest": "head", **_POOLER}, beside="full, pooler"),
        "full, pooler": beside(WHOLE, {"method": "full", **_POOLER}, beside="full, pooler"),
        "light, imdb": beside(CORES, {**_NORMS, **_IMDB}, beside="full, imdb"),
        "full, imdb": beside(WHOLE, {"method": "full", **_IMDB}, beside="full, imdb"),
        "light, 500 sentences": beside(CORES, {**_NORMS, **_FEWER}, beside="full, 500 sentences"),
        "full, 500 sentences": beside((1.5e-5, *WHOLE), {"method": "full", **_FEWER}, beside="full, 500 sentences"),
    },
    tuning_seeds=(100, 101, 102),  # none of a test
    tuned_on=("validation", "unused"),
    opened=("confirmation",),
    most_seeds=MOST_SEEDS,
)


def study(base: RunConfig, names: list[str] | None = None) -> Study:
    """The study that makes it; parameters and errors as in `compare.study`. The device is no part of its settings."""
    made = study_of(LIGHT, replace(base, device=RunConfig.device, rest="head"), names)
    return replace(made, measure=partial(measure, device=base.device))
