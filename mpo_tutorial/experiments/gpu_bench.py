"""How fast on a GPU: steps of training, decompositions and forward passes of BERTs, from their configs; a study.

Weights are random, and so are the tokens: neither changes what a step takes. Each contender is measured alone, one after the
other, since together they would not fit; the median of its turns counts. `make bench-gpu` makes the record.
"""

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING

import torch

from mpo_tutorial.experiments import forms, records
from mpo_tutorial.experiments.steps import FULL, LIGHT, LORA, Step, equal_rank
from mpo_tutorial.experiments.study import Point, Setting, Study
from mpo_tutorial.maths.contraction import Route, cheapest_route
from mpo_tutorial.maths.shapes import N_CORES
from mpo_tutorial.models.layers import MPOLinear, cached, mpo_layers
from mpo_tutorial.models.methods import METHODS
from mpo_tutorial.models.ways import Way

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MODELS = ("bert-base-uncased", "bert-large-uncased")
PRECISIONS = ("float32", "bfloat16")
GAUGES = {LIGHT: "centred", f"{LIGHT}, gauge tt-svd": "tt-svd", f"{LIGHT}, gauge amb": "amb"}
CONTENDERS = (FULL, *GAUGES, LORA)
DENSE, REBUILT, CACHED, CHAINED = "dense", "rebuilt each time", "cached", "chained"
CHAINED_BOND = 8  # so small that a chain may pay
PASSES = (DENSE, REBUILT, CACHED, CHAINED)
FULL_MEMORY = "did not fit into the GPU's memory"
MOST = 1.1  # that a light step may take of LoRA's


@dataclass(frozen=True)
class Batch:
    """What a step is of.

    Parameters
    ----------
    sentences : int
    length : int
        Tokens of each, all of them there.
    """

    sentences: int = 32
    length: int = 128


def study(
    models: Sequence[str] = MODELS,
    *,
    device: str = "cuda",
    repeat: int = 10,
    batch: Batch | None = None,
    backend: str = "inductor",
) -> Study:
    """Every contender measured once.

    Parameters
    ----------
    models : sequence of str
        Of `families.KNOWN`, or paths of config.json files.
    device : {"cuda", "cpu"}
    repeat : int
        Turns, of which the median counts.
    batch : Batch, optional
    backend : str
        Of `torch.compile`.

    Raises
    ------
    ValueError
        As in `bench.check_options`.
    """
    from mpo_tutorial.experiments.bench import check_options

    check_options(device, repeat)
    common = {"device": device, "repeat": repeat, "batch": asdict(batch or Batch())}

    def steps(_points: list[Point]) -> list[Setting]:
        return [
            {"contender": name, "model": model, "precision": precision, "compiled": compiled, **common}
            for compiled in (False, True)
            for model in models
            for precision in PRECISIONS
            for name in CONTENDERS
        ]

    def decompositions(_points: list[Point]) -> list[Setting]:
        return [{"contender": "decomposition", "model": model, **common} for model in models]

    def passes(_points: list[Point]) -> list[Setting]:
        return [
            {"contender": name, "model": model, "precision": precision, **common}
            for model in models
            for precision in PRECISIONS
            for name in PASSES
        ]

    stages = {"decompositions": decompositions, "passes": passes, "steps": steps}
    measured = partial(measure, backend=backend)
    return Study("bench-gpu", 1, measured, stages, serial=True, describe=describe, form=lambda _: forms.OBJECT)


def measure(setting: Setting, backend: str) -> dict:
    """The median "seconds" of a turn, the "peak_bytes", and of a step how many numbers are "trained"; or why it is "missing"."""
    if setting["contender"] == "decomposition":
        make = _decomposition
    elif "compiled" in setting:
        make = partial(_step, backend=backend)
    else:
        make = _pass
    try:
        return make(setting)
    except torch.OutOfMemoryError:
        return {"missing": FULL_MEMORY}
    finally:
        gc.collect()
        torch.compiler.reset()
        torch.cuda.empty_cache()


def _decomposition(setting: Setting) -> dict:
    from mpo_tutorial.models.convert import decompose

    found = []
    for _ in range(2):  # the first loads what the GPU's libraries need
        model = _model(setting)
        _begin(setting)
        found.append(_seconds(partial(decompose, model), setting["device"]))
    return {"seconds": found[-1], "peak_bytes": _peak(setting)}


