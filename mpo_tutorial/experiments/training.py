"""The training itself: transformers' Trainer, watched."""

import ctypes
import logging
import math
import platform
import re
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from torch import nn
from tqdm.auto import tqdm
from transformers import DataCollatorWithPadding, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.models.convert import biases, norms
from mpo_tutorial.models.layers import Rebuilt, matrix_parameters
from mpo_tutorial.models.loading import quiet_transformers
from mpo_tutorial.models.stored import file_sha256

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

STEPS_BETWEEN_SAVES = 50
STEPS_BETWEEN_TRIMS = 10
MARK = "whole.json"  # a checkpoint's last file, written at once: the SHA-256 of each of its other files


def train(
    model: "PreTrainedModel", tokenizer, dataset: "Dataset", config: RunConfig, state: Path, *, progress: bool
) -> float:
    """Train what the model has unfrozen, going on from the newest whole checkpoint in `state`, if there is one.

    A checkpoint that is incomplete or altered, as a kill leaves it, is passed over with a warning to this module's logger.

    Parameters
    ----------
    dataset : Dataset
        As `tokenise` returns it.
    state : Path
        The Trainer's own folder.

    Returns
    -------
    float : seconds of training, those before an interruption included

    Raises
    ------
    InterruptedError
        At Ctrl-C, once the step under way is done and saved.
    OSError
        If the state cannot be written.
    ValueError
        If the training diverged.
    """
    device = next(model.parameters()).device
    steps = math.ceil(len(dataset) / config.batch_size) * config.epochs
    newest = _newest_whole(state)
    watch = _Watch(steps, progress, newest)
    if config.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    trainer = _Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(state),
            num_train_epochs=config.epochs,
            per_device_train_batch_size=config.micro_batch_size,
            gradient_accumulation_steps=config.batch_size // config.micro_batch_size,
            learning_rate=config.learning_rate,
            warmup_steps=math.ceil(config.warmup * steps),
            weight_decay=config.weight_decay,
            max_grad_norm=config.clip,
            bf16=config.precision == "bfloat16",
            train_sampling_strategy="group_by_length",
            average_tokens_across_devices=False,
            save_steps=STEPS_BETWEEN_SAVES,
            save_total_limit=None,  # it would remove the earlier checkpoint before this one has its mark
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            dataloader_pin_memory=device.type == "cuda",
            use_cpu=device.type == "cpu",
            seed=config.seed,
        ),
        train_dataset=dataset,
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[watch],
    )
    trainer.rest_rate = config.rest_rate
    trainer.remove_callback(PrinterCallback)
    try:
        with quiet_transformers(), watch.watching():
            trainer.train(resume_from_checkpoint=newest and str(newest))
    except (RuntimeError, SafetensorError) as error:
        # Writers in compiled code report a full disk as an error of their own.
        if re.search("PytorchStreamWriter|inline_container|I/O error|os error", str(error)):
            raise OSError(f"could not write the training state to {state}: {str(error).splitlines()[0]}") from error
        raise
    if watch.interrupted:
        raise InterruptedError(
            f"stopped by Ctrl-C after training step {trainer.state.global_step} of {steps}, which is kept in {state.parent}; "
            "the same command with --resume goes on from it"
        )
    if not all(torch.isfinite(p).all() for p in model.parameters() if p.requires_grad):
        raise ValueError(f"training diverged at the learning rate {config.learning_rate:g}; take a smaller one")
    return watch.seconds


