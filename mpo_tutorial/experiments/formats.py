"""Is the MPO the best format to compress into? Its relatives and ALBERT's two ideas on one bench; a study.

Fixed before anything was run: fitted MPOs minus the aware SVD, both at half of the matrices' parameters, both from the same light
runs, both tuned for as many steps with all their numbers, on rotten_tomatoes, paired by seeds, against a margin of one point. Rates
are chosen as in the study `rivals`; the confirmation set is not opened here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpo_tutorial.experiments import compare, floors, forms
from mpo_tutorial.experiments.changes import AWARE, CHANGES, FITTED, UNCUT, Change
from mpo_tutorial.experiments.compare import Comparison, Variant, open_left_out
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.rivals import RULE, around
from mpo_tutorial.experiments.study import Setting, Study
from mpo_tutorial.maths.linalg import frobenius_norm
from mpo_tutorial.maths.metric import output_error

if TYPE_CHECKING:
    from mpo_tutorial.experiments.finetune import Prepared

SEEDS = 5
RATE, LIGHT_RATE = 1e-4, 4e-4  # the middle of each grid: of whole matrices, of auxiliary cores
ERRORS = ("weights", "outputs")


def _variant(name: str, change: Change) -> Variant:
    rate = LIGHT_RATE if change.light else RATE
    options = {"method": "light", **({} if change.light else {"epochs": 1})}
    return Variant(around(rate), options, SEEDS, UNCUT if change.light else AWARE)


COMPARISON = Comparison(
    "formats",
    1,
    {name: _variant(name, change) for name, change in CHANGES.items()},
    primary=(FITTED, AWARE),
    tuned_on=("validation", "unused"),
    **RULE,
)


def study(base: RunConfig, starts: Path, names: list[str] | None = None) -> Study:
    """The study that makes it; parameters and errors as in `compare.study`. The device is no part of its settings.

    Parameters
    ----------
    starts : Path
        A folder for the light runs that most begin with, and for their matrices in other formats, each made when it is needed.
    """
    made = compare.study(COMPARISON, replace(base, device=RunConfig.device, rest="norms"), names)
    return replace(made, measure=partial(measure, str(starts), base.device), form=form)


def form(setting: Setting) -> forms.Form:
    """Of what `measure` gives."""
    if setting["variant"] in floors.FLOORS:
        return compare.form(setting)
    more = {
        "matrices": {"parameters": forms.COUNT, "dense": forms.COUNT},
        "errors": dict.fromkeys(ERRORS, forms.NUMBER),
    }
    return {**compare.form(setting), **more, "judged": dict.fromkeys(("before", "after"), forms.JUDGED)}


def measure(starts: str, device: str, setting: Setting) -> dict:
    """Change a model and tune it, or take a floor.

    Returns
    -------
    dict
        What `compare.measure` gives; of a change also "matrices": the numbers of the changed ones, and those of dense ones;
        "errors": roots of their mean squared relative errors, of the numbers and of the outputs (0 where inputs are no vectors);
        "judged": what `judge` says of the last split "before" tuning and "after".
    """
    from mpo_tutorial.experiments import squeezes
    from mpo_tutorial.experiments.checkpoint import stored_bytes
    from mpo_tutorial.experiments.finetune import prepare
    from mpo_tutorial.experiments.statistics import score
    from mpo_tutorial.experiments.threshold import judge
    from mpo_tutorial.experiments.training import train
    from mpo_tutorial.experiments.tuned import calibration
    from mpo_tutorial.models.convert import count
    from mpo_tutorial.models.families import mpo_matrices

    if setting["variant"] in floors.FLOORS:
        return compare.measure(setting, device)
    config, change = RunConfig(**setting["config"]), CHANGES[setting["variant"]]
    begun = prepare(replace(config, device=device)) if change.light else None
    prepared = begun or squeezes.start_of(config, Path(starts), device)
    open_left_out(prepared.task, setting["splits"])
    model = prepared.model
    if change.matrices == "embedding":
        names = [name for name, module in model.named_modules() if module is model.get_input_embeddings()]
    else:
        names = list(mpo_matrices(model, change.matrices))
    whole = {name: matrix_of(model.get_submodule(name)) for name in names}
    moments = calibration(prepared).of(model, names)
    change.apply(prepared, Path(starts))
    errors = _errors(whole, {name: matrix_of(model.get_submodule(name)) for name in names}, moments)
    if not change.light:
        _train_all(model, names)
    numbers = {id(p): p.numel() for name in names for p in _numbers(model.get_submodule(name))}
    last = setting["splits"][-1]
    before = judge(*_logits(prepared, last))
    with TemporaryDirectory() as folder:
        trained = train(model, prepared.tokenizer, prepared.dataset("train"), prepared.config, Path(folder))
    found = {split: _logits(prepared, split) for split in setting["splits"]}
    return {
        "parameters": {"trained": count(model, trained_only=True), "total": count(model)},
        "stored_bytes": stored_bytes(model),
        "train_sentences": len(prepared.task.train(prepared.config.train_size)),
        "seconds": {"train": trained.seconds},
        "matrices": {"parameters": sum(numbers.values()), "dense": sum(matrix.numel() for matrix in whole.values())},
        "errors": errors,
        "judged": {"before": before, "after": judge(*found[last])},
        **{split: score(rows.argmax(1) == labels) for split, (labels, rows) in found.items()},
    }


def matrix_of(module: nn.Module) -> Tensor:
    """Of shape (in, out), of a layer in whatever format."""
    from mpo_tutorial.models.layers import MPOLayer

    if isinstance(module, MPOLayer):
        return module.mpo.to_matrix()
    weight = module.weight.detach()
    return weight if isinstance(module, nn.Embedding) else weight.T


def _errors(whole: Mapping[str, Tensor], changed: Mapping[str, Tensor], found: Mapping) -> dict[str, float]:
    of_weights, of_outputs = [], []
    for name, matrix in whole.items():
        of_weights.append(frobenius_norm(matrix - changed[name]) / frobenius_norm(matrix))
        if name in found:
            metric = found[name].metric(centred=True).to(matrix.device)
            lost = output_error(matrix, changed[name], metric)
            of_outputs.append(lost / output_error(matrix, torch.zeros_like(matrix), metric))
    return dict(zip(ERRORS, (_rms(of_weights), _rms(of_outputs)), strict=True))


def _rms(values: Sequence[float]) -> float:
    return (sum(value**2 for value in values) / max(1, len(values))) ** 0.5


def _numbers(module: nn.Module) -> list[nn.Parameter]:
    """Those of a layer's matrix."""
    return [parameter for name, parameter in module.named_parameters() if name != "bias"]


def _train_all(model: nn.Module, changed: Sequence[str]) -> None:
    from mpo_tutorial.models.convert import biases, norms, train_head
    from mpo_tutorial.models.families import layer_of

    inside = [parameter for name, parameter in model.named_parameters() if layer_of(name) is not None]
    numbers = [parameter for name in changed for parameter in _numbers(model.get_submodule(name))]
    train_head(model, [*biases(model), *norms(model), *inside, *numbers])


def _logits(prepared: "Prepared", split: str) -> tuple[np.ndarray, np.ndarray]:
    """The labels of a split, and what the model makes of its sentences."""
    from mpo_tutorial.experiments.evaluation import logits

    dataset = prepared.dataset(split)
    with parametrize.cached():
        return np.asarray(dataset["labels"]), logits(prepared.model, dataset, prepared.tokenizer)
