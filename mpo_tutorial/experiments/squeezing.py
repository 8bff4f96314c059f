"""Squeezing in a folder: saved from time to time, gone on with after a kill, ended with a record and a model."""

import io
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mpo_tutorial.experiments import checkpoint, forms, records
from mpo_tutorial.experiments.compress import save_model
from mpo_tutorial.experiments.finetune import STATE, Prepared, in_memory, require_same
from mpo_tutorial.experiments.plans import Plan
from mpo_tutorial.experiments.records import locked, replacing
from mpo_tutorial.experiments.squeeze import Squeeze, Step
from mpo_tutorial.experiments.statistics import measure
from mpo_tutorial.models.convert import count

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KIND = "squeeze"
MODEL = "model"  # the folder of what came out, in a squeezing's folder
KEPT, SETTING = "squeeze.pt", "squeeze.json"  # in its folder STATE
SECONDS_BETWEEN_SAVES = 10
START_ANEW = "take another --out, or leave out --resume to start anew"
FORM = {"kind": forms.word(KIND), "config": forms.OBJECT, "plan": forms.OBJECT, "stopped": forms.TEXT}


def run(
    prepared: Prepared,
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    look: bool = True,
    splits: tuple[str, ...] | None = None,
    keep_model: bool = True,
    show: Callable[[Step], None] = lambda _: None,
) -> dict:
    """Squeeze a prepared model in place, evaluate it, and write `record.json` and the model to a folder.

    Parameters
    ----------
    out : Path
        A folder of its own, made if it does not exist.
    resume : bool
        Go on where an interrupted squeezing with the same config, plan and model stopped. A finished one is read.
    look : bool
        As in `Squeeze`.
    splits : tuple of str, optional
        What to evaluate on in the end; None takes all but the training set.
    keep_model : bool
        Save the squeezed model, for `load` and transformers' Auto classes.
    show : callable
        Gets each step as it ends.

    Returns
    -------
    dict : the record

    Raises
    ------
    InterruptedError
        At Ctrl-C; what was saved last is gone on from by `resume`.
    OSError
        If the folder cannot be written.
    ValueError
        As in `Squeeze`; or if another run works in `out`, what is to be resumed differs, or the record is another command's.
    """
    squeeze = Squeeze(prepared, plan, look=look)
    start = checkpoint.digest(squeeze.tensors())
    matrices = squeeze.matrices
    setting = json.loads(json.dumps({"config": prepared.config.as_dict(), "plan": plan.as_dict(), "start": start}))
    state = out / STATE
    with locked(out):
        if resume and (record := _finished(out, setting)) is not None:
            return record
        if resume and (state / SETTING).exists():
            _require_same(setting, records.read_record(state / SETTING, advice=START_ANEW), out)
            if (state / KEPT).exists():
                squeeze.load_state(torch.load(state / KEPT, weights_only=True))
        else:
            shutil.rmtree(state, ignore_errors=True)
            state.mkdir()
            records.write_record(setting, state / SETTING)
        started, saved = time.perf_counter() - squeeze.seconds, time.monotonic()
        try:
            for step in squeeze.events():
                squeeze.seconds = time.perf_counter() - started
                if step is not None:
                    show(step)
                if time.monotonic() - saved >= SECONDS_BETWEEN_SAVES:
                    _save(squeeze, state / KEPT)
                    saved = time.monotonic()
        except KeyboardInterrupt as error:
            raise InterruptedError(
                f"stopped by Ctrl-C after step {squeeze.tuning.done} of {plan.steps}; what was saved of it at most "
                f"{SECONDS_BETWEEN_SAVES} seconds before is in {out}, and the same command with --resume goes on from it"
            ) from error
        wanted = splits or tuple(name for name in prepared.task.splits if name != "train")
        record = {
            "kind": KIND,
            **records.provenance(),
            **setting,
            "parameters": {"cores": squeeze.parameters, "dense": squeeze.dense, "total": count(prepared.model)},
            "trained": count(prepared.model, trained_only=True),
            "train_sentences": len(prepared.task.train(prepared.config.train_size)),
            "stored_bytes": sum(tensor.nbytes for tensor in squeeze.tensors().values()),
            "bytes": sum(p.numel() * p.element_size() for p in prepared.model.parameters()),
            "matrices": matrices,
            "stopped": squeeze.stopped,
            "kept": squeeze.kept,
            "steps": [step.as_dict() for step in squeeze.steps],
            "seconds": {"squeeze": squeeze.seconds},
            "peak_memory_bytes": records.peak_memory_bytes(),
            **{split: measure(prepared.task.metrics, *prepared.predicted(split)) for split in wanted},
        }
        if keep_model:
            save_model(prepared.model, prepared.tokenizer, out / MODEL)
        records.write_record(record, out / "record.json")
        shutil.rmtree(state)
    return record


def _save(squeeze: Squeeze, path: Path) -> None:
    """Whole or not at all, through memory: torch's own writer reports a full disk as an error without a number."""
    content = io.BytesIO()
    torch.save(squeeze.state(), content)
    with replacing(path) as partial:
        partial.write_bytes(content.getbuffer())


def _finished(out: Path, setting: dict) -> dict | None:
    """The record of a squeezing that was finished in `out`, or None."""
    path = out / "record.json"
    if (out / STATE).exists():
        return None
    records.require_own(out, path.name)
    if not path.exists():
        return None
    record = records.read_record(path, FORM, START_ANEW)
    _require_same(setting, record, out)
    return record


def _require_same(setting: dict, earlier: dict, out: Path) -> None:
    for part in ("config", "plan"):
        require_same(setting[part], earlier.get(part) or {}, out)
    if setting["start"] != earlier.get("start"):
        raise ValueError(f"the squeezing in {out} began with another model, whose numbers differ; {START_ANEW}")


def squeeze(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: str,
    plan: Plan | None = None,
    **settings: Any,
) -> Squeeze:
    """Squeeze a model that is in memory, in place, step by step: `for step in squeeze(model, tokenizer, task)`.

    Parameters
    ----------
    model, tokenizer
        As `load` gives them; with MPO layers, tuned for the task.
    task : str
        As `load_task` takes it.
    plan : Plan, optional
        None: the default, greedy cuts by the error of the outputs to half of the matrices' parameters.
    settings
        As in `finetune`.

    Returns
    -------
    Squeeze : to be gone through; afterwards `stopped` says why it ended

    Raises
    ------
    ValueError
        As in `Squeeze` and `finetune`.
    """
    return Squeeze(in_memory(model, tokenizer, task, **settings), plan or Plan())
