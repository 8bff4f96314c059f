"""Chapter 02: what has a matrix to do with a quantum state?"""

import math

import numpy as np

from mpo_tutorial.course.exercises import Exercise
from mpo_tutorial.maths import entropy, states

TWO_SPINS = np.array([[1, 1], [1, -1]]) / 2
BY_HAND = np.array([[3.0, 0.0], [4.0, 5.0]])
NATS = 3.5


def schmidt(state: np.ndarray, n_left: int) -> np.ndarray:
    return states.schmidt_values(state, (2,) * round(math.log2(len(state))), n_left)


def _from_the_right(state: np.ndarray, n_left: int) -> np.ndarray:
    return schmidt(state, round(math.log2(len(state))) - n_left)


def _a_row_for_each_spin(state: np.ndarray, n_left: int) -> np.ndarray:
    if len(state) % n_left:
        return np.full(n_left, np.nan)
    return np.linalg.svd(state.reshape(n_left, -1), compute_uv=False)


def _not_conjugated(state: np.ndarray, n_left: int) -> np.ndarray:
    """By the eigenvalues of m.T @ m, which is right for real amplitudes alone."""
    table = np.asarray(state).reshape(2**n_left, -1)
    table = table if len(table) >= table.shape[1] else table.T
    return np.sqrt(np.clip(np.sort(np.linalg.eigvals(table.T @ table).real)[::-1], 0, None))


def _unnormalised() -> float:
    weights = np.linalg.svd(BY_HAND, compute_uv=False) ** 2
    return float(-(weights * np.log(weights)).sum())


def _entropy_by_hand(convention: str = "physics") -> float:
    return entropy.entropy(np.linalg.svd(BY_HAND, compute_uv=False), convention)


