"""Chapter 06: what happens if we simply truncate?"""

import numpy as np

from mpo_tutorial.course.exercises import Exercise
from mpo_tutorial.maths.shapes import balanced_shape
from mpo_tutorial.models.truncation import bonds_of_ratio

RATIO = 0.4
QUERY = balanced_shape(384, 384)
INPUTS = "np.random.default_rng(7).normal(1, [3, 1, 0.3, 0.1, 0.03], (40, 5))"


def best_for_inputs(matrix: np.ndarray, inputs: np.ndarray, rank: int) -> np.ndarray:
    vt = np.linalg.svd(inputs @ matrix, full_matrices=False)[2][:rank]
    return matrix @ vt.T @ vt


def _truncated(matrix: np.ndarray, rank: int) -> np.ndarray:
    u, s, vt = np.linalg.svd(matrix, full_matrices=False)
    return (u[:, :rank] * s[:rank]) @ vt[:rank]


def _columns_for_rows(matrix: np.ndarray, inputs: np.ndarray, rank: int) -> np.ndarray:
    columns = np.linalg.svd(inputs @ matrix, full_matrices=False)[2][:, :rank]
    return matrix @ columns @ columns.T if len(columns) == matrix.shape[1] else np.full_like(matrix, np.nan)


def _onto_inputs(matrix: np.ndarray, inputs: np.ndarray, rank: int) -> np.ndarray:
    vt = np.linalg.svd(inputs, full_matrices=False)[2][:rank]
    return vt.T @ vt @ matrix


def _centred(matrix: np.ndarray, inputs: np.ndarray, rank: int) -> np.ndarray:
    return best_for_inputs(matrix, inputs - inputs.mean(0), rank)


def _still_whitened(matrix: np.ndarray, inputs: np.ndarray, rank: int) -> np.ndarray:
    values, vectors = np.linalg.eigh(inputs.T @ inputs)
    return _truncated((vectors * values**0.5) @ vectors.T @ matrix, rank)


def _without_the_root(matrix: np.ndarray, inputs: np.ndarray, rank: int) -> np.ndarray:
    weights = inputs.T @ inputs
    return np.linalg.inv(weights) @ _truncated(weights @ matrix, rank)


KIND_ONES, UNKIND_ONES, SHIFT = (2, 1, 0.4), (0.2, -1, -2), 1.5
ALONE = (0.48, 0.54, 0.55)  # errors after layer 2, of a model of which layer 0, 1 or 2 is cut


def _accuracy(shift: float) -> float:
    right = [score > shift for score in KIND_ONES] + [score <= shift for score in UNKIND_ONES]
    return sum(right) / len(right)


def _auc() -> float:
    return sum(kind > unkind for kind in KIND_ONES for unkind in UNKIND_ONES) / len(KIND_ONES) / len(UNKIND_ONES)


