"""The ways of fine-tuning, each with what it makes of a model: the registry that runs, commands and tables read."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from mpo_tutorial.models.ways import Way

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mpo_tutorial.models.ledger import Ledger


@dataclass(frozen=True)
class Method:
    """One way of fine-tuning.

    Parameters
    ----------
    title : str
    learning_rate : float
        The best of its grid on sentences of rotten_tomatoes that are neither trained on nor tested: records/light.jsonl.
    apply : callable
        From a model and a `Way` to a ledger, or None where nothing becomes an MPO. It leaves trainable what is to be trained, and
        nothing else.
    size : str, optional
        The option that makes it smaller, where there is one.
    """

    title: str
    learning_rate: float
    apply: "Callable[[PreTrainedModel, Way], Ledger | None]"
    size: str | None = None


def _light(model: "PreTrainedModel", way: Way) -> "Ledger | None":
    """Matrices as MPOs, if they are none yet; their central cores frozen."""
    from mpo_tutorial.models.convert import decompose, freeze, is_decomposed
    from mpo_tutorial.models.families import USUAL
    from mpo_tutorial.models.ledger import Ledger
    from mpo_tutorial.models.truncation import truncate

    if is_decomposed(model, way.n_cores, way.matrices):
        if way.legs is not None or way.gauge != Way.gauge:
            raise ValueError(
                f"{model.name_or_path or 'the model'} is compressed and keeps its legs and its gauge; leave --legs and --gauge out"
            )
        if way.max_bond is not None:
            truncate(model, max_bond=way.max_bond)
        ledger = Ledger.of(model)
    else:
        ledger = decompose(model, way.n_cores, way.max_bond, way.matrices or USUAL, way.gauge, way.legs)
    freeze(model, way.rest, way.blocks)
    return ledger


def _full(model: "PreTrainedModel", way: Way) -> None:
    """The dense model, everything trained."""
    _require_dense(model)


def _head(model: "PreTrainedModel", way: Way) -> None:
    from mpo_tutorial.models.convert import train_head

    train_head(model)


def _bitfit(model: "PreTrainedModel", way: Way) -> None:
    """All biases and the head (Ben Zaken et al. 2022)."""
    from mpo_tutorial.models.convert import biases, train_head

    train_head(model)
    for bias in biases(model):
        bias.requires_grad_(True)


def _last(model: "PreTrainedModel", way: Way, layers: int) -> None:
    """The last layers, what comes after them, and the head (Liu et al. 2021, Table 5)."""
    from mpo_tutorial.models.convert import train_head
    from mpo_tutorial.models.families import layer_of

    _require_dense(model)
    numbers = {name: layer_of(name) for name, _ in model.named_parameters()}
    there = sorted({number for number in numbers.values() if number is not None})
    if len(there) < layers:
        raise ValueError(
            f"the last {layers} layers are to be trained, {type(model).__name__} has {len(there)} of its own"
        )
    train_head(model)
    pooler = getattr(model.base_model, "pooler", None)
    if pooler is not None:
        pooler.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if numbers[name] in there[-layers:]:
            parameter.requires_grad_(True)


def _random(model: "PreTrainedModel", way: Way, kind: str) -> None:
    """As many numbers of the same matrices as the two blocks of light fine-tuning in the gauge "amb" have; the rest as there.

    Longer chains have a few more, to no effect: what they reach is the same.
    """
    from torch import nn

    from mpo_tutorial.maths.mpo import MPO
    from mpo_tutorial.maths.shapes import usual_shape
    from mpo_tutorial.models.controls import add_updates
    from mpo_tutorial.models.convert import biases, norms, train_head
    from mpo_tutorial.models.families import USUAL, dense_matrices

    _require_dense(model)
    if way.rest == "all":
        raise ValueError(f"rest is one of head, norms for random numbers of the matrices, got {way.rest!r}")
    sizes = {}
    for name, module in dense_matrices(model, way.matrices or USUAL):
        if not isinstance(module, nn.Linear):
            raise ValueError(
                f"random numbers are those of linear layers, among the matrices {way.matrices!r} is {name}"
            )
        mpo = MPO.from_blocks(module.weight.T, usual_shape(*module.weight.T.shape, way.n_cores))
        sizes[name] = sum(core.numel() for core in mpo.auxiliary)
    train_head(model)
    if way.rest == "norms":
        for parameter in (*biases(model), *norms(model)):
            parameter.requires_grad_(True)
    add_updates(model, sizes, kind, way.seed)


def _require_dense(model: "PreTrainedModel") -> None:
    from mpo_tutorial.models.layers import mpo_layers

    if mpo_layers(model):
        raise ValueError(
            f"{model.name_or_path or 'the model'} is compressed; full fine-tuning is for the dense model, take --method light"
        )


METHODS = {
    "light": Method("light fine-tuning", 4e-4, _light, size="max_bond"),
    "full": Method("full fine-tuning", 1.2e-4, _full),
    "head": Method("head only", 1e-2, _head),
    "bitfit": Method("BitFit", 3e-3, _bitfit),
    "last-1": Method("last layer", 1.92e-3, partial(_last, layers=1)),
    "last-2": Method("last 2 layers", 9.6e-4, partial(_last, layers=2)),
    "last-3": Method("last 3 layers", 2.4e-4, partial(_last, layers=3)),
    "mask": Method("random mask", 1e-3, partial(_random, kind="mask")),
    "subspace": Method("random subspace", 1e-3, partial(_random, kind="subspace")),
}
