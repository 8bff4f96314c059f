"""Is squeezing better than one good cut and as many steps? The comparison that decides it, and what stands beside it.

Fixed before anything was run: greedy squeezing by the error of the outputs, each cut fitted, minus one cut to equal shares, fitted
layer after layer; both to half of the dense parameters of the matrices, from the same light runs, with 200 steps
in all, on rotten_tomatoes, paired by seeds, against a margin of one point. Rates are chosen at half, by the validation sentences
and the first thousand unused training sentences, and taken over at a quarter. The confirmation set was opened before, by the study
`light`, and is here by the primary pair alone.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from filelock import FileLock

from mpo_tutorial.experiments import compare, floors, forms
from mpo_tutorial.experiments.compare import Comparison, Variant, open_left_out
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.plans import Plan
from mpo_tutorial.experiments.study import Setting, Study

if TYPE_CHECKING:
    from mpo_tutorial.experiments.finetune import Prepared

SEEDS, SEEDS_BESIDE, MOST_SEEDS = 10, 5, 20
HALF, QUARTER = "half", "quarter"
RATIOS = {HALF: 0.5, QUARTER: 0.25}
# One fitted cut to these, too: how far down does a model recover? TT-LLM (2026) says, no further than some 15 % saved.
MILDER = {"85 %": 0.85, "70 %": 0.7, "35 %": 0.35}
# Steps after a cut, so that about half of all lie between the cuts: to half, the outputs' error takes some 22 cuts, the weights'
# some 49; to a quarter, both take about twice as many, with half of the steps after each.
BETWEEN, BETWEEN_PLAIN, CUTS, BETWEEN_CUBIC = 4, 2, 10, 10
# What the study `light` has chosen for the runs that squeezing starts from.
START_RATES = {"centred": 4e-4, "tt-svd": 1e-4}

_ONCE = Plan(schedule="once", allot="alike")
_PLAIN = {"error": "absolute", "per_parameter": False, "fitted": False}
GREEDY, FITTED, PLAIN_CUT, PLAIN = "squeezed by outputs", "one fitted cut", "one plain cut", "squeezed as in the paper"
WAYS = {
    GREEDY: Plan(between=BETWEEN),
    FITTED: _ONCE,
    f"{FITTED}, allotted": replace(_ONCE, allot="outputs"),
    PLAIN_CUT: replace(_ONCE, **_PLAIN),
    "two factors": replace(_ONCE, allot="two factors", cores="all"),
    PLAIN: Plan(between=BETWEEN_PLAIN, **_PLAIN),
    "cubic": Plan(schedule="cubic", cuts=CUTS, between=BETWEEN_CUBIC),
    "squeezed, with sweeps": Plan(between=BETWEEN, sweeps=1),
    f"{GREEDY}, all cores": Plan(between=BETWEEN, cores="all"),
    f"{FITTED}, all cores": replace(_ONCE, cores="all"),
    f"{PLAIN}, tt-svd": Plan(between=BETWEEN_PLAIN, gauge="tt-svd", **_PLAIN),
    f"{PLAIN_CUT}, tt-svd": replace(_ONCE, gauge="tt-svd", **_PLAIN),
}
UNCUT = "uncut"

AUXILIARY = (2e-4, 4e-4, 8e-4)
ALL = (5e-5, 1e-4, 2e-4, 4e-4)
UNCENTRED = (5e-5, 1e-4, 2e-4, 4e-4)
BROKEN = (*AUXILIARY, 1.6e-3, 3.2e-3)  # of the first three, what the paper's way has left of a model chose the largest


def _variant(name: str, plan: Plan, size: str) -> Variant:
    rates = ALL if plan.cores == "all" else UNCENTRED if plan.gauge == "tt-svd" else AUXILIARY
    rates = BROKEN if name == PLAIN else rates
    seeds = SEEDS if size == HALF and name in (GREEDY, FITTED) else SEEDS_BESIDE
    if size == QUARTER and plan.schedule == "greedy":
        plan = replace(plan, between=plan.between // 2)
    ways = {
        "plan": replace(plan, ratio={**RATIOS, **MILDER}[size]),
        "beside": f"{FITTED}, {size if size in RATIOS else HALF}",
        "options": {"method": "light", "gauge": plan.gauge},
    }
    if size == HALF:
        return Variant(rates, seeds=seeds, **ways)
    return Variant((), seeds=seeds, rate_of=f"{name}, {HALF}", **ways)


SQUEEZE = Comparison(
    "squeeze",
    1,
    {
        **{f"{name}, {size}": _variant(name, plan, size) for size in RATIOS for name, plan in WAYS.items()},
        **{f"{FITTED}, {size}": _variant(FITTED, WAYS[FITTED], size) for size in MILDER},
        UNCUT: Variant(
            AUXILIARY, {"method": "light"}, SEEDS_BESIDE, f"{FITTED}, {HALF}", plan=Plan(schedule="none", fitted=False)
        ),
    },
    primary=(f"{GREEDY}, {HALF}", f"{FITTED}, {HALF}"),
    tuning_seeds=(100, 101, 102),
    tuned_on=("validation", "unused"),
    opened=("confirmation",),
    most_seeds=MOST_SEEDS,
)


def study(base: RunConfig, starts: Path, names: list[str] | None = None) -> Study:
    """The study that makes it; parameters and errors as in `compare.study`. The device is no part of its settings.

    Parameters
    ----------
    starts : Path
        A folder for the light runs that squeezing starts from, each trained by the first point that needs it.
    """
    made = compare.study(SQUEEZE, replace(base, device=RunConfig.device), names)
    return replace(made, measure=partial(measure, str(starts), base.device), form=form)


def form(setting: Setting) -> forms.Form:
    """Of what `measure` gives."""
    if setting["variant"] in floors.FLOORS:
        return compare.form(setting)
    counts = dict.fromkeys(("cores", "bytes", "cuts"), forms.NUMBER)
    return {**compare.form(setting), **counts, "steps": forms.OBJECT}


def measure(starts: str, device: str, setting: Setting) -> dict:
    """Squeeze once, or take a floor: what `compare.measure` gives, and of the squeezing "cores" and "bytes" in the end, "cuts" and
    the "steps" that had some: the lists "parameters", "done", "estimates" and "errors", the last two roots of sums of squares.
    """
    from mpo_tutorial.experiments import squeezing

    if setting["variant"] in floors.FLOORS:
        return compare.measure(setting, device)
    prepared = start_of(RunConfig(**setting["config"]), Path(starts), device)
    open_left_out(prepared.task, setting["splits"])
    options = {"look": False, "splits": tuple(setting["splits"]), "keep_model": False}
    with TemporaryDirectory() as folder:
        record = squeezing.run(prepared, Plan(**setting["plan"]), Path(folder), **options)
    steps = [step for step in record["steps"] if step["cuts"]]

    def together(name: str) -> list[float | None]:
        found = [[cut[name] for cut in step["cuts"]] for step in steps]
        return [None if None in of else sum(value**2 for value in of) ** 0.5 for of in found]

    return {
        "parameters": {"trained": record["trained"], "total": record["parameters"]["total"]},
        "stored_bytes": record["stored_bytes"],
        "train_sentences": record["train_sentences"],
        "seconds": {"train": record["seconds"]["squeeze"]},
        "cores": record["parameters"]["cores"],
        "bytes": record["bytes"],
        "cuts": sum(len(step["cuts"]) for step in steps),
        "steps": {
            "parameters": [step["parameters"] for step in steps],
            "done": [step["done"] for step in steps],
            "estimates": together("estimate"),
            "errors": together("error"),
        },
        **{split: record[split] for split in setting["splits"]},
    }


def start_of(config: RunConfig, starts: Path, device: str) -> "Prepared":
    """A light run's model, prepared to be changed and tuned at the config's rate; it is trained if it is not there."""
    from mpo_tutorial.experiments.checkpoint import load_task_file
    from mpo_tutorial.experiments.finetune import WEIGHTS, prepare, run

    config = replace(config, device=device)
    folder = starts / f"{config.gauge}-{config.seed}"
    starts.mkdir(parents=True, exist_ok=True)
    with FileLock(starts / f"{folder.name}.lock"):
        if not (folder / WEIGHTS).exists():
            light = replace(config, epochs=None, learning_rate=START_RATES[config.gauge])
            run(prepare(light), folder, progress=False, splits=("validation",))
    prepared = prepare(config)
    load_task_file(prepared.model, prepared.base, folder / WEIGHTS)
    return prepared
