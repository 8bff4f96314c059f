import pytest

from mpo_tutorial.course import tables
from mpo_tutorial.course.demo import beside_full
from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.compare import summarise
from mpo_tutorial.experiments.statistics import METRICS, measure


@pytest.fixture(scope="module")
def comparison() -> dict:
    return summarise(records.shipped_points("compare"))


RUN = {
    "parameters": {"trained": 1_100_000, "total": 23_800_000},
    "seconds": {"train": 160.0},
    "stored_bytes": 4_400_000,
    "validation": measure(["accuracy", "f1"], [0, 1, 1, 1], [0, 1, 1, 0]),
    "test": measure(["matthews"], [0, 1, 1, 0] * 10, [0, 1, 1, 1] * 10),
}


def test_a_run_is_shown_by_its_tasks_metric_or_by_its_accuracy():
    part = RUN["test"]["metrics"]["matthews"]
    low, high = part["interval"]
    row = tables.row_of_run("light", RUN, "matthews")
    assert row.cells()[3] == f"{part['value']:.3f} [{low:.3f}, {high:.3f}]"
    assert tables.table_head(row.metric)[3] == "test Matthews [95 %]"
    assert tables.row_of_run("light", RUN).cells()[3].startswith("75.0 % [")
    # Two are called 1, three are, two both: 2 x 2 / (2 + 3).
    assert (
        tables.sentence_on_metrics(RUN) == f"validation: accuracy 0.750, F1 0.800; test: Matthews {part['value']:.3f}"
    )


def test_records_from_before_there_were_metrics_are_read_as_they_are(comparison):
    run = records.shipped("demo")["light"]
    assert list(tables.metrics_of(run["test"])) == ["accuracy"]
    assert tables.row_of_run("light", run).accuracy == run["test"]["accuracy"]
    demo = records.shipped("demo")
    assert {row.metric for row in beside_full(demo["light"], demo["full"])[0]} == {"accuracy"}


def test_every_metric_has_a_name():
    assert tables.METRIC_NAMES.keys() == METRICS.keys()


def test_a_run_stands_beside_the_record_only_on_the_same_budget(comparison):
    run = records.shipped("demo")["light"]
    assert tables.same_budget(comparison, run)
    assert not tables.same_budget(comparison, {**run, "train_sentences": 100})
    for name, other in (("model", "b"), ("task", "b"), ("epochs", 3), ("batch_size", 16), ("max_length", 128)):
        assert not tables.same_budget(comparison, {**run, "config": {**run["config"], name: other}}), name


def test_a_methods_row_is_the_mean_over_its_seeds(comparison):
    row = tables.row_of_comparison("light", comparison, "light")
    assert row.accuracy == pytest.approx((0.8 + 0.795 + 0.8125) / 3)
    low, high = row.interval
    assert row.cells()[3] == f"{100 * row.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    single = tables.TableRow("one seed", 10**6, 10**7, 0.8, None, 60.0, 10**6)
    assert single.cells()[3] == "80.0 %"


def test_the_second_comparison_says_what_its_interval_says():
    points = records.shipped_points("compare-3-epochs")
    difference = summarise(points)["difference"]
    low, high = difference["interval"]
    paragraph = tables.second_comparison(points)
    assert f"paired difference {100 * difference['mean']:.1f} [{100 * low:.1f}, {100 * high:.1f}] points" in paragraph
    assert ("does not lie above the margin" in paragraph) != difference["not_inferior"]
    assert ("it holds 0" in paragraph) == (low <= 0 <= high)
    assert f"{difference['seeds_needed']} seeds with this spread" in paragraph
