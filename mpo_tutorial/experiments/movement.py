"""How far full fine-tuning moves the matrices, and what of that, and of the gradient, light fine-tuning has in reach; a study.

A point is a seed. It takes the gradient where full fine-tuning starts, with the new head, and where a head was trained before on
the frozen encoder: a new head is random, and asks for what the task does not. Then it fine-tunes in full, measures how the
matrices have moved, and forgets them. Of both gradients and of the update it finds the share that is in reach (`maths.reach`), for
several legs, and for the usual legs with rows and columns in several orders.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from mpo_tutorial.experiments import forms
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.light import LEGS as SIDES_APART
from mpo_tutorial.experiments.study import Point, Setting, Study
from mpo_tutorial.experiments.tasks import load_task
from mpo_tutorial.maths.linalg import relative_error, singular_values
from mpo_tutorial.maths.reach import Reach, dimension, low_rank_share
from mpo_tutorial.maths.shapes import Shape, usual_shape
from mpo_tutorial.models.convert import shapes_of
from mpo_tutorial.models.families import dense_matrices, place
from mpo_tutorial.models.stored import holds_mpos

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mpo_tutorial.experiments.finetune import Prepared

VERSION = 1
SEEDS = 5
SENTENCES = 256  # of the training sentences, drawn by the seed, that a gradient is the mean of
UPDATE, NEW_HEAD, TRAINED_HEAD = CHANGES = ("update", "gradient, new head", "gradient, trained head")

# Beside the usual legs: other numbers of cores, and legs that train as many numbers of MiniLM's matrices as those do: with one
# side's legs in each block, or with those of one side alone in the central core (with "centre in" the left block mixes the heads
# of query, key and value, the right one the numbers in a head; with "centre out" so for the attention's output).
USUAL = "usual legs"
LEGS: Mapping[str, int | str] = {
    "3 cores": 3,
    "7 cores": 7,
    **SIDES_APART,
    "centre in": "8.16.3 x 12.1.32, 16.24.1 x 12.1.128, 16.24.4 x 12.1.32",
    "centre out": "12.1.32 x 8.16.3, 12.1.32 x 16.24.4, 12.1.128 x 16.24.1",
}
DRAWN = ("random 1", "random 2", "random 3")
ORDERS = (*DRAWN, "norms", "singular vectors", "heads apart", "gradient")

EDGES = tuple(10.0 ** (k / 4) for k in range(-24, -3))  # of sizes of changes, 1e-6 to 1e-1
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
DIGITS = 5  # of shares


def study(base: RunConfig, seeds: int = SEEDS, legs: Mapping[str, int | str] = LEGS) -> Study:
    """Of full fine-tuning with the seeds 0, 1, ...

    Parameters
    ----------
    base : RunConfig
        Of full fine-tuning; its seed does not count.
    legs : mapping of str to int or str
        By name a number of cores, or what `convert.shapes_of` takes: that is for matrices of its sizes alone.

    Raises
    ------
    ValueError
        If the method is another, or the model's matrices are MPOs already; and as in `load_task`.
    """
    if base.method != "full":
        raise ValueError(f"how far full fine-tuning moves a model needs the method full, got {base.method!r}")
    if holds_mpos(base.model):
        raise ValueError(f"{base.model} is compressed; full fine-tuning is for the dense model, take that one")
    config = replace(base, device=RunConfig.device).settled(load_task(base.task))

    def grid(_points: list[Point]) -> Iterator[Setting]:
        for seed in range(seeds):
            yield {"config": replace(config, seed=seed).as_dict(), "legs": {**legs}, "orders": [*ORDERS]}

    here = partial(measure, device=base.device)
    return Study("movement", VERSION, here, {"seeds": grid}, describe=describe, form=form)


def ways_of(setting: Setting) -> tuple[str, ...]:
    """The ways in which a setting puts a matrix between two blocks, by name: the usual legs, others, and other orders."""
    return (USUAL, *setting["legs"], *setting["orders"])


def measure(setting: Setting, device: str = RunConfig.device) -> dict:
    """What became of each matrix.

    Returns
    -------
    dict
        "validation": what the tuned model scores. "matrices": by name what `moved` gives; and, not for embeddings, "shares": of
        each of `CHANGES` what is in reach, in the order of `ways_of`, None where legs or order are not for this matrix;
        "low_rank": of each change what `low_rank_share` gives for as many directions as the usual legs have in reach.
    """
    from mpo_tutorial.experiments.finetune import prepare, run  # loads transformers, which a summary does not need

    config = replace(RunConfig(**setting["config"]), device=device)
    prepared = prepare(config)
    before = {name: matrix.clone() for name, matrix in matrices(prepared.model).items()}
    for name, matrix in before.items():
        if place(name).part != "embedding":
            dimension(usual_shape(*matrix.shape))  # what has no reach is refused before anything is trained
    gradients = {NEW_HEAD: mean_gradient(prepared)}
    with TemporaryDirectory() as folder:
        head = prepare(replace(config, method="head", learning_rate=None))
        run(head, Path(folder), progress=False, splits=("validation",), keep_weights=False)
        gradients[TRAINED_HEAD] = mean_gradient(head)
    with TemporaryDirectory() as folder:
        record = run(prepared, Path(folder), progress=False, splits=("validation",), keep_weights=False)
    found = {}
    for name, after in matrices(prepared.model).items():
        found[name] = moved(before[name], after)
        if place(name).part != "embedding":
            changes = {UPDATE: after - before[name], **{change: of[name] for change, of in gradients.items()}}
            found[name] |= _reached(name, before[name], changes, setting, prepared.model.config.num_attention_heads)
    return {"validation": record["validation"], "matrices": found}


def matrices(model: "PreTrainedModel") -> dict[str, Tensor]:
    """The matrices that could be MPOs, by name, as (in, out); they share the model's memory."""
    return {name: _as_matrix(name, module.weight.detach()) for name, module in dense_matrices(model, "all")}


