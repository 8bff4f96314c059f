import json
import math
import resource
import subprocess
import sys

import numpy as np
import pytest

from mpo_tutorial.course import tables
from mpo_tutorial.experiments import records, statistics
from mpo_tutorial.experiments.compare import GRIDS, MARGIN, summarise
from mpo_tutorial.experiments.config import LEARNING_RATES
from mpo_tutorial.experiments.statistics import METRICS, measure


def test_wilson_interval_against_its_formula():
    n, correct, z = 500, 390, 1.959963984540054
    p = correct / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    np.testing.assert_allclose(statistics.wilson_interval(correct, n), (centre - half, centre + half))


@pytest.mark.parametrize("n", [1, 7, 8, 9, 500])
def test_which_sentences_were_right_survives_the_record(n):
    right = np.random.default_rng(n).random(n) < 0.7
    part = json.loads(json.dumps(statistics.score(right)))
    assert np.array_equal(statistics.correct_sentences(part), right)
    assert part["accuracy"] == right.mean()


def test_bootstrap_over_sentences_agrees_with_the_normal_interval():
    values = np.random.default_rng(0).random((1, 2000)) < 0.8
    low, high = statistics.bootstrap_interval(values)
    half = 1.96 * math.sqrt(values.mean() * (1 - values.mean()) / 2000)
    assert low == pytest.approx(values.mean() - half, abs=0.002)
    assert high == pytest.approx(values.mean() + half, abs=0.002)


def test_bootstrap_sees_the_spread_of_seeds():
    sentences = np.ones(1000)
    apart = np.stack([0.6 * sentences, 0.8 * sentences, 1.0 * sentences])
    low, high = statistics.bootstrap_interval(apart)
    assert (low, high) == pytest.approx((0.6, 1.0), abs=0.07)
    assert statistics.bootstrap_interval(np.stack([sentences] * 3)) == pytest.approx((1.0, 1.0))


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from mpo_tutorial.experiments.records import write_record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_record({"long": "x" * 5000}, Path(sys.argv[1]))
"""


def test_a_full_disk_leaves_the_earlier_record_whole(tmp_path):
    path = tmp_path / "record.json"
    records.write_record({"earlier": 1}, path)
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=False)
    assert "OSError" in done.stderr
    assert records.read_record(path) == {"earlier": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(ValueError, match=r"must be JSON, .*record.json is not"):
        records.read_record(tmp_path / "record.json")


def test_peak_memory_is_at_least_what_is_held_and_no_parents():
    code = "from mpo_tutorial.experiments.records import peak_memory_bytes as p; a = p(); b = bytearray(10**8); print(a, p())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 0.9e8 < after - before < 1.5e8
    assert records.peak_memory_bytes() <= 1.1 * 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module")
def comparison() -> dict:
    return records.shipped("compare")


def test_shipped_comparison_holds_every_run(comparison):
    seeds = comparison["seeds"]
    assert comparison["grids"] == {method: list(rates) for method, rates in GRIDS.items()}
    for method, rates in GRIDS.items():
        found = [
            (r["config"]["learning_rate"], r["config"]["seed"])
            for r in comparison["grid"]
            if r["config"]["method"] == method
        ]
        assert found == [(rate, seed) for rate in rates for seed in comparison["tuning_seeds"]]
        assert [run["config"]["seed"] for run in comparison["final"][method]] == seeds
        assert all(run["test"]["n"] == 2000 and run["validation"]["n"] == 500 for run in comparison["final"][method])
    assert not any("test" in run for run in comparison["grid"])


def test_learning_rates_are_the_best_of_grids_of_one_size(comparison):
    assert len({len(rates) for rates in GRIDS.values()}) == 1
    for method, rates in GRIDS.items():
        means = [
            np.mean(
                [
                    r["validation"]["accuracy"]
                    for r in comparison["grid"]
                    if r["config"]["learning_rate"] == rate and r["config"]["method"] == method
                ]
            )
            for rate in rates
        ]
        assert rates[int(np.argmax(means))] == comparison["chosen"][method] == LEARNING_RATES[method]


def test_shipped_summary_follows_from_the_runs(comparison):
    assert summarise(comparison["final"]) == comparison["summary"]
    assert comparison["summary"]["difference"]["margin"] == MARGIN
    assert all(run["parameters"]["trained"] <= 1_110_000 for run in comparison["final"]["light"])


def test_the_second_comparison_is_as_whole_as_the_first():
    second = records.shipped("compare-3-epochs")
    assert summarise(second["final"]) == second["summary"]
    assert len(second["grid"]) == 2 * 5 * len(second["tuning_seeds"])
    difference = second["summary"]["difference"]
    paragraph = tables.second_comparison(second)
    assert f"paired difference {100 * difference['mean']:.1f} [" in paragraph
    assert ("the margin is missed" in paragraph) != difference["not_inferior"]


def test_paired_difference_is_paired():
    half = np.arange(2000) % 2 == 0
    runs = [{"test": statistics.score(half)}, {"test": statistics.score(half)}]
    same = summarise({"light": runs, "full": runs})["difference"]
    assert (same["mean"], same["interval"], same["not_inferior"]) == (0, [0, 0], True)
    worse = [{"test": statistics.score(half & (np.arange(2000) % 20 != 0))} for _ in runs]
    difference = summarise({"light": worse, "full": runs})["difference"]
    assert difference["mean"] == pytest.approx(-0.05)
    assert not difference["not_inferior"]


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
    run = comparison["final"]["light"][0]
    assert list(tables.metrics_of(run["test"])) == ["accuracy"]
    assert tables.row_of_run("light", run).accuracy == run["test"]["accuracy"]
    rows = [tables.TableRow(**row) for row in records.shipped("demo")["table"]]
    assert {row.metric for row in rows} == {"accuracy"}


def test_every_metric_has_a_name():
    assert tables.METRIC_NAMES.keys() == METRICS.keys()


def test_a_run_stands_beside_the_record_only_on_the_same_budget(comparison):
    run = comparison["final"]["light"][1]
    assert tables.same_budget(comparison, run)
    assert not tables.same_budget(comparison, {**run, "train_sentences": 100})
    assert not tables.same_budget(comparison, {**run, "config": {**run["config"], "task": "mine.csv"}})
