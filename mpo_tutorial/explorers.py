"""What a widget knows, without the widget: settings in, numbers, words and a figure out."""

import numpy as np
from matplotlib.figure import Figure

from mpo_tutorial import plots


class RankExplorer:
    """A matrix and its best approximations of every rank, from one singular value decomposition.

    >>> explorer = RankExplorer(np.diag([3.0, 4.0]))
    >>> explorer.error(1), explorer.n_params(1), explorer.n_params(2)
    (0.6, 4, 8)
    >>> explorer.in_words(1)
    'Rank 1 of 2: 4 numbers instead of 4 (100 %), error 60.0 % of the norm.'

    Parameters
    ----------
    matrix : array of shape (rows, columns)

    Raises
    ------
    ValueError
        If it is no matrix of finite real numbers.
    """

    def __init__(self, matrix: np.ndarray):
        matrix = np.asarray(matrix)
        if matrix.ndim != 2 or not matrix.size or matrix.dtype.kind not in "iuf":
            raise ValueError(f"a matrix of real numbers is needed, got {matrix.dtype} of shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            row, column = np.argwhere(~np.isfinite(matrix))[0]
            raise ValueError(f"a matrix must be finite, got {matrix[row, column]} in row {row}, column {column}")
        self.matrix = matrix
        self.u, self.values, self.vh = np.linalg.svd(matrix.astype(float), full_matrices=False)

    @property
    def largest_rank(self) -> int:
        return len(self.values)

    def approximation(self, rank: int) -> np.ndarray:
        """The best approximation of this rank (Eckart and Young 1936)."""
        return self.u[:, :rank] * self.values[:rank] @ self.vh[:rank]

    def error(self, rank: int) -> float:
        """Its relative error in the Frobenius norm, from the singular values alone."""
        norm = np.linalg.norm(self.values)
        return float(np.linalg.norm(self.values[rank:]) / norm) if norm else 0.0

    def n_params(self, rank: int) -> int:
        """Numbers in the two factors."""
        return rank * sum(self.matrix.shape)

    @property
    def break_even(self) -> int:
        """The largest rank at which the factors hold fewer numbers than the matrix; 0 if there is none."""
        return (self.matrix.size - 1) // sum(self.matrix.shape)

    def in_words(self, rank: int) -> str:
        numbers, dense = self.n_params(rank), self.matrix.size
        return (
            f"Rank {rank} of {self.largest_rank}: {numbers:,} numbers instead of {dense:,} ({100 * numbers / dense:.0f} %), "
            f"error {100 * self.error(rank):.1f} % of the norm."
        )

    def figure(self, rank: int) -> Figure:
        return plots.low_rank_picture(self.matrix, self.approximation(rank), self.values, rank)
