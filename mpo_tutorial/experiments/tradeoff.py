"""A tuned model, its bonds cut in all or some of its matrices: what is left of the parameters, the entropy, the accuracy."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from mpo_tutorial.experiments import checkpoint, records, statistics
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import Prepared, evaluate, prepare
from mpo_tutorial.maths import entropy
from mpo_tutorial.models.convert import layers_of_part
from mpo_tutorial.models.layers import MPOLayer, cached, mpo_layers
from mpo_tutorial.models.truncation import truncate

PARTS = ("all", "attention", "feed-forward")
SHARES = tuple(k / 12 for k in range(12, 0, -1))  # of the largest bond; for the embedded model 192, 176 .. 16
CHUNK = 50  # sentences between two steps of a progress bar


@dataclass(frozen=True)
class Tuned:
    """A model after light fine-tuning. Cutting makes a copy, the model itself stays as it is."""

    prepared: Prepared

    @classmethod
    def of(cls, config: RunConfig, weights: Path) -> "Tuned":
        """Of a finished run. Errors as in `prepare` and `load_task_file`."""
        prepared = prepare(config)
        checkpoint.load_task_file(prepared.model, prepared.base, weights)
        return cls(prepared)

    @classmethod
    def of_run(cls, run: Path) -> "Tuned":
        """Of the folder of a finished light run. Errors as in `config_of_run` and `of`."""
        return cls.of(config_of_run(run), run / "task.safetensors")

    @classmethod
    def shipped(cls) -> "Tuned":
        """The run that the record "tradeoff" was made from; its trained tensors are in the package."""
        config = RunConfig(**records.shipped("tradeoff")["config"])
        with resources.as_file(resources.files("mpo_tutorial.records") / "tuned.safetensors") as weights:
            return cls.of(config, weights)

    @property
    def bonds(self) -> tuple[int, ...]:
        """The caps that a record has points for, descending."""
        largest = max(max(layer.mpo.bonds) for layer in mpo_layers(self.prepared.model))
        return tuple(sorted({max(1, round(largest * share)) for share in SHARES}, reverse=True))

    def right(
        self,
        part: str,
        max_bond: int,
        n: int | None = None,
        advance: Callable[[float], None] = lambda _: None,
    ) -> np.ndarray:
        """Which of the first n validation sentences (None: all) the cut model gets right.

        Parameters
        ----------
        part : {"all", "attention", "feed-forward"}
            The matrices whose bonds are capped.
        max_bond : int
        n : int, optional
        advance : callable
            Is told the share that is done, from time to time.
        """
        return self._right(self._cut(part, max_bond), n, advance)

    def _right(self, model, n: int | None = None, advance: Callable[[float], None] = lambda _: None) -> np.ndarray:
        dataset = self.prepared.dataset("validation")
        dataset = dataset.select(range(min(n or len(dataset), len(dataset))))
        found = []
        with cached(model):
            for start in range(0, len(dataset), CHUNK):
                chunk = dataset.select(range(start, min(start + CHUNK, len(dataset))))
                found.append(evaluate(model, chunk, self.prepared.tokenizer))
                advance((start + len(chunk)) / len(dataset))
        return np.concatenate(found)

    def point(self, part: str, max_bond: int) -> dict:
        """One point of a record: counts of the cut model's matrices, their entropy, the validation accuracy."""
        model = self._cut(part, max_bond)
        layers, touched = mpo_layers(model), layers_of_part(model, part)
        central = sum(layer.central.numel() for layer in layers)
        parameters = sum(layer.mpo.n_params for layer in layers)
        return {
            "part": part,
            "max_bond": max_bond,
            "central": central,
            "auxiliary": parameters - central,
            "parameters": parameters,
            "ratio": parameters / self.prepared.ledger.dense,
            "entropy": float(np.mean([central_entropy(layer) for layer in touched])),
            "validation": statistics.score(self._right(model)),
        }

    def _cut(self, part: str, max_bond: int):
        model = copy.deepcopy(self.prepared.model)
        truncate(model, max_bond=max_bond, part=part)
        return model


def central_entropy(layer: MPOLayer) -> float:
    """Mean entropy of the bonds beside the central core of an MPO with three or more, in nats."""
    shape, matrix = layer.mpo.shape, layer.mpo.to_matrix()
    cuts = (shape.central, shape.central + 1)
    return float(np.mean([entropy.entropy(entropy.schmidt_values(matrix, shape, cut)) for cut in cuts]))


def config_of_run(run: Path) -> RunConfig:
    """The config of a folder with a finished light run: its `record.json` and `task.safetensors`.

    Raises
    ------
    FileNotFoundError
        If the folder holds no finished run.
    ValueError
        If the run was no light one with three or more cores.
    """
    if not (run / "record.json").is_file() or not (run / "task.safetensors").is_file():
        raise FileNotFoundError(f"{run} holds no finished run; make one: mpo-tutorial demo, then take runs/demo/light")
    config = RunConfig(**records.read_record(run / "record.json")["config"])
    if config.method != "light" or config.cores < 3:
        raise ValueError(
            f"a light run with three or more cores is needed, {run} is {config.method}, {config.cores} cores"
        )
    return config


def tradeoff(run: Path, *, progress: bool = True) -> dict:
    """Cut a light run's model to many bonds, in every part, and measure it on the validation sentences.

    Parameters
    ----------
    run : Path
        Folder of a finished light run.

    Returns
    -------
    dict : the record

    Raises
    ------
    FileNotFoundError, ValueError
        As in `Tuned.of_run`.
    """
    tuned = Tuned.of_run(run)
    settings = [(part, bond) for part in PARTS for bond in tuned.bonds]
    bar = tqdm(settings, desc="cutting", unit="setting", disable=not progress)
    labels = [label for _, label in tuned.prepared.task.splits["validation"]]
    return {
        "kind": "tradeoff",
        **records.provenance(),
        "config": tuned.prepared.config.as_dict(),
        "dense": tuned.prepared.ledger.dense,
        "chance": max(labels.count(label) for label in labels) / len(labels),
        "points": [tuned.point(part, bond) for part, bond in bar],
    }
