import json
import math

import numpy as np
import pytest

from mpo_tutorial.experiments import statistics
from mpo_tutorial.experiments.statistics import METRICS, measure

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(2, size=400)
PREDICTED = np.where(RNG.random(400) < 0.8, TRUTH, 1 - TRUTH)
FIGURES = RNG.uniform(0, 5, size=300).round(1)
GUESSES = FIGURES**2 + RNG.normal(0, 2, size=300)


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])


def test_metrics_of_classes_against_their_definitions():
    right_1 = (TRUTH & PREDICTED).sum()
    precision, recall = right_1 / PREDICTED.sum(), right_1 / TRUTH.sum()
    assert METRICS["f1"](TRUTH, PREDICTED) == pytest.approx(2 * precision * recall / (precision + recall))
    # With two classes, Matthews' correlation is Pearson's of the labels.
    assert METRICS["matthews"](TRUTH, PREDICTED) == pytest.approx(np.corrcoef(TRUTH, PREDICTED)[0, 1])
    assert METRICS["accuracy"](TRUTH, PREDICTED) == (TRUTH == PREDICTED).mean()


def test_correlations_against_their_definitions():
    assert METRICS["pearson"](FIGURES, GUESSES) == pytest.approx(np.corrcoef(FIGURES, GUESSES)[0, 1])
    expected = np.corrcoef(ranks(FIGURES), ranks(GUESSES))[0, 1]
    assert METRICS["spearman"](FIGURES, GUESSES) == pytest.approx(expected)
    assert METRICS["spearman"](FIGURES, np.exp(FIGURES)) == pytest.approx(1)


def test_what_is_undefined_counts_nothing():
    assert METRICS["f1"](np.zeros(4, dtype=int), np.zeros(4, dtype=int)) == 0  # class 1 is neither there nor predicted
    assert METRICS["pearson"](np.full(4, 2.5), np.arange(4.0)) == 0
    assert METRICS["pearson"](np.array([0.0, 1.0]), np.array([3.0, 5.0])) == pytest.approx(1)


@pytest.mark.parametrize("name", ["f1", "matthews", "pearson", "spearman"])
@pytest.mark.parametrize("constant", [0, 2.5])
def test_one_answer_to_everything_counts_nothing(name, constant):
    if name in ("f1", "matthews"):
        truth, predicted = TRUTH, np.zeros(400, dtype=int)
    else:
        truth, predicted = FIGURES, np.full(300, constant, dtype=np.float32)
    part = measure([name], truth, predicted)
    assert part["metrics"] == {name: {"value": 0.0, "interval": [0.0, 0.0]}}


def test_always_yes_has_the_f1_that_glue_calls_a_paraphrase_for():
    """What `glue.GLUE` says about MRPC: 279 of the 408 pairs of its dev set are paraphrases."""
    truth = np.arange(408) < 279
    assert METRICS["f1"](truth.astype(int), np.ones(408, dtype=int)) == pytest.approx(0.812, abs=5e-4)


def test_a_part_with_classes_keeps_what_score_gives():
    part = json.loads(json.dumps(measure(["f1", "accuracy"], TRUTH.tolist(), PREDICTED)))
    score = statistics.score(TRUTH == PREDICTED)
    assert {name: part[name] for name in score} == score
    assert list(part["metrics"]) == ["f1", "accuracy"]
    assert part["metrics"]["accuracy"] == {"value": part["accuracy"], "interval": part["interval"]}
    assert measure([], TRUTH, PREDICTED) == score


def test_a_part_with_figures_has_no_accuracy():
    part = json.loads(json.dumps(measure(["pearson", "spearman"], FIGURES.tolist(), GUESSES.astype(np.float32))))
    assert part.keys() == {"n", "metrics"}
    assert part["n"] == 300


def test_the_interval_of_a_correlation_is_fishers():
    """For normal variables Fisher's transform gives the interval in closed form."""
    truth = RNG.normal(size=1000)
    predicted = 0.6 * truth + 0.8 * RNG.normal(size=1000)
    measured = measure(["pearson"], truth, predicted)["metrics"]["pearson"]
    centre, half = np.arctanh(measured["value"]), 1.96 / np.sqrt(1000 - 3)
    np.testing.assert_allclose(measured["interval"], np.tanh([centre - half, centre + half]), atol=0.01)


def test_a_bootstrapped_mean_is_normal_and_the_same_each_time(monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 20_000)
    values = np.random.default_rng(2).normal(size=400)
    interval = statistics._bootstrap(lambda truth, _: truth.mean(), values, values)
    half = 1.959964 * values.std() / 20
    np.testing.assert_allclose(interval, [values.mean() - half, values.mean() + half], atol=0.003)
    assert statistics._bootstrap(lambda truth, _: truth.mean(), values, values) == interval


def test_predictions_that_are_no_numbers_are_refused():
    with pytest.raises(
        ValueError,
        match=r"^predictions must be finite, 2 of 3 are not; the training diverged: take a smaller learning rate$",
    ):
        measure(["pearson"], [1.0, 2.0, 3.0], [np.nan, np.inf, 1.0])


