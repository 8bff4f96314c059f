"""Chapter 01: how much of a matrix can you throw away?"""

import numpy as np

from mpo_tutorial.course.exercises import Exercise

BY_HAND = np.array([[3.0, 0.0], [4.0, 5.0]])


def truncated(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] * s[:rank] @ vh[:rank]


def _without_singular_values(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, _, vh = np.linalg.svd(matrix, full_matrices=False)
    return u[:, :rank] @ vh[:rank]


def _rows_for_columns(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank] @ vh[:, :rank].T)[:, : matrix.shape[1]]


def _rows_of_u(matrix: np.ndarray, rank: int) -> np.ndarray:
    """As it comes out for a square matrix; for another one the shapes do not fit."""
    u, s, vh = np.linalg.svd(matrix)
    if len(u) != len(vh):
        return np.full_like(matrix, np.inf)
    return sum(s[k] * np.outer(u[k], vh[k]) for k in range(rank))


def _last_kept(matrix: np.ndarray, rank: int) -> np.ndarray:
    return matrix - truncated(matrix, min(matrix.shape) - rank)


EXERCISES = (
    Exercise(
        question="numbers in two factors of rank 1 for a 3 x 4 matrix",
        answer=lambda: 3 + 4,
        solution="# A column of 3 numbers times a row of 4. In general rank * (rows + columns).\n3 + 4",
        hint="Write the matrix as a column times a row. How many numbers are in each?",
        mistakes=[
            (
                lambda: 12,
                "That is the size of the matrix, 3 x 4. Two factors of rank 1 hold a column of 3 and a row of 4.",
            ),
            (
                lambda: 8,
                "A factor in front of the two can be multiplied into the column, so it costs nothing.",
            ),
            (
                lambda: 6,
                "You saw something: make the column begin with 1, and that 1 need not be stored. Six numbers are enough, and "
                "chapter 03 has a name for the freedom. Two factors as they are usually stored, whole, hold one more.",
            ),
        ],
    ),
    Exercise(
        question="singular values of [[3, 0], [4, 5]]",
        answer=lambda: np.linalg.svd(BY_HAND, compute_uv=False),
        solution=(
            "# A^T A = [[25, 20], [20, 25]] has the eigenvalues 45 and 5, and the singular values are their roots.\n"
            "np.sqrt([45, 5])"
        ),
        hint="Multiply A^T A out. Its eigenvectors are (1, 1) and (1, -1).",
        mistakes=[
            (lambda: [45.0, 5.0], "Those are the eigenvalues of A^T A, which are the squares of the singular values."),
            (
                lambda: [5.0, 3.0],
                "Those are the eigenvalues of A. For a matrix that is not symmetric they are something else.",
            ),
            (lambda: np.sqrt([5, 45]), "The values are right. By custom the largest comes first."),
            (lambda: [9.0, 1.0], "You left out a factor: A^T A has 25 and 20 in its rows. Then take the roots."),
            (
                lambda: [3.0, 1.0],
                "That is how they stand to each other. Multiply A^T A by (1, 1): by which factor does it come back?",
            ),
        ],
    ),
    Exercise(
        question="a function truncated(matrix, rank) that returns the best approximation",
        answer=lambda: truncated,
        solution=(
            "def truncated(matrix, rank):\n"
            "    u, s, vh = np.linalg.svd(matrix, full_matrices=False)\n"
            "    return u[:, :rank] * s[:rank] @ vh[:rank]"
        ),
        hint=(
            "np.linalg.svd(matrix, full_matrices=False) gives u, s, vh; without that argument a matrix that is not square gives "
            "a u too large. Keep the first `rank` columns of u and rows of vh."
        ),
        mistakes=[
            (lambda: _without_singular_values, "The singular values are missing: u s v^T, not u v^T."),
            (
                lambda: _rows_for_columns,
                "NumPy's third output is v transposed already: take its first `rank` rows, not columns.",
            ),
            (
                lambda: lambda matrix, rank: truncated(matrix, 1),
                "You return one piece, whatever the rank. Add up the first `rank` of them.",
            ),
            (
                lambda: lambda matrix, rank: truncated(matrix, rank) - truncated(matrix, rank - 1),
                "That is the last of the pieces alone. Add up the first `rank`.",
            ),
            (lambda: _last_kept, "You kept the smallest singular values. The large ones carry the matrix."),
            (lambda: lambda matrix, rank: truncated(matrix, rank).T, "That is the transpose."),
            (
                lambda: _rows_of_u,
                "You took rows of u. Its columns are the pieces: u[:, k], or the first `rank` of them, u[:, :rank].",
            ),
            (
                lambda: lambda matrix, rank: truncated(matrix, rank - 1),
                "One rank too few: the slice [:rank] has `rank` entries.",
            ),
            (
                lambda: lambda matrix, rank: truncated(matrix, rank + 1),
                "One rank too many: the slice [:rank] has `rank` entries.",
            ),
        ],
        trials=[
            "np.random.default_rng(1).standard_normal((4, 4)), 3",
            "np.random.default_rng(1).standard_normal((5, 4)), 3",
            "np.random.default_rng(1).standard_normal((3, 6)), 1",
        ],
    ),
    Exercise(
        question="the largest rank at which two factors of a 384 x 384 matrix hold fewer numbers than the matrix",
        answer=lambda: 191,
        solution=(
            "# rank * (384 + 384) < 384 * 384 means rank < 192: half of the full rank. Cuts that keep more cost more.\n"
            "384 * 384 // (384 + 384) - 1"
        ),
        hint="Write down the numbers in both factors as a function of the rank, and set them equal to 384 * 384.",
        mistakes=[
            (lambda: 193, "At 193 the factors hold more than the matrix."),
            (lambda: 96, "That saves half. You may keep more."),
            (lambda: 192, "At 192 they hold just as many, and no fewer."),
            (lambda: 190, "At 190 they hold fewer, and there is a larger rank at which they still do."),
            (lambda: 384, "That is the full rank: there the two factors hold twice as many numbers as the matrix."),
            (lambda: 383, "Try it: 383 * (384 + 384) against 384 * 384."),
        ],
    ),
)
