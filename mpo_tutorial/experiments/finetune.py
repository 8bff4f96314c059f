"""Train, evaluate, resume. One run makes one record."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm.auto import tqdm
from transformers import DataCollatorWithPadding

from mpo_tutorial.experiments import checkpoint, forms, records
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.records import locked
from mpo_tutorial.experiments.statistics import measure
from mpo_tutorial.experiments.tasks import Task, load_task, tokenise
from mpo_tutorial.experiments.training import train
from mpo_tutorial.maths.shapes import N_CORES
from mpo_tutorial.models import controls
from mpo_tutorial.models.convert import count, is_decomposed
from mpo_tutorial.models.layers import cached, mpo_layers
from mpo_tutorial.models.ledger import Ledger
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.methods import METHODS
from mpo_tutorial.models.readout import pooling_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

EVALUATION_BATCH = 32
START_ANEW = "take another --out, or leave out --resume to start anew"


@dataclass
class Prepared:
    """All that a run needs before its first step."""

    config: RunConfig
    task: Task
    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    base: str
    ledger: Ledger | None

    def dataset(self, split: str) -> "Dataset":
        rows = self.task.train(self.config.train_size) if split == "train" else self.task.splits[split]
        return tokenise(rows, self.tokenizer, self.config.max_length)


def prepare(config: RunConfig) -> Prepared:
    """Load task and model, and make the model what the method trains.

    Raises
    ------
    ValueError, FileNotFoundError, ConnectionError
        As `load_task`, `model_path`, `Task.train`, `compress` do; or if cuda is asked for and absent, or longer texts than the
        model has positions for.
    """
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda needs an NVIDIA GPU that torch can see, there is none; take --device cpu")
    device = torch.device("cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu")
    task = load_task(config.task)
    config = config.settled(task)
    model, tokenizer = load(config.model, task.outputs, config.seed, config.pooling)
    _require_positions(model, config.model, config.max_length)
    base = checkpoint.fingerprint(model, _how(model, config))
    ledger = METHODS[config.method].apply(model, config.way)
    return Prepared(config, task, model.to(device), tokenizer, base, ledger)


def _how(model: "PreTrainedModel", config: RunConfig) -> str:
    """What a task's tensors rest on besides the weights: what is said here must not change from version to version."""
    words = []
    if not is_decomposed(model, config.cores, config.matrices) or config.bond is not None:
        words = [f"cores {config.cores}", f"bond {config.bond}"]
        words += [f"matrices {config.matrices}"] if config.matrices else []
        words += [f"gauge {config.gauge}"] if config.gauge != "centred" else []
        words += [f"legs {config.legs}"] if config.legs else []
    if getattr(model.config, "pooling", None):
        words.append(f"pooling {model.config.pooling}")
    words += [f"{config.method} of the seed {config.seed}"] if config.method in controls.KINDS else []
    return ", ".join(words)


def _require_positions(model: "PreTrainedModel", called: str, max_length: int) -> None:
    """Refuse texts that are longer than the table of positions, if there is one; RoBERTa's has rows that no token gets."""
    for name, table in model.base_model.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, torch.nn.Embedding):
            unused = 0 if table.padding_idx is None else table.padding_idx + 1
            if max_length > table.num_embeddings - unused:
                raise ValueError(
                    f"{called} has positions for {table.num_embeddings - unused} tokens, max_length is {max_length}; "
                    f"take --max-length {table.num_embeddings - unused} or less"
                )


def logits(model: "PreTrainedModel", dataset: "Dataset", tokenizer, progress: str | None = None) -> np.ndarray:
    """What the model gives out for each sentence.

    Parameters
    ----------
    dataset : Dataset
        As `tokenise` returns it.
    progress : str, optional
        Label of a progress bar; None shows none.

    Returns
    -------
    float32 array of shape (sentences, outputs), in the dataset's order
    """
    order = np.argsort(dataset["length"], kind="stable")
    columns = [name for name in dataset.column_names if name != "length"]
    loader = DataLoader(
        dataset.select(order).select_columns(columns), EVALUATION_BATCH, collate_fn=DataCollatorWithPadding(tokenizer)
    )
    device = next(model.parameters()).device
    found = []
    model.eval()
    with torch.inference_mode(), cached(model):
        for batch in tqdm(loader, desc=progress, disable=progress is None, leave=False):
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            del batch["labels"]
            found.append(model(**batch).logits.float().cpu().numpy())
    found = np.concatenate(found)
    unsorted = np.empty_like(found)
    unsorted[order] = found
    return unsorted