def test_wilson_interval_against_its_formula():
    n, correct, z = 500, 390, 1.959963984540054
    p = correct / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    np.testing.assert_allclose(statistics.wilson_interval(correct, n), (centre - half, centre + half))


def test_the_interval_over_seeds_is_students():
    values = np.array([0.1, 0.4, 0.7, 1.2])
    found = statistics.over_seeds(values)
    half = 3.182446305 * np.sqrt(((values - values.mean()) ** 2).sum() / 3 / 4)  # t of 3 degrees of freedom, 97.5 %
    assert found["mean"] == pytest.approx(0.6)
    assert found["interval"] == pytest.approx([0.6 - half, 0.6 + half])
    assert found["seeds"] == 4
    half = 12.706204736 * np.sqrt(0.02 / 2)  # of one degree of freedom
    assert statistics.over_seeds([0.1, 0.3])["interval"] == pytest.approx([0.2 - half, 0.2 + half])
    single = values.astype(np.float32)
    assert statistics.over_seeds(single)["mean"] == single.astype(float).mean()


def test_a_single_seed_has_no_interval_and_none_is_refused():
    assert statistics.over_seeds([0.5]) == {"mean": 0.5, "interval": None, "seeds": 1}
    for values in ([], [np.nan, 1.0], [[1.0, 2.0]]):
        with pytest.raises(ValueError, match="needs a finite figure for each"):
            statistics.over_seeds(values)


def test_the_interval_holds_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(2000):
        low, high = statistics.over_seeds(rng.normal(3, 2, size=3))["interval"]
        held += low < 3 < high
    assert 0.935 < held / 2000 < 0.965


@pytest.mark.parametrize(("n", "spread"), [(3, 1.15), (5, 1.15), (10, 2.0)])
def test_the_power_is_how_often_equal_methods_are_shown_to_be_equal(n, spread):
    rng = np.random.default_rng(1)
    draws = [statistics.over_seeds(rng.normal(0, spread, size=n))["interval"][0] > -2 for _ in range(4000)]
    assert statistics.power(n, spread, 2.0) == pytest.approx(np.mean(draws), abs=0.025)


def test_the_seeds_needed_are_the_fewest():
    for spread, margin, wanted in ((1.15, 2.0, 0.8), (2.55, 2.0, 0.8), (1.0, 1.0, 0.95)):
        n = statistics.seeds_needed(spread, margin, wanted)
        assert statistics.power(n, spread, margin) >= wanted
        assert n == 2 or statistics.power(n - 1, spread, margin) < wanted
    assert statistics.seeds_needed(0.01, 2.0) == 2
    assert statistics.seeds_needed(1.15, 2.0, statistics.power(5, 1.15, 2.0)) == 5  # at least


@pytest.mark.parametrize("arguments", [(1, 1.0, 1.0), (3, 0.0, 1.0), (3, 1.0, 0.0), (3, -1.0, 1.0), (3, 1.0, -1.0)])
def test_power_without_seeds_spread_or_margin_is_refused(arguments):
    with pytest.raises(ValueError, match="power needs two seeds, a spread and a margin above 0"):
        statistics.power(*arguments)
    with pytest.raises(ValueError, match=r"a power lies between 0 and 1, got 1\.0"):
        statistics.seeds_needed(1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"a power lies between 0 and 1, got 0"):
        statistics.seeds_needed(1.0, 1.0, 0)


def test_the_auc_counts_pairs_in_order():
    scores = RNG.normal(size=60) + TRUTH[:60]
    truth = TRUTH[:60]
    pairs = [(a > b) + (a == b) / 2 for a in scores[truth == 1] for b in scores[truth == 0]]
    assert statistics.auc(truth, scores) == pytest.approx(np.mean(pairs))
    assert statistics.auc(truth, scores + 100) == statistics.auc(truth, scores)
    assert statistics.auc([0, 1], [1.0, 1.0]) == 0.5
    assert statistics.auc([0, 1], [1.0, 2.0]) == 1
    for wrong in (([1, 1], [0.1, 0.2]), ([0, 1, 2], [1, 2, 3]), ([0, 1], [np.nan, 1])):
        with pytest.raises(ValueError, match="an AUC needs the classes 0 and 1 and finite scores"):
            statistics.auc(*wrong)
    with pytest.raises(ValueError, match=r"got the classes \[0, 1, 2\]$"):
        statistics.auc([0, 1, 2], [1, 2, 3])


@pytest.mark.parametrize("n", [1, 7, 8, 9, 500])
def test_which_sentences_were_right_survives_the_record(n):
    right = np.random.default_rng(n).random(n) < 0.7
    part = json.loads(json.dumps(statistics.score(right)))
    assert np.array_equal(statistics.correct_sentences(part), right)
    assert part["accuracy"] == right.mean()
    assert statistics.correct_sentences(part).dtype == bool
    assert statistics.score(right.astype(int)) == part
