"""Which sentences each step of the optimiser takes, and how micro-batches and processes share them."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import DataCollatorWithPadding
from transformers.trainer_pt_utils import get_length_grouped_indices

from mpo_tutorial.models.networks import Pixels


def collator(tokenizer) -> Callable[[list[dict]], Mapping]:
    """What makes a batch of rows, of what `tokenise` gives: it pads sentences, and decodes images."""
    return tokenizer.batch if isinstance(tokenizer, Pixels) else DataCollatorWithPadding(tokenizer)


class Batches(Sampler[list[int]]):
    """The micro-batches of one process, for a DataLoader's `batch_sampler`: lists of sentences' numbers, for one epoch.

    Which sentences a step takes depends on seed and epoch alone, not on how they are shared. Sentences of like length come
    together. Where a last step has fewer sentences than there are processes, each process takes one of them, some the same.

    Parameters
    ----------
    lengths : sequence of int
        Of each sentence, in tokens.
    batch_size, micro_batch_size : int
        Sentences in one step, and in the memory of one process at once.
    seed : int
    rank, processes : int
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        micro_batch_size: int,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ):
        self.lengths, self.batch_size, self.micro_batch_size = list(lengths), batch_size, micro_batch_size
        self.seed, self.rank, self.processes = seed, rank, processes
        self.epoch = 0
        self.steps = math.ceil(len(self.lengths) / batch_size)

    def sentences(self, step: int) -> int:
        """How many sentences a step takes, counted from 0 in its epoch: all alike, but for the last."""
        return min(self.batch_size, len(self.lengths) - step * self.batch_size)

    def share(self, sentences: int, step: int) -> float:
        """What the mean loss over some sentences of a process counts: then the processes' sums have the step's loss as mean."""
        there = self.sentences(step)
        takers = len(range(self.rank % there, self.processes, there)) if there < self.processes else 1
        return sentences * self.processes / (there * takers)

    def __len__(self) -> int:
        last = self.sentences(self.steps - 1)
        mine = len(range(self.rank % last, last, self.processes))
        whole = math.ceil(self.batch_size / self.processes / self.micro_batch_size)
        return (self.steps - 1) * whole + math.ceil(mine / self.micro_batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        seed = int(np.random.SeedSequence((self.seed, self.epoch)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        order = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        for start in range(0, len(order), self.batch_size):
            step = order[start : start + self.batch_size]
            mine = step[self.rank % len(step) :: self.processes]
            for first in range(0, len(mine), self.micro_batch_size):
                yield mine[first : first + self.micro_batch_size]
