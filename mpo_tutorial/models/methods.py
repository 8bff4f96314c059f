"""The ways of fine-tuning, each with what it makes of a model: the registry that runs, commands and tables read."""

import copy
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING

from mpo_tutorial.models.ways import Way

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mpo_tutorial.models.ledger import Ledger


RANKS = tuple(range(1, 257))
SHARES = tuple(1e-4 * 1.03**k for k in range(280))  # to about .4
BLOCK_SIDES = (2, 4, 8, 16, 32, 64, 128)  # that divide the sides of BERT's matrices
KEPT = tuple(k / 1000 for k in range(1, 1001))  # of Child-Tuning
VERA_RANKS = tuple(2**k for k in range(12))


@dataclass(frozen=True)
class Knob:
    """What makes a method train more numbers or fewer.

    Parameters
    ----------
    what : str
    usual : int or float
        What it is where nothing else is asked for.
    sizes : sequence of int or float
        What it can be, ascending; with each the method trains more numbers than with the one before, or as many.
    """

    what: str
    usual: float
    sizes: Sequence[float] = RANKS

    def require(self, size: float) -> None:
        """Refuse, by a ValueError, what it cannot be. Of shares any between the least and the largest will do."""
        first, last = self.sizes[0], self.sizes[-1]
        whole = isinstance(first, int)
        if isinstance(size, bool) or not isinstance(size, int if whole else int | float) or not first <= size <= last:
            kind = "an integer" if whole else "a number"
            raise ValueError(f"size, the {self.what}, is {kind} from {first:g} to {last:g}, got {size!r}")
        if whole and size not in self.sizes:
            raise ValueError(f"size, the {self.what}, is one of {', '.join(map(str, self.sizes))}, got {size}")


@dataclass(frozen=True)
class Method:
    """One way of fine-tuning.

    Parameters
    ----------
    title : str
    learning_rate : float
        Where records/light.jsonl has tuned it, the best of its grid, on sentences of rotten_tomatoes that are neither trained on
        nor tested; of the other methods a first guess.
    apply : callable
        From a model and a `Way` to a ledger, or None where nothing becomes an MPO. It leaves trainable what is to be trained, and
        nothing else.
    knob : Knob, optional
        Where there is one, `apply` reads its size from the way.
    trained : callable, optional
        From a model and a way to how many numbers training can move, where that is not all that requires a gradient.
    """

    title: str
    learning_rate: float
    apply: "Callable[[PreTrainedModel, Way], Ledger | None]"
    knob: Knob | None = None
    trained: "Callable[[PreTrainedModel, Way], int] | None" = None

    def n_trained(self, model: "PreTrainedModel", way: Way) -> int:
        """Numbers that training can move, in a model that `apply` has changed."""
        from mpo_tutorial.models.convert import count

        return self.trained(model, way) if self.trained else count(model, trained_only=True)


def size_for(name: str, model: "PreTrainedModel", way: Way, n_params: int) -> float:
    """The size with which a method trains about so many numbers of a model, head included.

    Parameters
    ----------
    model
        Stays as it is; copies of it are tried.

    Raises
    ------
    ValueError
        If the method has no size, or the nearest is off by more than a tenth; the sentence says what it trains.
    """
    method = METHODS[name]
    if method.knob is None:
        trained = _trained(method, model, way)
        raise ValueError(f"{name} has no size to choose: it trains {trained:,} numbers; leave the budget out")
    sizes = method.knob.sizes

    @cache
    def trained(size: float) -> int:
        return _trained(method, model, replace(way, size=size))

    above = bisect_left(sizes, n_params, key=trained)
    best = min(sizes[max(0, above - 1) : above + 1], key=lambda size: abs(trained(size) - n_params))
    if abs(trained(best) - n_params) > 0.1 * n_params:
        raise ValueError(
            f"no {method.knob.what} makes {name} train {n_params:,} numbers to within a tenth; the nearest is {best:g}, with "
            f"{trained(best):,}"
        )
    return best


