"""Fitting cut cores to what a layer is given: the output's error made small, not the weight's.

A layer's inputs x do not fill all directions alike. With their second moments C = E[x^T x] the mean squared error of the
output, summed over its numbers, is tr (M - M')^T C (M - M'). In one core, with the others held, that is a linear
least-squares problem; a sweep improves one after the other, each by a few steps of conjugate gradients. One could multiply
C^(1/2) into the matrix, cut, and divide it out again, but its inverse is no small MPO, and the bonds would grow back.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.functional import pad
from tqdm.auto import tqdm

from mpo_tutorial.contraction import contract, merged
from mpo_tutorial.layers import MPOLinear, cached
from mpo_tutorial.mpo import MPO

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH = 32
RIDGE = 0.1  # of the mean of the diagonal: what was rare among a few hundred sentences still counts
SWEEPS = 2  # the first brings most, on the embedded model
STEPS = 4  # of conjugate gradients at each core: its neighbours change afterwards, so more would be wasted


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and covariance of a layer's inputs x, which are rows of length `in`.

    Parameters
    ----------
    mean : Tensor of shape (in,)
        E[x].
    covariance : Tensor of shape (in, in)
        E[x^T x] - E[x]^T E[x].
    """

    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, n: int, total: Tensor, squares: Tensor) -> "Moments":
        """Of n rows x, from the sum of x and the sum of x^T x."""
        mean = total / n
        return cls(mean, squares / n - torch.outer(mean, mean))

    def metric(self, centred: bool) -> Tensor:
        """C, of shape (in, in), with a ridge: about the mean if a bias takes up the mean of the error, else about zero."""
        metric = self.covariance.clone() if centred else self.covariance + torch.outer(self.mean, self.mean)
        metric.diagonal().add_(RIDGE * metric.diagonal().mean())
        return metric


