from itertools import chain, pairwise

import numpy as np
import pytest

from mpo_tutorial.experiments.batches import Batches

LENGTHS = np.random.default_rng(0).integers(3, 40, 45).tolist()


def flat(lists: list[list[int]]) -> list[int]:
    return [*chain.from_iterable(lists)]


def steps_of(batches: Batches, epoch: int = 0) -> list[list[int]]:
    """The sentences of each step of one process, in their order."""
    batches.epoch = epoch
    whole = batches.batch_size // batches.processes // batches.micro_batch_size
    found = list(batches)
    return [flat(found[first : first + whole]) for first in range(0, len(found), whole)]


def test_each_epoch_takes_every_sentence_once_in_an_order_of_its_own():
    batches = Batches(LENGTHS, 8, 4, seed=0)
    epochs = [flat(steps_of(batches, epoch)) for epoch in range(4)]
    for order in epochs:
        assert sorted(order) == list(range(45))
    assert all(one != other for one, other in pairwise(epochs))
    assert flat(steps_of(batches, 2)) == epochs[2]
    assert flat(steps_of(Batches(LENGTHS, 8, 4, seed=1))) != epochs[0]


@pytest.mark.parametrize(("count", "micro"), [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2), (8, 1)])
@pytest.mark.parametrize("sentences", [45, 40, 41])
def test_a_step_takes_the_same_sentences_however_they_are_shared(count, micro, sentences):
    """The last step has 5, 8 or 1 of them. Weighted by their shares, losses have the mean over the step's sentences."""
    lengths = LENGTHS[:sentences]
    losses = np.random.default_rng(1).random(sentences)
    shared = [Batches(lengths, 8, micro, 0, rank, count) for rank in range(count)]
    of_process = [steps_of(batches) for batches in shared]
    assert {len(steps) for steps in of_process} == {shared[0].steps}
    for step, expected in enumerate(steps_of(Batches(lengths, 8, 8, seed=0))):
        parts = [steps[step] for steps in of_process]
        taken = flat(parts)
        assert set(taken) == set(expected)
        assert len(taken) == max(len(expected), count)
        sums = [
            batches.share(len(part), step) * losses[part].mean() for batches, part in zip(shared, parts, strict=True)
        ]
        assert np.mean(sums) == pytest.approx(losses[expected].mean())
    for batches in shared:
        assert len(batches) == len(list(batches))
        assert max(map(len, batches)) <= micro


def test_sentences_of_like_length_come_together():
    lengths = np.random.default_rng(1).integers(1, 60, 800)
    found = Batches(lengths.tolist(), 8, 8, seed=0)
    spread = np.mean([np.ptp(lengths[batch]) for batch in found])
    at_random = np.mean([np.ptp(batch) for batch in np.random.default_rng(2).permutation(lengths).reshape(-1, 8)])
    assert spread < at_random / 4
