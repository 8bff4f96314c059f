"""The training itself: transformers' Trainer, watched."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from mpo_tutorial.experiments import processes
from mpo_tutorial.experiments.batches import Batches, collator
from mpo_tutorial.experiments.companions import companion_of
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.marks import newest_whole
from mpo_tutorial.experiments.watch import Watch
from mpo_tutorial.models.convert import biases, norms
from mpo_tutorial.models.layers import Rebuilt, matrix_parameters
from mpo_tutorial.models.loading import quiet_transformers

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedModel

STEPS_BETWEEN_SAVES = 50


class Trained(NamedTuple):
    """What a training says of itself: its seconds, those before an interruption included, and its `Watch.epochs`."""

    seconds: float
    epochs: dict


def train(
    model: "PreTrainedModel",
    tokenizer,
    dataset: "Dataset",
    config: RunConfig,
    state: Path,
    *,
    score: Callable[[], float] | None = None,
    progress: bool = False,
) -> Trained:
    """Train what the model has unfrozen, going on from the newest whole checkpoint in `state`, if there is one.

    A checkpoint that is incomplete or altered, as a kill leaves it, is passed over with a warning to the logger of `marks`.

    Parameters
    ----------
    dataset : Dataset
        As `tokenise` returns it.
    state : Path
        The Trainer's own folder.
    score : callable, optional
        What the model scores after an epoch, the more the better; needed if the config has a patience.

    Raises
    ------
    InterruptedError
        At Ctrl-C, once the step under way is done and saved.
    OSError
        If the state cannot be written.
    ValueError
        If the training diverged: nothing of that was saved. Or if the model cannot do without its inner values.
    """
    device = next(model.parameters()).device
    rank, count = processes.rank(), processes.count()
    batches = Batches(dataset["length"], config.batch_size, config.micro_batch_size, config.seed, rank, count)
    newest = processes.from_first(lambda: newest_whole(state))
    watch = Watch(model, batches, config, state, newest, score, progress)
    if config.checkpointing:
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
    args = TrainingArguments(
        output_dir=str(state),
        num_train_epochs=config.epochs,
        per_device_train_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=config.batch_size // (config.micro_batch_size * count),
        learning_rate=config.learning_rate,
        warmup_steps=math.ceil(config.warmup * watch.steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        average_tokens_across_devices=False,
        ddp_find_unused_parameters=False,
        save_steps=STEPS_BETWEEN_SAVES,
        save_total_limit=None,  # it would remove the earlier checkpoint before this one has its mark
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=device.type == "cuda",
        use_cpu=device.type == "cpu",
        seed=config.seed,
    )
    collate, rows = collator(tokenizer), dataset.remove_columns("length")
    micro_batches = DataLoader(rows, config.micro_batch_size, collate_fn=collate)
    companion = companion_of(config, model, watch.steps, micro_batches, newest)
    callbacks = (
        [watch] if companion is None else [companion, watch]
    )  # watch marks a checkpoint as whole, so it comes last
    trainer = _Trainer(model, args, collate, rows, callbacks=callbacks)
    trainer.config, trainer.batches, trainer.watch = config, batches, watch
    trainer.remove_callback(PrinterCallback)
    if rank:
        torch.manual_seed(config.seed + rank)  # so that processes do not drop out the same numbers
    try:
        with quiet_transformers(), watch.watching():
            if not watch.out_of_patience:
                trainer.train(resume_from_checkpoint=newest and str(newest))
    except (RuntimeError, SafetensorError) as error:
        # Writers in compiled code report a full disk as an error of their own.
        if re.search("PytorchStreamWriter|inline_container|I/O error|os error", str(error)):
            raise OSError(f"could not write the training state to {state}: {str(error).splitlines()[0]}") from error
        raise
    finally:
        if trainer.rebuilt is not None:
            trainer.rebuilt.forget()
    if watch.interrupted:
        raise InterruptedError(
            f"stopped by Ctrl-C after training step {trainer.state.global_step} of {watch.steps}, which is kept in "
            f"{state.parent}; the same command with --resume goes on from it"
        )
    model.load_state_dict(watch.best, strict=False)
    return Trained(watch.seconds, watch.epochs)


def adamw(model: nn.Module, config: RunConfig) -> torch.optim.AdamW:
    """AdamW over four groups of what is trained: numbers of the matrices or others, with weight decay or, as for biases and norms,
    without.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    of_matrices = matrix_parameters(model)
    exempt = set(map(id, (*biases(model), *norms(model))))
    for parameter in model.parameters():
        if parameter.requires_grad:
            own = config.rest_rate is None or id(parameter) in of_matrices
            rate = config.learning_rate if own else config.rest_rate
            decay = 0.0 if id(parameter) in exempt else config.weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": found, "lr": rate, "weight_decay": decay} for (rate, decay), found in groups.items()],
        fused=next(model.parameters()).device.type == "cuda",
    )


def accumulate(
    model: nn.Module,
    batches: list[dict],
    precision: str,
    *,
    once: bool = True,
    look: Callable[[list[torch.Tensor]], None] = lambda _: None,
) -> float:
    """Add to what is trained the gradients of the mean loss over the sentences of one step, in micro-batches.

    Parameters
    ----------
    batches : list of dict
        What the model takes, labels included, on its device.
    precision : {"float32", "bfloat16"}
        Of the products.
    once : bool
        Rebuild matrices once, for all micro-batches.
    look : callable
        Is shown the gradients of the rebuilt matrices, before they are taken back to the cores.

    Returns
    -------
    float : the loss
    """
    sentences = sum(len(batch["labels"]) for batch in batches)
    rebuilt, total = Rebuilt(model) if once else None, torch.zeros(())
    try:
        for batch in batches:
            with torch.autocast(batch["labels"].device.type, torch.bfloat16, enabled=precision == "bfloat16"):
                loss = model(**batch).loss * (len(batch["labels"]) / sentences)
            loss.backward()
            total = total.to(loss.device) + loss.detach()
        if rebuilt is not None:
            look(rebuilt.gradients)
            rebuilt.backward()
    finally:
        if rebuilt is not None:
            rebuilt.forget()
    return total.item()


class _Trainer(Trainer):
    """transformers' Trainer with batches of our own, a rate for the numbers of the matrices and one for the rest, and matrices
    rebuilt once a step.
    """

    config: RunConfig
    batches: Batches
    watch: Watch
    rebuilt: Rebuilt | None = None

    def get_train_dataloader(self):
        """Without accelerate's sharding, which fills an epoch's last batch with sentences from its beginning."""
        return DataLoader(
            self.train_dataset,
            batch_sampler=self.batches,
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def create_optimizer(self, model=None):
        self.optimizer = adamw(self.model, self.config)
        return self.optimizer

    def compute_loss(self, model, inputs, *args, **kwargs):
        """The mean over a micro-batch, so scaled that summed over these and averaged over processes it is that of the step."""
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            loss = super().compute_loss(model, inputs, *args, **kwargs)
        share = self.batches.share(len(inputs["labels"]), self.state.global_step % self.batches.steps)
        return loss * share * self.current_gradient_accumulation_steps  # by which the Trainer divides

    def training_step(self, model, inputs, num_items_in_batch=None):
        # Not where the model is wrapped for several processes, which share gradients as each parameter gets its own.
        if self.rebuilt is None and model is self.model:
            self.rebuilt = Rebuilt(model)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self.watch.add_loss(loss.item(), self.state.global_step + 1)
        if self.accelerator.sync_gradients and self.rebuilt is not None:
            self.rebuilt.backward()
            self.rebuilt = None
        return loss
