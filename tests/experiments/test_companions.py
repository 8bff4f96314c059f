"""What some methods do beside each step: Child-Tuning against modelscope's, AdaLoRA against PEFT's own model."""

import copy
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.companions import AdaLoRA, ChildTuningD, ChildTuningF, companion_of, largest
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare, run
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.methods import METHODS
from mpo_tutorial.models.ways import Way

modelscope = pytest.importorskip("modelscope.trainers.optimizer.child_tuning_adamw_optimizer")
STEPS = 4
ADAM = {"lr": 1e-2, "eps": 1e-12}  # in modelscope's it is outside of the correction


@pytest.fixture
def model(tiny_model) -> nn.Module:
    model, _ = load(tiny_model)
    return model.double().eval()


def batches(model: nn.Module) -> list[dict]:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(5, model.config.vocab_size, (STEPS, 6, 7), generator=draw)
    return [{"input_ids": some, "labels": torch.arange(6) % 2} for some in ids]


def train(model: nn.Module, companion, optimiser) -> None:
    for step, batch in enumerate(batches(model)):
        state = SimpleNamespace(global_step=step)
        optimiser.zero_grad()
        model(**batch).loss.backward()
        companion.on_pre_optimizer_step(None, state, None)
        optimiser.step()
        if hasattr(companion, "on_optimizer_step"):
            companion.on_optimizer_step(None, state, None)


def test_child_tuning_d_takes_the_steps_that_modelscopes_takes(model):
    theirs, share = copy.deepcopy(model), 0.25
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    companion = ChildTuningD(model, share, batches(model))
    train(model, companion, torch.optim.AdamW(model.parameters(), weight_decay=0, **ADAM))

    def loss_of(of: nn.Module, batch: dict) -> torch.Tensor:
        of.eval()
        return of(**batch).loss

    mask = modelscope.calculate_fisher(theirs, batches(theirs), loss_of, share)
    optimiser = modelscope.ChildTuningAdamW(theirs.parameters(), mode="ChildTuning-D", **ADAM)
    optimiser.set_gradient_mask(mask)
    for batch in batches(theirs):
        optimiser.zero_grad()
        theirs(**batch).loss.backward()
        optimiser.step()
    named = dict(theirs.named_parameters())
    inside = {name: p for name, p in named.items() if ".layer." in name}
    assert companion.masks.keys() == inside.keys()
    different = sum((companion.masks[name] != mask[p]).sum().item() for name, p in inside.items())
    assert different <= 1  # they interpolate between two numbers where we count
    n = sum(p.numel() for p in inside.values())
    kept = sum(mask.sum().item() for mask in companion.masks.values())
    assert kept == round(share * n)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p, named[name], rtol=1e-4, atol=1e-5)
        if name in inside:
            assert torch.equal(p[~companion.masks[name]], start[name][~companion.masks[name]]), name
    assert METHODS["child-d"].n_trained(model, Way(5, size=share)) == kept + sum(p.numel() for p in named.values()) - n


def test_child_tuning_f_draws_anew_each_step_and_takes_the_steps_that_modelscopes_takes(model, monkeypatch):
    """Theirs draws with Bernoulli of torch; here it is given our masks."""
    theirs, share = copy.deepcopy(model), 0.3
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    companion = ChildTuningF(model, share, seed=3)
    masks = [list(companion.masks(step)) for step in range(STEPS)]
    train(model, companion, torch.optim.AdamW(model.parameters(), weight_decay=0, **ADAM))
    drawn = iter([mask for of_step in masks for mask in of_step])
    monkeypatch.setattr(
        modelscope, "Bernoulli", lambda p: SimpleNamespace(sample=lambda: next(drawn).to(p.dtype).view_as(p))
    )
    optimiser = modelscope.ChildTuningAdamW(theirs.parameters(), mode="ChildTuning-F", reserve_p=share, **ADAM)
    for batch in batches(theirs):
        optimiser.zero_grad()
        theirs(**batch).loss.backward()
        optimiser.step()
    for (name, p), other in zip(model.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, other, rtol=1e-4, atol=1e-5)
        never = ~torch.stack([of_step[[*start].index(name)] for of_step in masks]).any(0)
        assert torch.equal(p[never], start[name][never])
    kept = torch.cat([mask.flatten() for mask in masks[0]])
    assert kept.float().mean() == pytest.approx(share, abs=0.02)
    assert not torch.equal(kept, torch.cat([mask.flatten() for mask in masks[1]]))
    again = ChildTuningF(model, share, seed=3).masks(0)
    assert all(torch.equal(a, b) for a, b in zip(masks[0], again, strict=True))


