"""Swapping a model's matrices for MPO layers, freezing the central cores, and the ledger of what is where."""

import copy
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn

from mpo_tutorial.maths.linalg import relative_error
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import N_CORES, Shape, usual_shape
from mpo_tutorial.models import stored
from mpo_tutorial.models.families import USUAL, dense_matrices
from mpo_tutorial.models.layers import MPOEmbedding, MPOLinear, mpo_layers
from mpo_tutorial.models.ledger import Ledger, Row
from mpo_tutorial.models.loading import as_value_error
from mpo_tutorial.models.ways import BLOCKS, GAUGES, RESTS

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def decompose(
    model: "PreTrainedModel",
    n_cores: int = N_CORES,
    max_bond: int | None = None,
    matrices: str = USUAL,
    gauge: str = "centred",
    legs: str | None = None,
) -> Ledger:
    """Swap a model's matrices for MPO layers, in place, and its class for one that saves and loads them.

    A model on torch's device "meta", without weights, gets MPO layers without weights: for a ledger that is enough.

    Parameters
    ----------
    n_cores : int
    max_bond : int, optional
        Cap on every bond dimension; None keeps the full bonds, and the model computes what it computed before.
    matrices : str
        As in `families.split_words`.
    gauge : {"centred", "tt-svd", "amb"}
        Which chains of the same matrices: with the norm in the central core; with the norm in the last core, where TT-SVD leaves
        it; or the matrix itself between two identities, as in `MPO.from_blocks`.
    legs : str, optional
        As in `shapes_of`, for matrices of these sizes instead of what `n_cores` gives.

    Raises
    ------
    ValueError
        As in `families.dense_matrices` and `shapes_of`, or if a number is out of range, legs fit no matrix, the gauge is unknown
        or cannot be cut, or weights are offloaded.
    """
    from mpo_tutorial.models.architectures import put_layers  # loads transformers

    _require_in_memory(model)
    if gauge not in GAUGES:
        raise ValueError(f"gauge is one of {', '.join(GAUGES)}, got {gauge!r}")
    if gauge == "amb" and max_bond is not None:
        raise ValueError(
            f"in the gauge amb nothing is decomposed that could be cut, got a bond of {max_bond}; take centred"
        )
    given = {(shape.in_size, shape.out_size): shape for shape in shapes_of(legs)} if legs is not None else {}
    unused = set(given)
    layers, rows = {}, []
    for name, module in dense_matrices(model, matrices):
        kind, matrix = (
            (MPOEmbedding, module.weight) if isinstance(module, nn.Embedding) else (MPOLinear, module.weight.T)
        )
        size = tuple(matrix.shape)
        unused.discard(size)
        shape = given.get(size) or usual_shape(*size, n_cores)
        if gauge == "amb":
            mpo = MPO.from_blocks(matrix, shape)
        elif matrix.is_meta:
            with matrix.device:
                mpo = MPO.random(shape, max_bond)
        else:
            mpo = MPO.from_matrix(matrix, shape, max_bond)
            mpo = mpo if gauge == "centred" else mpo.canonize(shape.n_cores - 1)
        layers[module] = layer = kind.in_place_of(module, mpo)
        rows.append(Row.of(name, layer, None if matrix.is_meta else relative_error(mpo.to_matrix(), matrix.detach())))
    if unused:
        sizes = sorted(
            {tuple(module.weight.shape[:: 1 if isinstance(module, nn.Embedding) else -1]) for module in layers}
        )
        raise ValueError(
            f"legs must multiply out to a matrix that is decomposed; {_sizes(unused)} are none, there are {_sizes(sizes)}"
        )
    put_layers(model, layers)
    return Ledger(tuple(rows))


def shapes_of(text: str) -> tuple[Shape, ...]:
    """Shapes from text, as layers print them, with commas between.

    >>> [shape.full_bonds for shape in shapes_of("3.4.4.4.2 x 4.4.6.4.4, 12.4.8 x 8.4.12")]
    [(12, 192, 128, 8), (96, 96)]

    Raises
    ------
    ValueError
        If a part of the text is none, the sides have not equally many legs, or two shapes are for matrices of one size.
    """
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)+)\s*x\s*(\d+(?:\.\d+)+)\s*", part)
        if match is None:
            raise ValueError(
                f"legs are written as in 3.4.4.4.2 x 4.4.6.4.4, with commas between several, got {part.strip()!r}"
            )
        found.append(Shape(*(tuple(map(int, side.split("."))) for side in match.groups())))
    sizes = [(shape.in_size, shape.out_size) for shape in found]
    if twice := {size for size in sizes if sizes.count(size) > 1}:
        raise ValueError(f"matrices of one size have one shape, got several for {_sizes(twice)}")
    return tuple(found)


def _sizes(sizes) -> str:
    return ", ".join(f"{rows} x {columns}" for rows, columns in sizes)


