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


@dataclass(frozen=True)
class Preset:
    """How the authors trained on a task: peak rates of the cores and of what else is trained, sentences in a step, epochs, and the
    share of the steps in which the rate rises.
    """

    cores_rate: float
    rest_rate: float
    batch_size: int
    epochs: int
    warmup: float


# Of their ALBERT: github.com/lpyhdzx/MPOP, albert/run_all_albert_fine_tune.sh, "lightweight fine-tuning". Where they count steps,
# these are epochs here, of GLUE's whole training sets; their steps of warm-up are shares.
PRESETS = {
    "sst2": Preset(2.8e-6, 2.7e-5, 32, 3, 0.08),
    "mnli": Preset(2e-6, 3e-5, 32, 3, 0.03),
    "qnli": Preset(2.8e-6, 1e-5, 32, 3, 0.2),
    "cola": Preset(1e-5, 1e-5, 16, 10, 0.06),
    "stsb": Preset(2e-5, 2e-5, 16, 19, 0.03),
    "qqp": Preset(5e-5, 5e-5, 32, 1, 0.07),
    "mrpc": Preset(2e-5, 2e-5, 32, 7, 0.25),
    "rte": Preset(3e-5, 3e-5, 32, 10, 0.25),
    "wnli": Preset(2e-5, 2e-5, 8, 10, 0.25),
}
PRESET_LENGTH = 128  # tokens, of all tasks

# Of Liu et al. 2021, one run each: by model, rows with their figures and their numbers trained / in all, in millions. Table 3, on
# ALBERT, and Table 4; MPOP's matrices are cut, those of MPOP_full are not, and LFA trains all but the central cores.
PUBLISHED = {
    "albert-base-v2": {
        "ALBERT, theirs, all trained": (
            {
                "sst2": 90.6,
                "mnli": 84.5,
                "qnli": 89.4,
                "cola": 53.4,
                "stsb": 88.2,
                "qqp": 89.1,
                "mrpc": 88.5,
                "rte": 71.1,
                "wnli": 54.9,
            },
            "11.6 / 11.6",
        ),
        "MPOP_full+LFA, not cut": (
            {
                "sst2": 93.0,
                "mnli": 84.3,
                "qnli": 91.3,
                "cola": 56.0,
                "stsb": 89.2,
                "qqp": 89.0,
                "mrpc": 88.0,
                "rte": 78.3,
                "wnli": 56.3,
            },
            "1.2 / 12.7",
        ),
        "MPOP, squeezed": (
            {
                "sst2": 90.8,
                "mnli": 83.3,
                "qnli": 90.5,
                "cola": 54.7,
                "stsb": 89.2,
                "qqp": 89.4,
                "mrpc": 89.2,
                "rte": 73.3,
                "wnli": 56.3,
            },
            "1.1 / 9",
        ),
    },
    "bert-base-uncased": {
        "BERT, theirs, all trained": ({"wnli": 56.3, "mrpc": 85.5, "rte": 70.0}, "110 / 110"),
        "MPOP_B, squeezed": ({"wnli": 56.3, "mrpc": 84.3, "rte": 70.8}, "7.7 / 70.4"),
    },
    "distilbert-base-uncased": {
        "DistilBERT, theirs, all trained": ({"wnli": 56.3, "mrpc": 84.1, "rte": 61.4}, "66 / 66"),
        "MPOP_D, squeezed": ({"wnli": 56.3, "mrpc": 84.3, "rte": 61.7}, "4.0 / 43.4"),
    },
    "google/mobilebert-uncased": {
        "MobileBERT, theirs, all trained": ({"wnli": 56.2, "mrpc": 86.0, "rte": 63.5}, "25.3 / 25.3"),
        "MPOP_M, squeezed": ({"wnli": 56.2, "mrpc": 85.3, "rte": 65.7}, "4.4 / 15.4"),
    },
}


def preset_of(task: str, method: str) -> dict:
    """The authors' settings for a task, as fields of `RunConfig`.

    Parameters
    ----------
    task : str
        As `load_task` takes it: "glue/rte".
    method : str
        Of `METHODS`. Only light fine-tuning gets two rates, where they differ; another method gets that of what is no core.

    Raises
    ------
    ValueError
        If the authors did not train on the task.
    """
    known = {f"glue/{name}": preset for name, preset in PRESETS.items()}
    if task not in known:
        raise ValueError(f"a preset is there for {', '.join(known)}, got {task!r}")
    found = known[task]
    rates = {"learning_rate": found.rest_rate}
    if method == "light" and found.cores_rate != found.rest_rate:
        rates = {"learning_rate": found.cores_rate, "rest_rate": found.rest_rate}
    sizes = {"batch_size": found.batch_size, "micro_batch_size": min(16, found.batch_size), "max_length": PRESET_LENGTH}
    return {**rates, **sizes, "epochs": found.epochs, "warmup": found.warmup}


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