def input_moments(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    sentences: Sequence[str],
    *,
    max_length: int,
    names: Collection[str] | None = None,
    progress: bool = False,
) -> dict[str, Moments]:
    """The moments of the inputs of each `MPOLinear`, over the tokens of some sentences, padding left out.

    To be taken of the uncut model, which is left in evaluation mode.

    Parameters
    ----------
    sentences : sequence of str
        A few hundred of those that the model was trained on.
    max_length : int
        Tokens at which a sentence is cut off.
    names : collection of str, optional
        Of the layers to look at; None takes all. A layer takes 8 bytes times the square of its inputs' size.

    Returns
    -------
    dict : by layer name; a layer that is called several times has all its inputs pooled, one that is never called is missing

    Raises
    ------
    ValueError
        If there is no sentence, or a name is not that of an `MPOLinear`.
    """
    if not sentences:
        raise ValueError("moments of the inputs need at least one sentence, got none")
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, MPOLinear)}
    names = layers if names is None else names
    if unknown := sorted(set(names) - layers.keys()):
        raise ValueError(f"moments are taken of MPOLinear layers, {unknown[0]} is none; there are {', '.join(layers)}")
    sums: dict[str, list] = {}
    mask = None

    def add(name: str, _layer: MPOLinear, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        x = x[mask] if x.shape[:-1] == mask.shape else x.flatten(0, -2)
        x = x.double()  # the covariance is a difference of large numbers where an input hardly varies
        size = x.shape[1]
        if name not in sums:
            sums[name] = [0, x.new_zeros(size), x.new_zeros(size, size)]
        sums[name][0] += len(x)
        sums[name][1] += x.sum(0)
        sums[name][2].addmm_(x.T, x)

    model.eval()
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(layers[name].register_forward_pre_hook(partial(add, name)))
        stack.enter_context(torch.no_grad())
        stack.enter_context(cached(model))
        for start in tqdm(range(0, len(sentences), BATCH), desc="inputs", unit="batch", disable=not progress):
            batch = tokenizer(
                list(sentences[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=max_length,
                return_tensors="pt",
            ).to(model.device)
            mask = batch["attention_mask"].bool()
            model(**batch)
    moments = {}
    for name in list(sums):
        exact = Moments.of(*sums.pop(name))
        moments[name] = Moments(exact.mean.float(), exact.covariance.float())
    return moments


def fit(mpo: MPO, matrix: Tensor, metric: Tensor, sweeps: int = SWEEPS) -> MPO:
    """Improve the cores of an MPO at the same bonds: the error tr (M - M')^T C (M - M') does not grow.

    A core's neighbours are orthogonalised before its turn: the problem is then as well conditioned as C is. The centre ends on
    the central core.

    Parameters
    ----------
    mpo : MPO
        Where to start.
    matrix : Tensor of shape (in, out)
        M.
    metric : Tensor of shape (in, in), symmetric and positive definite
        C.
    sweeps : int
        How often to go from the first core to the last and back, with `STEPS` steps at each. With 0 only the centre moves.
    """
    start, n = mpo.cores[0].dtype, len(mpo.cores)
    dtype = torch.promote_types(start, torch.float32)
    matrix, metric = matrix.detach().to(dtype), metric.to(dtype)
    mpo, target = MPO(tuple(core.detach().to(dtype) for core in mpo.cores), mpo.padding), metric @ matrix
    plain = mpo
    for k in (*range(n), *range(n - 2, 0, -1)) * sweeps:
        cores = list(mpo.canonize(k).cores)
        rest = _Environment(cores, k, mpo.padding)
        operator = partial(rest.normal, metric)
        cores[k] = _conjugate_gradients(operator, rest.core(target), cores[k])
        mpo = MPO(tuple(cores), mpo.padding)
    before, after = (_squared_error(matrix - found.to_matrix(), metric) for found in (plain, mpo))
    mpo = mpo if after < before else plain  # not in exact arithmetic, but by rounding a step may lead away
    return MPO(tuple(core.to(start) for core in mpo.canonize(n // 2).cores), mpo.padding)


def _squared_error(error: Tensor, metric: Tensor) -> Tensor:
    return (error * (metric @ error)).sum()


class _Environment:
    """All cores but number k: the linear map from that core to the matrix, and its transpose."""

    def __init__(self, cores: Sequence[Tensor], k: int, padding: tuple[int, int]):
        one = cores[k].new_ones(1, 1, 1, 1)
        self.left, self.right = merged([one, *cores[:k]]), merged([*cores[k + 1 :], one])
        self.legs = [[core.shape[axis] for core in (self.left, cores[k], self.right)] for axis in (1, 2)]
        self.padding = padding

    def matrix(self, core: Tensor) -> Tensor:
        return contract((self.left, core, self.right), self.padding)

    def core(self, matrix: Tensor) -> Tensor:
        rows, columns = self.padding
        legs = pad(matrix, (0, columns, 0, rows)).reshape(*self.legs[0], *self.legs[1])
        half = torch.tensordot(self.left[0], legs, dims=([0, 1], [0, 3]))  # bond, in, right in, out, right out
        return torch.tensordot(half, self.right[..., 0], dims=([2, 4], [1, 2]))

    def normal(self, metric: Tensor, core: Tensor) -> Tensor:
        """The operator of the normal equations."""
        return self.core(metric @ self.matrix(core))


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], target: Tensor, start: Tensor) -> Tensor:
    """A better solution x of apply(x) = target, `apply` being linear, symmetric, positive semidefinite, target in its range."""
    x, residual = start, target - apply(start)
    direction, squared = residual, residual.square().sum()
    rounding = torch.finfo(target.dtype).eps * target.square().sum()
    for _ in range(STEPS):
        if squared <= rounding:
            break
        image = apply(direction)
        length = squared / (direction * image).sum()
        x, residual = x + length * direction, residual - length * image
        before, squared = squared, residual.square().sum()
        direction = residual + squared / before * direction
    return x
