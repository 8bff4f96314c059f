"""What some methods do beside each step of the optimiser: masks of the gradients, and ranks that sink."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.models.families import layer_of
from mpo_tutorial.models.rivals import PEFT_NAME

if TYPE_CHECKING:
    from transformers import TrainerState

RANKS = "ranks.safetensors"  # in a checkpoint


class ChildTuningF(TrainerCallback):
    """Each step's gradients, each number kept with probability p and divided by it, or 0 (Xu et al. 2021, task-free).

    The draw is by the run's seed and the step's number: a run that was killed draws the same when it goes on.

    Parameters
    ----------
    model : nn.Module
    share : float, in (0, 1]
        p.
    seed : int
    """

    def __init__(self, model: nn.Module, share: float, seed: int):
        self.model, self.share, self.seed = model, share, seed

    def on_pre_optimizer_step(self, args, state: "TrainerState", control, **kwargs) -> None:
        for parameter, mask in zip(_trained(self.model), self.masks(state.global_step), strict=True):
            parameter.grad.mul_(mask.to(parameter.grad) / self.share)

    def masks(self, step: int) -> Iterable[Tensor]:
        """Those of the step with this number, from 0, in the order of the trained parameters; True where a number may move."""
        draw = torch.Generator().manual_seed((self.seed << 32) + step)
        return (torch.rand(p.shape, generator=draw) < self.share for p in _trained(self.model))


class ChildTuningD(TrainerCallback):
    """Only the numbers with the largest Fisher information on the training set are moved, always the same ones (Xu et al. 2021).

    As in the authors' code: the information is the mean, over batches, of the squared gradient of the loss of each; it chooses
    among the numbers of the layers alone, and what is outside of them, embeddings and head, is trained whole. The kept gradients
    are not rescaled.

    Parameters
    ----------
    model : nn.Module
        As it is before the first step.
    share : float, in (0, 1]
        Of the layers' numbers.
    batches : iterable of dict
        Of training sentences, labels included.
    """

    def __init__(self, model: nn.Module, share: float, batches: Iterable[dict]):
        self.model = model
        inside = {name: p for name, p in model.named_parameters() if p.requires_grad and layer_of(name) is not None}
        if not inside:
            raise ValueError("Child-Tuning D chooses among the numbers of layers, nothing is trained in any")
        self.masks = largest(fisher_information(model, inside, batches), share)

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
        for name, mask in self.masks.items():
            self.model.get_parameter(name).grad.mul_(mask)


def fisher_information(
    model: nn.Module, parameters: dict[str, nn.Parameter], batches: Iterable[dict]
) -> dict[str, Tensor]:
    """The mean over batches of the squared gradient of each one's mean loss, by name, without dropout. Gradients are left empty."""
    found, n, was_training = {name: torch.zeros_like(p) for name, p in parameters.items()}, 0, model.training
    model.eval()
    device = next(model.parameters()).device
    for batch in batches:
        loss = model(**{name: tensor.to(device) for name, tensor in batch.items()}).loss
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        n += 1
        for total, gradient in zip(found.values(), gradients, strict=True):
            total += gradient**2
    model.train(was_training)
    return {name: total / n for name, total in found.items()}


def largest(values: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """True where a number is among the largest of all, so many that they are a share of them, or more where the last are equal."""
    flat = torch.cat([value.flatten() for value in values.values()])
    kept = max(1, round(share * len(flat)))
    least = flat.kthvalue(len(flat) - kept + 1).values
    return {name: value >= least for name, value in values.items()}


class AdaLoRA(TrainerCallback):
    """What PEFT's AdaLoRA does beside a step: it keeps its factors nearly orthogonal, and lets their ranks sink to the target.

    The ranks begin to sink after a tenth of the steps and are settled for the last three tenths.

    Parameters
    ----------
    model : nn.Module
        With AdaLoRA's layers.
    steps : int
        Of the optimiser in the whole run.
    resumed_from : Path, optional
        A checkpoint, in which it has kept what it knew of each number's importance.
    """

    def __init__(self, model: nn.Module, steps: int, resumed_from: Path | None = None):
        from peft.tuners.adalora.layer import RankAllocator

        self.model, self.config = model, model.peft_config[PEFT_NAME]
        self.config.total_step, self.config.tinit, self.config.tfinal = steps, steps // 10, 3 * steps // 10
        self.allocator = RankAllocator(model, self.config, PEFT_NAME)
        if resumed_from is not None:
            kept: dict[str, dict[str, Tensor]] = {kind: {} for kind in ("mean", "spread", "rank")}
            for name, tensor in load_file(resumed_from / RANKS).items():
                kind, _, of = name.partition(" ")
                kept[kind][of] = tensor.to(next(model.parameters()).device)
            self.allocator.exp_avg_ipt, self.allocator.exp_avg_unc = kept["mean"], kept["spread"]
            self.allocator.ipt = dict(
                kept["mean"]
            )  # its own values are of one step; a name that is missing begins anew
            self.config.rank_pattern = {name: mask.tolist() for name, mask in kept["rank"].items()}

    def on_pre_optimizer_step(self, args, state, control, **kwargs) -> None:
        factors = [p for name, p in self.model.named_parameters() if "lora_A" in name or "lora_B" in name]
        grams = [p @ p.T if p.shape[0] < p.shape[1] else p.T @ p for p in factors]
        away = torch.stack([(gram - torch.eye(len(gram)).to(gram)).norm() for gram in grams]).mean()
        gradients = torch.autograd.grad(self.config.orth_reg_weight * away, factors)
        for factor, gradient in zip(factors, gradients, strict=True):
            factor.grad += gradient

    def on_optimizer_step(self, args, state: "TrainerState", control, **kwargs) -> None:
        step, settled = state.global_step + 1, self.config.total_step - self.config.tfinal
        if step <= settled:
            _, pattern = self.allocator.update_and_allocate(self.model, step, force_mask=step == settled)
            self.config.rank_pattern = pattern or self.config.rank_pattern
        else:
            self.allocator.mask_using_rank_pattern(self.model, self.config.rank_pattern)

    def on_save(self, args, state: "TrainerState", control, **kwargs) -> None:
        if state.is_world_process_zero:
            ranks = {name: torch.tensor(mask) for name, mask in (self.config.rank_pattern or {}).items()}
            kept = {"mean": self.allocator.exp_avg_ipt, "spread": self.allocator.exp_avg_unc, "rank": ranks}
            tensors = {f"{kind} {name}": tensor for kind, of in kept.items() for name, tensor in of.items()}
            save_file(tensors, Path(args.output_dir) / f"checkpoint-{state.global_step}" / RANKS)


def companion_of(
    config: RunConfig,
    model: nn.Module,
    steps: int,
    batches: Iterable[dict],
    resumed_from: Path | None = None,
) -> TrainerCallback | None:
    """What a run's method needs beside its steps, the model being as it was before the first; None for most.

    Parameters
    ----------
    steps : int
        Of the optimiser in the whole run.
    batches : iterable of dict
        Micro-batches of training sentences.
    resumed_from : Path, optional
        The checkpoint from which the run goes on.
    """
    share = config.size
    if config.method == "child-f":
        return ChildTuningF(model, share, config.seed)
    if config.method == "child-d":
        return ChildTuningD(model, share, batches)
    if config.method == "adalora":
        return AdaLoRA(model, steps, resumed_from)
    return None


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]
