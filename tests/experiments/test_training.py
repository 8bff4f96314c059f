import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mpo_tutorial.experiments import evaluation, training
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import Prepared, prepare, run
from mpo_tutorial.models.layers import matrix_parameters


@pytest.fixture
def config(tiny_model, tiny_task) -> RunConfig:
    return RunConfig(
        model=tiny_model,
        task=tiny_task,
        train_size=80,
        epochs=2,
        batch_size=8,
        micro_batch_size=4,
        learning_rate=5e-3,
        device="cpu",
    )


def finished(config: RunConfig, out: Path, *, resume: bool = False) -> tuple[dict, dict[str, torch.Tensor]]:
    """Record and trained tensors of a run."""
    record = run(prepare(config), out, resume=resume, progress=False, splits=("validation",))
    return record, load_file(out / "task.safetensors")


@pytest.fixture
def optimisers(monkeypatch) -> list[torch.optim.Optimizer]:
    """Those of the runs of a test, as they were made, with a `used` list of the first group's rates, a step each."""
    made = []

    class Noting(training._Trainer):
        def create_scheduler(self, num_training_steps, optimizer=None):
            scheduler = super().create_scheduler(num_training_steps, optimizer)
            inner = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate's has one inside
            inner.used = []
            inner.register_step_pre_hook(lambda optimizer, *_: inner.used.append(optimizer.param_groups[0]["lr"]))
            made.append(inner)
            return scheduler

    monkeypatch.setattr(training, "_Trainer", Noting)
    return made


@pytest.mark.parametrize("warmup", [0.2, 0.0, 0.5])
def test_the_rate_rises_over_its_share_of_the_steps_and_then_falls_to_nothing(config, tmp_path, optimisers, warmup):
    finished(replace(config, warmup=warmup), tmp_path / "run")
    steps = 2 * 80 // 8
    rising = math.ceil(warmup * steps)
    expected = [k / rising if k < rising else (steps - k) / (steps - rising) for k in range(steps)]
    assert optimisers[0].used == pytest.approx([5e-3 * share for share in expected])


def test_matrices_and_the_rest_have_rates_of_their_own_and_biases_and_norms_no_decay(config, tmp_path, optimisers):
    prepared = prepare(replace(config, rest_rate=1e-3, weight_decay=0.1))
    of_matrices = matrix_parameters(prepared.model)
    names = {id(p): name for name, p in prepared.model.named_parameters() if p.requires_grad}
    run(prepared, tmp_path / "run", progress=False, splits=("validation",))
    groups = {
        names[id(p)]: (group["initial_lr"], group["weight_decay"])
        for group in optimisers[0].param_groups
        for p in group["params"]
    }
    assert groups.keys() == set(names.values())
    kinds = set()
    for address, name in names.items():
        rate = 5e-3 if address in of_matrices else 1e-3
        decay = 0.0 if name.endswith("bias") or "LayerNorm" in name else 0.1
        assert groups[name] == (rate, decay), name
        kinds.add((rate, decay))
    assert kinds == {(5e-3, 0.1), (1e-3, 0.0), (1e-3, 0.1)}  # cores; biases and norms; the classifier


def test_without_a_rate_of_its_own_the_rest_has_that_of_the_matrices(config, tmp_path, optimisers):
    finished(config, tmp_path / "run")
    assert {group["initial_lr"] for group in optimisers[0].param_groups} == {5e-3}


