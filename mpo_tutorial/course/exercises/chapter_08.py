"""Chapter 08: how do you compress without falling off a cliff?"""

from collections.abc import Sequence

import numpy as np

from mpo_tutorial.course.exercises import Exercise
from mpo_tutorial.maths.budget import cubic_schedule

LARGE, SMALL = (6.0, 3.0, 2.0), (1.0, 0.9, 0.8)  # Schmidt values of the two matrices of the first exercise


def pick(values: Sequence[np.ndarray], bonds: Sequence[int], step: int) -> int:
    """The number of the matrix whose bond, sunk by a step but not below 1, discards least of what it has now."""
    losses = _losses(values, bonds, step)
    return int(np.argmin([loss if bond > 1 else np.inf for loss, bond in zip(losses, bonds, strict=True)]))


def _losses(values: Sequence[np.ndarray], bonds: Sequence[int], step: int) -> list[float]:
    return [float(np.linalg.norm(found[max(1, bond - step) : bond])) for found, bond in zip(values, bonds, strict=True)]


def _pick_the_exhausted(values: Sequence[np.ndarray], bonds: Sequence[int], step: int) -> int:
    return int(np.argmin(_losses(values, bonds, step)))


def _pick_by_all_that_is_gone(values: Sequence[np.ndarray], bonds: Sequence[int], step: int) -> int:
    gone = [np.linalg.norm(found[max(1, bond - step) :]) for found, bond in zip(values, bonds, strict=True)]
    return int(np.argmin([loss if bond > 1 else np.inf for loss, bond in zip(gone, bonds, strict=True)]))


def _pick_the_worst(values: Sequence[np.ndarray], bonds: Sequence[int], step: int) -> int:
    losses = _losses(values, bonds, step)
    return int(np.argmax([loss if bond > 1 else -np.inf for loss, bond in zip(losses, bonds, strict=True)]))


def _order(relative: bool) -> list[int]:
    """Which of the two matrices of the first exercise is cut in the first three steps, by 1 each."""
    bonds, order = [3, 3], []
    for _ in range(3):
        kept = [np.array(of[:bond]) for of, bond in zip((LARGE, SMALL), bonds, strict=True)]
        errors = [np.inf if len(of) == 1 else of[-1] / (np.linalg.norm(of) if relative else 1.0) for of in kept]
        order.append(int(np.argmin(errors)) + 1)
        bonds[order[-1] - 1] -= 1
    return order


EXERCISES = (
    Exercise(
        question="the first three picks by the relative error, as a list",
        answer=lambda: _order(relative=True),
        solution=(
            "# The norms are 7 and about 1.57. 2 / 7 is less than 0.8 / 1.57, and so is 3 / 45 ** 0.5.\n"
            "# Then the first matrix has a bond of 1, and only the second is left.\n"
            "[1, 1, 2]"
        ),
        hint="Divide the last value that each matrix still has by the root of the sum of the squares of all that it still has.",
        mistakes=[
            (
                lambda: _order(relative=False),
                "That is the order by the absolute error. Divide each error by its matrix's norm.",
            ),
            (lambda: [0, 0, 1], "Right, if matrices are counted from 0. Here they are matrix 1 and matrix 2."),
            (
                lambda: [1, 2, 1],
                "After the first pick the first matrix has (6, 3) left: its next cut costs 3 of 6.7, the other one's 0.8 of 1.57.",
            ),
            (lambda: [1, 1, 1], "With a bond of 1 there is nothing left to cut. Who is next?"),
        ],
    ),
    Exercise(
        question="the least and the most that two cut bonds can cost together, as a pair",
        answer=lambda: (4.0, 5.0),
        solution=(
            "# No less than either bond alone must cost; no more than the root of the sum of the squares.\n"
            "(max(3, 4), (3**2 + 4**2) ** 0.5)"
        ),
        hint=(
            "A chain whose second bond is so small cannot be better than the best matrix with that bond small, whatever the first "
            "bond does. And for the most: chapter 03 had a bound for several bonds."
        ),
        mistakes=[
            (lambda: (3.0, 5.0), "The upper end is right. But the second bond alone costs 4 already."),
            (lambda: (4.0, 7.0), "The lower end is right. For the upper one squares are added, not errors."),
            (lambda: (3.0, 4.0), "Both are cut. Can the sum of two mistakes not be larger than each?"),
            (lambda: (5.0, 7.0), "5 is the most, by chapter 03's bound. What is the least?"),
        ],
    ),
    Exercise(
        question="a function pick(values, bonds, step): the number of the matrix that is cut next",
        answer=lambda: pick,
        solution=(
            "def pick(values, bonds, step):\n"
            "    # What a bond loses now; a matrix whose bond is 1 cannot be cut.\n"
            "    losses = [\n"
            "        np.linalg.norm(v[max(1, bond - step) : bond]) if bond > 1 else np.inf\n"
            "        for v, bond in zip(values, bonds)\n"
            "    ]\n"
            "    return int(np.argmin(losses))"
        ),
        hint=(
            "For each matrix, take the values from the new bond up to the bond that it has now, and of these the root of the sum "
            "of squares. Beware of a matrix that has nothing left to lose."
        ),
        mistakes=[
            (
                lambda: _pick_the_exhausted,
                "You picked a matrix whose bond is 1. To cut it costs nothing because nothing can be cut.",
            ),
            (
                lambda: _pick_by_all_that_is_gone,
                "You counted what was discarded in earlier steps once more. It is gone already; what does this cut cost?",
            ),
            (lambda: _pick_the_worst, "You picked the matrix that loses most."),
        ],
        trials=[
            "[np.array([5.0, 3.0, 2.0]), np.array([4.0, 1.5, 1.0])], [3, 3], 1",
            "[np.array([5.0, 3.0, 2.0]), np.array([4.0, 1.5, 1.0])], [3, 1], 2",
            "[np.array([9.0, 1.0, 0.9, 0.8]), np.array([9.0, 1.1])], [2, 2], 1",
            "[np.array([9.0, 2.0, 1.0]), np.array([9.0, 1.5, 1.4])], [3, 3], 2",
        ],
    ),
    Exercise(
        question="per cent left after the fifth of ten cuts on the cubic schedule from 100 to 50",
        answer=lambda: cubic_schedule(100, 50, 10)[4],
        solution="50 + (100 - 50) * (1 - 5 / 10) ** 3",
        hint="Half of the cuts are still to come. Half, cubed, is the share of the way that is still to go.",
        mistakes=[
            (lambda: 75.0, "That would be equal steps. The cubic schedule has most of its way behind it at half-time."),
            (lambda: 93.75, "It begins with the large cuts, not with the small ones."),
            (lambda: 12.5, "That is the schedule down to nothing. This one ends at 50."),
            (lambda: 62.5, "That is the square. It is the cube."),
            (lambda: 43.75, "That is how much is gone. Asked is what is left."),
        ],
    ),
)
