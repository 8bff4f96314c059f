"""Chapter 03: how do you cut a matrix into a chain?"""

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from itertools import pairwise

import numpy as np

from mpo_tutorial.course.exercises import Exercise
from mpo_tutorial.maths.shapes import Shape

UNEVEN = Shape((2, 3, 4, 2), (3, 1, 2, 5))
NUMBERED = np.arange(16).reshape(4, 4)


def regrouped(matrix: np.ndarray) -> np.ndarray:
    return matrix.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)


def times(x: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    digits = x.reshape(first.shape[1], second.shape[1])
    return np.einsum("ik,aijb,bklc->jl", digits, first, second).ravel()


def _digits_exchanged(x: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    digits = x.reshape(second.shape[1], first.shape[1])
    return np.einsum("ki,aijb,bklc->jl", digits, first, second).ravel()


def tt_svd(
    tensor: np.ndarray, bonds: Sequence[int], share: Callable = lambda s: (1, s), *, cut: bool = True
) -> list[np.ndarray]:
    """The cores, left to right; `share` says what of the singular values goes into the core and what into the rest."""
    cores, left, rest = [], 1, tensor
    for size, bond in zip(tensor.shape, bonds, strict=False):
        u, s, vh = np.linalg.svd(rest.reshape(left * size, -1), full_matrices=False)
        kept = bond if cut else len(s)
        into_core, into_rest = (np.ones(kept) * weights for weights in share(s[:kept]))
        cores.append((u[:, :kept] * into_core).reshape(left, size, kept))
        left, rest = kept, into_rest[:, None] * vh[:kept]
    return [*cores, rest.reshape(left, tensor.shape[-1], 1)]


def _from_the_right(tensor: np.ndarray, bonds: Sequence[int]) -> list[np.ndarray]:
    cores = tt_svd(tensor.transpose(), tuple(bonds)[::-1])
    return [core.transpose() for core in reversed(cores)]


def contracted(cores: object) -> np.ndarray:
    """The tensor that a chain of cores makes.

    Raises
    ------
    ValueError
        With a sentence for the reader, if it is no chain.
    """
    try:
        blocks = [np.asarray(core, dtype=float) for core in cores]
    except (TypeError, ValueError):
        raise ValueError("The answer is a list of cores, each an array with three axes.") from None
    sizes = [block.shape for block in blocks]
    if not sizes or {len(size) for size in sizes} != {3}:
        raise ValueError(f"Each core has three axes: left bond, pair, right bond. Yours have the shapes {sizes}.")
    if sizes[0][0] != 1 or sizes[-1][2] != 1:
        raise ValueError(f"The two outer bonds have size one. Your cores have the shapes {sizes}.")
    if any(left[2] != right[0] for left, right in pairwise(sizes)):
        raise ValueError(f"The right bond of a core is the left bond of the next one. Yours have the shapes {sizes}.")
    return reduce(partial(np.tensordot, axes=1), blocks)[0, ..., 0]


EXERCISES = (
    Exercise(
        question="the regrouped form of the 4 x 4 matrix of the numbers 0 to 15",
        answer=lambda: regrouped(NUMBERED),
        solution=(
            "# Row (i1, j1) and column (i2, j2): the first digits of row and column come first.\n"
            "np.arange(16).reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)"
        ),
        hint="reshape(2, 2, 2, 2) gives the axes i1, i2, j1, j2. You want i1, j1, i2, j2: transpose, then reshape.",
        mistakes=[
            (
                lambda: NUMBERED,
                "That is the matrix itself: its rows are (i1, i2). The axes have to change places first.",
            ),
            (lambda: NUMBERED.T, "That is the transpose; nothing has been regrouped."),
            (
                lambda: NUMBERED.reshape(2, 2, 2, 2).transpose(0, 3, 1, 2).reshape(4, 4),
                "You paired i1 with j2. Large goes with large: i1 with j1.",
            ),
            (
                lambda: regrouped(NUMBERED).T,
                "That is the transpose: you have (i2, j2) as rows. The first pair belongs to the rows.",
            ),
            (
                lambda: NUMBERED.reshape(2, 2, 2, 2).transpose(0, 2, 3, 1).reshape(4, 4),
                "You have (j2, i2) in the second pair: row digits come before column digits.",
            ),
            (
                lambda: regrouped(NUMBERED.T),
                "You have (j1, i1) and (j2, i2): row digits come before column digits in each pair.",
            ),
        ],
    ),
    Exercise(
        question="a function times(x, first, second): x M through the two cores of M, without making M",
        answer=lambda: times,
        solution=(
            "def times(x, first, second):\n"
            "    # The digits i, k of x meet the in legs, the bonds meet each other; the out legs j, l are left.\n"
            "    digits = x.reshape(first.shape[1], second.shape[1])\n"
            '    return np.einsum("ik,aijb,bklc->jl", digits, first, second).ravel()'
        ),
        hint=(
            "Give x its two digits first: reshape it to the in leg of `first` times that of `second`. Then an einsum as in the "
            "cell above, with the digits of x as one more factor. In the result only the out legs are left."
        ),
        mistakes=[
            (
                lambda: lambda x, first, second: times(x, first.transpose(0, 2, 1, 3), second.transpose(0, 2, 1, 3)),
                "That is M x: you summed over the out legs. In x M the digits of x meet the in legs.",
            ),
            (
                lambda: lambda x, first, second: times(x, first, second).reshape(first.shape[2], second.shape[2]),
                "The right numbers, still sorted by digits. Put them into one row, with ravel().",
            ),
            (
                lambda: _digits_exchanged,
                "You split x the wrong way round: the large digit, that of `first`, comes first.",
            ),
            (
                lambda: (
                    lambda x, first, second: times(x, first, second).reshape(first.shape[2], second.shape[2]).T.ravel()
                ),
                "The right numbers in the wrong order: the out leg of `first` is the large digit, and comes first.",
            ),
        ],
        trials=[
            "np.arange(6.0), np.arange(12.0).reshape(1, 2, 3, 2), np.arange(12.0).reshape(2, 3, 2, 1)",
            "np.array([1.0, 0, 2, 0]), np.arange(8.0).reshape(1, 2, 2, 2), np.arange(8.0).reshape(2, 2, 2, 1)",
        ],
    ),
    Exercise(
        question="a function tt_svd(tensor, bonds) that cuts a tensor into cores, from left to right",
        answer=lambda: tt_svd,
        solution=(
            "def tt_svd(tensor, bonds):\n"
            "    cores, left, rest = [], 1, tensor\n"
            "    for size, bond in zip(tensor.shape, bonds):\n"
            "        # Rows: the bond to the left with the next axis. Columns: all that comes later.\n"
            "        u, s, vh = np.linalg.svd(rest.reshape(left * size, -1), full_matrices=False)\n"
            "        cores.append(u[:, :bond].reshape(left, size, bond))\n"
            "        left, rest = bond, s[:bond, None] * vh[:bond]\n"
            "    return [*cores, rest.reshape(left, tensor.shape[-1], 1)]"
        ),
        hint=(
            "A loop over all axes but the last. Keep two things from one turn to the next: what is left (`rest`) and the bond that "
            "it begins with, 1 at the start. In each turn: reshape to (bond * size of the axis, all the rest), svd, a core from u, "
            "and the new rest is s times vh, both cut."
        ),
        mistakes=[
            (
                lambda: partial(tt_svd, cut=False),
                "That is the whole tensor: nothing was cut. Keep only the first `bond` columns of u, values and rows of vh.",
            ),
            (
                lambda: _from_the_right,
                "A chain, and as good as the one asked for; but you began at the right end, and after more than one cut that "
                "makes a slightly different one. Begin at the left.",
            ),
            (
                lambda: partial(tt_svd, share=lambda s: (1, 1)),
                "The singular values are lost: what is left is s times vh, not vh.",
            ),
            (lambda: partial(tt_svd, share=lambda s: (s, s)), "The singular values are in it twice. Once will do."),
            (
                lambda: partial(tt_svd, share=lambda s: (np.sqrt(s), np.sqrt(s))),
                "You gave each side the root of s. For one cut that is as good; but the next one then weighs what is left "
                "wrongly. Leave all of s on the right.",
            ),
            (
                lambda: partial(tt_svd, share=lambda s: (s, 1)),
                "You put s into the core, and what is left has no weights any more: the next cut does not see what is large. "
                "Leave s on the right.",
            ),
        ],
        trials=[
            "np.random.default_rng(1).standard_normal((4, 4, 4)), (4, 4)",
            "np.random.default_rng(1).standard_normal((3, 4, 5)), (2, 3)",
            "np.random.default_rng(1).standard_normal((4, 3, 2, 5)), (3, 4, 2)",
        ],
        compared=contracted,
    ),
    Exercise(
        question="the three full bonds of a 48 x 30 matrix with the legs 2, 3, 4, 2 and 3, 1, 2, 5",
        answer=lambda: UNEVEN.full_bonds,
        solution=(
            "# Pairs of legs multiply to 6, 3, 8, 10. From the left 6, 18, 144; from the right 240, 80, 10.\n"
            "# A bond is the smaller of the two sides of its cut.\n"
            "[6, 18, 10]"
        ),
        hint="Multiply in leg and out leg of each core. For each cut take the smaller of the products left and right.",
        mistakes=[
            (
                lambda: [math.prod(UNEVEN.pairs[:k]) for k in range(1, 4)],
                "Those are the rows of each cut. A matrix with few columns has a rank no larger than these: take the minimum.",
            ),
            (
                lambda: [math.prod(UNEVEN.pairs[k:]) for k in range(1, 4)],
                "Those are the columns of each cut. A matrix with few rows has a rank no larger than these: take the minimum.",
            ),
            (
                lambda: [6, 18, 80],
                "80 is what stands right of the second cut. Right of the third there is the last pair alone.",
            ),
            (
                lambda: UNEVEN.pairs[:3],
                "Those are the first three pairs of legs. Multiply all that stand left of a cut.",
            ),
            (lambda: UNEVEN.pairs, "Those are the pairs of legs. Multiply them up, from each end."),
            (
                lambda: [min(math.prod(UNEVEN.out_legs[:k]), math.prod(UNEVEN.out_legs[k:])) for k in range(1, 4)],
                "You counted the out legs alone. Each core has an in leg besides.",
            ),
            (
                lambda: [min(math.prod(UNEVEN.in_legs[:k]), math.prod(UNEVEN.in_legs[k:])) for k in range(1, 4)],
                "You counted the in legs alone. Each core has an out leg besides.",
            ),
            (
                lambda: [1, *UNEVEN.full_bonds, 1],
                "The two ends of the chain have the bond 1, right, but the question is after the three between the cores.",
            ),
        ],
    ),
    Exercise(
        question="the most that two cuts can cost together, with the discarded values 2, 2, 1 and 4",
        answer=lambda: 5,
        solution=(
            "# What the first bond loses is (4 + 4 + 1) ** 0.5 = 3. Errors of different bonds add in squares, too.\n"
            "np.sqrt(2**2 + 2**2 + 1**2 + 4**2)"
        ),
        hint="Eq. 4: first the root of the discarded squares at each bond, then the root of the sum of their squares.",
        mistakes=[
            (lambda: 7, "That is 3 and 4, added. They add in squares: each later cut happens within what was kept."),
            (lambda: 3, "That is the error of the first cut alone. The second loses another 4, at right angles to it."),
            (lambda: 9, "You added all four values. It is their squares that add."),
            (lambda: 25, "That is the square of it. Take the root."),
            (
                lambda: 4,
                "That is the larger of the two, and what the best chain loses at least. The bound counts both.",
            ),
            (
                lambda: np.sqrt(41),
                "Eq. 3 as printed: it adds the values of the first bond, 2 + 2 + 1. Add their squares.",
            ),
        ],
    ),
    Exercise(
        question="the factors by which matrix, gradient of core 1 and gradient of core 2 change",
        answer=lambda: [1, 0.1, 10],
        solution=(
            "# The matrix stays. The slope by a number of core 1 is a product with what stands beside it, core 2 among that:\n"
            "# a tenth of what it was. For core 2 it is the other way round.\n"
            "[1, 1 / 10, 10]"
        ),
        hint="Try it with two numbers: m = a b. What is the slope of a loss of m by a, and what by b, if a is 10 times as large?",
        mistakes=[
            (
                lambda: [1, 10, 0.1],
                "The other way round: the slope by a number of core 1 is multiplied by core 2, which is a tenth.",
            ),
            (lambda: [1, 1, 1], "The matrix is the same, the slopes are not: each has the other core as a factor."),
            (
                lambda: [1, 100, 0.01],
                "The other way round, and once only: core 2, the factor in the slope by core 1, is a tenth of what it was.",
            ),
            (lambda: [0, 0.1, 10], "The factor by which the matrix changes is 1, not 0: it stays as it was."),
            (lambda: [10, 0.1, 10], "Ten times a tenth: the matrix stays as it was."),
            (
                lambda: [1, 0.01, 100],
                "That is by how much the relative size of a step changes. The slope itself changes by the factor once.",
            ),
        ],
    ),
)
