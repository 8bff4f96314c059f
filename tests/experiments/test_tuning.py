import copy
from dataclasses import replace

import pytest
import torch

from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare
from mpo_tutorial.experiments.training import train
from mpo_tutorial.experiments.tuning import Tuning
from mpo_tutorial.models.layers import mpo_layers


@pytest.fixture
def config(tiny_model, tiny_task) -> RunConfig:
    """Without dropout, whose random numbers the Trainer draws in another order."""
    return RunConfig(
        model=tiny_model,
        task=tiny_task,
        learning_rate=1e-2,
        epochs=2,
        train_size=90,
        batch_size=16,
        micro_batch_size=8,
        device="cpu",
    )


def undropped(prepared):
    for module in prepared.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return prepared


def tensors(model) -> dict:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def tuning_of(prepared, steps: int) -> Tuning:
    return Tuning(prepared.model, prepared.tokenizer, prepared.dataset("train"), prepared.config, steps)


@pytest.mark.parametrize("rest_rate", [None, 3e-3])
def test_it_trains_as_the_trainer_does(config, tmp_path, rest_rate):
    """Two epochs of 90 sentences, the last step of each with 10: batches, schedule, clipping and losses are the same."""
    config = replace(config, rest_rate=rest_rate, weight_decay=0.1)
    by_trainer, by_us = (undropped(prepare(config)) for _ in range(2))
    trained = train(by_trainer.model, by_trainer.tokenizer, by_trainer.dataset("train"), config, tmp_path)
    tuning = tuning_of(by_us, 12)
    losses = [tuning.step() for _ in range(12)]
    for (name, ours), theirs in zip(tensors(by_us.model).items(), by_trainer.model.parameters(), strict=True):
        if not name.endswith("key.bias"):  # no softmax sees it: its gradient is rounding
            torch.testing.assert_close(ours, theirs.detach(), rtol=1e-3, atol=2e-5, msg=name)
    sizes = [16] * 5 + [10]
    for epoch, loss in enumerate(trained.epochs["losses"]):
        mean = sum(size * own for size, own in zip(sizes, losses[6 * epoch :], strict=False)) / 90
        assert mean == pytest.approx(loss, rel=1e-3)
    with pytest.raises(RuntimeError, match=r"^the tuning has 12 steps, and all are done$"):
        tuning.step()


def test_gone_on_with_it_ends_as_without_a_stop(config):
    """With dropout: what is dropped depends on the step's number, not on what was drawn before."""
    straight, stopped, resumed = (prepare(config) for _ in range(3))
    whole, first = tuning_of(straight, 10), tuning_of(stopped, 10)
    losses = [whole.step() for _ in range(10)]
    for _ in range(4):
        first.step()
    torch.rand(7)
    second = tuning_of(resumed, 10)
    resumed.model.load_state_dict(stopped.model.state_dict())
    second.load_state(copy.deepcopy(first.state()))
    assert [second.step() for _ in range(6)] == losses[4:]
    for name, tensor in tensors(straight.model).items():
        assert torch.equal(tensor, tensors(resumed.model)[name]), name


@pytest.mark.parametrize("carry", [True, False])
def test_a_change_of_gauge_alone_changes_the_next_step_only_by_what_is_forgotten(config, carry):
    """Steps of plain momentum are the same in every orthogonal gauge if the memory turns with the cores."""
    prepared = undropped(prepare(config))
    tuning = tuning_of(prepared, 10)
    for _ in range(3):
        tuning.step()
    layer = mpo_layers(prepared.model)[0]
    memory = {
        k: tuning.optimiser.state[core]["exp_avg"].clone() for k, core in enumerate(layer.cores) if core.requires_grad
    }
    before, old = layer.mpo.to_matrix(), layer.mpo
    turn = torch.linalg.qr(torch.randn(old.bonds[0], old.bonds[0], generator=torch.Generator().manual_seed(0))).Q
    cores = list(old.cores)
    cores[0] = torch.einsum("aijb,bc->aijc", cores[0], turn)
    cores[1] = torch.einsum("cb,bijd->cijd", turn.T, cores[1])
    trainable = [core.requires_grad for core in layer.cores]
    tuning.put(layer, type(old)(tuple(cores), old.padding), carry=carry)
    torch.testing.assert_close(layer.mpo.to_matrix(), before)
    assert [core.requires_grad for core in layer.cores] == trainable
    in_optimiser = {id(p) for group in tuning.optimiser.param_groups for p in group["params"]}
    assert in_optimiser == {id(p) for p in prepared.model.parameters() if p.requires_grad}
    if carry:
        found = tuning.optimiser.state[layer.cores[0]]
        torch.testing.assert_close(
            found["exp_avg"], torch.einsum("aijb,bc->aijc", memory[0], turn), rtol=1e-4, atol=1e-7
        )
        assert found["step"] == 3
    else:
        assert not any(core in tuning.optimiser.state for core in layer.cores)
    assert tuning.step() > 0


def test_the_rate_rises_and_falls_to_nothing(config):
    prepared = prepare(replace(config, warmup=0.25))
    tuning, rates = tuning_of(prepared, 8), []
    for _ in range(8):
        tuning.step()
        rates.append(tuning.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([1e-2 * share for share in (0, 1 / 2, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)])