def mean_gradient(prepared: "Prepared", n: int = SENTENCES) -> dict[str, Tensor]:
    """The gradient of the mean loss, without dropout, over n training sentences drawn by the run's seed: of each of `matrices`.

    The model is left in evaluation mode, and trainable.
    """
    from transformers import DataCollatorWithPadding

    model, rows = prepared.model, prepared.dataset("train")
    drawn = np.random.default_rng(prepared.config.seed).permutation(len(rows))[:n]
    rows = rows.select(drawn).remove_columns("length")
    named = dict(dense_matrices(model, "all"))
    weights = [module.weight for module in named.values()]
    sums = [torch.zeros_like(weight) for weight in weights]
    model.eval().requires_grad_(True)
    collator = DataCollatorWithPadding(prepared.tokenizer)
    for batch in DataLoader(rows, prepared.config.micro_batch_size, collate_fn=collator):
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        loss = model(**batch).loss * len(batch["labels"]) / len(rows)
        for total, part in zip(sums, torch.autograd.grad(loss, weights), strict=True):
            total += part
    return {name: _as_matrix(name, total) for name, total in zip(named, sums, strict=True)}


def moved(before: Tensor, after: Tensor) -> dict:
    """How a matrix, of shape (in, out), has moved.

    Returns
    -------
    dict
        "size": [in, out]. "moved": the norm of the update over that of the matrix. "rows": the share of rows with any change.
        "sizes": the share of numbers whose change is, in absolute value, at most the first of `EDGES`, above that and at most the
        second, ..., above the last. "spectrum": the share of the update's squared norm in so many of its first singular values
        as `RANKS` say.
    """
    update = after - before
    places = np.searchsorted(EDGES, update.abs().double().flatten().cpu().numpy())
    weights = singular_values(update).cpu().numpy() ** 2
    kept = np.cumsum(weights) / weights.sum()
    return {
        "size": [*update.shape],
        "moved": _rounded(relative_error(after, before)),
        "rows": _rounded((update != 0).any(1).double().mean()),
        "sizes": [_rounded(share) for share in np.bincount(places, minlength=len(EDGES) + 1) / places.size],
        "spectrum": [_rounded(kept[min(rank, len(kept)) - 1]) for rank in RANKS],
    }


