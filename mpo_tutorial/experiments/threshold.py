"""What a model still tells apart when its threshold is off: accuracy, AUC, and accuracy with the head's bias fitted again.

A cut moves the logits of all sentences. Where it moves them alike, most sentences get the same answer, and the accuracy falls to
that of guessing, though the model may still put them in nearly the order that it did. The AUC sees the order alone, and the
fitted bias undoes the common part of the shift.
"""

import numpy as np
from numpy.typing import ArrayLike

from mpo_tutorial.experiments.statistics import auc, score

REFIT = "the head's bias fitted on one half of the sentences and judged on the other, both ways"
SLOPES = (1e-3, 1e3)  # of logits that are scaled to a spread of 1: positive, and finite where the classes are apart


def judge(truth: ArrayLike, logits: ArrayLike) -> dict:
    """What a cut model is measured by.

    Parameters
    ----------
    truth : of length n
        Classes 0, 1, ...
    logits : of shape (n, classes)

    Returns
    -------
    dict
        What `score` gives of the model as it is; "auc", as `mean_auc` gives it; "refitted", what `score` gives of it once each
        half of the sentences is judged with the `fitted_bias` of the other half. No sentence has a part in the bias that it is
        judged with. The last two are None where a class has fewer than two sentences, one for each half.

    Raises
    ------
    ValueError
        If there are no classes but one output, or a logit is not finite.
    """
    labels, found = np.asarray(truth), np.asarray(logits, dtype=float)
    if found.ndim != 2 or found.shape[1] < 2:
        raise ValueError(
            f"right and wrong need a logit for each class, got the shape {found.shape}; a model with one output, a figure, has "
            "predict and its metrics"
        )
    if not np.isfinite(found).all():
        raise ValueError(f"logits must be finite, {(~np.isfinite(found)).any(1).sum()} of {len(found)} rows are not")
    plain = score(found.argmax(1) == labels)
    if np.bincount(labels, minlength=found.shape[1]).min() < 2:
        return {**plain, "auc": None, "refitted": None}
    halves = _halves(labels)
    right = np.empty(len(labels), dtype=bool)
    for half in (0, 1):
        judged, other = halves == half, halves != half
        bias = fitted_bias(labels[other], found[other])
        right[judged] = (found[judged] + bias).argmax(1) == labels[judged]
    return {**plain, "auc": mean_auc(labels, found), "refitted": score(right)}


def fitted_bias(truth: ArrayLike, logits: ArrayLike) -> np.ndarray:
    """What to add to the head's bias so that the answers fit the labels again, all else as it is.

    It is found by a logistic regression of the labels on the logits, which has an intercept for each class and one slope for
    all: the intercepts over the slope. The slope changes no answer. Without it, the shares of the classes would overrule the
    logits where a cut has made all of them small.

    Parameters
    ----------
    truth, logits
        As in `judge`, some of each class.

    Returns
    -------
    array of shape (classes,), with mean 0
    """
    from scipy.optimize import minimize
    from scipy.special import log_softmax, softmax

    labels, found = np.asarray(truth), np.asarray(logits, dtype=float)
    means = found.mean(0)
    spread = (found - means).std() or 1.0
    scaled, wanted = (found - means) / spread, np.eye(found.shape[1])[labels]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        slope, intercepts = parameters[0], parameters[1:]
        fitted = slope * scaled + intercepts
        lost = softmax(fitted, axis=1) - wanted
        gradient = np.array([(lost * scaled).sum(), *lost.sum(0)]) / len(lost)
        return -float((wanted * log_softmax(fitted, axis=1)).sum(1).mean()), gradient

    start = np.array([1.0, *np.zeros(found.shape[1])])
    bounds = [SLOPES, *[(None, None)] * found.shape[1]]
    options = {"gtol": 1e-8, "ftol": 0.0, "maxiter": 1000}
    slope, *intercepts = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    bias = spread * np.array(intercepts) / slope - means
    return bias - bias.mean()


def mean_auc(truth: ArrayLike, logits: ArrayLike) -> float:
    """Mean over pairs of classes of the AUC of the difference of their logits, among the sentences of the two.

    With two classes it is the AUC, with more a mean in which no bias has a part, after Hand and Till (2001).
    """
    labels, found = np.asarray(truth), np.asarray(logits)
    values = []
    for second in range(found.shape[1]):
        for first in range(second):
            of_two = (labels == first) | (labels == second)
            values.append(auc(labels[of_two] == second, found[of_two, second] - found[of_two, first]))
    return float(np.mean(values))


def _halves(labels: np.ndarray) -> np.ndarray:
    """0 or 1 for each sentence, by turns within each class: both halves have the classes alike."""
    halves = np.zeros(len(labels), dtype=int)
    for label in np.unique(labels):
        halves[np.flatnonzero(labels == label)[1::2]] = 1
    return halves
