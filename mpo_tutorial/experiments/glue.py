"""The nine tasks of GLUE: their columns, their metrics, and the score over all of them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

DATASET = "nyu-mll/glue"  # on the hub


@dataclass(frozen=True)
class GlueTask:
    """Where a task's sentences are, and what is measured.

    Parameters
    ----------
    columns : tuple of str
        Of the sentence, or of the two of a pair.
    metrics : tuple of str
        GLUE's own, the one that counts in the score first.
    tests : dict
        Our split to test on -> GLUE's dev set.
    """

    columns: tuple[str, ...]
    metrics: tuple[str, ...] = ("accuracy",)
    tests: dict[str, str] = field(default_factory=lambda: {"test": "validation"})


# Where GLUE has two metrics, Table 3 of Liu et al. has one figure and does not say of which. For MRPC it is hardly F1:
# their smaller figures, down to 72.1 in Table 5, are below the 81.2 that F1 is when every pair is called a paraphrase.
# So accuracy counts here for MRPC and QQP, and Pearson's correlation for STS-B.
GLUE = {
    "sst2": GlueTask(("sentence",)),
    "mnli": GlueTask(
        ("premise", "hypothesis"), tests={"test": "validation_matched", "mismatched": "validation_mismatched"}
    ),
    "qnli": GlueTask(("question", "sentence")),
    "cola": GlueTask(("sentence",), ("matthews",)),
    "stsb": GlueTask(("sentence1", "sentence2"), ("pearson", "spearman")),
    "qqp": GlueTask(("question1", "question2"), ("accuracy", "f1")),
    "mrpc": GlueTask(("sentence1", "sentence2"), ("accuracy", "f1")),
    "rte": GlueTask(("sentence1", "sentence2")),
    "wnli": GlueTask(("sentence1", "sentence2")),
}
REGRESSION = "stsb"


def glue_score(figures: Mapping[str, float]) -> float:
    """The mean over the nine tasks, each with one figure: the first column of Table 3 in Liu et al.

    Parameters
    ----------
    figures : mapping
        Name of the task, as in `GLUE`, to its figure, all in the same unit.

    Raises
    ------
    ValueError
        If a task is missing or unknown: a mean over others is no GLUE score.
    """
    if figures.keys() != GLUE.keys():
        raise ValueError(f"a GLUE score needs one figure of each of {', '.join(GLUE)}, got {', '.join(figures)}")
    return sum(figures.values()) / len(figures)