EXERCISES = (
    Exercise(
        question="the largest cap on all bonds with which a 384 x 384 matrix keeps at most 40 % of its numbers",
        answer=lambda: max(bonds_of_ratio("query", QUERY, RATIO)),
        solution=(
            "# Outer cores 6 * 6 each, the next ones 6 * 16 * b, the central one b * 16 * b.\n"
            "caps = [b for b in range(6, 97) if 2 * 36 + 2 * 6 * 16 * b + 16 * b * b <= 0.4 * 384 * 384]\n"
            "max(caps)"
        ),
        hint="Bonds 6, b, b, 6; each core is left bond x in leg x out leg x right bond. Add the five up and solve for b.",
        mistakes=[
            (lambda: 55, "With 55 the cores hold a little more than 40 %. At most, we said: round down."),
            (
                lambda: 58,
                "That is 40 % of the chain at full bond. Of the dense matrix, we said, which has fewer numbers.",
            ),
            (lambda: 60, "That is the central core's share alone, 16 b b. The four others count as well."),
            (lambda: 61, "That is the central core's share alone, and rounded up. The four others count as well."),
            (
                lambda: 38,
                "That is 40 % of the full bond, 96. But the central core shrinks with the square of the bond.",
            ),
            (lambda: 53, "54 fits as well: with it the cores hold just below 40 %."),
            (lambda: 96, "That is the full bond. How far must it sink?"),
            (lambda: 153, "384 numbers to 40 % would be a rank. Here the matrix is a chain of five cores."),
        ],
    ),
    Exercise(
        question="accuracy before and after all scores sank by 1.5, and the AUC after, as a list",
        answer=lambda: [_accuracy(0), _accuracy(SHIFT), _auc()],
        solution=(
            "# Before, the unkind review at 0.2 is taken for kind. After: 0.5, -0.5, -1.1 and -1.3, -2.5, -3.5.\n"
            "# Two kind ones are below zero now. But each kind one still has a higher score than each unkind one.\n"
            "[5 / 6, 4 / 6, 1]"
        ),
        hint="Write down the six scores after the cut. For the AUC, go through the nine pairs of a kind and an unkind review.",
        mistakes=[
            (
                lambda: [_accuracy(0), _accuracy(SHIFT), _accuracy(SHIFT)],
                "For the AUC compare a kind review with an unkind one, each with each. Zero plays no part in it.",
            ),
            (lambda: [1, _accuracy(SHIFT), 1], "One unkind review lies above zero before the cut. What is it called?"),
            (lambda: [_accuracy(0), 1 / 2, _auc()], "One of the kind ones stays above zero: which?"),
            (lambda: [5, 4, 9], "Those are how many. As shares: of six reviews, of six, and of nine pairs."),
            (lambda: [500 / 6, 400 / 6, 100], "As shares, please: between 0 and 1."),
        ],
    ),
    Exercise(
        question="what errors of .48, .54 and .55 make together if they are at right angles",
        answer=lambda: float(np.linalg.norm(ALONE)),
        solution="(0.48**2 + 0.54**2 + 0.55**2) ** 0.5",
        hint="Pythagoras, with three sides.",
        mistakes=[
            (
                lambda: sum(ALONE),
                "Three steps in one direction would add like this. These are at right angles to each other.",
            ),
            (lambda: float(np.sum(np.square(ALONE))), "That is its square."),
            (lambda: max(ALONE), "The two others make it larger: a step to the side takes you further away."),
            (lambda: sum(ALONE) / 3, "A mean would say that three mistakes are no worse than one."),
        ],
    ),
    Exercise(
        question="the output error of the matrix diag(3, 2) cut to rank 1 with the inputs in mind",
        answer=lambda: 0.3,
        solution="# The 2 stays, because its input is large. What is lost is 3 times an input of size 0.1.\n3 * 0.1",
        hint="Two candidates: keep the 3, or keep the 2. What does each lose, times the size of the input that it loses it on?",
        mistakes=[
            (
                lambda: 2.0,
                "That is the error if the 3 is kept, as Eckart and Young advise. The other choice loses less.",
            ),
            (lambda: 3.0, "That is what the weights lose. The output loses it only as far as the input goes there."),
            (lambda: 0.2, "That would be the 2 on the small input. But it is the 3 that meets the small input."),
            (lambda: 0.1, "That is the size of the input that is lost. By what does the matrix multiply it?"),
            (
                lambda: (2**2 + 0.3**2) ** 0.5,
                "That is with both lost. You may keep one: which, and what does the other cost?",
            ),
            (lambda: 0.09, "That is its square, the mean squared error. Take the root."),
        ],
    ),
    Exercise(
        question="a function best_for_inputs(matrix, inputs, rank): the matrix of that rank with the least output error",
        answer=lambda: best_for_inputs,
        solution=(
            "def best_for_inputs(matrix, inputs, rank):\n"
            "    # Eckart and Young, for the outputs: keep their leading right singular vectors, project on them.\n"
            "    vt = np.linalg.svd(inputs @ matrix, full_matrices=False)[2][:rank]\n"
            "    return matrix @ vt.T @ vt"
        ),
        hint=(
            "The best approximation of the outputs, inputs @ matrix, by rank r is their projection on r of their right singular "
            "vectors. A projection from the right can be done to the matrix itself."
        ),
        mistakes=[
            (
                lambda: lambda matrix, inputs, rank: _truncated(matrix, rank),
                "That is the truncated SVD of the matrix: the best for the weights, and it never looked at the inputs.",
            ),
            (
                lambda: lambda matrix, inputs, rank: _truncated(inputs @ matrix, rank),
                "Those are the best outputs. Asked is the matrix that makes them, of the same size as the one you were given.",
            ),
            (
                lambda: _centred,
                "You subtracted the mean of the inputs. There is no bias here that could take it up.",
            ),
            (
                lambda: _still_whitened,
                "You are still in the coordinates of the weighted inputs. Take the root out again.",
            ),
            (
                lambda: _without_the_root,
                "You weighted by the inputs' squares, inputs.T @ inputs. It takes the root of that matrix.",
            ),
            (
                lambda: _columns_for_rows,
                "The directions are the rows of what `np.linalg.svd` gives last. You took its columns.",
            ),
            (
                lambda: _onto_inputs,
                "You kept the directions in which the inputs are large, whatever the matrix makes of them. Look at the outputs.",
            ),
        ],
        trials=[
            f"np.random.default_rng(6).standard_normal((5, 4)), {INPUTS}, 2",
            f"np.random.default_rng(6).standard_normal((5, 7)), {INPUTS}, 1",
        ],
    ),
)
