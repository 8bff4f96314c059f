"""What is measured besides which sentences are right: F1, Matthews' and the two other correlations, with intervals."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 1000


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(truth, predicted))


def f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Of class 1; 0 where it is neither there nor predicted."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, zero_division=0))


def matthews(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Matthews' correlation; 0 where all predictions, or all labels, are the same."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(truth, predicted))


def pearson(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation. Where a side is constant it is undefined, and 0 here: it says nothing about the other."""
    from scipy.stats import pearsonr

    return 0.0 if np.ptp(truth) == 0 or np.ptp(predicted) == 0 else float(pearsonr(truth, predicted).statistic)


def spearman(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Spearman's rank correlation; 0 where a side is constant, as for `pearson`."""
    from scipy.stats import spearmanr

    return 0.0 if np.ptp(truth) == 0 or np.ptp(predicted) == 0 else float(spearmanr(truth, predicted).statistic)


METRICS = {metric.__name__: metric for metric in (accuracy, f1, matthews, pearson, spearman)}


def measure(names: Sequence[str], truth: Sequence, predicted: Sequence) -> dict:
    """The part of a record that a split gets: what `score` gives where there are classes, and the metrics.

    Parameters
    ----------
    names : sequence of str
        Of `METRICS`, the main one first. None: what `score` gives alone.
    truth, predicted : of length n
        Classes as integers, or figures.

    Returns
    -------
    dict
        "metrics" has, by name, a value and its 95 % interval over other draws of sentences: Wilson's for an accuracy, a
        bootstrap's percentiles for the others.

    Raises
    ------
    ValueError
        If a prediction is not finite.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if not np.isfinite(predicted).all():
        raise ValueError(
            f"predictions must be finite, {int((~np.isfinite(predicted)).sum())} of {len(predicted)} are not; the training "
            "diverged: take a smaller learning rate"
        )
    part = score(truth == predicted) if truth.dtype.kind in "iu" else {"n": len(truth)}
    if not names:
        return part
    found = {}
    for name in names:
        interval = part["interval"] if name == "accuracy" else _bootstrap(METRICS[name], truth, predicted)
        found[name] = {"value": METRICS[name](truth, predicted), "interval": interval}
    return {**part, "metrics": found}


def _bootstrap(metric, truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    """95 % percentile interval, over sentences."""
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(truth), size=len(truth)) for _ in range(RESAMPLES))
    values = [metric(truth[draw], predicted[draw]) for draw in draws]
    return np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()


CONFIDENCE = 0.95


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95 % interval of an accuracy measured on n sentences (Wilson's score interval).

    It says how far another draw of test sentences would move the accuracy, and nothing about another seed.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def score(right: Sequence[bool]) -> dict:
    """The part of a record that holds an accuracy: count, accuracy, interval, and which sentences were right, as hex."""
    right = np.asarray(right, dtype=bool)
    return {
        "n": len(right),
        "accuracy": float(right.mean()),
        "interval": list(wilson_interval(int(right.sum()), len(right))),
        "right": np.packbits(right).tobytes().hex(),
    }


def correct_sentences(part: dict) -> np.ndarray:
    """Which sentences were right: the boolean array of shape (n,) that `score` was given.

    >>> correct_sentences(score([True, False, True])).tolist()
    [True, False, True]
    """
    packed = np.frombuffer(bytes.fromhex(part["right"]), dtype=np.uint8)
    return np.unpackbits(packed, count=part["n"]).astype(bool)


def bootstrap_interval(values: np.ndarray, resamples: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean of `values`, both axes resampled: seeds and sentences.

    Parameters
    ----------
    values : array of shape (seeds, sentences)
        0 or 1 for an accuracy, or the difference of two such arrays, seed by seed and sentence by sentence, for a paired
        difference.
    """
    values = np.asarray(values, dtype=np.float64)
    seeds, sentences = values.shape
    rng = np.random.default_rng(seed)
    means = np.empty(resamples)
    for k in range(resamples):
        seed_weights = np.bincount(rng.integers(seeds, size=seeds), minlength=seeds)
        sentence_weights = np.bincount(rng.integers(sentences, size=sentences), minlength=sentences)
        means[k] = seed_weights @ values @ sentence_weights / (seeds * sentences)
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