EXERCISES = (
    Exercise(
        question="the entropy of (|00> + |01> + |10> - |11>) / 2",
        answer=lambda: entropy.entropy(np.linalg.svd(TWO_SPINS, compute_uv=False)),
        solution=(
            "# The table is [[1, 1], [1, -1]] / 2. Its rows stand at right angles and have the same length, so both Schmidt\n"
            "# values are sqrt(1/2), both weights 1/2: as entangled as Bell's state, though no amplitude is zero.\n"
            "np.log(2)"
        ),
        hint="Write the four amplitudes as a 2 x 2 table. Are its rows multiples of one another, or the very opposite?",
        mistakes=[
            (
                lambda: 0.0,
                "That would be a product, with rows that are multiples of one another. Here the sign spoils it.",
            ),
            (
                lambda: 2 * math.log(2),
                "That is the spread of the four chances. Write the amplitudes as a 2 x 2 table and take its singular values first.",
            ),
            (lambda: -math.log(2), "An entropy is not negative: mind the minus in front."),
            (lambda: math.log(2) / 2, "That is one of the two terms. Add up both."),
            (lambda: math.log10(2), "That is with the logarithm to base 10. Use ln."),
            (lambda: 1.0, "That is the entropy in bits, with the logarithm to base 2. Here it is in nats: use ln."),
            (
                lambda: -2 * math.sqrt(0.5) * math.log(math.sqrt(0.5)),
                "You put the Schmidt values themselves in the formula. Their squares are the weights that add up to 1.",
            ),
        ],
    ),
    Exercise(
        question="the entropy of [[3, 0], [4, 5]], read as a state",
        answer=_entropy_by_hand,
        solution=(
            "# The squared singular values are 45 and 5, so the weights are 0.9 and 0.1.\n"
            "-(0.9 * np.log(0.9) + 0.1 * np.log(0.1))"
        ),
        hint="In chapter 01 you found the squares of the singular values: 45 and 5. Divide them by their sum first.",
        mistakes=[
            (
                lambda: _entropy_by_hand("paper"),
                "That is Eq. 6 of the paper as printed, with plain singular values, 3/4 and 1/4. Take their squares.",
            ),
            (lambda: _entropy_by_hand() / math.log(2), "That is in bits. In nats, with ln, it is smaller."),
            (lambda: _entropy_by_hand() / math.log(10), "That is with the logarithm to base 10. Use ln."),
            (lambda: -_entropy_by_hand(), "An entropy is not negative: mind the minus in front."),
            (
                lambda: entropy.entropy(np.array([3.0, 4.0, 5.0])),
                "You took the squares of the entries. It is the squares of the singular values that count.",
            ),
            (_unnormalised, "The weights have to add up to 1: divide 45 and 5 by 50 before you take the logarithm."),
        ],
    ),
    Exercise(
        question="a function schmidt(state, n_left) that returns the Schmidt values of a cut through a chain of spins",
        answer=lambda: schmidt,
        solution=(
            "def schmidt(state, n_left):\n    return np.linalg.svd(state.reshape(2**n_left, -1), compute_uv=False)"
        ),
        hint="n_left spins have 2**n_left settings: so many rows. Then reshape, and np.linalg.svd. The check uses 4 and 5 spins.",
        mistakes=[
            (
                lambda: lambda state, n_left: schmidt(state, n_left) ** 2,
                "Those are the weights, the squares of what is asked.",
            ),
            (
                lambda: _from_the_right,
                "You cut off n_left spins at the right end. The first spins are the rows: reshape(2**n_left, -1).",
            ),
            (
                lambda: (
                    lambda state, n_left: np.trim_zeros(
                        np.where(schmidt(state, n_left) > 1e-9, schmidt(state, n_left), 0)
                    )
                ),
                "Keep the zeros, too: a cut has as many Schmidt values as the smaller of its two sides has settings.",
            ),
            (
                lambda: _a_row_for_each_spin,
                "n spins have 2**n settings: so many rows.",
            ),
            (
                lambda: lambda state, n_left: schmidt(state, n_left)[::-1],
                "Right, but for the order: the largest first.",
            ),
            (
                lambda: _not_conjugated,
                "Right for real amplitudes. For complex ones the other factor has to be conjugated: m.conj().T @ m.",
            ),
            (
                lambda: lambda state, n_left: schmidt(state, n_left + 1),
                "One spin too many is on the left: n_left spins have 2**n_left settings.",
            ),
            (
                lambda: lambda state, n_left: schmidt(state, n_left) / schmidt(state, n_left).sum(),
                "Leave them as they come: their squares add up to 1, not they themselves.",
            ),
        ],
        trials=[
            "mt.states.w(5), 2",
            "mt.states.random_state(5, seed=2), 3",
            "mt.states.random_state(4, seed=1).real, 1",
        ],
    ),
    Exercise(
        question=f"the smallest bond dimension that can carry an entropy of {NATS} nats",
        answer=lambda: math.ceil(math.exp(NATS)),
        solution=(
            "# A bond of dimension d carries ln d at most, when all its weights are equal. So d >= e**3.5 = 33.1.\n"
            "np.ceil(np.exp(3.5))"
        ),
        hint="Which weights give the largest entropy to d Schmidt values? What is it then? Solve that for d, and round up.",
        mistakes=[
            (lambda: math.floor(math.exp(NATS)), "ln 33 is a little below 3.5. Round up."),
            (
                lambda: math.ceil(2**NATS),
                "That is 2 to the power of 3.5, right for bits. In nats it is e to that power.",
            ),
            (lambda: 32, "That is five bits. ln 32 is a little below 3.5."),
            (lambda: 64, "64 is all that the cut in the middle has. 3.5 nats need fewer."),
            (lambda: 35, "35 can, and 34 can, too. The smallest is asked for."),
            (lambda: 39, "That is for the random state's 3.65 nats, further below. Here it is 3.5."),
            (lambda: math.exp(NATS), "A bond dimension is a whole number. Which is the first that suffices?"),
        ],
    ),
    Exercise(
        question="the share of the norm that a cut to two loses, with the weights 0.4, 0.3, 0.2 and 0.1",
        answer=lambda: math.sqrt(0.3),
        solution=(
            "# What is left out has the square 0.2 + 0.1, of 1 in all. The error is the root of it.\nnp.sqrt(0.2 + 0.1)"
        ),
        hint="Chapter 01: the distance is the root of the sum of the squares that are left out. The weights are squares already.",
        mistakes=[
            (lambda: 0.3, "That is the share of the square. The share of the norm is its root, and larger."),
            (
                lambda: 1 - math.sqrt(0.7),
                "Norms do not subtract like that: take the root of what is left out, 0.2 + 0.1.",
            ),
            (lambda: 0.7, "That is the share of the square that is kept."),
            (lambda: math.sqrt(0.7), "That is the norm of what is kept. What is lost stands at right angles to it."),
            (lambda: math.hypot(0.2, 0.1), "You squared the weights. They are squares already."),
            (
                lambda: math.sqrt(0.2) + math.sqrt(0.1),
                "You added the two Schmidt values. Their squares add up, and then comes the root.",
            ),
        ],
    ),
)