class _Trainer(Trainer):
    """transformers' Trainer with a rate for the numbers of the matrices and one for the rest, and matrices rebuilt once a step."""

    rest_rate: float | None = None

    def create_optimizer(self, model=None):
        """AdamW over four groups: numbers of the matrices or others, with weight decay or, as for biases and norms, without."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        of_matrices = matrix_parameters(self.model)
        exempt = set(map(id, (*biases(self.model), *norms(self.model))))
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                own = self.rest_rate is None or id(parameter) in of_matrices
                rate = self.args.learning_rate if own else self.rest_rate
                decay = 0.0 if id(parameter) in exempt else self.args.weight_decay
                groups.setdefault((rate, decay), []).append(parameter)
        self.optimizer = torch.optim.AdamW(
            [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()],
            betas=(self.args.adam_beta1, self.args.adam_beta2),
            eps=self.args.adam_epsilon,
            fused=self.args.device.type == "cuda",
        )
        return self.optimizer

    def training_step(self, model, inputs, num_items_in_batch=None):
        if (
            model is not self.model
        ):  # wrapped for several processes, which share gradients as each parameter gets its own
            return super().training_step(model, inputs, num_items_in_batch)
        if self.rebuilt is None:
            self.rebuilt = Rebuilt(model)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if not torch.isfinite(loss):
            raise ValueError(
                f"the loss became {loss.item()} at training step {self.state.global_step + 1}; take a smaller rate than "
                f"{self.args.learning_rate:g}"
            )
        if self.accelerator.sync_gradients:
            self.rebuilt.backward()
            self.rebuilt = None
        return loss

    rebuilt: Rebuilt | None = None


def _newest_whole(state: Path) -> Path | None:
    """The newest whole checkpoint in a folder, or None, and a warning that names what was passed over on the way to it."""
    folders = sorted(state.glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]), reverse=True)
    newest = next(filter(_is_whole, folders), None)
    if passed_over := folders[: folders.index(newest)] if newest else folders:
        logging.getLogger(__name__).warning(
            "%s in %s incomplete or altered and passed over; training %s.",
            " and ".join(folder.name for folder in passed_over),
            f"{state} is" if len(passed_over) == 1 else f"{state} are",
            f"goes on from {newest.name}" if newest else "begins anew",
        )
    return newest


def _is_whole(folder: Path) -> bool:
    try:
        kept = records.read_record(folder / MARK)
    except (FileNotFoundError, ValueError):
        return False
    return bool(kept) and all(
        (folder / name).is_file() and file_sha256(folder / name) == sha256 for name, sha256 in kept.items()
    )


def _give_back_freed_memory() -> None:
    """Have glibc return the free pages of its heap to the system; other systems' libraries do without.

    Batches of many lengths leave holes in the heap: over 200 steps of the demo the process grew by 0.2 GB.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


class _Watch(TrainerCallback):
    """Shows progress, counts the seconds, and turns Ctrl-C into an orderly stop after the step under way."""

    def __init__(self, steps: int, progress: bool, resumed_from: Path | None):
        self.steps, self.progress = steps, progress
        self.interrupted = False
        self.bar = None
        self.seconds_before = 0.0
        self.resumed_epochs_state = None
        if resumed_from is not None:
            kept = records.read_record(resumed_from / "watch.json")
            self.seconds_before = kept["seconds"]
            self.resumed_epochs_state = torch.frombuffer(bytearray.fromhex(kept["epochs_state"]), dtype=torch.uint8)

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    @contextmanager
    def watching(self):
        """Handle Ctrl-C while the block runs, and close the bar after it, so that what is printed next has its own line."""

        def remember(signum, frame):
            self.interrupted = True
            signal.signal(signal.SIGINT, earlier)  # a second Ctrl-C does not wait

        in_main_thread = threading.current_thread() is threading.main_thread()  # elsewhere signals cannot be handled
        earlier = signal.signal(signal.SIGINT, remember) if in_main_thread else None
        try:
            yield
        finally:
            if in_main_thread:
                signal.signal(signal.SIGINT, earlier)
            if self.bar is not None:
                self.bar.close()

    def on_train_begin(self, args, state, control, **kwargs):
        self.started = time.perf_counter()
        self.bar = tqdm(
            total=self.steps, initial=state.global_step, desc="training", unit="step", disable=not self.progress
        )

    def on_epoch_begin(self, args, state, control, **kwargs):
        # The order of an epoch's sentences is drawn from torch's generator when the epoch begins. The Trainer restores the
        # generator only as it was when it stopped, so a resumed epoch would go through the sentences in another order.
        if self.resumed_epochs_state is not None:
            torch.set_rng_state(self.resumed_epochs_state)
            self.resumed_epochs_state = None
        self.epochs_state = torch.get_rng_state()

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()
        if state.global_step % STEPS_BETWEEN_TRIMS == 0:
            _give_back_freed_memory()
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_save(self, args, state, control, **kwargs):
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        # After an epoch's last step, training goes on with the next epoch, whose order is drawn from the generator as it is now.
        epochs_state = torch.get_rng_state() if state.epoch.is_integer() else self.epochs_state
        kept = {"seconds": self.seconds, "epochs_state": epochs_state.numpy().tobytes().hex()}
        records.write_record(kept, folder / "watch.json")
        files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(MARK)]
        records.write_record({path.name: file_sha256(path) for path in sorted(files)}, folder / MARK)
        for other in folder.parent.glob("checkpoint-*"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
