import pytest

from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.glue import GLUE, PRESETS, glue_score, preset_of
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


def test_a_preset_is_the_authors_script_of_a_task():
    """SST-2 in albert/run_all_albert_fine_tune.sh: two rates, 32 sentences of up to 128 tokens."""
    found = preset_of("glue/sst2", "light")
    rates = {"learning_rate": 2.8e-6, "rest_rate": 2.7e-5}
    assert found.items() >= (rates | {"batch_size": 32, "max_length": 128}).items()
    assert "rest_rate" not in preset_of("glue/rte", "light")  # one rate there


@pytest.mark.parametrize("task", PRESETS)
@pytest.mark.parametrize("method", ["light", "full", "bitfit"])
def test_a_preset_is_a_config_and_other_methods_get_the_rate_of_what_is_no_core(task, method):
    found = preset_of(f"glue/{task}", method)
    config = RunConfig(task=f"glue/{task}", method=method, **found)
    assert config.rest_rate is None or method == "light"
    if method != "light":
        assert config.learning_rate == PRESETS[task].rest_rate
    assert PRESETS.keys() == GLUE.keys()


def test_a_task_without_a_preset_is_refused_with_those_that_have_one():
    with pytest.raises(ValueError, match=r"a preset is there for glue/sst2, .*glue/wnli, got 'rotten_tomatoes'"):
        preset_of("rotten_tomatoes", "light")
