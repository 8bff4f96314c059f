"""Chapter 10: does it hold for the real thing?"""

from scipy.stats import t

from mpo_tutorial.course.exercises import Exercise

PAIRS_OF_WNLI, COMMONER = 71, 40
PAIRS_OF_RTE, BERT, MPOP_B = 277, 0.700, 0.708
BITS_OF_BFLOAT16 = 7  # behind the point
WEIGHT = 0.05
SPREAD, REACH = 2.0, 1.0  # points


def bytes_of_training(total: int, trained: int) -> int:
    """Of weights, gradients and AdamW's two averages, four bytes each."""
    return 4 * total + 12 * trained


def _spacing(bits: int) -> float:
    """How far a number of so many bits behind the point is from the next, just above the weight."""
    power = 1.0
    while power > WEIGHT:
        power /= 2
    return power * 2**-bits


def _deviation() -> float:
    return 100 * (BERT * (1 - BERT) / PAIRS_OF_RTE) ** 0.5


def _reach(seeds: int) -> float:
    """How far the 95 % interval of a mean difference goes to either side, in points."""
    return t.ppf(0.975, seeds - 1) * SPREAD / seeds**0.5


def fewest_seeds() -> int:
    return next(seeds for seeds in range(2, 100) if _reach(seeds) <= REACH)


