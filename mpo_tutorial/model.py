"""Swapping a model's matrices for MPO layers, freezing the central cores, and the ledger of what is where."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mpo_tutorial.layers import MPOLayer, MPOLinear, cached, mpo_layers
from mpo_tutorial.linalg import relative_error
from mpo_tutorial.shapes import balanced_shape

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


PARTS = ("all", "attention", "feed-forward")


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


def load_classifier(path: str, n_labels: int, seed: int) -> tuple["PreTrainedModel", "PreTrainedTokenizerBase"]:
    """A pretrained encoder with a new classifier on top, seeded, and its tokenizer.

    Parameters
    ----------
    path : str
        What `sources.model_path` returns.

    Raises
    ------
    ValueError
        If files are missing or damaged, or transformers knows no sequence classifier for this model.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, set_seed

    set_seed(seed)
    try:
        with quiet_transformers():
            model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=n_labels, use_safetensors=True)
            tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path} is no model that can be loaded for classification: {first_line}") from error
    # BERT's classifier takes no num_items_in_batch, though its signature says so; transformers 5.23 would then sum the
    # gradients of accumulated batches where it must average them.
    model.accepts_loss_kwargs = False
    return model, tokenizer


@dataclass(frozen=True)
class Row:
    """One matrix in the ledger. `error` is relative, in the Frobenius norm; `padding` as in `Shape`."""

    name: str
    in_legs: tuple[int, ...]
    out_legs: tuple[int, ...]
    bonds: tuple[int, ...]
    dense: int
    central: int
    auxiliary: int
    error: float
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Ledger:
    """Parameters of a model's matrices before and after they became MPOs."""

    rows: tuple[Row, ...]

    @property
    def dense(self) -> int:
        return sum(row.dense for row in self.rows)

    @property
    def central(self) -> int:
        return sum(row.central for row in self.rows)

    @property
    def auxiliary(self) -> int:
        return sum(row.auxiliary for row in self.rows)

    @property
    def total(self) -> int:
        return self.central + self.auxiliary

    @property
    def ratio(self) -> float:
        """Parameters of all cores over those of the dense matrices."""
        return self.total / self.dense

    @property
    def largest_error(self) -> float:
        return max(row.error for row in self.rows)

    def totals(self) -> dict:
        """The last line of the ledger, for a record."""
        names = ("dense", "central", "auxiliary", "total", "ratio", "largest_error")
        return {"matrices": len(self.rows), **{name: getattr(self, name) for name in names}}

    def cells(self) -> list[tuple[str, ...]]:
        """The ledger as text under `LEDGER_HEAD`: a line for all matrices of one shape, the sum last."""

        def shape(row: Row) -> tuple:
            return row.in_legs, row.out_legs, row.bonds, row.padding

        def line(legs: str, bonds: str, part: Ledger) -> tuple[str, ...]:
            millions = (f"{number / 1e6:.2f} M" for number in (part.dense, part.central, part.auxiliary))
            return str(len(part.rows)), legs, bonds, *millions, f"{part.ratio:.3f}", f"{part.largest_error:.0e}"

        lines = []
        for numbers, rows in groupby(sorted(self.rows, key=shape), shape):
            in_legs, out_legs, bonds, padding = (".".join(map(str, side)) for side in numbers)
            zeros = f", padded by {padding}" if any(numbers[3]) else ""
            lines.append(line(f"{in_legs} x {out_legs}{zeros}", bonds, Ledger(tuple(rows))))
        return [*lines, line("", "", self)]


LEDGER_HEAD = ("count", "in legs x out legs", "bonds", "dense", "central", "auxil.", "ratio", "error")


def matrices(model: "PreTrainedModel") -> Iterator[tuple[str, nn.Linear]]:
    """The dense matrices that become MPOs: every `nn.Linear` of the encoder and the pooler, not the classifier."""
    prefix = model.base_model_prefix
    for name, module in model.base_model.named_modules():
        if isinstance(module, nn.Linear):
            yield f"{prefix}.{name}", module


def compress(model: "PreTrainedModel", n_cores: int = 5, max_bond: int | None = None) -> Ledger:
    """Swap the model's matrices for MPO layers, in place.

    Parameters
    ----------
    n_cores : int
    max_bond : int, optional
        Cap on every bond dimension; None keeps the full bonds, and the model computes what it computed before.

    Raises
    ------
    ValueError
        If the model has no matrix to swap, or a number is out of range.
    """
    found = list(matrices(model))
    if not found:
        kinds = sorted({type(module).__name__ for module in model.modules()})
        raise ValueError(
            f"no nn.Linear to swap in the encoder of {type(model).__name__}; it is made of {', '.join(kinds)}"
        )
    rows = []
    for name, linear in found:
        layer = MPOLinear.from_dense(linear, balanced_shape(linear.in_features, linear.out_features, n_cores), max_bond)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer)
        mpo = layer.mpo
        central = mpo.central.numel()
        rows.append(
            Row(
                name=name,
                in_legs=mpo.shape.in_legs,
                out_legs=mpo.shape.out_legs,
                bonds=mpo.bonds,
                dense=linear.weight.numel(),
                central=central,
                auxiliary=mpo.n_params - central,
                error=relative_error(mpo.to_matrix(), linear.weight.detach().T),
                padding=mpo.padding,
            )
        )
    return Ledger(tuple(rows))


KINDS = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention output",
    "intermediate.dense": "feed-forward in",
    "output.dense": "feed-forward out",
    "pooler.dense": "pooler",
}


def place(name: str) -> tuple[int | None, str]:
    """The layer that a matrix is in, None for none, and what it is for, in words where we know them.

    >>> place("bert.encoder.layer.3.attention.self.query"), place("bert.pooler.dense")
    ((3, 'query'), (None, 'pooler'))
    """
    found = re.search(r"\.(\d+)\.(.+)", name)
    layer, rest = (int(found[1]), found[2]) if found else (None, name.partition(".")[2])
    return layer, KINDS.get(rest, rest)


def part_of(name: str) -> str:
    """Where in a transformer a matrix sits, by its name: "attention", "pooler" or "feed-forward"."""
    return next((part for part in ("attention", "pooler") if part in name), "feed-forward")


def layers_of_part(model: nn.Module, part: str) -> list[MPOLayer]:
    """The MPO layers of one of the `PARTS`, shared ones once. Any other part is a ValueError."""
    if part not in PARTS:
        raise ValueError(f"part is one of {', '.join(PARTS)}, got {part!r}")
    layers = ((name, module) for name, module in model.named_modules() if isinstance(module, MPOLayer))
    return [layer for name, layer in layers if part in ("all", part_of(name))]


def truncate(model: nn.Module, max_bond: int, part: str = "all") -> None:
    """Cap the bonds of the MPO layers of a part, in place and without retraining. Errors as in `MPO.compress`."""
    for layer in layers_of_part(model, part):
        layer.set_mpo(layer.mpo.compress(max_bond))


def freeze_central(model: "PreTrainedModel", rest: str = "head") -> None:
    """Leave trainable what light fine-tuning trains: the auxiliary cores, and the rest that is asked for.

    Parameters
    ----------
    rest : {"head", "all"}
        "head": the classifier besides. "all": everything but the central cores, as the paper counts.

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
