"""Swapping a model's matrices for MPO layers, freezing the central cores, and the ledger of what is where."""

import copy
import re
from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mpo_tutorial import stored
from mpo_tutorial.families import KINDS, PARTS, USUAL_PARTS, matrices, wanted
from mpo_tutorial.layers import MPOEmbedding, MPOLayer, MPOLinear, cached, mpo_layers
from mpo_tutorial.ledger import Ledger, Row
from mpo_tutorial.linalg import relative_error
from mpo_tutorial.shapes import usual_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


@contextmanager
def quiet_transformers():
    """No progress bars of its own and no warnings that a new classifier is untrained: here that is the point."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def refused(what: str):
    """Make one ValueError, of a line, of all that transformers and torch raise at strange files and configs."""
    from huggingface_hub.errors import StrictDataclassError

    strange = (
        StrictDataclassError,
        RuntimeError,
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        TypeError,
    )
    try:
        yield
    except (OSError, ValueError, SafetensorError, *strange) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{what}: {first_line}") from error


def load_classifier(path: str, n_labels: int, seed: int) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A pretrained encoder with a classifier on top, and its tokenizer.

    The classifier is new and seeded, unless the files hold one for as many labels.

    Parameters
    ----------
    path : str
        What `sources.model_path` returns.

    Raises
    ------
    ValueError
        If files are missing or damaged, or transformers knows no sequence classifier for this model.
    """
    from transformers import AutoModelForSequenceClassification, set_seed

    set_seed(seed)
    model, tokenizer = load(path, AutoModelForSequenceClassification, num_labels=n_labels)
    # BERT's classifier takes no num_items_in_batch, though its signature says so; transformers 5.23 would then sum the
    # gradients of accumulated batches where it must average them.
    model.accepts_loss_kwargs = False
    return model, tokenizer


def load(path: str, auto: type, **options) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A model by one of transformers' Auto classes, and its tokenizer; a head of another size begins anew.

    So does a pooler that the files do not hold; `model.new_pooler` says whether it did.

    Raises
    ------
    ValueError
        If files are missing, damaged or quantised, hold fewer or more layers than the config describes, or the tokenizer
        has no words.
    """
    from transformers import AutoConfig, AutoTokenizer

    options = {"use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True, **options}
    with refused(f"{path} is no model that {auto.__name__} can load"), quiet_transformers():
        config = AutoConfig.from_pretrained(path)
        if getattr(config, "quantization_config", None) is not None:
            raise ValueError("it is quantised; take the model that it was made from")
        stored.check_sizes(config, stored.shapes_in(stored.weight_files(path)))
        model, info = auto.from_pretrained(path, **options)
        tokenizer = AutoTokenizer.from_pretrained(path)
    if left := sorted(name for name in info["unexpected_keys"] if re.search(r"layers?\.\d+\.", name)):
        raise ValueError(
            f"the config of {path} must describe all layers in its files; {len(left)} tensors have no place, such as {left[0]}"
        )
    unread = [*info["missing_keys"], *(name for name, *_ in info["mismatched_keys"])]
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    model.new_pooler = any(name.startswith(f"{prefix}pooler.") for name in unread)
    unread = sorted(name for name in unread if name.startswith(prefix) and "pooler." not in name)
    if unread:
        raise ValueError(
            f"the files in {path} must hold the encoder that the config describes; {len(unread)} tensors are missing or of "
            f"another shape, the first is {unread[0]}"
        )
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ValueError(
            f"a model's folder holds its tokenizer, {path} has none with words in it; save it there as well"
        )
    return model, tokenizer


def compress(
    model: "PreTrainedModel", n_cores: int = 5, max_bond: int | None = None, which: Sequence[str] = USUAL_PARTS
) -> Ledger:
    """Swap a model's matrices for MPO layers, in place, and its class for one that saves and loads them.

    A model on torch's device "meta", without weights, gets MPO layers without weights: for a ledger that is enough.

    Parameters
    ----------
    n_cores : int
    max_bond : int, optional
        Cap on every bond dimension; None keeps the full bonds, and the model computes what it computed before.
    which : sequence of str
        As in `families.matrices`.

    Raises
    ------
    ValueError
        As in `families.matrices`, or if a number is out of range.
    """
    from mpo_tutorial.architectures import put_layers  # loads transformers

    layers, rows = {}, []
    for name, module in matrices(model, which):
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


def is_compressed(model: "PreTrainedModel", n_cores: int | None, which: Sequence[str] | None) -> bool:
    """Whether a model that was loaded has MPO layers already; a ValueError if others are asked for than it has."""
    found = sorted({len(layer.cores) for layer in mpo_layers(model)})
    if found and (which is not None or (n_cores is not None and found != [n_cores])):
        name, cores = model.name_or_path or "the model", " or ".join(map(str, found))
        raise ValueError(
            f"{name} is compressed, with {cores} cores an MPO: leave out --matrices and --cores, or give --cores {cores}"
        )
    return bool(found)


def decompress(model: "PreTrainedModel") -> "PreTrainedModel":
    """A copy of a compressed model with dense matrices, of transformers' own class: it needs this package no more.

    Raises
    ------
    ValueError
        If the model has no MPO layer.
    """
    from mpo_tutorial.architectures import put_layers

    if not mpo_layers(model):
        raise ValueError(f"there is nothing to decompress, {type(model).__name__} has no MPO layer")
    plain = copy.deepcopy(model)
    put_layers(plain, {layer: layer.to_dense() for layer in mpo_layers(plain)})
    return plain


def outline(config: "PreTrainedConfig", n_labels: int = 2) -> "PreTrainedModel":
    """The classifier that a config describes, without weights: on torch's device "meta". A strange config is a ValueError."""
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(config)
    config.num_labels = n_labels
    with refused(f"the config of a {config.model_type} describes no model"), torch.device("meta"):
        stored.check_sizes(config)
        return AutoModelForSequenceClassification.from_config(config)


def layers_of_part(model: nn.Module, part: str) -> list[MPOLayer]:
    """The MPO layers of "all", of one of `families.PARTS` or `KINDS`, shared ones once. Any other part is a ValueError."""
    if part not in ("all", *PARTS, *KINDS):
        raise ValueError(f"part is one of all, {', '.join((*PARTS, *KINDS))}, got {part!r}")
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, MPOLayer))
    return [layer for name, layer in layers if wanted(name, [part])]


def freeze_central(model: "PreTrainedModel", rest: str = "head") -> None:
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


def embed(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", sentences: Sequence[str]) -> Tensor:
    """Sentences as vectors of length 1, the mean of the encoder's last states over the tokens: MiniLM's authors' way.

    Returns
    -------
    Tensor of shape (sentences, hidden)
    """
    batch = tokenizer(list(sentences), padding=True, truncation=True, return_tensors="pt").to(model.device)
    model.eval()
    with torch.inference_mode(), cached(model):
        states = model.base_model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None]
    return nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1)


def count(model: nn.Module, trained_only: bool = False) -> int:
    """Number of parameters, shared ones once."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trained_only)
