"""A curve of cuts with numbers that are easy to tell apart, for figures."""

import numpy as np

from mpo_tutorial.experiments.statistics import score


def judged(right: int, auc: float | None, refitted: int) -> dict:
    """As `threshold.judge` gives it, of 500 sentences."""
    parts = [score(np.arange(500) < hits) for hits in (right, refitted)]
    return {**parts[0], "auc": auc, "refitted": None if auc is None else parts[1]}


CURVE = [
    {"max_bond": bond, "ratio": ratio, "validation": judged(right, auc, refitted)}
    for bond, ratio, right, auc, refitted in (
        (192, 1.1, 390, 0.86, 388),
        (96, 0.6, 300, 0.8, 360),
        (32, 0.1, 250, 0.6, 280),
    )
]
