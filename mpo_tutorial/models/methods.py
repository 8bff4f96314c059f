"""The ways of fine-tuning, each with what it makes of a model: the registry that runs, commands and tables read."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mpo_tutorial.models.ledger import Ledger

GAUGES = ("centred", "tt-svd", "amb")
RESTS = ("head", "norms", "all")
BLOCKS = ("both", "left", "right")


@dataclass(frozen=True)
class Way:
    """What a run asks of a method: the options that `RunConfig` has, as there; a method reads those that concern it."""

    n_cores: int
    max_bond: int | None = None
    matrices: str | None = None
    rest: str = "head"
    gauge: str = "centred"
    legs: str | None = None
    blocks: str = "both"
    seed: int = 0


@dataclass(frozen=True)
class Method:
    """One way of fine-tuning.

    Parameters
    ----------
    title : str
        In tables.
    learning_rate : float
        The best of five on the validation set of the embedded task: records/compare.jsonl.
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
    """As many numbers of the same matrices as light fine-tuning trains, at random; the rest as there."""
    from mpo_tutorial.maths.mpo import MPO
    from mpo_tutorial.maths.shapes import usual_shape
    from mpo_tutorial.models.controls import add_updates
    from mpo_tutorial.models.convert import biases, norms, train_head
    from mpo_tutorial.models.families import USUAL, dense_matrices

    _require_dense(model)
    if way.rest == "all":
        raise ValueError(f"rest is one of head, norms for random numbers of the matrices, got {way.rest!r}")
    if "embedding" in (way.matrices or ""):
        raise ValueError(f"random numbers are those of linear layers, got the matrices {way.matrices!r}")
    sizes = {}
    for name, module in dense_matrices(model, way.matrices or USUAL):
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
    "full": Method("full fine-tuning", 1.5e-4, _full),
    "head": Method("head only", 1e-2, _head),
    "bitfit": Method("BitFit", 1e-3, _bitfit),
    "last-1": Method("last layer", 1.5e-4, partial(_last, layers=1)),
    "last-2": Method("last 2 layers", 1.5e-4, partial(_last, layers=2)),
    "last-3": Method("last 3 layers", 1.5e-4, partial(_last, layers=3)),
    "mask": Method("random mask", 3e-4, partial(_random, kind="mask")),
    "subspace": Method("random subspace", 3e-4, partial(_random, kind="subspace")),
}
