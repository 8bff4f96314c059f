"""Training in short stretches between cuts, with one optimiser whose memory goes through the cuts."""

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from transformers import DataCollatorWithPadding

from mpo_tutorial.experiments.batches import Batches
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.training import accumulate, adamw
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.transport import carried, turns
from mpo_tutorial.models.layers import MPOLayer
from mpo_tutorial.models.truncation import put_cut

if TYPE_CHECKING:
    from datasets import Dataset

MEMORIES = {"exp_avg": 1, "exp_avg_sq": 2}  # of AdamW, and the power of the gradient in them


class Tuning:
    """AdamW over what a model has unfrozen, for a number of steps known beforehand: batches, schedule and dropout as in a run.

    The rate rises over the config's warm-up and falls to 0 at the last step. Which sentences a step takes and what it drops out
    depends on the seed and the step's number alone, so that a tuning can be gone on with at any step.

    Parameters
    ----------
    model : nn.Module
    tokenizer
    dataset : Dataset
        As `tokenise` returns it.
    config : RunConfig
    steps : int
        In all.
    """

    def __init__(self, model: nn.Module, tokenizer, dataset: "Dataset", config: RunConfig, steps: int):
        self.model, self.config, self.steps, self.done = model, config, steps, 0
        self.batches = Batches(dataset["length"], config.batch_size, config.micro_batch_size, config.seed)
        self.rows, self.collate = dataset.remove_columns("length"), DataCollatorWithPadding(tokenizer)
        self.optimiser = adamw(model, config)
        self.rates = [group["lr"] for group in self.optimiser.param_groups]
        self._order: tuple[int, list[list[list[int]]]] = (-1, [])

    def step(self) -> float:
        """One step of the optimiser; the mean loss of its sentences before it.

        Raises
        ------
        RuntimeError
            If there is no step left.
        """
        if self.done == self.steps:
            raise RuntimeError(f"the tuning has {self.steps} steps, and all are done")
        device = next(self.model.parameters()).device
        batches = [self.collate([self.rows[i] for i in micro]).to(device) for micro in self._micro_batches()]
        self.model.train()
        torch.manual_seed(int(np.random.SeedSequence((self.config.seed, self.done)).generate_state(1)[0]))
        for group, rate in zip(self.optimiser.param_groups, self.rates, strict=True):
            group["lr"] = rate * self._share_of_rate()
        self.optimiser.zero_grad()
        loss = accumulate(self.model, batches, self.config.precision)
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, self.config.clip)
        self.optimiser.step()
        self.done += 1
        return loss

    def _share_of_rate(self) -> float:
        """As transformers' linear schedule has it."""
        warmup = math.ceil(self.config.warmup * self.steps)
        if self.done < warmup:
            return self.done / warmup
        return (self.steps - self.done) / max(1, self.steps - warmup)

    def _micro_batches(self) -> list[list[int]]:
        epoch, step = divmod(self.done, self.batches.steps)
        if self._order[0] != epoch:
            self.batches.epoch, found = epoch, []
            micro = iter(self.batches)
            for number in range(self.batches.steps):
                several = math.ceil(self.batches.sentences(number) / self.config.micro_batch_size)
                found.append([next(micro) for _ in range(several)])
            self._order = (epoch, found)
        return self._order[1][step]

    def put(self, layer: MPOLayer, cut: MPO, *, carry: bool) -> None:
        """Give a layer its cut cores, and the optimiser their numbers in the place of the old ones; to be told after a fit, too.

        Parameters
        ----------
        carry : bool
            Whether the optimiser's memory of the cores is carried through the cut, or they begin anew.
        """
        old, before = layer.mpo, list(layer.cores)
        put_cut(layer, cut)
        states = [self.optimiser.state.pop(core, {}) for core in before]
        places = {id(core): k for k, core in enumerate(before)}
        for group in self.optimiser.param_groups:
            group["params"] = [layer.cores[places[id(p)]] if id(p) in places else p for p in group["params"]]
        if not carry or not any(states):
            return
        found = turns(old, cut)
        for memory, power in MEMORIES.items():
            moments = [state.get(memory, torch.zeros_like(core)) for state, core in zip(states, before, strict=True)]
            for core, state, moment in zip(layer.cores, states, carried(moments, found, power), strict=True):
                if state:  # fused AdamW needs it laid out in memory as the core is
                    self.optimiser.state[core] = {
                        **self.optimiser.state.get(core, {}),
                        memory: torch.empty_like(core).copy_(moment),
                    }
                    self.optimiser.state[core]["step"] = state["step"]

    def begin_anew(self) -> None:
        """Forget all that was gathered: the model has other parameters now."""
        self.optimiser = adamw(self.model, self.config)

    def state(self) -> dict:
        """What `load_state` takes: the steps done, and the optimiser's memory by parameter names."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        memory = {names[parameter]: dict(found) for parameter, found in self.optimiser.state.items()}
        return {"done": self.done, "memory": memory}

    def load_state(self, state: dict) -> None:
        """Go on from where another tuning, of the same model at the same bonds, was."""
        self.done = state["done"]
        parameters = dict(self.model.named_parameters())
        self.begin_anew()
        for name, found in state["memory"].items():
            device = parameters[name].device
            self.optimiser.state[parameters[name]] = {key: value.to(device) for key, value in found.items()}