def predict(model: "PreTrainedModel", dataset: "Dataset", tokenizer, progress: str | None = None) -> np.ndarray:
    """What the model makes of each sentence; parameters as in `logits`.

    Returns
    -------
    array of shape (sentences,), in the dataset's order
        The class of the largest logit; of a model with one output, that output.
    """
    found = logits(model, dataset, tokenizer, progress)
    return found[:, 0] if found.shape[1] == 1 else found.argmax(1)


def run(
    prepared: Prepared,
    out: Path,
    *,
    resume: bool = False,
    progress: bool = True,
    splits: tuple[str, ...] | None = None,
    keep_weights: bool = True,
) -> dict:
    """Fine-tune a prepared model in place, evaluate it, and write `record.json` and `task.safetensors` to a folder.

    Parameters
    ----------
    out : Path
        The run's own folder, made if it does not exist.
    resume : bool
        Go on where an interrupted run of the same config stopped. A finished one is read, not repeated.
    splits : tuple of str, optional
        What to evaluate on after training; None takes all but the training set.
    keep_weights : bool
        Keep the trained tensors, in `task.safetensors`.

    Returns
    -------
    dict : the record

    Raises
    ------
    InterruptedError
        At Ctrl-C in training, once the step under way is done and saved.
    OSError
        If the folder cannot be written.
    ValueError
        If another process works in `out`, or what is to be resumed was made with another config.
    """
    with locked(out):
        weights = out / "task.safetensors"
        wanted = splits or tuple(name for name in prepared.task.splits if name != "train")
        if resume and (record := finished_record(prepared, out, wanted)) and (weights.exists() or not keep_weights):
            if keep_weights:
                checkpoint.load_task_file(prepared.model, prepared.base, weights)
            return record
        state = out / "state"
        if resume and (state / "config.json").exists():
            _require_same(prepared.config, records.read_record(state / "config.json", advice=START_ANEW), out)
        else:
            shutil.rmtree(state, ignore_errors=True)
            state.mkdir()
            records.write_record(prepared.config.as_dict(), state / "config.json")
        dataset = prepared.dataset("train")
        seconds = train(prepared.model, prepared.tokenizer, dataset, prepared.config, state, progress=progress)
        started = time.perf_counter()
        scores = {}
        for split in wanted:
            bar = f"evaluating on {split}" if progress else None
            tested = prepared.dataset(split)
            predicted = predict(prepared.model, tested, prepared.tokenizer, bar)
            scores[split] = measure(prepared.task.metrics, tested["labels"], predicted)
        record = {
            "kind": "finetune",
            **records.provenance(),
            "config": prepared.config.as_dict(),
            "parameters": {"trained": count(prepared.model, trained_only=True), "total": count(prepared.model)},
            "stored_bytes": checkpoint.stored_bytes(prepared.model),
            "train_sentences": len(dataset),
            "seconds": {"train": seconds, "evaluate": time.perf_counter() - started},
            "peak_memory_bytes": records.peak_memory_bytes(),
            **scores,
        }
        if keep_weights:
            checkpoint.save_task(prepared.model, prepared.base, weights)
        records.write_record(record, out / "record.json")
        shutil.rmtree(state)
    return record


def finished_record(prepared: Prepared, out: Path, splits: Sequence[str]) -> dict | None:
    """The record of a run that was finished in `out` and measured on some splits, or None if none was.

    Raises
    ------
    ValueError
        If the record is another command's or damaged, was made with another config, or lacks a split.
    """
    path = out / "record.json"
    if (out / "state").exists():
        return None
    records.require_own(out, path.name)
    if not path.exists():
        return None
    record = records.read_run(path, START_ANEW)
    _require_same(prepared.config, record["config"], out)
    measured = forms.MEASURED if prepared.task.outputs == 1 else forms.SCORE
    forms.require(record, str(path), dict.fromkeys(splits, measured), START_ANEW)
    return record


