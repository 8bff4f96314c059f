"""Chapter 00: what is this, and does my machine run it?"""

from mpo_tutorial.course.exercises import Exercise
from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.cut_results import summarise

SIZES = (36, 9216, 147456, 9216, 36)
LIMIT = 0.025


def smallest_bond() -> int:
    points = [point for point in summarise(records.shipped_points("cuts"))["bonds"] if point["part"] == "all"]
    uncut = max(points, key=lambda point: point["max_bond"])["validation"]["accuracy"]
    return min(point["max_bond"] for point in points if uncut - point["validation"]["accuracy"] <= LIMIT)


EXERCISES = (
    Exercise(
        question="the share of the central core, in a chain of cores with 36, 9216, 147456, 9216 and 36 numbers",
        answer=lambda: SIZES[2] / sum(SIZES),
        solution="# The third of the five, over all of them.\n147456 / (36 + 9216 + 147456 + 9216 + 36)",
        hint="Add the five numbers up. Which part of the sum is the third one?",
        mistakes=[
            (lambda: 100 * SIZES[2] / sum(SIZES), "As a share, please: between 0 and 1. You gave percent."),
            (lambda: 1 - SIZES[2] / sum(SIZES), "That is the share of the four auxiliary cores together."),
            (
                lambda: SIZES[2] / (sum(SIZES) - SIZES[2]),
                "That sets it against the four others. The whole is the sum of all five.",
            ),
            (
                lambda: 10.62 / 11.71,
                "That is for all 36 matrices together. Take the five counts of one 384 x 384 matrix.",
            ),
            (lambda: 1 / 5, "One core of five, yes, but the cores are not equally large."),
            (lambda: sum(SIZES) / SIZES[2], "Upside down: the part stands above the line, the whole below it."),
            (lambda: 147456, "That is how many it has. As a share, please: divided by the sum of all five."),
            (lambda: 1, "It has as many numbers as the whole matrix, but the chain has more: add up all five."),
        ],
    ),
    Exercise(
        question="how many numbers are frozen for each one that is trained, to three digits",
        answer=lambda: SIZES[2] / (sum(SIZES) - SIZES[2]),
        solution="# Train the small ones, and you train about an eighth of what stays frozen.\n147456 / (36 + 9216 + 9216 + 36)",
        hint="The central core is frozen: 147456 numbers. Add up those of the four others, and divide.",
        mistakes=[
            (lambda: SIZES[2] / SIZES[1], "That compares with one of the two larger small cores. Add all four up."),
            (lambda: 8, "Nearly eight, yes. To three digits, please."),
            (
                lambda: 10.62 / 1.09,
                "That is for all 36 matrices together. Take the five counts of one 384 x 384 matrix.",
            ),
            (lambda: SIZES[2] / (SIZES[0] + SIZES[1]), "Those are two of the four small cores. Add all four up."),
            (lambda: 3.54 / 0.44, "Those two are rounded in the table. Take the five counts of one matrix."),
            (lambda: 0.125, "That is trained for each one frozen, rounded. The other way round."),
            (lambda: 9, "A tenth of all five is trained. Here it is the frozen ones over the trained ones."),
            (
                lambda: SIZES[2] / sum(SIZES),
                "That is the share of the frozen ones in all. Divide by the trained ones instead.",
            ),
            (lambda: (sum(SIZES) - SIZES[2]) / SIZES[2], "That is trained for each one frozen. The other way round."),
            (
                lambda: sum(SIZES) / (sum(SIZES) - SIZES[2]),
                "Above the line is the sum of all five. Only the central core belongs there.",
            ),
        ],
    ),
    Exercise(
        question="the smallest bond on record, all matrices cut, that costs at most 2.5 points of accuracy",
        answer=smallest_bond,
        solution=(
            '# Move the slider with "all" chosen, and note the accuracies: the first less 2.5 points is the limit.\n'
            'record = mt.cut_results.summarise(mt.shipped_points("cuts"))\n'
            'points = [p for p in record["bonds"] if p["part"] == "all"]\n'
            'uncut = points[0]["validation"]["accuracy"]\n'
            'min(p["max_bond"] for p in points if uncut - p["validation"]["accuracy"] <= 0.025)'
        ),
        hint='Choose "all". Note the accuracy at the largest bond, less 2.5 points. Go left as long as it stays above.',
        mistakes=[
            (lambda: 112, "At 112 it has lost more than that already. Go one step back."),
            *(
                (lambda bond=bond: bond, f"At {bond} it has lost far more than that. Go back.")
                for bond in (96, 80, 64, 48)
            ),
            (lambda: 120, "The slider has no such bond. Asked is one of those on record."),
            (lambda: 75, "That is an accuracy. At which bond?"),
            (lambda: 144, "There is room left: try the next smaller bond."),
            *((lambda bond=bond: bond, f"At {bond} there is room left: try smaller ones.") for bond in (160, 176, 192)),
        ],
    ),
    Exercise(
        question="accuracy and AUC of the scores 2, 3, 0.5 and 0.4, 1, 0.2, with the line at 0",
        answer=lambda: [0.5, 8 / 9],
        solution=(
            "# All six lie above 0, so all are called kind: the three kind ones are right. Of the nine pairs of a kind review and\n"
            "# an unkind one, all but (0.5, 1) have the kind one higher.\n"
            "[3 / 6, 8 / 9]"
        ),
        hint=(
            "Accuracy: on which side of 0 does each of the six lie? AUC: write down the nine pairs of a kind review and an unkind "
            "one; in how many has the kind one the higher score?"
        ),
        mistakes=[
            (lambda: [8 / 9, 0.5], "The other way round: the accuracy first."),
            (lambda: [50, 800 / 9], "As shares, please: between 0 and 1. You gave percent."),
            (
                lambda: [5 / 6, 8 / 9],
                "The AUC is right. That accuracy it would have with a better line; here the line is at 0.",
            ),
            (
                lambda: [0.5, 5 / 6],
                "The accuracy is right. The AUC asks pairs, of which there are nine: one kind, one unkind.",
            ),
            (
                lambda: [0.5, 1.0],
                "The accuracy is right. In one of the nine pairs the unkind review has the higher score.",
            ),
            (
                lambda: [1.0, 8 / 9],
                "The AUC is right. For the accuracy: the unkind ones, too, lie above 0, and are called kind.",
            ),
            (
                lambda: [0.5, 7 / 9],
                "The accuracy is right. Only one of the nine pairs is in the wrong order: 0.5 of a kind one, 1 of an unkind one.",
            ),
            (lambda: [3, 8], "Those are how many. As shares: of six reviews, and of nine pairs."),
            (lambda: [0.5, 0.5], "The accuracy is right. The AUC knows no line: compare the scores in pairs."),
            (
                lambda: [0.5, 1 / 9],
                "The accuracy is right. That is the share of pairs in which the unkind one is higher.",
            ),
        ],
    ),
)
