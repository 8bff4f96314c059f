"""Chapter 11: turn all the knobs."""

import math
from collections.abc import Sequence

from mpo_tutorial.course.exercises import Exercise
from mpo_tutorial.maths.shapes import Shape

SHAPE = Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))
CAPS = (12, 64, 64, 12)
ALONE = (0.446, 0.728)  # bounds with one part cut, as shares of the norm of all weights


def _numbers() -> int:
    return SHAPE.n_params(SHAPE.usable([min(cap, full) for cap, full in zip(CAPS, SHAPE.full_bonds, strict=True)]))


Rows = Sequence[tuple[float, float, float]]  # a ratio and the ends of an interval


def smallest(rows: Rows, floor: float) -> float:
    """The least ratio whose whole interval lies at a floor or above."""
    return min(ratio for ratio, low, _ in rows if low >= floor)


def _by_the_mean(rows: Rows, floor: float) -> float:
    return min(ratio for ratio, low, high in rows if (low + high) / 2 >= floor)


def _by_the_upper_end(rows: Rows, floor: float) -> float:
    return min(ratio for ratio, _, high in rows if high >= floor)


def _the_largest(rows: Rows, floor: float) -> float:
    return max(ratio for ratio, low, _ in rows if low >= floor)


EXERCISES = (
    Exercise(
        question="numbers of a 384 x 384 chain under the caps 12, 64, 64, 12",
        answer=_numbers,
        solution=(
            "# The outer bonds are 6, whatever more a cap allows.\n"
            "bonds = [1, 6, 64, 64, 6, 1]\n"
            "pairs = [3 * 2, 4 * 4, 4 * 4, 4 * 4, 2 * 3]\n"
            "sum(left * pair * right for left, pair, right in zip(bonds, pairs, bonds[1:]))"
        ),
        hint="A cap wider than the bond changes nothing. Then: left bond times in leg times out leg times right bond, five times.",
        mistakes=[
            (
                lambda: sum(
                    left * pair * right for left, pair, right in zip((1, *CAPS), SHAPE.pairs, (*CAPS, 1), strict=True)
                ),
                "The outer bonds cannot be 12: there are only six pairs of digits to their left, and to their right.",
            ),
            (
                lambda: SHAPE.n_params(SHAPE.full_bonds),
                "That is the chain before it was cut.",
            ),
            (
                lambda: 64 * 16 * 64,
                "That is the central core alone. There are four more.",
            ),
        ],
    ),
    Exercise(
        question="the bound on the error of all weights with both parts cut, as a share of the norm",
        answer=lambda: math.hypot(*ALONE),
        solution="(0.446**2 + 0.728**2) ** 0.5",
        hint="The squared norm of all matrices is the sum of theirs, and so is the squared error.",
        mistakes=[
            (lambda: sum(ALONE), "Errors of different matrices do not add. What does?"),
            (lambda: ALONE[0] ** 2 + ALONE[1] ** 2, "That is its square."),
            (lambda: max(ALONE), "The attention's error is there as well, and makes it larger."),
            (lambda: sum(ALONE) / 2, "A mean would say that cutting more can cost less."),
        ],
    ),
    Exercise(
        question="a function smallest(rows, floor): the least ratio whose AUC is surely no lower than a floor",
        answer=lambda: smallest,
        solution=(
            "def smallest(rows, floor):\n"
            "    # The lower end of the interval has to stay above the floor, not the mean alone.\n"
            "    return min(ratio for ratio, low, high in rows if low >= floor)"
        ),
        hint="Which end of an interval tells the worst that has to be reckoned with?",
        mistakes=[
            (lambda: _by_the_mean, "Its mean lies above the floor. Does all of its interval?"),
            (lambda: _by_the_upper_end, "You took the upper end, the best that one may hope for."),
            (lambda: _the_largest, "That is the largest ratio that will do. Asked is the smallest."),
        ],
        trials=[
            "[(0.8, 0.89, 0.90), (0.6, 0.87, 0.89), (0.4, 0.80, 0.88)], 0.85",
            "[(0.4, 0.84, 0.98), (0.2, 0.70, 0.85), (0.8, 0.90, 0.91)], 0.9",
            "[(0.5, 0.85, 0.86), (0.25, 0.85, 0.95)], 0.85",
        ],
    ),
)