def shape_of(legs: int | str, size: Sequence[int]) -> Shape | None:
    """The shape of a matrix of some size in so many cores, or with legs from a text, which may have none for this size."""
    if isinstance(legs, int):
        return usual_shape(*size, legs)
    return next((shape for shape in shapes_of(legs) if (shape.in_size, shape.out_size) == tuple(size)), None)


def order_of(
    name: str, matrix: Tensor, gradient: Tensor, kind: str, heads: int, seed: int
) -> tuple[np.ndarray, np.ndarray] | None:
    """Rows and columns of a matrix in one of the `ORDERS`.

    "random ...": drawn by the seed. "norms": by the norms of rows and of columns. "singular vectors": by the entries of the
    matrix's first two. "gradient": by those of the gradient's. "heads apart": on the side that heads share, the first number of
    each head, then the second of each; None for a kind of matrix that has no such side.
    """
    rows, columns = map(np.arange, matrix.shape)
    if name in DRAWN:
        rng = np.random.default_rng([seed, DRAWN.index(name)])
        return rng.permutation(rows), rng.permutation(columns)
    if name == "heads apart":
        if kind in ("query", "key", "value"):
            return rows, columns.reshape(heads, -1).T.ravel()
        return (rows.reshape(heads, -1).T.ravel(), columns) if kind == "attention output" else None
    numbers = (gradient if name == "gradient" else matrix).double().cpu().numpy()
    if name == "norms":
        return np.linalg.norm(numbers, axis=1).argsort(), np.linalg.norm(numbers, axis=0).argsort()
    u, _, vh = np.linalg.svd(numbers, full_matrices=False)
    return u[:, 0].argsort(), vh[0].argsort()


def _reached(name: str, matrix: Tensor, changes: dict[str, Tensor], setting: Setting, heads: int) -> dict:
    """What `measure` says of the changes of a matrix."""
    kind, seed, usual = place(name).kind, setting["config"]["seed"], usual_shape(*matrix.shape)
    as_they_are = tuple(map(np.arange, matrix.shape))
    ways = [(usual, as_they_are), *((shape_of(legs, matrix.shape), as_they_are) for legs in setting["legs"].values())]
    for order in setting["orders"]:
        ways.append((usual, order_of(order, matrix, changes[TRAINED_HEAD], kind, heads, seed)))
    shares = {change: [] for change in changes}
    for shape, order in ways:
        reach = Reach(_in_order(matrix, order), shape) if shape and order else None
        for change, numbers in changes.items():
            shares[change].append(reach and _rounded(reach.share(_in_order(numbers, order))))
    low_rank = {change: _rounded(low_rank_share(numbers, dimension(usual))) for change, numbers in changes.items()}
    return {"shares": shares, "low_rank": low_rank}


def _in_order(matrix: Tensor, order: tuple[np.ndarray, np.ndarray]) -> Tensor:
    rows, columns = map(torch.from_numpy, order)
    return matrix.cpu()[rows][:, columns]


def _as_matrix(name: str, weight: Tensor) -> Tensor:
    """A weight as (in, out): a linear layer keeps the transpose."""
    return weight if place(name).part == "embedding" else weight.T


def _rounded(share: float | Tensor) -> float:
    return round(float(share), DIGITS)


def _is_matrix(value: object) -> bool:
    """Whether it is what `measure` says of a matrix."""
    if not isinstance(value, dict) or not all(forms.is_number(value.get(name)) for name in ("moved", "rows")):
        return False
    lists = all(forms.NUMBERS.fits(value.get(name)) for name in ("size", "sizes", "spectrum"))
    return lists and all(isinstance(value.get(name, {}), dict) for name in ("shares", "low_rank"))


MATRICES = forms.Leaf(
    "what became of each matrix",
    lambda value: isinstance(value, dict) and value != {} and all(map(_is_matrix, value.values())),
)


def form(_setting: Setting) -> forms.Form:
    """Of what `measure` gives."""
    return {"validation": forms.MEASURED, "matrices": MATRICES}


def describe(point: Point) -> str:
    found = point["result"]["matrices"].values()
    mean = np.mean([row["moved"] for row in found])
    return (
        f"seed {point['setting']['config']['seed']}: {len(found)} matrices moved by {100 * mean:.2f} % of their norms"
    )
