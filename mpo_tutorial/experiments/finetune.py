"""Train, evaluate, resume. One run makes one record."""

import shutil
import time
from collections.abc import Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mpo_tutorial.experiments import checkpoint, forms, processes, records
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.evaluation import EVALUATION_BATCH, predict, require_outputs, require_positions
from mpo_tutorial.experiments.records import locked
from mpo_tutorial.experiments.statistics import METRICS, measure
from mpo_tutorial.experiments.tasks import Task, load_task, tokenise
from mpo_tutorial.experiments.training import Trained, train
from mpo_tutorial.maths.shapes import N_CORES
from mpo_tutorial.models import controls
from mpo_tutorial.models.convert import count, is_decomposed
from mpo_tutorial.models.layers import matrix_parameters, mpo_layers
from mpo_tutorial.models.ledger import Ledger
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.methods import METHODS, size_for
from mpo_tutorial.models.networks import ImageClassifier, is_network
from mpo_tutorial.models.readout import pooling_of

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STATE, WEIGHTS = "state", "task.safetensors"  # in a run's folder
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

    def predicted(self, split: str, progress: str | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The labels of a split, and what the model makes of its sentences, in the memory that a training step has."""
        dataset = self.dataset(split)
        batch_size = min(EVALUATION_BATCH, 2 * self.config.micro_batch_size)
        return np.asarray(dataset["labels"]), predict(self.model, dataset, self.tokenizer, progress, batch_size)

    def score(self) -> float:
        """The task's main metric on the validation sentences: what early stopping goes by."""
        return METRICS[next(iter(self.task.metrics), "accuracy")](*self.predicted("validation"))


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
    device = torch.device("cpu")
    if config.device != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda", processes.local_rank())
        torch.cuda.set_device(device)
    task = load_task(config.task)
    config = config.settled(task)
    model, tokenizer = load(config.model, task.outputs, config.seed, config.pooling)
    require_positions(model, config.model, config.max_length)
    base = checkpoint.fingerprint(model, _how(model, config))
    ledger = METHODS[config.method].apply(model, config.way)
    return Prepared(config, task, model.to(device), tokenizer, base, ledger)


def within_budget(config: RunConfig, n_params: int) -> tuple[RunConfig, str]:
    """The config with the size at which its method trains about so many numbers, and a sentence on what that is.

    Errors as in `size_for` and `prepare`; or a ValueError if the config has another size already.
    """
    method = METHODS[config.method]
    if method.knob is not None and config.size != method.knob.usual:
        raise ValueError(f"either a size or a budget, got size {config.size:g} and budget {n_params:,}")
    model, _ = load(config.model, load_task(config.task).outputs, config.seed, config.pooling)
    size = size_for(config.method, model, config.way, n_params)
    return replace(
        config, size=size
    ), f"{method.title}: the {method.knob.what} that trains about {n_params:,} numbers is {size:g}."


def _how(model: "PreTrainedModel", config: RunConfig) -> str:
    """What a task's tensors rest on besides the weights: what is said here must not change from version to version."""
    if is_network(config.model):
        return f"{config.model} of the seed {config.seed}"  # all of it is new
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

    Under torchrun all processes call it, with the same arguments: they share each batch, and the first one evaluates and writes.

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
        If the folder cannot be written, or another process of this run has ended.
    MemoryError
        If the GPU's memory is full.
    ValueError
        If another run works in `out`, what is to be resumed was made with another config, the training diverged, a rate is given
        for what is not trained, or the processes cannot share a batch.
    """
    _require_two_parts(prepared)
    _require_even_shares(prepared.config)
    first = processes.rank() == 0
    progress = progress and first
    wanted = splits or tuple(name for name in prepared.task.splits if name != "train")
    device = next(prepared.model.parameters()).device
    with processes.joined(device.type), locked(out) if first else nullcontext(), _within_memory(prepared.config):
        record = processes.from_first(lambda: _begin(prepared, out, wanted, resume, keep_weights))
        if record is not None:
            if keep_weights:
                checkpoint.load_task_file(prepared.model, prepared.base, out / WEIGHTS)
            return record
        trained = train(
            prepared.model,
            prepared.tokenizer,
            prepared.dataset("train"),
            prepared.config,
            out / STATE,
            score=prepared.score,
            progress=progress,
        )
        return processes.from_first(lambda: _end(prepared, out, wanted, trained, keep_weights, progress))


def _begin(prepared: Prepared, out: Path, splits: Sequence[str], resume: bool, keep_weights: bool) -> dict | None:
    """The record of a run that is finished; else None, and the folder for the state of training is there."""
    record = finished_record(prepared, out, splits) if resume else None
    if record is not None and ((out / WEIGHTS).exists() or not keep_weights):
        return record
    state, now = out / STATE, {**prepared.config.as_dict(), "processes": processes.count()}
    if resume and (state / "config.json").exists():
        require_same(now, records.read_record(state / "config.json", advice=START_ANEW), out)
    else:
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        records.write_record(now, state / "config.json")
    return None


def _end(
    prepared: Prepared, out: Path, splits: Sequence[str], trained: Trained, keep_weights: bool, progress: bool
) -> dict:
    """Evaluate, write the record and what is kept of the model, and remove the state of training."""
    started = time.perf_counter()
    scores = {}
    for split in splits:
        bar = f"evaluating on {split}" if progress else None
        scores[split] = measure(prepared.task.metrics, *prepared.predicted(split, bar))
    record = {
        "kind": "finetune",
        **records.provenance(),
        "processes": processes.count(),
        "config": prepared.config.as_dict(),
        "parameters": {
            "trained": METHODS[prepared.config.method].n_trained(prepared.model, prepared.config.way),
            "total": count(prepared.model),
        },
        "stored_bytes": checkpoint.stored_bytes(prepared.model),
        "train_sentences": len(prepared.task.train(prepared.config.train_size)),
        "epochs": trained.epochs,
        "seconds": {"train": trained.seconds, "evaluate": time.perf_counter() - started},
        "peak_memory_bytes": records.peak_memory_bytes(),
        **scores,
    }
    if keep_weights:
        checkpoint.save_task(prepared.model, prepared.base, out / WEIGHTS)
    records.write_record(record, out / "record.json")
    shutil.rmtree(out / STATE)
    return record


def finished_record(prepared: Prepared, out: Path, splits: Sequence[str]) -> dict | None:
    """The record of a run that was finished in `out` and measured on some splits, or None if none was.

    Raises
    ------
    ValueError
        If the record is another command's or damaged, was made with another config, or lacks a split.
    """
    path = out / "record.json"
    if (out / STATE).exists():
        return None
    records.require_own(out, path.name)
    if not path.exists():
        return None
    record = records.read_run(path, START_ANEW)
    require_same(prepared.config.as_dict(), record["config"], out)
    measured = forms.MEASURED if prepared.task.outputs == 1 else forms.SCORE
    forms.require(record, str(path), dict.fromkeys(splits, measured), START_ANEW)
    return record


def require_same(now: dict, earlier: dict, out: Path) -> None:
    """Refuse, by a ValueError, to go on in a folder with other options than it began with; the message names what differs."""
    differing = [f"{name} {earlier.get(name)!r}, not {now[name]!r}" for name in now if earlier.get(name) != now[name]]
    if differing:
        raise ValueError(
            f"a run is resumed with the options it began with; the one in {out} has {'; '.join(differing)}: give the same "
            "options, or leave out --resume to start anew"
        )


def _require_two_parts(prepared: Prepared) -> None:
    """Refuse a rate for the rest where numbers of the matrices are all that is trained, or none of that."""
    if prepared.config.rest_rate is None:
        return
    of_matrices = matrix_parameters(prepared.model)
    trained = {id(parameter) for parameter in prepared.model.parameters() if parameter.requires_grad}
    if not trained & of_matrices or trained <= of_matrices:
        raise ValueError(
            "rest_rate is the rate of what is trained besides cores or random numbers of the matrices, whose rate learning_rate "
            f"is; here {'nothing else is' if trained & of_matrices else 'neither is'} trained, got {prepared.config.rest_rate:g}; "
            "leave it out, learning_rate is for all that is trained"
        )


def _require_even_shares(config: RunConfig) -> None:
    """Refuse a number of processes that cannot share a batch by micro-batches."""
    count, batch, micro = processes.count(), config.batch_size, config.micro_batch_size
    if batch % (micro * count):
        fits = f"--batch-size {micro * count}" if batch % count else f"--micro-batch-size {batch // count}"
        raise ValueError(
            f"batch_size is a multiple of micro_batch_size times the processes, got {batch} and {micro} x {count}; take {fits}"
        )


@contextmanager
def _within_memory(config: RunConfig):
    """Make one sentence, a MemoryError, of what torch says when the GPU's memory is full."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        micro, share = config.micro_batch_size, config.batch_size // processes.count()
        ways = [f"--micro-batch-size {m}" for m in range(micro // 2, 0, -1) if share % m == 0][:1]
        ways += [] if config.checkpointing else ["--checkpointing"]
        ways += [] if config.precision == "bfloat16" else ["--precision bfloat16"]
        raise MemoryError(
            f"the GPU's memory does not hold micro_batch_size {micro}, of which {share // micro} are accumulated for each step of "
            f"{config.batch_size} sentences; take {', '.join(ways)}{' or ' if ways else ''}a --max-length below {config.max_length}"
        ) from error


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
    prepared = in_memory(model, tokenizer, task, **settings)
    if out is not None:
        return run(prepared, out, progress=progress, keep_weights=False)
    with TemporaryDirectory() as folder:
        return run(prepared, Path(folder), progress=progress, keep_weights=False)


def in_memory(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", task: str, **settings: Any) -> Prepared:
    """What a run needs, of a model that is in memory; parameters and errors as in `finetune`."""
    loaded = load_task(task)
    require_outputs(model, loaded)
    if not any(p.requires_grad for p in model.parameters()):
        raise ValueError(
            "there is nothing to train, every tensor of the model is frozen; unfreeze some: model.requires_grad_()"
        )
    layers = mpo_layers(model)
    config = RunConfig(
        model=model.name_or_path or type(model).__name__,
        task=task,
        method="light" if layers and not isinstance(model, ImageClassifier) else "full",
        cores=len(layers[0].cores) if layers else N_CORES,
        **settings,
    )
    config = replace(config, pooling=pooling_of(model)).with_epochs(loaded)
    require_positions(model, config.model, config.max_length)
    return Prepared(config, loaded, model, tokenizer, "", Ledger.of(model) if layers else None)