def is_decomposed(model: "PreTrainedModel", n_cores: int | None, matrices: str | None) -> bool:
    """Whether a model that was loaded has MPO layers already; a ValueError if others are asked for than it has."""
    found = sorted({len(layer.cores) for layer in mpo_layers(model)})
    if found and (matrices is not None or (n_cores is not None and found != [n_cores])):
        name, cores = model.name_or_path or "the model", " or ".join(map(str, found))
        raise ValueError(
            f"{name} is compressed, with {cores} cores an MPO: leave out --matrices and --cores, or give --cores {cores}"
        )
    return bool(found)


def decompress(model: "PreTrainedModel") -> "PreTrainedModel":
    """A copy of a compressed model with dense matrices, read as before.

    It is of transformers' own class and needs this package no more, unless it is read in a way that transformers has not.
    This is the way to export: `torch.export`, ONNX and `torch.jit.trace` take what comes out, and of compressed models only
    those whose embedding is no MPO, because its lookup does different work for different ids.

    Raises
    ------
    ValueError
        If the model has no MPO layer, or weights are offloaded.
    """
    from mpo_tutorial.models.architectures import put_layers

    _require_in_memory(model)
    if not mpo_layers(model):
        raise ValueError(f"there is nothing to decompress, {type(model).__name__} has no MPO layer")
    plain = copy.deepcopy(model)
    put_layers(plain, {layer: layer.to_dense() for layer in mpo_layers(plain)})
    return plain


def _require_in_memory(model: "PreTrainedModel") -> None:
    offloaded = sum(p.is_meta for p in model.parameters())
    if offloaded and any(hasattr(module, "_hf_hook") for module in model.modules()):  # accelerate's
        raise ValueError(
            f"decompose and decompress need a model in memory, {offloaded} tensors of this {type(model).__name__} are offloaded; "
            "load it without offload"
        )


def outline(config: "PreTrainedConfig", n_labels: int = 2) -> "PreTrainedModel":
    """The classifier that a config describes, without weights: on torch's device "meta". A strange config is a ValueError."""
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(config)
    config.num_labels = n_labels
    with as_value_error(f"the config of a {config.model_type} describes no model"), torch.device("meta"):
        stored.check_sizes(config)
        return AutoModelForSequenceClassification.from_config(config)


def freeze(model: "PreTrainedModel", rest: str = "norms", blocks: str = "both") -> None:
    """Leave trainable what light fine-tuning trains: the auxiliary cores, and the rest that is asked for.

    Parameters
    ----------
    rest : {"head", "norms", "all"}
        "head": the classifier besides. "norms": biases and normalisations too. "all": everything but the central cores, as the
        paper counts. A pooler that begins anew, as `load` says, is trained whole.
    blocks : {"both", "left", "right"}
        Which auxiliary cores: those on both sides of the central one, or on one side alone.

    Raises
    ------
    ValueError
        If the model has no MPO layer, or `rest` or `blocks` is unknown.
    """
    layers = mpo_layers(model)
    if not layers:
        raise ValueError("light fine-tuning needs MPO layers, the model has none; compress it first")
    if rest not in RESTS:
        raise ValueError(f"rest is one of {', '.join(RESTS)}, got {rest!r}")
    if blocks not in BLOCKS:
        raise ValueError(f"blocks is one of {', '.join(BLOCKS)}, got {blocks!r}")
    besides = {"head": (), "norms": (*biases(model), *norms(model)), "all": model.parameters()}
    train_head(model, besides[rest])
    anew = set(model.base_model.pooler.modules()) if getattr(model, "new_pooler", False) else set()
    for layer in (layer for layer in layers if layer not in anew):
        centre = len(layer.cores) // 2
        for k, core in enumerate(layer.cores):
            core.requires_grad_(k < centre if blocks == "left" else k > centre if blocks == "right" else k != centre)


def train_head(model: "PreTrainedModel", besides: Iterable[nn.Parameter] = ()) -> None:
    """Freeze the encoder, and leave the head trainable; with it a pooler that begins anew, and some other parameters."""
    model.requires_grad_(True)
    model.base_model.requires_grad_(False)
    if getattr(model, "new_pooler", False):
        model.base_model.pooler.requires_grad_(True)
    for parameter in besides:
        parameter.requires_grad_(True)


def biases(model: nn.Module) -> list[nn.Parameter]:
    """All biases, those of normalisations included."""
    return [parameter for name, parameter in model.named_parameters() if name.endswith("bias")]


def norms(model: nn.Module) -> list[nn.Parameter]:
    """All parameters of normalisations: nn.LayerNorm, and MobileBERT's NoNorm."""
    found = (
        module for module in model.modules() if isinstance(module, nn.LayerNorm) or type(module).__name__ == "NoNorm"
    )
    return [parameter for module in found for parameter in module.parameters()]


def count(model: nn.Module, trained_only: bool = False) -> int:
    """Number of parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained_only)
