"""Chapter 04: which of the five cores matters?"""

import math

from mpo_tutorial.course.exercises import Exercise
from mpo_tutorial.maths.shapes import Shape, balanced_shape

FEED_FORWARD = balanced_shape(384, 1536)


def page(rows: int, columns: int) -> float:
    small, large = sorted((rows, columns))
    return math.log(small) - small / (2 * large)


def auxiliary_share(in_legs: tuple[int, ...], out_legs: tuple[int, ...], bonds: tuple[int, ...]) -> float:
    shape = Shape(in_legs, out_legs)
    sizes = shape.n_params_each(bonds)
    return 1 - sizes[shape.central] / sum(sizes)


def _over_the_matrix(in_legs: tuple[int, ...], out_legs: tuple[int, ...], bonds: tuple[int, ...]) -> float:
    share = auxiliary_share(in_legs, out_legs, bonds)
    return share * Shape(in_legs, out_legs).n_params(bonds) / math.prod((*in_legs, *out_legs))


EXERCISES = (
    Exercise(
        question="the numbers in the central core of a feed-forward matrix, 384 x 1536",
        answer=lambda: FEED_FORWARD.n_params_each(FEED_FORWARD.full_bonds)[FEED_FORWARD.central],
        solution=(
            "# Legs 3, 4, 4, 4, 2 and 4, 4, 6, 4, 4; pairs 12, 16, 24, 16, 8. Bond 2 is 12 * 16 = 192, bond 3 is 16 * 8 = 128.\n"
            "192 * 4 * 6 * 128"
        ),
        hint="The central core is left bond x in leg x out leg x right bond. Its bonds are the second and third of the four.",
        mistakes=[
            (
                lambda: 192 * 4 * 6 * 192,
                "The right bond is smaller: right of that cut only 16 * 8 = 128 columns are left.",
            ),
            (lambda: 192 * 4 * 4 * 128, "Its out leg is 6: the third of 4, 4, 6, 4, 4."),
            (lambda: 192 * 4 * 128, "The core has an out leg, too: 6."),
            (lambda: 384 * 384, "That is the core of a 384 x 384 matrix, or the in leg is missing."),
            (lambda: 24, "Those are its two legs. The bonds on both sides belong to it as well."),
            (lambda: 192 * 24, "You left out the bond to the right of it."),
            (lambda: 192 * 128, "Those are its two bonds. It has two legs as well, 4 and 6."),
            (
                lambda: FEED_FORWARD.n_params(FEED_FORWARD.full_bonds),
                "That is the sum over all five cores. The one in the middle has a little less.",
            ),
        ],
    ),
    Exercise(
        question="a function auxiliary_share(in_legs, out_legs, bonds): auxiliary numbers over all numbers in the cores",
        answer=lambda: auxiliary_share,
        solution=(
            "def auxiliary_share(in_legs, out_legs, bonds):\n"
            "    ends = [1, *bonds, 1]\n"
            "    sizes = [ends[k] * in_legs[k] * out_legs[k] * ends[k + 1] for k in range(len(in_legs))]\n"
            "    return 1 - sizes[len(sizes) // 2] / sum(sizes)"
        ),
        hint=(
            "A core is left bond x in leg x out leg x right bond; put a 1 at both ends, which `bonds` leaves out. The central is "
            "number n // 2, from 0."
        ),
        mistakes=[
            (
                lambda: lambda *chain: 1 - auxiliary_share(*chain),
                "That is the share of the central core. The auxiliary cores are the others.",
            ),
            (
                lambda: lambda *chain: 100 * auxiliary_share(*chain),
                "As a share, please: between 0 and 1. You gave percent.",
            ),
            (
                lambda: lambda *chain: 1 / (1 - auxiliary_share(*chain)) - 1,
                "You divided by the central core. The whole is what all cores hold.",
            ),
            (
                lambda: _over_the_matrix,
                "You divided by the size of the dense matrix. Here the whole is what all cores hold, a little more.",
            ),
        ],
        trials=[
            "(2, 2, 3), (3, 2, 2), (5, 4)",
            "(3, 4, 4, 4, 2), (2, 4, 4, 4, 3), (6, 96, 96, 6)",
            "(3, 4, 4, 2), (4, 6, 4, 4), (12, 20, 8)",
        ],
    ),
    Exercise(
        question="Page's estimate for bond 2 of a random 384 x 384 matrix",
        answer=lambda: page(96, 1536),
        solution=("# The cut makes 96 rows and 1536 columns of the 147456 numbers.\nnp.log(96) - 96 / (2 * 1536)"),
        hint="Left of the cut are the pairs 6 and 16, so 96 rows. How many columns? Put both in Page's formula.",
        mistakes=[
            (lambda: math.log(96), "That is the most that the bond can carry. Random numbers stay a little below."),
            (
                lambda: math.log(384) - 0.5,
                "That is for the matrix as it stands. The cut makes another one of its numbers, with 96 rows.",
            ),
            (lambda: page(96, 96), "96 rows, yes. The cut is not square: the 147456 numbers make 1536 columns."),
            (lambda: math.log(1536) - 1536 / (2 * 96), "m is the smaller of the two sides."),
            (
                lambda: math.log(96) - 96 / 1536,
                "Below the line stands 2 n, twice the larger side. (Or you rounded to 4.5: give three digits.)",
            ),
            (lambda: page(96, 384), "96 rows, yes. The 147456 numbers then make 1536 columns."),
            (lambda: page(96, 1536) / math.log(2), "That is in bits. We count in nats, with ln."),
        ],
    ),
    Exercise(
        question="the number of independent ways in which the small cores can change a 384 x 384 matrix",
        answer=lambda: 2 * 96**2 - 1,
        solution="# Two square matrices of 96 x 96, and the one factor that can sit on either side.\n2 * 96**2 - 1",
        hint="How many numbers have two matrices of 96 x 96? And how many numbers say nothing?",
        mistakes=[
            (lambda: 2 * 96**2, "Nearly. Double the one matrix and halve the other: what has changed?"),
            (
                lambda: 2 * (96**2 - 1),
                "You took the factor from both. It is one number that says nothing: take it once.",
            ),
            (lambda: 96**2, "That is one side. There are two."),
            (lambda: 1 / 8, "That is about their share of all ways. How many are they?"),
            (
                lambda: 2 * (36 + 9216),
                "Those are the numbers in the four small cores. Between cores 0 and 1 there is a gauge, which changes nothing.",
            ),
            (lambda: 96 * 16 * 96, "Those are all the ways in which the matrix can change."),
            (
                lambda: 2 * (36 + 9216) - 1,
                "The factor is taken once, well. But between cores 0 and 1 there is a gauge as well, and between 3 and 4 another.",
            ),
        ],
    ),
    Exercise(
        question="the error of the matrix with noise of 0.1 in one core, and in four",
        answer=lambda: [0.1, 0.2],
        solution=(
            "# One: the other cores only turn, so what is a tenth of the core is a tenth of the matrix.\n"
            "# Four: errors that know nothing of each other add in squares. (Noise times noise is a hundredth, and left out.)\n"
            "[0.1, np.sqrt(4) * 0.1]"
        ),
        hint="Errors that are independent stand at right angles to each other, nearly. How long is the diagonal of four such?",
        mistakes=[
            (
                lambda: [0.1, 0.4],
                "That would be so if all four errors pointed the same way. Independent ones add in squares.",
            ),
            (lambda: [0.2, 0.1], "The other way round: one noisy core first, then four."),
            (lambda: [0.1, 0.1], "The four do not hide behind one another: their squares add up."),
            (lambda: [0.01, 0.04], "Those are the squares. Take the roots."),
            (lambda: [0.1, 0.04], "That is the sum of their squares. Take the root."),
            (lambda: [0.1, 0.3], "With one you are right. With four: what is the root of four times 0.1 squared?"),
            (
                lambda: [0.1, 0.05],
                "You took the mean of four errors. The matrix suffers them all: they add, in squares.",
            ),
            (lambda: 0.2, "That is the error with four. Give both: the one with a single noisy core, and this."),
            (
                lambda: [0.1, 1.1**4 - 1],
                "So much, if the four errors all pointed the same way. Independent ones add in squares.",
            ),
            (
                lambda: [0.1, (1.01**4 - 1) ** 0.5],
                "Finer than asked: you counted noise times noise as well. To one digit, please.",
            ),
        ],
    ),
)
