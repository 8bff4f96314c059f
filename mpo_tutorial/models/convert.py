"""Swapping a model's matrices for MPO layers, freezing the central cores, and the ledger of what is where."""

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from mpo_tutorial.maths.linalg import relative_error
from mpo_tutorial.maths.shapes import N_CORES, usual_shape
from mpo_tutorial.models import stored
from mpo_tutorial.models.families import USUAL, dense_matrices
from mpo_tutorial.models.layers import MPOEmbedding, MPOLinear, mpo_layers
from mpo_tutorial.models.ledger import Ledger, Row
from mpo_tutorial.models.loading import as_value_error

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


def decompose(
    model: "PreTrainedModel", n_cores: int = N_CORES, max_bond: int | None = None, matrices: str = USUAL
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

    Raises
    ------
    ValueError
        As in `families.dense_matrices`, or if a number is out of range or weights are offloaded.
    """
    from mpo_tutorial.models.architectures import put_layers  # loads transformers

    _require_in_memory(model)
    layers, rows = {}, []
    for name, module in dense_matrices(model, matrices):
        kind, matrix = (
            (MPOEmbedding, module.weight) if isinstance(module, nn.Embedding) else (MPOLinear, module.weight.T)
        )
        shape = usual_shape(*matrix.shape, n_cores)
        if matrix.is_meta:
            with matrix.device:
                layer = kind.random(shape, max_bond)
            error = None
        else:
            layer = kind.from_dense(module, shape, max_bond)
            error = relative_error(layer.mpo.to_matrix(), matrix.detach())
        layers[module] = layer
        rows.append(Row.of(name, layer, error))
    put_layers(model, layers)
    return Ledger(tuple(rows))


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
    """A copy of a compressed model with dense matrices, of transformers' own class: it needs this package no more.

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


def freeze(model: "PreTrainedModel", rest: str = "head") -> None:
    """Leave trainable what light fine-tuning trains: the auxiliary cores, and the rest that is asked for.

    Parameters
    ----------
    rest : {"head", "all"}
        "head": the classifier besides. "all": everything but the central cores, as the paper counts. A pooler that begins
        anew, as `load` says, is trained whole.

    Raises
    ------
    ValueError
        If the model has no MPO layer, or `rest` is unknown.
    """
    layers = mpo_layers(model)
    if not layers:
        raise ValueError("light fine-tuning needs MPO layers, the model has none; compress it first")
    if rest not in ("head", "all"):
        raise ValueError(f"rest is one of head, all, got {rest!r}")
    model.requires_grad_(True)
    if rest == "head":
        model.base_model.requires_grad_(False)
    for layer in layers:
        for core in layer.cores:
            core.requires_grad_(core is not layer.central)
    if getattr(model, "new_pooler", False):
        model.base_model.pooler.requires_grad_(True)


def count(model: nn.Module, trained_only: bool = False) -> int:
    """Number of parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained_only)
