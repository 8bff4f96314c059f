import json

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


def test_predictions_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="predictions must be finite, 2 of 3 are not"):
        measure(["pearson"], [1.0, 2.0, 3.0], [np.nan, np.inf, 1.0])