EXERCISES = (
    Exercise(
        question="bytes of weights, gradients and AdamW's averages, as a function of two counts",
        answer=lambda: bytes_of_training,
        solution=(
            "def bytes_of_training(total, trained):\n"
            "    # Every weight is there; only what is trained has a gradient and two averages.\n"
            "    return 4 * total + 3 * 4 * trained"
        ),
        hint="Four bytes each. Which of the four kinds does a frozen number have?",
        trials=("110_000_000, 110_000_000", "117_543_842, 8_183_714", "1_000, 0"),
        mistakes=[
            (lambda: lambda total, trained: 16 * total, "Do frozen numbers have a gradient, and averages of it?"),
            (
                lambda: lambda total, trained: 16 * trained,
                "The frozen weights are in memory as well: the forward pass needs them.",
            ),
            (
                lambda: lambda total, trained: 4 * total + 8 * trained,
                "There are three more numbers for each that is trained, not two: its gradient, and AdamW's two averages.",
            ),
            (
                lambda: lambda total, trained: 4 * total + 4 * trained,
                "That is with the gradients. AdamW's two averages come on top.",
            ),
            (
                lambda: lambda total, trained: total + 3 * trained,
                "These are numbers. Each has four bytes.",
            ),
        ],
    ),
    Exercise(
        question="per cent right on WNLI for whoever always names the commoner class",
        answer=lambda: 100 * COMMONER / PAIRS_OF_WNLI,
        solution="100 * 40 / 71",
        hint="It is right for each of the 40, and wrong for all others.",
        mistakes=[
            (lambda: 50.0, "That is for a coin. The classes are not equally large."),
            (lambda: 100 * (1 - COMMONER / PAIRS_OF_WNLI), "That is for the rarer class."),
            (lambda: COMMONER / PAIRS_OF_WNLI, "As a share that is right. In per cent?"),
            (
                lambda: 100 * (COMMONER - 1) / PAIRS_OF_WNLI,
                "That is ALBERT's score in the table, with 39 pairs right. How many does the word get right?",
            ),
        ],
    ),
    Exercise(
        question="pairs of RTE between 70.0 and 70.8 per cent",
        answer=lambda: round(PAIRS_OF_RTE * (MPOP_B - BERT)),
        solution="# 194 of 277 are 70.0 %, 196 are 70.8 %.\nround(277 * (0.708 - 0.700))",
        hint="What is 0.8 % of 277? Pairs come whole.",
        mistakes=[
            (lambda: PAIRS_OF_RTE * (MPOP_B - BERT), "Nearly. But a pair is right or wrong: round it."),
            (lambda: 0.8, "That is the difference in per cent. Of 277 pairs, how many are that?"),
            (lambda: 1, "One pair is 0.36 %. How many of those are 0.8 %?"),
            (lambda: 3, "Three pairs would be 1.1 %."),
        ],
    ),
    Exercise(
        question="standard error of 70 % on 277 pairs, in points",
        answer=_deviation,
        solution="100 * (0.7 * 0.3 / 277) ** 0.5",
        hint=(
            "One pair is right with the probability p, so its variance is p (1 - p). The mean of n independent ones has an n-th of "
            "that; and the standard error is the root."
        ),
        mistakes=[
            (
                lambda: 0.0275,
                "As a share, and rounded, that is right. In points, of which 100 are all, and with Python?",
            ),
            (lambda: 5.5, "Those are two standard errors, rounded. One, and let Python work it out."),
            (lambda: _deviation() / 100, "As a share that is right. In points, of which 100 are all?"),
            (lambda: 100 * BERT * (1 - BERT) / PAIRS_OF_RTE, "That is the variance, times 100. Take the root first."),
            (lambda: 2 * _deviation(), "Those are two standard errors. One?"),
            (lambda: 1.96 * _deviation(), "That is how far a 95 % interval goes. The standard error itself?"),
            (
                lambda: 2**0.5 * _deviation(),
                "That is for the difference of two scores, each on pairs of its own. Here there is one score.",
            ),
            (lambda: 100 * (BERT * (1 - BERT)) ** 0.5, "That is the spread of a single pair. There are 277."),
            (lambda: 100 * (BERT / PAIRS_OF_RTE) ** 0.5, "The variance of one pair is p (1 - p), not p."),
        ],
    ),
    Exercise(
        question="seeds until the interval of a mean difference reaches one point either way, where differences spread by two",
        answer=fewest_seeds,
        solution=(
            "from scipy.stats import t\n\nnext(n for n in range(2, 100) if t.ppf(0.975, n - 1) * 2 / n**0.5 <= 1)"
        ),
        hint="With n seeds it reaches t.ppf(0.975, n - 1) * 2 / n ** 0.5. Try n = 2, 3, 4 and on, until that is no more than 1.",
        mistakes=[
            (
                lambda: 16,
                "So many with 1.96, as if the spread were known. It is estimated from the seeds, so Student's t is larger.",
            ),
            (lambda: fewest_seeds() + 1, "One fewer is enough."),
            (lambda: fewest_seeds() - 1, "One fewer than needed: it reaches a little further than a point."),
            (lambda: 4, "With four the standard error is one point. The interval is t times as wide."),
            (
                lambda: 3 * 5**2,
                "You went on from three seeds by the root of n alone. With more seeds Student's t shrinks as well.",
            ),
            (lambda: 7, "So many until the interval is one standard deviation wide, two points. It is to reach one."),
        ],
    ),
    Exercise(
        question="the distance between the numbers of bfloat16 around 0.05",
        answer=lambda: _spacing(BITS_OF_BFLOAT16),
        solution="# 0.05 lies between 1/32 and 1/16. Seven bits cut that stretch into 128 steps.\n2**-5 / 2**7",
        hint="Between which two powers of two does 0.05 lie? That stretch is cut into 2 ** 7 equal steps.",
        mistakes=[
            (
                lambda: 2.0**-BITS_OF_BFLOAT16,
                "That is the distance just above 1. Numbers near 0.05 are closer together.",
            ),
            (
                lambda: WEIGHT * 2.0**-BITS_OF_BFLOAT16,
                "Nearly: the steps are parts of the power of two below, 1/32, not of the number itself.",
            ),
            (
                lambda: 0.050048828125 - WEIGHT,
                "That is from 0.05, which is no number of bfloat16 itself, to the next. How far are two of them apart?",
            ),
            (lambda: 2**-5, "That is the power of two below. It is cut into 2 ** 7 steps."),
            (lambda: _spacing(8), "That would be eight bits behind the point. bfloat16 stores seven."),
            (lambda: _spacing(10), "That is float16, which has ten bits behind the point."),
            (lambda: _spacing(BITS_OF_BFLOAT16 - 1), "0.05 is below 1/16: the power of two below it is 1/32."),
        ],
    ),
)
