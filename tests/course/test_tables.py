import pytest

from mpo_tutorial.course import tables
from mpo_tutorial.course.demo import beside_full
from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.compare import summarise
from mpo_tutorial.experiments.light import LIGHT
from mpo_tutorial.experiments.statistics import METRICS, measure


@pytest.fixture(scope="module")
def comparison() -> dict:
    return summarise(records.shipped_points("light"), LIGHT)


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
    for name, other in (
        ("model", "b"),
        ("task", "b"),
        ("epochs", 3),
        ("batch_size", 16),
        ("max_length", 128),
        ("pooling", "pooler"),
    ):
        assert not tables.same_budget(comparison, {**run, "config": {**run["config"], name: other}}), name


def test_a_methods_row_is_the_mean_over_its_seeds(comparison):
    right = [point["result"]["test"]["accuracy"] for point in comparison["final"]["light"]]
    row = tables.row_of_comparison("light", comparison, "light")
    assert row.accuracy == pytest.approx(sum(right) / len(right))
    low, high = row.interval
    assert row.cells()[3] == f"{100 * row.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
    assert row.cells()[4] == ""  # its runs shared a machine
    single = tables.TableRow("one seed", 10**6, 10**7, 0.8, None, 60.0, 10**6)
    assert single.cells()[3:5] == ("80.0 %", "60 s")


def test_a_comparison_is_shown_with_what_decides_it(comparison):
    """Of every row the difference that is paired by seeds, and of the pair what the interval says of the margin."""
    rows = {cells[0]: cells for cells in tables.cells_of_comparison(comparison)}
    for name, variant in comparison["variants"].items():
        beside = variant["minus_beside"]
        assert rows[name][3] == ("" if beside is None else f"{100 * beside['mean']:+.1f} [{_ends(beside)}]")
    assert [cells[0] for cells in tables.cells_of_comparison(comparison, ["full", "light"])] == ["full", "light"]
    confirmed, tested, how = tables.sentences_of_comparison(comparison, LIGHT)
    found = comparison["primary"]["confirmation"]
    assert confirmed.startswith("Light minus full, paired by 10 seeds, on the confirmation set (1,828 sentences): ")
    assert f"{100 * found['mean']:+.1f} [{_ends(found)}] points" in confirmed
    assert ("not all above the margin of -1" in confirmed) != found["not_inferior"]
    assert ("with 0 in it" in confirmed) == (found["interval"][0] <= 0 <= found["interval"][1])
    assert ("all of it below 0" in confirmed) == (found["interval"][1] < 0)
    assert f"with {found['seeds_needed']} seeds" in confirmed
    assert "on the test set (2,000 sentences)" in tested
    assert "3,200 training sentences of rotten_tomatoes, 2 epochs" in how


def test_what_was_tuned_is_shown_at_the_best_of_its_rates(comparison):
    """The means of three seeds on 1,500 sentences, counted from the points; three cores train 253,442 numbers."""
    ((name, trained, rate, right, seeds),) = tables.cells_of_tuning(comparison, ["light, 3 cores"])
    found: dict[float, list[float]] = {}
    for point in records.shipped_points("light"):
        if point["stage"] == "tuning" and point["setting"]["variant"] == name:
            own = point["result"]
            share = sum(own[split]["accuracy"] * own[split]["n"] for split in ("validation", "unused")) / 1500
            found.setdefault(point["setting"]["config"]["learning_rate"], []).append(share)
    best = max(found, key=lambda rate: sum(found[rate]))
    assert (trained, rate, seeds) == ("0.253 M", f"{best:g}", "3")
    assert right.startswith(f"{100 * sum(found[best]) / 3:.1f} [")


def _ends(found: dict) -> str:
    return ", ".join(f"{100 * end:+.1f}" for end in found["interval"])


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ([-0.005, 0.01], "points; all of it above the margin of -1 that was set beforehand."),
        (
            [-0.02, 0.01],
            "points; with 0 in it, and not all above the margin of -1 that was set beforehand. Equal methods",
        ),
        ([-0.02, -0.001], "points; all of it below 0, and not all above the margin of -1"),
        (None, "points; a single seed has no interval"),
    ],
)
def test_what_an_interval_says_of_the_margin(comparison, interval, said):
    shown = interval is not None and interval[0] > -0.01
    found = {"mean": 0.0, "interval": interval, "seeds": 3, "margin": 0.01, "not_inferior": shown, "seeds_needed": 7}
    (sentence, _) = tables.sentences_of_comparison({**comparison, "primary": {"test": found}}, LIGHT)
    assert said in sentence