def _step(setting: Setting, backend: str) -> dict:
    name, model = setting["contender"], _model(setting)
    method = METHODS[{FULL: "full", LORA: "lora"}.get(name, "light")]
    size = equal_rank(model) if name == LORA else None
    way = Way(N_CORES, gauge=GAUGES.get(name, Way.gauge), rest="norms", size=size)
    method.apply(model, way)
    model.to(setting["device"]).train()
    trained = method.n_trained(model, way)
    called = torch.compile(model, backend=backend) if setting["compiled"] else model
    step = Step(called, [_batch(setting, model)], precision=setting["precision"], once=False, rate=method.learning_rate)
    return {**_timed(step, setting), "trained": trained}


def _pass(setting: Setting) -> dict:
    from mpo_tutorial.models.convert import decompose

    name, model = setting["contender"], _model(setting)
    if name != DENSE:
        decompose(model, max_bond=CHAINED_BOND if name == CHAINED else None)
    if name == CHAINED:
        for layer in mpo_layers(model):
            layer.__class__ = _Chaining
    model.to(setting["device"]).eval()
    batch = _batch(setting, model)
    half = setting["precision"] == "bfloat16"
    precision = torch.autocast(setting["device"], torch.bfloat16, enabled=half)
    with torch.inference_mode(), cached(model) if name == CACHED else nullcontext(), precision:
        return _timed(lambda: model(**batch), setting)


class _Chaining(MPOLinear):
    """It goes through the chain whether that pays or not."""

    def route(self, rows: int) -> Route | None:
        return cheapest_route(self.mpo.shape, self.mpo.bonds, rows)


def _model(setting: Setting) -> "PreTrainedModel":
    """A new classifier, on the device."""
    from transformers import AutoModelForSequenceClassification

    from mpo_tutorial.models.families import KNOWN, config_by_name
    from mpo_tutorial.models.loading import read_config

    torch.manual_seed(0)
    name = setting["model"]
    config = config_by_name(name) if name in KNOWN else read_config(name)
    with torch.device(setting["device"]):
        return AutoModelForSequenceClassification.from_config(config)


def _batch(setting: Setting, model: "PreTrainedModel") -> dict:
    sizes, generator = Batch(**setting["batch"]), torch.Generator().manual_seed(0)
    ids = torch.randint(0, model.config.vocab_size, (sizes.sentences, sizes.length), generator=generator)
    labels = torch.randint(0, 2, (sizes.sentences,), generator=generator)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    return {name: tensor.to(setting["device"]) for name, tensor in batch.items()}


def _timed(step: Callable[[], object], setting: Setting) -> dict:
    for _ in range(2):  # compiles, and begins AdamW's state
        step()
    _begin(setting)
    seconds = [_seconds(step, setting["device"]) for _ in range(setting["repeat"])]
    return {"seconds": median(seconds), "peak_bytes": _peak(setting)}


def _seconds(step: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _begin(setting: Setting) -> None:
    if setting["device"] == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        records.reset_peak_memory()


def _peak(setting: Setting) -> int:
    return torch.cuda.max_memory_allocated() if setting["device"] == "cuda" else records.peak_memory_bytes()


def describe(point: Point) -> str:
    setting, found = point["setting"], point["result"]
    how = [setting["model"], *([setting["precision"]] if "precision" in setting else [])]
    how += ["compiled"] if setting.get("compiled") else []
    took = found.get("missing") or f"{1000 * found['seconds']:.1f} ms, {found['peak_bytes'] / 1e9:.2f} GB"
    return f"{point['stage']}: {setting['contender']}, {', '.join(how)}: {took}"


def over_lora(points: Sequence[Point]) -> dict[tuple[str, str, bool], float]:
    """Of each model, precision and whether it is compiled: seconds of a light step over LoRA's, where both were measured."""
    seconds: dict[tuple, dict[str, float]] = {}
    for point in points:
        if point["stage"] == "steps" and "missing" not in point["result"]:
            setting = point["setting"]
            group = tuple(setting[name] for name in ("model", "precision", "compiled"))
            seconds.setdefault(group, {})[setting["contender"]] = point["result"]["seconds"]
    return {group: found[LIGHT] / found[LORA] for group, found in seconds.items() if {LIGHT, LORA} <= found.keys()}