def _trained(method: Method, model: "PreTrainedModel", way: Way) -> int:
    tried = copy.deepcopy(model)
    method.apply(tried, way)
    return method.n_trained(tried, way)


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
    """The dense model, everything trained; a network for images, be it of MPOs."""
    from mpo_tutorial.models.networks import ImageClassifier

    if not isinstance(model, ImageClassifier):
        _require_dense(model)


def _head(model: "PreTrainedModel", way: Way) -> None:
    from mpo_tutorial.models.convert import train_head

    train_head(model)


def _bitfit(model: "PreTrainedModel", way: Way) -> None:
    """All biases and the head (Ben Zaken et al. 2022)."""
    from mpo_tutorial.models.convert import biases, train_head

    train_head(model, biases(model))


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
    train_head(model, (*biases(model), *norms(model)) if way.rest == "norms" else ())
    add_updates(model, sizes, kind, way.seed)


def _require_dense(model: "PreTrainedModel") -> None:
    from mpo_tutorial.models.layers import mpo_layers

    if mpo_layers(model):
        raise ValueError(
            f"{model.name_or_path or 'the model'} is compressed; full fine-tuning is for the dense model, take --method light"
        )


def _added(model: "PreTrainedModel", way: Way, name: str, usual: float | None = None) -> None:
    """Something beside the dense weights, drawn by the run's seed."""
    import torch

    from mpo_tutorial.models.rivals import ADDITIONS

    _require_dense(model)
    with torch.random.fork_rng():
        torch.manual_seed(way.seed)
        ADDITIONS[name](model, replace(way, size=usual if way.size is None else way.size))


def _chosen(model: "PreTrainedModel", way: Way) -> int:
    """Of Child-Tuning D: a share of the layers' numbers, and all others."""
    from mpo_tutorial.models.convert import count
    from mpo_tutorial.models.families import layer_of

    inside = sum(p.numel() for name, p in model.named_parameters() if layer_of(name) is not None)
    return count(model) - inside + round(way.size * inside)


def _addition(name: str, title: str, rate: float, knob: Knob | None = None) -> Method:
    return Method(title, rate, partial(_added, name=name, usual=knob and knob.usual), knob)


METHODS = {
    "light": Method("light fine-tuning", 4e-4, _light),
    "full": Method("full fine-tuning", 1.2e-4, _full),
    "head": Method("head only", 1e-2, _head),
    "bitfit": Method("BitFit", 3e-3, _bitfit),
    "last-1": Method("last layer", 1.92e-3, partial(_last, layers=1)),
    "last-2": Method("last 2 layers", 9.6e-4, partial(_last, layers=2)),
    "last-3": Method("last 3 layers", 2.4e-4, partial(_last, layers=3)),
    "mask": Method("random mask", 1e-3, partial(_random, kind="mask")),
    "subspace": Method("random subspace", 1e-3, partial(_random, kind="subspace")),
    "mpo": _addition("mpo", "light, A M B by PEFT", 4e-4, Knob("share of each matrix", 0.1, SHARES)),
    "lora": _addition("lora", "LoRA", 1e-3, Knob("rank", 8)),
    "dora": _addition("dora", "DoRA", 1e-3, Knob("rank", 8)),
    "adalora": _addition("adalora", "AdaLoRA", 1e-3, Knob("rank", 8)),
    "ia3": _addition("ia3", "IA3", 1e-2),
    "oft": _addition("oft", "OFT", 1e-3, Knob("side of a block", 32, BLOCK_SIDES)),
    "vera": _addition("vera", "VeRA", 1e-2, Knob("rank", 256, VERA_RANKS)),
    "adapter": _addition("adapter", "bottleneck adapter", 1e-3, Knob("width", 64)),
    "loretta": _addition("loretta", "LoRETTA, adapters", 1e-3, Knob("rank", 5)),
    "prefix": _addition("prefix", "prefix tuning", 1e-2, Knob("number of keys", 16)),
    "child-f": Method("Child-Tuning F", 1.2e-4, _full, Knob("share of the gradient", 0.3, KEPT)),
    "child-d": Method("Child-Tuning D", 1.2e-4, _full, Knob("share of the layers", 0.3, KEPT), _chosen),
}
