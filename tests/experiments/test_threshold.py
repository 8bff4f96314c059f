import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from mpo_tutorial.experiments.statistics import correct_sentences
from mpo_tutorial.experiments.threshold import fitted_bias, judge, mean_auc


def answers(classes: int, n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels, not equally many of each class, and the logits of a fair model, none of whose answers is a near thing."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, n, p=np.arange(2, classes + 2) / np.arange(2, classes + 2).sum())
    logits = 2 * np.eye(classes)[truth] + rng.standard_normal((n, classes))
    return truth, logits


def halves(truth: np.ndarray) -> np.ndarray:
    """The first, third, ... sentence of each class, by counting."""
    seen, found = {}, []
    for label in truth.tolist():
        found.append(seen.get(label, 0) % 2)
        seen[label] = seen.get(label, 0) + 1
    return np.array(found)


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("scale", [1.0, 0.003, 50.0])
def test_a_shift_of_all_logits_is_undone(classes, scale):
    truth, logits = answers(classes)
    shift = np.linspace(0, 30, classes)
    logits = logits + fitted_bias(truth, logits)
    whole, shifted = judge(truth, logits), judge(truth, scale * (logits + shift))
    assert shifted["accuracy"] + 0.2 < whole["accuracy"]
    assert shifted["refitted"] == whole["refitted"]
    assert shifted["auc"] == pytest.approx(whole["auc"], abs=1e-12)
    # The logits had their best bias already: what is fitted to halves is near it, and so are the answers.
    assert abs(shifted["refitted"]["accuracy"] - whole["accuracy"]) < 0.02
    np.testing.assert_allclose(fitted_bias(truth, logits), 0, atol=1e-5)
    np.testing.assert_allclose(fitted_bias(truth, logits + shift), shift.mean() - shift, atol=1e-5)


def test_the_bias_is_that_of_scikit_learns_logistic_regression():
    truth, logits = answers(2)
    difference = (logits[:, 1] - logits[:, 0])[:, None]
    line = LogisticRegression(C=np.inf, tol=1e-10).fit(difference, truth)
    bias = fitted_bias(truth, logits)
    assert bias[1] - bias[0] == pytest.approx(float(line.intercept_[0] / line.coef_[0, 0]), abs=1e-4)


def test_each_half_is_judged_by_the_bias_of_the_other():
    truth, logits = answers(3)
    first = halves(truth) == 0
    right = np.empty(len(truth), dtype=bool)
    for judged in (first, ~first):
        bias = fitted_bias(truth[~judged], logits[~judged])
        right[judged] = (logits[judged] + bias).argmax(1) == truth[judged]
    np.testing.assert_array_equal(correct_sentences(judge(truth, logits)["refitted"]), right)


def test_no_sentence_has_a_part_in_the_bias_that_it_is_judged_with():
    """Logits that shift the fit of their own half beyond all others change the answers of the other half alone."""
    truth, logits = answers(2)
    first = halves(truth) == 0
    changed = logits.copy()
    changed[first, 0] += 10
    before, after = (correct_sentences(judge(truth, found)["refitted"]) for found in (logits, changed))
    bias = fitted_bias(truth[~first], logits[~first])
    np.testing.assert_array_equal(after[first], (changed[first] + bias).argmax(1) == truth[first])
    # The other half is pushed to class 1, and so is right wherever that is the class.
    assert after[~first & (truth == 1)].all()
    assert before[~first & (truth == 0)].mean() > 0.6
    assert not after[~first & (truth == 0)].all()


def test_the_auc_is_a_count_of_pairs():
    truth, logits = answers(3, n=60)
    logits = logits.round()  # ties, each of which counts half
    found = []
    for one, other in ((0, 1), (0, 2), (1, 2)):
        difference = logits[:, other] - logits[:, one]
        wins = [np.sign(b - a) / 2 + 0.5 for a in difference[truth == one] for b in difference[truth == other]]
        found.append(np.mean(wins))
    assert mean_auc(truth, logits) == pytest.approx(np.mean(found))
    assert judge(truth, logits)["auc"] == pytest.approx(np.mean(found))


def test_logits_that_tell_nothing_give_a_half_and_the_commonest_answer():
    truth = np.array([0] * 30 + [1] * 70)
    found = judge(truth, np.zeros((100, 2)))
    assert found["auc"] == 0.5
    assert found["accuracy"] == 0.3
    assert found["refitted"]["accuracy"] == 0.7


def test_classes_that_are_apart_stay_apart():
    truth = np.arange(40) % 2
    logits = np.stack([np.zeros(40), 100.0 + truth + np.linspace(0, 0.1, 40)], 1)
    found = judge(truth, logits)
    assert (found["accuracy"], found["auc"], found["refitted"]["accuracy"]) == (0.5, 1, 1)


def test_what_cannot_be_halved_has_an_accuracy_alone():
    found = judge([0, 1, 1], [[1.0, 0], [0, 1], [1, 0]])
    assert (found["n"], found["auc"], found["refitted"]) == (3, None, None)
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert judge([0, 1], np.eye(3)[:2])["auc"] is None


@pytest.mark.parametrize(
    ("logits", "message"),
    [
        (np.zeros((4, 1)), r"a logit for each class, got the shape \(4, 1\)"),
        (np.zeros(4), r"a logit for each class, got the shape \(4,\)"),
        ([[0, 1], [0, np.nan], [np.inf, np.nan], [1, 1]], "logits must be finite, 2 of 4 rows are not"),
    ],
)
def test_what_are_no_logits_of_classes_is_refused(logits, message):
    with pytest.raises(ValueError, match=message):
        judge([0, 0, 1, 1], logits)