@pytest.mark.parametrize(("share", "kept"), [(0.5, [False, True, True, False]), (0.01, [False, False, True, False])])
def test_the_largest_are_chosen_over_all_tensors(share, kept):
    found = largest({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([[4.0], [2.0]])}, share)
    assert torch.cat([found["a"], found["b"].flatten()]).tolist() == kept


def test_adalora_takes_the_steps_that_pefts_own_model_takes(tiny_model):
    from peft import AdaLoraConfig, get_peft_model

    steps, size = 20, 2
    ours, _ = load(tiny_model)
    METHODS["adalora"].apply(ours, Way(5, size=size))
    inner, _ = load(tiny_model)
    names = [
        name for name, module in ours.named_modules() if hasattr(module, "lora_E") and hasattr(module, "base_layer")
    ]
    config = AdaLoraConfig(
        init_r=3, target_r=size, lora_alpha=2 * size, total_step=steps, tinit=2, tfinal=6, target_modules=names
    )
    theirs = get_peft_model(inner, config)
    inner.load_state_dict(ours.state_dict())
    inner.classifier.requires_grad_(True)
    ours.double().eval(), theirs.double().eval()
    companion = AdaLoRA(ours, steps)
    draws = batches(ours) * (steps // STEPS)
    optimiser, other = (
        torch.optim.AdamW([p for p in m.parameters() if p.requires_grad], **ADAM) for m in (ours, inner)
    )
    for step, batch in enumerate(draws):
        state = SimpleNamespace(global_step=step)
        optimiser.zero_grad()
        ours(**batch).loss.backward()
        companion.on_pre_optimizer_step(None, state, None)
        optimiser.step()
        companion.on_optimizer_step(None, state, None)
        other.zero_grad()
        theirs.base_model(**batch).loss.backward()  # a PeftModel of no task leaves their term of the loss out
        other.step()
        theirs.base_model.update_and_allocate(step + 1)
    for p, q in zip(ours.parameters(), inner.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-3, atol=1e-4)
    ranks = [
        int((m.lora_E["default"] != 0).sum())
        for m in ours.modules()
        if hasattr(m, "lora_E") and hasattr(m, "base_layer")
    ]
    assert sum(ranks) <= size * len(names) < 3 * len(names)
    assert min(ranks) < max(ranks)


@pytest.mark.parametrize("method", ["adalora", "child-d", "child-f", "lora", "prefix", "adapter", "vera"])
def test_a_run_that_was_stopped_goes_on_to_the_same_end(tiny_model, tiny_task, tmp_path, method, monkeypatch):
    monkeypatch.setattr("mpo_tutorial.experiments.training.STEPS_BETWEEN_SAVES", 3)
    config = RunConfig(tiny_model, tiny_task, method, epochs=3, learning_rate=5e-3, size={"vera": 8}.get(method))
    whole = run(prepare(config), tmp_path / "whole", progress=False, splits=("validation",))
    stopped = prepare(config)
    calls = []

    def break_off(*args, **kwargs):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return forward(*args, **kwargs)

    forward = stopped.model.forward
    monkeypatch.setattr(stopped.model, "forward", break_off)
    with pytest.raises((InterruptedError, KeyboardInterrupt)):
        run(stopped, tmp_path / "parts", progress=False, splits=("validation",))
    resumed = run(prepare(config), tmp_path / "parts", resume=True, progress=False, splits=("validation",))
    first, second = (load_file(tmp_path / name / "task.safetensors") for name in ("whole", "parts"))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert records.read_record(tmp_path / "parts" / "record.json")["parameters"] == whole["parameters"]
    assert resumed["validation"] == whole["validation"]


def test_child_tuning_d_needs_layers_that_are_trained_and_most_methods_need_no_companion(model):
    assert companion_of(RunConfig(method="lora"), model, 10, []) is None
    METHODS["head"].apply(model, Way(5))
    with pytest.raises(ValueError, match="chooses among the numbers of layers, nothing is trained in any"):
        ChildTuningD(model, 0.5, batches(model))
