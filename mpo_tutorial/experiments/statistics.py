"""What is concluded from measurements: metrics with their intervals, means and differences over seeds, and how many it takes."""

from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95
RESAMPLES = 1000


def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(truth, predicted))


def f1(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Of class 1; 0 where it is neither there nor predicted."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, zero_division=0))  # pyright: ignore[reportArgumentType] (its default is a word)


def matthews(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Matthews' correlation; 0 where all predictions, or all labels, are the same."""
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(truth, predicted))


def pearson(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson's correlation. Where a side is constant it is undefined, and 0 here: it says nothing about the other."""
    from scipy.stats import pearsonr

    return 0.0 if np.ptp(truth) == 0 or np.ptp(predicted) == 0 else float(np.asarray(pearsonr(truth, predicted))[0])


def spearman(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Spearman's rank correlation: Pearson's of the ranks; 0 where a side is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(truth), rankdata(predicted))


METRICS = {metric.__name__: metric for metric in (accuracy, f1, matthews, pearson, spearman)}


def measure(names: Sequence[str], truth: ArrayLike, predicted: ArrayLike) -> dict:
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
    true, guessed = np.asarray(truth), np.asarray(predicted)
    if not np.isfinite(guessed).all():
        raise ValueError(
            f"predictions must be finite, {int((~np.isfinite(guessed)).sum())} of {len(guessed)} are not; the training "
            "diverged: take a smaller learning rate"
        )
    part = score(np.equal(true, guessed)) if true.dtype.kind in "iu" else {"n": len(true)}
    if not names:
        return part
    found = {}
    for name in names:
        interval = part["interval"] if name == "accuracy" else _bootstrap(METRICS[name], true, guessed)
        found[name] = {"value": METRICS[name](true, guessed), "interval": interval}
    return {**part, "metrics": found}


def _bootstrap(metric, truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    """95 % percentile interval, over sentences."""
    rng = np.random.default_rng(0)
    draws = (rng.integers(len(truth), size=len(truth)) for _ in range(RESAMPLES))
    values = [metric(truth[draw], predicted[draw]) for draw in draws]
    return np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist()


def wilson_interval(correct: int, n: int) -> tuple[float, float]:
    """95 % interval of an accuracy measured on n sentences (Wilson's score interval).

    It says how far another draw of test sentences would move the accuracy, and nothing about another seed.
    """
    from scipy.stats import binomtest

    interval = binomtest(correct, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def score(right: ArrayLike) -> dict:
    """The part of a record that holds an accuracy: count, accuracy, interval, and which sentences were right, as hex."""
    hits = np.asarray(right, dtype=bool)
    return {
        "n": len(hits),
        "accuracy": float(hits.mean()),
        "interval": list(wilson_interval(int(hits.sum()), len(hits))),
        "right": np.packbits(hits).tobytes().hex(),
    }


def correct_sentences(part: dict) -> np.ndarray:
    """Which sentences were right: the boolean array of shape (n,) that `score` was given.

    >>> correct_sentences(score([True, False, True])).tolist()
    [True, False, True]
    """
    packed = np.frombuffer(bytes.fromhex(part["right"]), dtype=np.uint8)
    return np.unpackbits(packed, count=part["n"]).astype(bool)


def auc(truth: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve: how often a sentence of class 1 scores above one of class 0, ties counted half.

    Unlike the accuracy it does not fall when all logits are shifted alike.

    >>> auc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
    0.75

    Parameters
    ----------
    truth : of length n
        Classes 0 and 1.
    scores : of length n
        Larger for class 1.

    Raises
    ------
    ValueError
        If the classes are not both there, or are others, or a score is not finite.
    """
    from sklearn.metrics import roc_auc_score

    if set(np.unique(truth)) != {0, 1} or not np.isfinite(scores).all():
        raise ValueError(
            f"an AUC needs the classes 0 and 1 and finite scores, got the classes {np.unique(truth).tolist()}"
        )
    return float(roc_auc_score(truth, scores))


def over_seeds(values: ArrayLike) -> dict:
    """Mean over seeds, with Student's t interval: what another draw of seeds would move.

    Parameters
    ----------
    values : of length n
        One figure for each seed; of paired differences too.

    Returns
    -------
    dict
        "mean"; "interval", its two ends, None for a single seed, which has no spread; "seeds", how many there were.

    >>> {name: np.round(found, 2).tolist() for name, found in over_seeds([-0.4, -2.7, -1.5]).items()}
    {'mean': -1.53, 'interval': [-4.39, 1.32], 'seeds': 3}
    """
    from scipy.stats import t

    found = np.asarray(values, dtype=float)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise ValueError(f"a mean over seeds needs a finite figure for each, got {values!r}")
    n, mean = len(found), float(found.mean())
    interval = None
    if n > 1:
        half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1) * found.std(ddof=1) / np.sqrt(n))
        interval = [mean - half, mean + half]
    return {"mean": mean, "interval": interval, "seeds": n}


def power(n: int, spread: float, margin: float) -> float:
    """How probable it is that n seeds show what is true: that two methods with equal means differ by less than a margin.

    It is shown if the interval of the paired difference lies above minus the margin.

    Parameters
    ----------
    n : int, at least 2
    spread : float, positive
        Standard deviation, over seeds, of the paired difference: of a pilot.
    margin : float, positive
        In the same unit.
    """
    from scipy.stats import nct, t

    if n < 2 or not (spread > 0 and margin > 0):
        raise ValueError(f"power needs two seeds, a spread and a margin above 0, got {n}, {spread} and {margin}")
    return float(nct.sf(t.ppf((1 + CONFIDENCE) / 2, n - 1), n - 1, margin / spread * np.sqrt(n)))


def seeds_needed(spread: float, margin: float, wanted: float = 0.8) -> int:
    """The fewest seeds with which the `power` is at least `wanted`.

    >>> seeds_needed(spread=1.15, margin=2.0), seeds_needed(spread=2.55, margin=2.0)
    (5, 15)

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    if not 0 < wanted < 1:
        raise ValueError(f"a power lies between 0 and 1, got {wanted!r}")
    return next(n for n in count(2) if power(n, spread, margin) >= wanted)
