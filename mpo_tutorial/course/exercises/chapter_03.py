"""Chapter 03: how do you cut a matrix into a chain?"""

import math

import numpy as np

from mpo_tutorial.course.exercises import Exercise
from mpo_tutorial.maths.shapes import Shape

SQUARE = Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))
NUMBERED = np.arange(16).reshape(4, 4)


def regrouped(matrix: np.ndarray) -> np.ndarray:
    return matrix.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)


def n_params(in_legs: tuple[int, ...], out_legs: tuple[int, ...], bonds: tuple[int, ...]) -> int:
    return Shape(in_legs, out_legs).n_params(bonds)


def _without_ends(in_legs: tuple[int, ...], out_legs: tuple[int, ...], bonds: tuple[int, ...]) -> int:
    ends = (bonds[0], *bonds, bonds[-1])
    return sum(a * i * j * b for a, i, j, b in zip(ends, in_legs, out_legs, ends[1:], strict=False))


def _one_leg(in_legs: tuple[int, ...], out_legs: tuple[int, ...], bonds: tuple[int, ...]) -> int:
    ends = (1, *bonds, 1)
    return sum(a * i * b for a, i, b in zip(ends, in_legs, ends[1:], strict=False))


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
                lambda: regrouped(NUMBERED.T),
                "You have (j1, i1) and (j2, i2): row digits come before column digits in each pair.",
            ),
        ],
    ),
    Exercise(
        question="the four full bonds of a 384 x 384 matrix with the legs 3, 4, 4, 4, 2 and 2, 4, 4, 4, 3",
        answer=lambda: SQUARE.full_bonds,
        solution=(
            "# Pairs of legs multiply to 6, 16, 16, 16, 6. From the left 6, 96, 1536, 24576; from the right 6, 96, 1536, 24576.\n"
            "# A bond is the smaller of the two sides of its cut.\n"
            "[6, 96, 96, 6]"
        ),
        hint="Multiply in leg and out leg of each core. For each cut take the smaller of the products left and right.",
        mistakes=[
            (
                lambda: [math.prod(SQUARE.pairs[:k]) for k in range(1, 5)],
                "Those are the rows of each cut. A matrix with few columns has a rank no larger than these: take the minimum.",
            ),
            (
                lambda: [math.prod(SQUARE.pairs[k:]) for k in range(1, 5)],
                "Those are the columns of each cut. A matrix with few rows has a rank no larger than these: take the minimum.",
            ),
            (lambda: SQUARE.pairs, "Those are the pairs of legs. Multiply them up, from each end."),
            (
                lambda: [min(math.prod(SQUARE.out_legs[:k]), math.prod(SQUARE.out_legs[k:])) for k in range(1, 5)],
                "You counted the out legs alone. Each core has an in leg besides.",
            ),
            (
                lambda: [min(math.prod(SQUARE.in_legs[:k]), math.prod(SQUARE.in_legs[k:])) for k in range(1, 5)],
                "You counted the in legs alone. Each core has an out leg besides.",
            ),
            (
                lambda: [1, *SQUARE.full_bonds, 1],
                "The two ends of the chain have the bond 1, right, but the question is after the four between the cores.",
            ),
        ],
    ),
    Exercise(
        question="a function n_params(in_legs, out_legs, bonds) that counts the numbers in all cores",
        answer=lambda: n_params,
        solution=(
            "def n_params(in_legs, out_legs, bonds):\n"
            "    ends = [1, *bonds, 1]\n"
            "    return sum(ends[k] * in_legs[k] * out_legs[k] * ends[k + 1] for k in range(len(in_legs)))"
        ),
        hint="A core is a block of left bond x in leg x out leg x right bond. Put a 1 at both ends of the list of bonds.",
        mistakes=[
            (lambda: _one_leg, "You counted one leg a core. Each core has an in leg and an out leg."),
            (
                lambda: _without_ends,
                "The first core has no bond to its left and the last none to its right: put a 1 there.",
            ),
            (
                lambda: lambda in_legs, out_legs, bonds: math.prod(in_legs) * math.prod(out_legs),
                "That is the size of the matrix. The cores together may hold more or fewer.",
            ),
        ],
        trials=[
            ((3, 4, 4, 4, 2), (2, 4, 4, 4, 3), (6, 96, 96, 6)),
            ((2, 5), (3, 2), (4,)),
            ((2, 2, 3), (3, 1, 2), (2, 5)),
        ],
    ),
    Exercise(
        question="the numbers that the gauge leaves free in the chain with the bonds 6, 96, 96, 6",
        answer=lambda: sum(bond**2 for bond in SQUARE.full_bonds),
        solution=(
            "# One invertible matrix of d x d numbers for each bond.\n"
            "# The same as 165960 numbers in the cores less 384 * 384 in the matrix: what is too much is exactly the gauge.\n"
            "sum(bond**2 for bond in (6, 96, 96, 6))"
        ),
        hint="On each bond you may insert an invertible matrix. How many numbers has it?",
        mistakes=[
            (lambda: 6 + 96 + 96 + 6, "On a bond of dimension d you insert a matrix of d x d numbers, not d numbers."),
            (lambda: 165960, "That is the whole chain. How many numbers have the matrices that you may insert?"),
            (lambda: 2 * 96**2, "Two of the four bonds are missing."),
            (lambda: 96**2, "That is one of the two large bonds. Every bond has a gauge of its own."),
            (
                lambda: 384 * 384,
                "That is the size of the matrix. How many numbers have the matrices that you may insert?",
            ),
        ],
    ),
)
