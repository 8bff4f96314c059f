import pytest

from mpo_tutorial.experiments.glue import GLUE, glue_score
from mpo_tutorial.experiments.statistics import METRICS

# Liu et al. 2021, Table 3: the score as printed, then the tasks in its order.
TASKS = ("sst2", "mnli", "qnli", "cola", "stsb", "qqp", "mrpc", "rte", "wnli")
TABLE_3 = {
    "ALBERT_rep": (78.9, (90.6, 84.5, 89.4, 53.4, 88.2, 89.1, 88.5, 71.1, 54.9)),
    "MPOP": (79.7, (90.8, 83.3, 90.5, 54.7, 89.2, 89.4, 89.2, 73.3, 56.3)),
    "MPOP_full": (80.3, (92.2, 84.4, 91.4, 55.7, 89.2, 89.6, 87.3, 76.9, 56.3)),
    "MPOP_full+LFA": (80.4, (93.0, 84.3, 91.3, 56.0, 89.2, 89.0, 88.0, 78.3, 56.3)),
    "MPOP_dir": (68.6, (86.6, 79.2, 81.9, 15.0, 82.5, 87.0, 74.3, 54.2, 56.3)),
}
MISPRINTED = {"MPOP": 79.6, "MPOP_full+LFA": 80.6}


@pytest.mark.parametrize("row", TABLE_3)
def test_the_papers_scores_recomputed(row):
    printed, figures = TABLE_3[row]
    score = glue_score(dict(zip(TASKS, figures, strict=True)))
    assert round(score, 1) == MISPRINTED.get(row, printed)


def test_the_tasks_are_the_tables_and_their_metrics_are_known():
    assert tuple(GLUE) == TASKS
    assert {metric for task in GLUE.values() for metric in task.metrics} == METRICS.keys()


def test_a_mean_over_other_tasks_is_no_glue_score():
    with pytest.raises(ValueError, match=r"one figure of each of sst2, .*, got sst2, rte"):
        glue_score({"sst2": 90.0, "rte": 70.0})
