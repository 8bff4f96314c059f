"""The MPO's relatives: a matrix as a network of other small tensors, SVD, CP, Tucker, ring or Monarch, of as many numbers."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

import tensorly as tl
import torch
from tensorly.decomposition import parafac, tensor_ring_als, tucker
from tensorly.tucker_tensor import validate_tucker_rank
from torch import Tensor

from mpo_tutorial.maths.shapes import balanced_shape

MODES = 3  # of the tensor that CP, Tucker and the ring see: with more they lose more of MiniLM's matrices
SWEEPS = 40  # of those that are fitted factor by factor, each by least squares


@dataclass(frozen=True, eq=False)
class Network:
    """A matrix M of shape (in, out), as in `MPO`, kept as the factors of a contraction.

    >>> two = Network("ar,rb->ab", 1, (torch.ones(4, 1), torch.ones(1, 6)))
    >>> two.to_matrix().shape, two.n_params
    (torch.Size([4, 6]), 10)

    Parameters
    ----------
    equation : str
        For einsum: the factors' axes, then the legs of the inputs and those of the outputs.
    n_in : int
        How many of these legs are inputs'.
    factors : tuple of Tensor
    """

    equation: str
    n_in: int
    factors: tuple[Tensor, ...]

    @property
    def n_params(self) -> int:
        return sum(factor.numel() for factor in self.factors)

    def to_matrix(self) -> Tensor:
        tensor = torch.einsum(self.equation, *self.factors)
        return tensor.reshape(math.prod(tensor.shape[: self.n_in]), -1)

    def apply(self, x: Tensor) -> Tensor:
        """x M for x of shape (..., in), without the matrix; in the order that opt_einsum finds cheapest, where it is installed."""
        terms, legs = self.equation.split("->")
        ins, outs = legs[: self.n_in], legs[self.n_in :]
        axes = zip(terms.split(","), self.factors, strict=True)
        sizes = {axis: size for term, factor in axes for axis, size in zip(term, factor.shape, strict=True)}
        split = x.reshape(-1, *(sizes[axis] for axis in ins))
        return torch.einsum(f"z{ins},{terms}->z{outs}", split, *self.factors).reshape(*x.shape[:-1], -1)

    def with_factors(self, factors: Iterable[Tensor]) -> "Network":
        return replace(self, factors=tuple(factors))


def in_format(name: str, matrix: Tensor, n_params: int, seed: int = 0) -> Network:
    """A matrix in one of the `FORMATS`, as close to it as that one's usual algorithm brings it; a best one for the SVD and the
    blocks, for the others where their sweeps have led.

    Parameters
    ----------
    matrix : Tensor of shape (in, out)
    n_params : int
        That all factors have together at most.
    seed : int
        Of the sweeps' start.

    Raises
    ------
    ValueError
        If the format is unknown, not even its smallest has so few numbers, or blocks do not divide the sides.
    """
    if name not in FORMATS:
        raise ValueError(f"formats are {', '.join(FORMATS)}; got {name!r}")
    found = FORMATS[name](matrix.detach(), n_params, seed)
    return found.with_factors(factor.contiguous() for factor in found.factors)


def _svd(matrix: Tensor, n_params: int, _seed: int) -> Network:
    rank = _rank("an SVD", n_params, sum(matrix.shape))
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    roots = s[:rank].sqrt()
    return Network("ar,rb->ab", 1, (u[:, :rank] * roots, roots[:, None] * vh[:rank]))


def _cp(matrix: Tensor, n_params: int, seed: int) -> Network:
    """A sum of products of one vector for each mode (Hitchcock 1927)."""
    tensor, pairs = _paired(matrix)
    rank = _rank("a CP", n_params, sum(tensor.shape))
    with tl.backend_context("pytorch", local_threadsafe=True):  # pyright: ignore[reportAttributeAccessIssue]
        options = {"init": "random", "normalize_factors": False, "tol": 0, "random_state": seed}
        _, factors = parafac(tensor, rank, n_iter_max=SWEEPS, **options)
    even = _evened(factors, (0,))
    return Network(
        "adr,ber,cfr->abcdef", MODES, tuple(f.reshape(*pair, rank) for f, pair in zip(even, pairs, strict=True))
    )


def _tucker(matrix: Tensor, n_params: int, _seed: int) -> Network:
    """A small tensor with a matrix on each mode (Tucker 1966), by higher-order orthogonal iteration."""
    tensor, pairs = _paired(matrix)
    _rank("a Tucker", n_params, sum(tensor.shape) + 1)
    ranks, share = (1,) * MODES, n_params / tensor.numel()
    for percent in range(
        1, 201
    ):  # rounded to whole ranks, the share that is asked for can come out above what it was, or below
        ranks_of_share = validate_tucker_rank(tensor.shape, share * percent / 100)  # pyright: ignore[reportArgumentType]
        tried = [max(1, int(rank)) for rank in ranks_of_share]
        if math.prod(tried) + sum(r * n for r, n in zip(tried, tensor.shape, strict=True)) <= n_params:
            ranks = tried
    with tl.backend_context("pytorch", local_threadsafe=True):  # pyright: ignore[reportAttributeAccessIssue]
        found = tucker(tensor, ranks, n_iter_max=SWEEPS, init="svd", tol=0)
    core, factors = cast("tuple[Tensor, list[Tensor]]", found)
    sides = (f.reshape(*pair, -1) for f, pair in zip(factors, pairs, strict=True))
    return Network("uvw,adu,bev,cfw->abcdef", MODES, (core, *sides))


def _ring(matrix: Tensor, n_params: int, seed: int) -> Network:
    """A chain whose ends are joined by a bond, all bonds alike (Zhao et al. 2016)."""
    tensor, pairs = _paired(matrix)
    bond = math.isqrt(_rank("a ring", n_params, sum(tensor.shape)))
    with tl.backend_context("pytorch", local_threadsafe=True):  # pyright: ignore[reportAttributeAccessIssue]
        options = {"ls_solve": "normal_eq", "tol": 0, "random_state": seed}
        factors = tensor_ring_als(tensor, bond, n_iter_max=SWEEPS, **options).factors
    even = _evened(factors, (0, 1, 2))
    shaped = tuple(f.reshape(bond, *pair, bond) for f, pair in zip(even, pairs, strict=True))
    return Network("uadv,vbew,wcfu->abcdef", MODES, shaped)


def _blocks(matrix: Tensor, n_params: int, _seed: int, blocks: int) -> Network:
    """Two block-diagonal matrices with a fixed permutation between them: Monarch (Dao et al. 2022), or a block tensor train
    (Qiu et al. 2024). Seen as blocks x blocks parts, each is cut by its own SVD.
    """
    if any(side % blocks for side in matrix.shape):
        raise ValueError(f"{blocks} blocks do not divide a matrix of shape {tuple(matrix.shape)}")
    a, d = (side // blocks for side in matrix.shape)
    rank = min(_rank(f"{blocks} blocks", n_params, blocks**2 * (a + d)), a, d)
    parts = matrix.reshape(a, blocks, blocks, d).permute(1, 2, 0, 3)
    u, s, vh = torch.linalg.svd(parts, full_matrices=False)
    roots = s[..., :rank].sqrt()
    return Network("bcar,bcrd->abcd", 2, (u[..., :rank] * roots[..., None, :], roots[..., None] * vh[..., :rank, :]))


FORMATS: dict[str, Callable[[Tensor, int, int], Network]] = {
    "SVD": _svd,
    "CP": _cp,
    "Tucker": _tucker,
    "ring": _ring,
    "Monarch, 4 blocks": partial(_blocks, blocks=4),
    "block tensor train, 16 blocks": partial(_blocks, blocks=16),
}


def _rank(what: str, n_params: int, each: int) -> int:
    """How often so many numbers fit."""
    if n_params < each:
        raise ValueError(f"{what} of rank 1 has {each} parameters, got room for {n_params}")
    return n_params // each


def _paired(matrix: Tensor) -> tuple[Tensor, tuple[tuple[int, int], ...]]:
    """The matrix as a tensor with one mode for each pair of legs, in and out, and the pairs' sizes."""
    rows, columns = matrix.shape
    shape = balanced_shape(rows, columns, MODES)
    order = [axis for k in range(MODES) for axis in (k, k + MODES)]
    tensor = matrix.reshape(*shape.in_legs, *shape.out_legs).permute(order)
    return tensor.reshape(shape.pairs), tuple(zip(shape.in_legs, shape.out_legs, strict=True))


def _evened(factors: Sequence[Tensor], axes: tuple[int, ...]) -> list[Tensor]:
    """The same product, all factors of one norm over some axes: least squares leaves the scale to the last, and one learning rate
    has to suit them.
    """
    norms = [torch.linalg.vector_norm(f, dim=axes, keepdim=True).clamp(min=torch.finfo(f.dtype).tiny) for f in factors]
    mean = torch.stack(norms).log().mean(0).exp()
    return [factor * (mean / norm) for factor, norm in zip(factors, norms, strict=True)]
