"""What any method has to beat: guessing, and a logistic probe on the model as it was pretrained."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mpo_tutorial.experiments import forms
from mpo_tutorial.experiments.statistics import score

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mpo_tutorial.experiments.finetune import Prepared

FLOORS = GUESSING, PROBE = "guessing", "logistic probe"
COSTS = {**forms.COSTS, "parameters": {"trained": forms.NUMBER, "total": forms.COUNT}, "stored_bytes": forms.NUMBER}
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C


def measure(prepared: "Prepared", floor: str, splits: Sequence[str], tuned_on: Sequence[str]) -> dict:
    """A floor's scores on some splits, and its costs, as of a run. It has no seed: every one would give the same.

    "guessing" calls all sentences what most training sentences are. The "logistic probe" is a logistic regression on
    `evaluation.vectors`, each of whose components is standardised.

    Parameters
    ----------
    prepared : Prepared
        With the model that is to be read, dense or not.
    floor : {"guessing", "logistic probe"}
    tuned_on : sequence of str
        Splits whose sentences, all together, the probe's strength of penalty is chosen by.
    """
    from mpo_tutorial.experiments.evaluation import vectors
    from mpo_tutorial.models.convert import count

    started = time.perf_counter()
    train = prepared.task.train(prepared.config.train_size)
    labels = {
        split: np.array([label for _, label in (train if split == "train" else prepared.task.splits[split])])
        for split in {"train", *splits, *tuned_on}
    }
    trained, chosen = 0, {}
    if floor == GUESSING:
        commonest = np.bincount(labels["train"]).argmax()
        predicted = {split: np.full(len(labels[split]), commonest) for split in splits}
    else:
        states = {split: vectors(prepared.model, prepared.dataset(split), prepared.tokenizer) for split in labels}
        probe, strength = _best_probe(states, labels, tuned_on)
        predicted = {split: probe.predict(states[split]) for split in splits}
        regression = probe[-1]
        trained, chosen = regression.coef_.size + regression.intercept_.size, {"strength": strength}
    return {
        "parameters": {"trained": trained, "total": count(prepared.model)},
        "stored_bytes": 4 * trained,
        "train_sentences": len(train),
        "seconds": {"train": time.perf_counter() - started},
        **chosen,
        **{split: score(predicted[split] == labels[split]) for split in splits},
    }


def _best_probe(states: "dict[str, NDArray]", labels: "dict[str, NDArray]", tuned_on: Sequence[str]):
    """The probe, fitted to the training sentences, that is right on the most sentences of some splits; and its strength."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probes = {
        strength: make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000)).fit(
            states["train"], labels["train"]
        )
        for strength in STRENGTHS
    }

    def right(strength: float) -> int:
        return sum(int((probes[strength].predict(states[split]) == labels[split]).sum()) for split in tuned_on)

    best = max(probes, key=right)
    return probes[best], best
