"""What is kept of a training beside its steps: seconds, losses, scores, the best epoch; and its orderly stop at Ctrl-C."""

import ctypes
import math
import platform
import signal
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import TrainerCallback

from mpo_tutorial.experiments import processes, records
from mpo_tutorial.experiments.batches import Batches
from mpo_tutorial.experiments.checkpoint import trained_tensors
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.marks import mark_whole, step_of

STEPS_BETWEEN_TRIMS = 10
KEPT, BEST = "watch.json", "best.safetensors"  # in a checkpoint


class Watch(TrainerCallback):
    """Watches a training and keeps what it sees in each checkpoint.

    Parameters
    ----------
    model : nn.Module
    batches : Batches
        Told which epoch it is.
    config : RunConfig
    state : Path
        The Trainer's own folder.
    resumed_from : Path, optional
        A checkpoint in it.
    score : callable, optional
        What the model scores after an epoch, the more the better; needed if the config has a patience.
    progress : bool
        Show a bar.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Batches,
        config: RunConfig,
        state: Path,
        resumed_from: Path | None,
        score: Callable[[], float] | None,
        progress: bool,
    ):
        self.model, self.batches, self.config, self.state = model, batches, config, state
        self.newest, self.score, self.progress = resumed_from, score, progress
        self.ctrl_c = self.interrupted = False  # in this process; in one of them, as all know after a step
        self.bar = None
        self.loss_of_step = self.loss_of_epoch = self.seconds_before = 0.0
        self.losses, self.scores = [], []
        self.best: dict[str, Tensor] = {}
        if resumed_from is not None:
            kept = records.read_record(resumed_from / KEPT)
            self.seconds_before, self.loss_of_epoch = kept["seconds"], kept["loss_of_epoch"]
            self.losses, self.scores = kept["losses"], kept["scores"]
            if self.scores:
                self.best = load_file(resumed_from / BEST)

    @property
    def steps(self) -> int:
        """Of the optimiser, if it does not stop early."""
        return self.batches.steps * self.config.epochs

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.started

    @property
    def best_epoch(self) -> int:
        """The first one with the best score, counted from 1; 0 if there is none yet."""
        return 1 + self.scores.index(max(self.scores)) if self.scores else 0

    @property
    def out_of_patience(self) -> bool:
        return self.config.patience is not None and len(self.scores) - self.best_epoch >= self.config.patience

    @property
    def epochs(self) -> dict:
        """How many epochs were trained and which one's numbers are kept, the mean loss of each, and its score."""
        trained = len(self.losses)
        if self.config.patience is None:
            return {"trained": trained, "kept": trained, "losses": self.losses}
        return {"trained": trained, "kept": self.best_epoch, "losses": self.losses, "scores": self.scores}

    @contextmanager
    def watching(self):
        """Handle Ctrl-C while the block runs, and close the bar after it, so that what is printed next has its own line."""

        def remember(signum, frame):
            self.ctrl_c = True
            signal.signal(signal.SIGINT, earlier)  # a second Ctrl-C does not wait

        in_main_thread = threading.current_thread() is threading.main_thread()  # elsewhere signals cannot be handled
        earlier = signal.signal(signal.SIGINT, remember) if in_main_thread else None
        self.started = time.perf_counter()
        try:
            yield
        finally:
            if in_main_thread:
                signal.signal(signal.SIGINT, earlier)
            if self.bar is not None:
                self.bar.close()

    def add_loss(self, loss: float, step: int) -> None:
        """Count what a micro-batch adds to the mean loss of a step; a ValueError if it is not finite."""
        if not math.isfinite(loss):
            raise ValueError(self._diverged(f"the loss was {loss} at step {step}"))
        self.loss_of_step += loss

    def on_train_begin(self, args, state, control, **kwargs):
        self.bar = tqdm(
            total=self.steps, initial=state.global_step, desc="training", unit="step", disable=not self.progress
        )

    def on_epoch_begin(self, args, state, control, **kwargs):
        self.batches.epoch = state.global_step // self.batches.steps

    def on_step_end(self, args, state, control, **kwargs):
        self.bar.update()
        if state.global_step % STEPS_BETWEEN_TRIMS == 0:
            _give_back_freed_memory()
        loss, interrupted = processes.means([self.loss_of_step, self.ctrl_c])
        self.interrupted = interrupted > 0
        sentences = self.batches.sentences((state.global_step - 1) % self.batches.steps)
        self.loss_of_epoch += loss * sentences / len(self.batches.lengths)
        self.loss_of_step = 0.0
        ends_epoch = state.global_step % self.batches.steps == 0
        if ends_epoch or control.should_save or self.interrupted:
            self._require_finite(state.global_step)
        if ends_epoch:
            self.losses.append(self.loss_of_epoch)
            self.loss_of_epoch = 0.0
            self._look_for_best()
        if self.interrupted or self.out_of_patience:
            control.should_save = control.should_training_stop = True

    def _require_finite(self, step: int) -> None:
        """Before anything is saved."""
        if not all(tensor.isfinite().all() for tensor in trained_tensors(self.model).values()):
            raise ValueError(self._diverged(f"weights were nan or infinite after step {step}"))

    def _diverged(self, how: str) -> str:
        kept = (
            f"the state of step {step_of(self.newest)} is kept in {self.state}" if self.newest else "nothing is saved"
        )
        return (
            f"training diverged at the learning rate {self.config.learning_rate:g}: {how}; {kept}. Take a smaller rate"
        )

    def _look_for_best(self) -> None:
        if self.config.patience is None:
            return
        with torch.random.fork_rng(devices=[]):  # training draws the same numbers with it and without
            self.scores.append(processes.from_first(self.score))
        if self.best_epoch == len(self.scores):
            self.best = {name: tensor.to("cpu", copy=True) for name, tensor in trained_tensors(self.model).items()}

    def on_save(self, args, state, control, **kwargs):
        folder = self.state / f"checkpoint-{state.global_step}"
        processes.meet()  # each has put the state of its random numbers there
        if processes.rank() == 0:
            kept = {name: getattr(self, name) for name in ("seconds", "losses", "loss_of_epoch", "scores")}
            records.write_record(kept, folder / KEPT)
            if self.best:
                save_file(self.best, folder / BEST)
            mark_whole(folder)
        self.newest = folder


def _give_back_freed_memory() -> None:
    """Have glibc return the free pages of its heap to the system; other systems' libraries do without.

    Batches of many lengths leave holes in the heap: over 200 steps of the demo the process grew by 0.2 GB.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
