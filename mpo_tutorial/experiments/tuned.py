"""A tuned model: put together from a finished light run, cut in copies, and evaluated."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mpo_tutorial.experiments import checkpoint, records
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.evaluation import logits
from mpo_tutorial.experiments.finetune import Prepared, prepare
from mpo_tutorial.experiments.tasks import Row
from mpo_tutorial.experiments.threshold import judge
from mpo_tutorial.models.activations import Inputs
from mpo_tutorial.models.layers import cached, mpo_layers
from mpo_tutorial.models.truncation import Cut, truncate

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

CALIBRATION = 256  # training sentences that moments are of
CHUNK = 50  # sentences between two steps of a progress bar


@dataclass(frozen=True, eq=False)
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
        """The run with seed 0 of the record "cuts"; its trained tensors are in the package."""
        first, *_ = records.shipped_points("cuts")
        with resources.as_file(resources.files("mpo_tutorial.records") / "tuned.safetensors") as weights:
            return cls.of(RunConfig(**first["setting"]["config"]), weights)

    @property
    def model(self) -> "PreTrainedModel":
        return self.prepared.model

    @property
    def largest_bond(self) -> int:
        return max(max(layer.mpo.bonds) for layer in mpo_layers(self.model))

    @property
    def inputs(self) -> Inputs:
        """Sentences that it was trained on, to look at its layers by."""
        return calibration(self.prepared)

    @cached_property
    def unused(self) -> list[Row]:
        """Training sentences of the task that the run was not trained on. It is a ValueError if there is none."""
        return unused_sentences(self.prepared)

    def truncated(self, cut: Cut, **options) -> "PreTrainedModel":
        """A copy of the model with some bonds cut; options and errors as in `truncate`."""
        model = copy.deepcopy(self.model)
        truncate(model, **vars(cut), **options)
        return model

    def judge(
        self,
        model: "PreTrainedModel",
        n: int | None = None,
        advance: Callable[[float], None] = lambda _: None,
    ) -> dict:
        """What `threshold.judge` says of a model, cut or not, on the first n validation sentences (None: all).

        Parameters
        ----------
        advance : callable
            Is told the share that is done, from time to time.

        Raises
        ------
        ValueError
            As in `threshold.judge`.
        """
        dataset: Dataset = self.prepared.dataset("validation")
        dataset = dataset.select(range(min(n or len(dataset), len(dataset))))
        found = []
        with cached(model):
            for start in range(0, len(dataset), CHUNK):
                chunk = dataset.select(range(start, min(start + CHUNK, len(dataset))))
                found.append(logits(model, chunk, self.prepared.tokenizer))
                advance((start + len(chunk)) / len(dataset))
        return judge(dataset["labels"], np.concatenate(found))


def calibration(prepared: Prepared) -> Inputs:
    """The first of the sentences that a run is trained on, for moments of the inputs of its layers."""
    config = prepared.config
    sentences = [text for text, _ in prepared.task.train(config.train_size)[:CALIBRATION]]
    return Inputs(prepared.tokenizer, sentences, config.max_length)


def unused_sentences(prepared: Prepared) -> list[Row]:
    """Training sentences of a task that a run is not trained on. It is a ValueError if there is none."""
    task = prepared.task
    used = set(task.train(prepared.config.train_size))
    unused = [row for row in task.splits["train"] if row not in used]
    if not unused:
        raise ValueError(
            f"sentences are needed that a run is not trained on, all {len(used)} of {task.name} are used; give a smaller "
            "--train-size"
        )
    return unused


def config_of_run(run: Path) -> RunConfig:
    """The config of a folder with a finished light run: its `record.json` and `task.safetensors`.

    Raises
    ------
    FileNotFoundError
        If the folder holds no finished run.
    ValueError
        If the record is no run's, or that of no light one with three or more cores.
    """
    if not (run / "record.json").is_file() or not (run / "task.safetensors").is_file():
        raise FileNotFoundError(f"{run} holds no finished run; make one: mpo-tutorial demo, then take runs/demo/light")
    path, advice = run / "record.json", "give the folder of a light run that mpo-tutorial finetune or demo has made"
    found = records.read_run(path, advice)["config"]
    names = {field.name for field in fields(RunConfig)}
    if found.keys() != names:
        raise ValueError(
            f"the config in {path} must have the options of a run and no others, these differ: "
            f"{', '.join(sorted(found.keys() ^ names))}; {advice}"
        )
    try:
        config = RunConfig(**found)
    except ValueError as error:
        raise ValueError(f"the config in {path} must be that of a run ({error}); {advice}") from error
    if config.method != "light" or config.cores < 3:
        raise ValueError(
            f"a light run with three or more cores is needed, {run} is {config.method}, {config.cores} cores"
        )
    return config