def _require_same(config: RunConfig, earlier: dict, out: Path) -> None:
    now = config.as_dict()
    differing = [f"{name} {earlier.get(name)!r}, not {now[name]!r}" for name in now if earlier.get(name) != now[name]]
    if differing:
        raise ValueError(
            f"a run is resumed with the options it began with; the one in {out} has {'; '.join(differing)}: give the same "
            "options, or leave out --resume to start anew"
        )


def finetune(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: str,
    *,
    out: Path | None = None,
    progress: bool = True,
    **settings: Any,
) -> dict:
    """Fine-tune a model that is in memory, in place: whatever of it is trainable. `freeze` first, for light fine-tuning.

    Parameters
    ----------
    model, tokenizer
        As `load` gives them.
    task : str
        What `load_task` takes: "rotten_tomatoes", "glue/rte", or a file.
    out : Path, optional
        A folder for the record; the tuned model itself is saved by its own `save_pretrained`.
    progress : bool
        Show bars.
    settings
        epochs, learning_rate, seed, train_size, batch_size, micro_batch_size, max_length: as in `RunConfig`. The learning rate
        is by default the best of light fine-tuning for a model with MPO layers, else that of full fine-tuning.

    Returns
    -------
    dict : the record, with what was measured on the validation and test sentences

    Raises
    ------
    ValueError
        If nothing is trainable, the head has other outputs than the task, or texts may be longer than the model has positions
        for; and as in `load_task`, `RunConfig` and `run`.
    """
    loaded = load_task(task)
    _require_outputs(model, loaded)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            "there is nothing to train, every tensor of the model is frozen; unfreeze some: model.requires_grad_()"
        )
    layers = mpo_layers(model)
    config = RunConfig(
        model=model.name_or_path or type(model).__name__,
        task=task,
        method="light" if layers else "full",
        cores=len(layers[0].cores) if layers else N_CORES,
        **settings,
    )
    config = replace(config, pooling=pooling_of(model)).with_epochs(loaded)
    _require_positions(model, config.model, config.max_length)
    prepared = Prepared(config, loaded, model, tokenizer, "", Ledger.of(model) if layers else None)
    if out is not None:
        return run(prepared, out, progress=progress, keep_weights=False)
    with TemporaryDirectory() as folder:
        return run(prepared, Path(folder), progress=progress, keep_weights=False)


def evaluate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: str,
    *,
    split: str = "test",
    max_length: int = RunConfig.max_length,
    progress: bool = False,
) -> dict:
    """What a model scores on a task's sentences.

    Parameters
    ----------
    split : str
        "test", "validation", or another that the task has.
    max_length : int
        Tokens at which a sentence is cut off.

    Returns
    -------
    dict
        As `statistics.measure` gives it: of a task with classes "n", "accuracy", its 95 % "interval" over sentences, and "right".

    Raises
    ------
    ValueError
        If the task has no such split, the head has other outputs than the task, or texts may be longer than the model has
        positions for; and as in `load_task`.
    """
    loaded = load_task(task)
    _require_outputs(model, loaded)
    if split not in loaded.splits:
        raise ValueError(f"{task} has the splits {', '.join(loaded.splits)}, got {split!r}")
    _require_positions(model, model.name_or_path or type(model).__name__, max_length)
    dataset = tokenise(loaded.splits[split], tokenizer, max_length)
    predicted = predict(model, dataset, tokenizer, f"evaluating on {split}" if progress else None)
    return measure(loaded.metrics, dataset["labels"], predicted)


def _require_outputs(model: "PreTrainedModel", task: Task) -> None:
    if model.config.num_labels != task.outputs:
        raise ValueError(
            f"{task.name} needs a head with {task.outputs} outputs, the model's has {model.config.num_labels}; load it with "
            f"n_labels={task.outputs}"
        )
