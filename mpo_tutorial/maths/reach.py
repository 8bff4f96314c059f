"""What trained cores reach to first order: the part of a change of the matrix that a small step of them can make.

Regroup a matrix M as a tensor (left, centre, right): the legs left of the central core, its own, and those right of it. At full
bond the auxiliary cores make M' = A M B of it, A acting on the left legs, B on the right ones (where a side is not square, a
projection besides). For a small step that is M + X M + M Y, with any X and Y. All X M are the tensors whose rows, `left` being
the row index, lie in the row space of M; all M Y those whose columns, `right` being the column index, lie in its column space.
Both spaces are made of M alone, so their sum is the same in every gauge. The step that gradient descent takes in it is not.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, lsqr
from torch import Tensor

from mpo_tutorial.maths.linalg import frobenius_norm, scale_of, singular_values
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape

TOLERANCE = 1e-10  # of LSQR; a share is off by about its square


class Reach:
    """All X M + M Y for a matrix M and its legs: the tangent space of light fine-tuning at its start, at full bond.

    With bases of the two spaces that are orthonormal, the nearest of them to a change is a well-conditioned least-squares
    problem; it is singular in what both spaces share (multiples of M at least), which LSQR does not mind.

    >>> generator = torch.Generator().manual_seed(0)
    >>> matrix, change = torch.randn(2, 24, 24, generator=generator, dtype=torch.float64)
    >>> reach = Reach(matrix, ((2, 3, 4), (3, 4, 2)))
    >>> round(reach.share(change), 3), round(reach.share(2 * matrix), 3), round(dimension(reach.shape) / 24**2, 3)
    (0.203, 1.0, 0.172)

    Parameters
    ----------
    matrix : Tensor of shape (in, out), floating point
        M. All is computed in float64.
    shape : Shape, or a pair of tuples (in legs, out legs)
        Without padding.

    Raises
    ------
    ValueError
        If the legs do not multiply out to the matrix or are padded, those of one side are more than all others (then everything
        is in reach), or a number is not finite.
    """

    def __init__(self, matrix: Tensor, shape: Shape | tuple[Sequence[int], Sequence[int]]):
        self.shape = Shape.of(shape)
        _require_no_padding(self.shape)
        tensor = self._blocks(matrix).central.numpy()
        self._rows = _row_space(tensor.reshape(len(tensor), -1))  # (rank, centre * right)
        self._columns = _row_space(tensor.reshape(-1, tensor.shape[-1]).T).T  # (left * centre, rank)

    def project(self, change: Tensor) -> Tensor:
        """The nearest X M + M Y to a change of the matrix, by the Frobenius norm: of shape (in, out), in float64.

        It is a ValueError if the change is of another shape than the matrix, or has a number that is not finite.
        """
        before, centre, after = self._blocks(change).cores
        tensor = centre.numpy()
        left, *_, right = tensor.shape
        size = left * len(self._rows)

        def combined(unknowns: np.ndarray) -> np.ndarray:
            x, y = unknowns[:size].reshape(left, -1), unknowns[size:].reshape(-1, right)
            return (x @ self._rows).ravel() + (self._columns @ y).ravel()

        def parts(numbers: np.ndarray) -> np.ndarray:
            x, y = numbers.reshape(left, -1) @ self._rows.T, self._columns.T @ numbers.reshape(-1, right)
            return np.concatenate([x.ravel(), y.ravel()])

        sizes = tensor.size, size + self._columns.shape[1] * right
        operator = LinearOperator(sizes, matvec=combined, rmatvec=parts, dtype=tensor.dtype)  # pyright: ignore[reportCallIssue]
        solution, *_ = lsqr(operator, tensor.ravel(), atol=TOLERANCE, btol=TOLERANCE, conlim=0)
        nearest = torch.from_numpy(combined(solution)).view_as(centre)
        return scale_of(change) * MPO((before, nearest, after)).to_matrix()

    def share(self, change: Tensor) -> float:
        """How much of a change of the matrix is in reach, from 0 to 1: the squared norm of `project` over its own.

        Errors as in `project`; a change of norm zero is a ValueError as well.
        """
        norm = frobenius_norm(change)
        if norm == 0:
            raise ValueError("what is in reach is a share of a change's norm, and this change is zero")
        return (frobenius_norm(self.project(change)) / norm) ** 2

    def _blocks(self, matrix: Tensor) -> MPO:
        """A matrix of the shape, in float64 and scaled so that it can be squared, between two identities."""
        return MPO.from_blocks(matrix.detach().double() / scale_of(matrix), self.shape)


def dimension(shape: Shape | tuple[Sequence[int], Sequence[int]]) -> int:
    """Of all X M + M Y, for a matrix M in general position. Over that of M it is the share of a random change that is in reach.

    X and Y have left**2 + right**2 numbers, and one direction of them, multiples of the identity, does the same in both. Where
    that is more than M has, everything is in reach. For a central core with two pairs of legs between equal sides there is more
    in common: as many directions as M, a pencil of two square matrices, has eigenvalues.

    >>> dimension(((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))) / 384**2
    0.12499321831597222

    Errors as in `Reach`.
    """
    shape = Shape.of(shape)
    _require_no_padding(shape)
    pairs, c = shape.pairs, shape.central
    left, centre, right = math.prod(pairs[:c]), pairs[c], math.prod(pairs[c + 1 :])
    whole = left * centre * right
    if centre == 2 and left == right:
        return whole - left
    return min(whole, left**2 + right**2 - 1)


def low_rank_share(change: Tensor, n_directions: int) -> float:
    """The share of a change in its best approximation by a matrix of low rank r, for comparison with `Reach.share`.

    Matrices of rank r are a surface of r (in + out - r) dimensions; r is the largest for which these are not above
    `n_directions`. Unlike all X M + M Y, that surface is curved, and the point of it is chosen by the change itself.

    >>> low_rank_share(torch.diag(torch.tensor([2.0, 1.0, 1.0])), 5), low_rank_share(torch.eye(3), 4)
    (0.6666666666666666, 0.0)
    """
    rows, columns = change.shape
    rank = sum(r * (rows + columns - r) <= n_directions for r in range(1, min(rows, columns) + 1))
    weights = singular_values(change) ** 2
    return float(weights[:rank].sum() / weights.sum())


def _row_space(matrix: np.ndarray) -> np.ndarray:
    """Orthonormal rows that span those of a matrix, as many as its numerical rank."""
    _, values, rows = np.linalg.svd(matrix, full_matrices=False)
    return rows[values > values[0] * max(matrix.shape) * np.finfo(float).eps]


def _require_no_padding(shape: Shape) -> None:
    if any(shape.padding):
        raise ValueError(
            f"what is in reach is computed for legs that multiply out to the matrix, got the padding {shape.padding}; take other "
            "legs"
        )