def test_gradients_are_clipped_before_the_step(config, tmp_path, monkeypatch):
    def norms(clip: float) -> list[float]:
        seen = []

        def note(optimiser, *_):
            gradients = [p.grad for group in optimiser.param_groups for p in group["params"] if p.grad is not None]
            seen.append(float(torch.stack([g.norm() for g in gradients]).norm()))

        create = training._Trainer.create_optimizer

        def noting(self, model=None):
            create(self, model).register_step_pre_hook(note)
            return self.optimizer

        with monkeypatch.context() as patch:
            patch.setattr(training._Trainer, "create_optimizer", noting)
            finished(replace(config, clip=clip, epochs=1), tmp_path / f"clip {clip}")
        return seen

    loose, tight = norms(1e6), norms(0.01)
    assert min(loose) > 0.01
    assert tight == pytest.approx([0.01] * len(tight), rel=1e-3)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"method": "head"}, "neither is trained"),
        ({"method": "bitfit"}, "neither is trained"),
        ({"method": "full"}, "neither is trained"),
        ({"method": "light", "rest": "head"}, None),
    ],
)
def test_a_rate_for_what_is_not_trained_is_refused(config, tmp_path, options, what):
    config = replace(config, rest_rate=1e-3, epochs=1, **options)
    if what is None:
        finished(config, tmp_path / "run")
        return
    with pytest.raises(ValueError, match=f"rest_rate is the rate of .*{what}, got 0.001; leave it out"):
        run(prepare(config), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_in_bfloat16_products_are_and_weights_are_not(config, tmp_path):
    exact, _ = finished(config, tmp_path / "exact")
    prepared = prepare(replace(config, precision="bfloat16"))
    seen = set()
    layer = prepared.model.get_submodule("bert.encoder.layer.0.intermediate.dense")
    layer.register_forward_hook(lambda module, given, found: seen.add((module.training, found.dtype)))
    record = run(prepared, tmp_path / "run", progress=False, splits=("validation",))
    assert seen == {(True, torch.bfloat16), (False, torch.float32)}
    assert {tensor.dtype for tensor in load_file(tmp_path / "run/task.safetensors").values()} == {torch.float32}
    assert record["epochs"]["losses"] != exact["epochs"]["losses"]
    assert record["epochs"]["losses"] == pytest.approx(exact["epochs"]["losses"], rel=0.05)


@pytest.mark.parametrize("method", ["light", "full"])
def test_with_values_computed_again_a_run_ends_in_the_same_numbers(config, tmp_path, method):
    config = replace(config, method=method, learning_rate=1e-3)
    _, kept = finished(config, tmp_path / "kept")
    prepared = prepare(replace(config, checkpointing=True))
    calls = [0, 0]
    layer = prepared.model.get_submodule("bert.encoder.layer.0.intermediate.dense")
    layer.register_forward_hook(lambda module, *_: calls.__setitem__(module.training, calls[module.training] + 1))
    run(prepared, tmp_path / "again", progress=False, splits=("validation",))
    assert calls[True] == 2 * 2 * 80 // 4  # each micro-batch twice
    again = load_file(tmp_path / "again/task.safetensors")
    for name, tensor in kept.items():
        torch.testing.assert_close(again[name], tensor, atol=1e-6, rtol=1e-5)


def score_by(monkeypatch, scores: list[float]) -> list[dict[str, torch.Tensor]]:
    """Have epochs scored so, and keep what was trained by then."""
    seen, left = [], iter(scores)

    def score(self: Prepared) -> float:
        seen.append({name: p.detach().clone() for name, p in self.model.named_parameters() if p.requires_grad})
        return next(left)

    monkeypatch.setattr(Prepared, "score", score)
    return seen


@pytest.mark.parametrize(
    ("patience", "scores", "trained", "kept"),
    [
        (1, [0.5, 0.7, 0.7, 0.9], 3, 2),  # as good is no better
        (2, [0.5, 0.7, 0.6, 0.8, 0.1, 0.2, 0.9], 6, 4),
        (2, [0.5, 0.4, 0.3, 0.9], 3, 1),
        (3, [0.1, 0.2, 0.3, 0.4], 4, 4),
    ],
)
def test_a_run_out_of_patience_keeps_its_best_epoch(config, tmp_path, monkeypatch, patience, scores, trained, kept):
    seen = score_by(monkeypatch, scores)
    record, tensors = finished(replace(config, epochs=len(scores), patience=patience), tmp_path / "run")
    assert len(seen) == trained
    assert {name: record["epochs"][name] for name in ("trained", "kept", "scores")} == {
        "trained": trained,
        "kept": kept,
        "scores": scores[:trained],
    }
    assert len(record["epochs"]["losses"]) == trained
    for name, tensor in seen[kept - 1].items():
        assert torch.equal(tensors[name], tensor), name


def test_without_patience_every_epoch_is_trained_and_the_last_one_kept(config, tmp_path, monkeypatch):
    seen = score_by(monkeypatch, [])
    record, _ = finished(replace(config, epochs=3), tmp_path / "run")
    assert not seen
    assert record["epochs"]["trained"] == record["epochs"]["kept"] == len(record["epochs"]["losses"]) == 3


def test_losses_on_record_are_means_over_the_epochs_sentences(config, tmp_path, monkeypatch):
    """With a rate of next to nothing, in evaluation's mode: those of the untrained model. A last step is smaller."""
    config = replace(config, learning_rate=1e-12, train_size=45, warmup=0.0)
    prepared = prepare(config)
    dataset = prepared.dataset("train")
    logits = torch.from_numpy(evaluation.logits(prepared.model, dataset, prepared.tokenizer))
    expected = nn.functional.cross_entropy(logits, torch.tensor(dataset["labels"]))
    for module in prepared.model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    record = run(prepared, tmp_path / "run", progress=False, splits=("validation",))
    assert record["epochs"]["losses"] == pytest.approx([float(expected)] * 2, rel=1e-5)


class AfterSteps:
    """A hook of a layer: something happens in the first micro-batch of a step."""

    def __init__(self, step: int, what):
        self.calls_left, self.what = 2 * (step - 1), what

    def __call__(self, module, given, found):
        if module.training:
            self.calls_left -= 1
            if self.calls_left == -1:
                return self.what(found)
        return found


def test_a_loss_that_is_none_stops_the_run_and_leaves_the_last_good_state(config, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "STEPS_BETWEEN_SAVES", 4)
    straight, expected = finished(config, tmp_path / "straight")
    prepared = prepare(config)
    prepared.model.classifier.register_forward_hook(AfterSteps(7, lambda logits: logits * math.nan))
    with pytest.raises(ValueError, match=r"the loss was nan at step 7; the state of step 4 is kept in .*smaller rate"):
        run(prepared, tmp_path / "run", progress=False, splits=("validation",))
    assert [path.name for path in (tmp_path / "run/state").glob("checkpoint-*")] == ["checkpoint-4"]
    record, found = finished(config, tmp_path / "run", resume=True)
    assert record["epochs"] == straight["epochs"]
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_weights_that_are_none_are_not_saved(config, tmp_path, monkeypatch):
    """The loss of that step was finite still."""
    monkeypatch.setattr(training, "STEPS_BETWEEN_SAVES", 4)
    prepared = prepare(config)

    def spoil(logits):
        with torch.no_grad():
            prepared.model.get_submodule("bert.encoder.layer.0.intermediate.dense").bias[0] = math.inf
        return logits

    prepared.model.classifier.register_forward_hook(AfterSteps(8, spoil))
    with pytest.raises(
        ValueError, match=r"(the loss was nan at|weights were nan or infinite after) step 8; the state of step 4"
    ):
        run(prepared, tmp_path / "run", progress=False, splits=("validation",))
    assert [path.name for path in (tmp_path / "run/state").glob("checkpoint-*")] == ["checkpoint-4"]


@pytest.mark.parametrize(
    ("options", "ways"),
    [
        ({}, "--micro-batch-size 2, --checkpointing, --precision bfloat16 or a"),
        ({"checkpointing": True, "precision": "bfloat16"}, "--micro-batch-size 2 or a"),
        ({"micro_batch_size": 1, "checkpointing": True}, "--precision bfloat16 or a"),
        ({"micro_batch_size": 1, "checkpointing": True, "precision": "bfloat16"}, "a"),
    ],
)
def test_a_gpu_that_is_full_gets_a_sentence_of_sizes(config, tmp_path, options, ways):
    """What torch raises then is raised here by hand: a processor's memory has no such error."""
    prepared = prepare(replace(config, **options))
    micro = prepared.config.micro_batch_size

    def full(_logits):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    prepared.model.classifier.register_forward_hook(AfterSteps(1, full))
    said = (
        f"hold micro_batch_size {micro}, of which {8 // micro} are accumulated .*; take {ways} --max-length below 64$"
    )
    with pytest.raises(MemoryError, match=said):
        run(prepared, tmp_path / "run", progress=False)
