"""Chapter 07: why train only 10 %?"""

from functools import cache

import numpy as np

from mpo_tutorial.course.exercises import Exercise
from mpo_tutorial.experiments.compare import summarise
from mpo_tutorial.experiments.light import LIGHT
from mpo_tutorial.experiments.records import shipped_points
from mpo_tutorial.maths.shapes import balanced_shape
from mpo_tutorial.models.families import PAPERS_MODELS

SIDE = 384
SHAPE = balanced_shape(SIDE, SIDE)
FLOORS = np.diag([1.0, 1.0]), np.diag([1.0, 2.0])
WANTED = (
    (np.diag([1.0, 1.0]), np.diag([2.0, 1.0])),
    (np.diag([1.0, 1.0]), np.diag([1.0, 3.0])),
    (np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([[0.0, 2.0], [1.0, 0.0]])),
    (np.diag([1.0, 1.0]), np.diag([3.0, 6.0])),
)


@cache
def _shares() -> tuple[float, float, float]:
    """In per cent: auxiliary numbers over all, a mean over models; the same over pooled numbers; all but central ones."""
    from mpo_tutorial.models.look import look_at

    views = [look_at(name) for name in PAPERS_MODELS]
    auxiliary = np.mean([view.auxiliary / view.dense for view in views])
    everything = np.mean([view.everything / view.dense for view in views])
    pooled = sum(view.auxiliary for view in views) / sum(view.dense for view in views)
    return float(100 * auxiliary), float(100 * pooled), float(100 * everything)


def _blocks() -> tuple[int, int]:
    """Sides of the blocks A and B."""
    pairs, c = SHAPE.pairs, SHAPE.central
    return int(np.prod(pairs[:c])), int(np.prod(pairs[c + 1 :]))


def _cores() -> int:
    each = SHAPE.n_params_each(SHAPE.full_bonds)
    return sum(each) - each[SHAPE.central]


def _reachable() -> list[int]:
    """A M_0 B and A M_1 B have the ratio A (M_1 / M_0) / A, with the same eigenvalues; here they are all different."""

    def ratio(floors):
        return np.sort(np.linalg.eigvals(floors[1] @ np.linalg.inv(floors[0])))

    return [int(np.allclose(ratio(floors), ratio(FLOORS))) for floors in WANTED]


@cache
def _spread() -> tuple[float, int]:
    """Of the differences on the confirmation set: standard deviation in points, and how many there are."""
    found = summarise(shipped_points(LIGHT.name), LIGHT)["final"]
    right = [[point["result"]["confirmation"]["accuracy"] for point in found[name]] for name in LIGHT.primary]
    differences = 100 * (np.array(right[0]) - np.array(right[1]))
    return float(differences.std(ddof=1)), len(differences)


def _half(quantile: float, seeds: int) -> float:
    """From the mean to an end of the interval."""
    return quantile * _spread()[0] / seeds**0.5


EXERCISES = (
    Exercise(
        question="by how many per cent auxiliary cores alone reduce what is trained, a mean over the four models",
        answer=lambda: 100 - _shares()[0],
        solution=(
            "from mpo_tutorial.models.look import look_at\n"
            f"views = [look_at(name) for name in {PAPERS_MODELS}]\n"
            "100 * sum(1 - view.auxiliary / view.dense for view in views) / len(views)"
        ),
        hint='ledgers.views("the paper\'s") holds the four; each has .auxiliary and .dense.',
        mistakes=[
            (lambda: _shares()[0], "That is the share that is trained. How much fewer is that than all?"),
            (
                lambda: round(_shares()[0], 1),
                "That is the share that is trained, rounded. How much fewer is that than all?",
            ),
            (lambda: 91.0, "That is what was promised. Compute it."),
            (lambda: 100 - _shares()[1], "That pools the four models. Take the mean of four percentages."),
            (lambda: 1 - _shares()[0] / 100, "As a share that is right. The question is in per cent: times 100."),
            (
                lambda: 100 - _shares()[2],
                "That is with everything but the central cores trained, as the paper counts in its tables. Auxiliary cores alone.",
            ),
        ],
    ),
    Exercise(
        question="how many numbers the blocks A and B of a 384 x 384 matrix have",
        answer=lambda: sum(side**2 for side in _blocks()),
        solution="# Left of the central core: 3 * 2 * 4 * 4 = 96 cases; right of it 4 * 4 * 2 * 3 = 96.\n96**2 + 96**2",
        hint="Each is square. Its side is the bond next to the central core: multiply the pairs of legs on its side.",
        mistakes=[
            (
                _cores,
                "That is what the four small cores have. A and B say the same with fewer: two squares of side 96.",
            ),
            (lambda: _blocks()[0] ** 2, "That is one of the two."),
            (lambda: sum(_blocks()), "Those are their sides. How many numbers has a square matrix?"),
            (lambda: SIDE**2, "That is the matrix M itself."),
        ],
    ),
    Exercise(
        question="which of four boxes light fine-tuning can make of a box with two floors",
        answer=_reachable,
        solution=(
            "# (A M1 B) (A M0 B)^-1 = A (M1 M0^-1) A^-1: its eigenvalues stay what they were, 1 and 2. So compare them:\n"
            "# 1. 2 and 1, so yes: A = B swaps the coordinates.   2. 1 and 3, so no.\n"
            "# 3. 2 and 1 again, so yes: A swaps the coordinates, B = 1.\n"
            "# 4. 3 and 6, so no: both floors get the same factors.\n"
            "[1, 0, 1, 0]"
        ),
        hint="A M1 B times the inverse of A M0 B: B goes, and A stands on both sides. What does that leave of a matrix?",
        mistakes=[
            (
                lambda: [1, 0, 1, 1],
                "The fourth scales one floor and not the other. A and B are the same on every floor.",
            ),
            (
                lambda: [1, 0, 0, 0],
                "The third looks far off, but try A that swaps the coordinates and B = 1.",
            ),
            (lambda: [0, 0, 0, 0], "Some can be had. Try A and B that both swap the two coordinates."),
            (
                lambda: [1, 1, 1, 1],
                "Then nothing would be out of reach. What are the eigenvalues of M1 times the inverse of M0?",
            ),
            (lambda: [0, 0, 1, 0], "The first can be had, too: let A and B both swap the two coordinates."),
        ],
    ),
    Exercise(
        question="how far an interval from three seeds would go, from the mean to one end, in points",
        answer=lambda: _half(4.303, 3),
        solution=(
            "final = mt.compare.summarise(mt.shipped_points('light'), mt.light.LIGHT)['final']\n"
            "differences = 100 * mt.compare.paired(final['light'], final['full'], 'confirmation')  # the chapter's\n"
            "4.303 * differences.std(ddof=1) / 3**0.5"
        ),
        hint="Student's t for three seeds, times the standard deviation, over the root of the number of seeds.",
        mistakes=[
            (
                lambda: _half(1.96, 3),
                "1.96 is for when the spread is known. From three seeds it is guessed: take Student's t.",
            ),
            (lambda: _half(4.303, _spread()[1]), "With three seeds the root is that of three."),
            (lambda: _half(2.262, 3), "2.262 is Student's t for ten seeds. For three it is 4.303."),
            (lambda: _half(2.262, _spread()[1]), "That is the interval of the ten. Suppose there had been three."),
            (lambda: 2 * _half(4.303, 3), "That is its whole length. Asked is from the mean to one end."),
            (lambda: 4.303 * _spread()[0], "That is how far a single seed lies off. A mean of three lies off less."),
        ],
    ),
)
