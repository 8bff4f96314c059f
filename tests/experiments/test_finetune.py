import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import warm
from transformers import AutoModelForSequenceClassification

from mpo_tutorial.course.demo import demo
from mpo_tutorial.experiments import compare, cuts, evaluation, finetune
from mpo_tutorial.experiments.checkpoint import load_task_file, stored_bytes
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.evaluation import logits, predict
from mpo_tutorial.experiments.finetune import prepare, run
from mpo_tutorial.experiments.records import locked
from mpo_tutorial.experiments.statistics import correct_sentences
from mpo_tutorial.experiments.tasks import Task, tokenise
from mpo_tutorial.models.layers import mpo_layers
from mpo_tutorial.models.loading import load


@pytest.fixture(scope="module")
def config(tiny_model, tiny_films) -> RunConfig:
    sizes = {"epochs": 10, "batch_size": 16, "micro_batch_size": 8}
    return RunConfig(model=tiny_model, task=str(tiny_films), learning_rate=1e-2, **sizes, device="cpu")


@pytest.fixture(scope="module")
def lit(config, tmp_path_factory) -> SimpleNamespace:
    """A light run, what its model was before and is now, its record and its folder, for the tests that look at them."""
    prepared = prepare(config)
    before = {name: p.detach().clone() for name, p in prepared.model.named_parameters()}
    out = tmp_path_factory.mktemp("lit") / "run"
    return SimpleNamespace(prepared=prepared, before=before, out=out, record=run(prepared, out, progress=False))


@pytest.fixture
def copied(lit, tmp_path) -> Path:
    """A copy of its folder, to do things to."""
    return shutil.copytree(lit.out, tmp_path / "run")


def without_seconds(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in ("seconds", "peak_memory_bytes")}


def test_light_run_learns_and_leaves_frozen_tensors_bit_identical(lit):
    prepared, before, record = lit.prepared, lit.before, lit.record
    assert record["validation"]["accuracy"] > 0.8
    moved = set()
    for name, p in prepared.model.named_parameters():
        if p.requires_grad:
            moved.add(not torch.equal(p, before[name]))
        else:
            assert torch.equal(p, before[name]), f"{name} is frozen and has changed"
    assert moved == {True}
    central = sum(layer.central.numel() for layer in mpo_layers(prepared.model))
    assert record["parameters"]["total"] - record["parameters"]["trained"] > central
    assert not (lit.out / "state").exists()


def test_record_says_what_was_run(config, lit):
    record = lit.record
    assert record == json.loads((lit.out / "record.json").read_text())
    assert record["config"] == lit.prepared.config.as_dict() == replace(config, pooling="pooler").as_dict()
    assert record["train_sentences"] == 104
    assert record["versions"]["torch"] == torch.__version__
    assert record["hardware"]["threads"] == torch.get_num_threads()
    assert correct_sentences(record["test"]).mean() == record["test"]["accuracy"]
    assert record["test"]["n"] == 40


def test_same_seed_same_result_other_seed_another(config, lit, tmp_path):
    again = run(prepare(config), tmp_path / "again", progress=False)
    assert without_seconds(lit.record) == without_seconds(again)
    weights = [(out / "task.safetensors").read_bytes() for out in (lit.out, tmp_path / "again")]
    assert weights[0] == weights[1]
    run(prepare(replace(config, seed=1)), tmp_path / "other", progress=False)
    assert (tmp_path / "other" / "task.safetensors").read_bytes() != weights[0]


def test_accumulated_gradients_are_those_of_the_whole_batch(config, tmp_path):
    """transformers 5.23 sums them for BERT, unless told that its loss takes no keywords.

    Biases of keys have no gradient but rounding, of which AdamW makes full steps: they are left out.
    """
    trained = []
    for micro in (16, 4):
        # No dropout, so that cutting the batch in pieces is the only difference.
        prepared = prepare(replace(config, rest="head", micro_batch_size=micro, train_size=96, epochs=1))
        for module in prepared.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        run(prepared, tmp_path / f"run{micro}", progress=False)
        trained.append([p.detach() for p in prepared.model.parameters() if p.requires_grad])
    for whole, accumulated in zip(*trained, strict=True):
        torch.testing.assert_close(whole, accumulated, atol=2e-4, rtol=1e-3)


def test_full_run_trains_everything(config, tmp_path):
    prepared = prepare(replace(config, method="full", epochs=1))
    before = [p.detach().clone() for p in prepared.model.parameters()]
    record = run(prepared, tmp_path / "run", progress=False)
    assert record["parameters"]["trained"] == record["parameters"]["total"]
    assert all(not torch.equal(p, old) for p, old in zip(prepared.model.parameters(), before, strict=True))
    assert prepared.ledger is None


def test_finished_run_is_read_not_repeated(config, lit, copied, monkeypatch):
    monkeypatch.setattr(finetune, "train", None)
    fresh = prepare(config)
    assert run(fresh, copied, resume=True, progress=False) == lit.record
    dataset = fresh.dataset("test")
    right = predict(fresh.model, dataset, fresh.tokenizer) == dataset["labels"]
    assert np.array_equal(right, correct_sentences(lit.record["test"]))


def test_resuming_with_other_options_is_refused(config, copied):
    with pytest.raises(ValueError, match=r"has epochs 10, not 7: give the same options"):
        run(prepare(replace(config, epochs=7)), copied, resume=True, progress=False)


def test_task_file_fits_its_base_alone(config, copied):
    prepared = prepare(config)
    path = copied / "task.safetensors"
    header = int.from_bytes(path.read_bytes()[:8], "little") + 8
    assert path.stat().st_size == stored_bytes(prepared.model) + header

    other = prepare(replace(config, bond=4))
    with pytest.raises(ValueError, match="belongs to the base"):
        load_task_file(other.model, other.base, path)
    fewer = prepare(config)
    fewer.model.classifier.requires_grad_(False)
    with pytest.raises(ValueError, match=r"these differ: classifier.bias, classifier.weight"):
        load_task_file(fewer.model, fewer.base, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="a whole safetensors file"):
        load_task_file(prepared.model, prepared.base, path)


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from torch import nn
from mpo_tutorial.experiments.checkpoint import save_task
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
save_task(nn.Linear(100, 100), "base", Path(sys.argv[1]))
"""


def test_a_full_disk_leaves_no_half_task_file(tmp_path):
    (tmp_path / "task.safetensors").write_bytes(b"earlier")
    done = warm.python("-c", FULL_DISK, tmp_path / "task.safetensors")
    assert "OSError: could not write" in done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"task.safetensors": b"earlier"}


def test_evaluation_keeps_the_order_of_the_sentences(config):
    prepared = prepare(config)
    dataset = prepared.dataset("test")
    together = logits(prepared.model, dataset, prepared.tokenizer)
    alone = [logits(prepared.model, dataset.select([k]), prepared.tokenizer)[0] for k in range(len(dataset))]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    middle = np.median(together[:, 1] - together[:, 0])
    prepared.model.classifier.bias.data[1] -= middle  # so that both answers are given
    predicted = predict(prepared.model, dataset, prepared.tokenizer)
    assert predicted.tolist() == [int(second - middle > first) for first, second in together]
    assert predicted.mean() == 0.5


def test_figures_are_read_in_half_precision_too(config):
    prepared = prepare(config)
    model, tokenizer = load(config.model, 1, seed=0)
    dataset = prepared.dataset("validation")
    single, half = (predict(model.to(dtype), dataset, tokenizer) for dtype in (torch.float32, torch.bfloat16))
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, single, atol=0.05)


def test_accuracies_need_classes(config, tmp_path):
    regression = replace(config, task="glue/stsb")
    for command in (
        lambda: demo(regression, tmp_path / "out"),
        lambda: compare.study(compare.TRIAL, regression),
        lambda: cuts.light_runs(regression, 1, tmp_path / "out"),
    ):
        with pytest.raises(ValueError, match="accuracies need a task with classes, glue/stsb asks for a figure"):
            command()
    assert not (tmp_path / "out").exists()


def test_a_folder_is_worked_in_by_one_run_at_a_time(config, tmp_path):
    with locked(tmp_path / "run"), pytest.raises(ValueError, match="one run at a time works in a folder"):
        run(prepare(config), tmp_path / "run", progress=False)


def test_divergence_is_named(config, tmp_path):
    prepared = prepare(config)
    with torch.no_grad():
        prepared.model.classifier.weight.fill_(float("inf"))
    with pytest.raises(
        ValueError, match=r"diverged at the learning rate 0\.01: the loss was nan at step 1; nothing is saved"
    ):
        run(prepared, tmp_path / "run", progress=False)


def test_asking_for_an_absent_gpu_is_refused(config):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(ValueError, match="device cuda needs an NVIDIA GPU"):
        prepare(replace(config, device="cuda"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "lira"}, "method is one of light, full, head, .*, lora, .*, got 'lira'"),
        ({"size": 3}, "light has no size, got 3; leave it out"),
        ({"method": "lora", "size": 0}, "size, the rank, is an integer from 1 to 256, got 0"),
        ({"method": "lora", "size": 2.5}, r"size, the rank, is an integer from 1 to 256, got 2\.5"),
        ({"method": "oft", "size": 3}, "size, the side of a block, is one of 2, 4, 8, 16, 32, 64, 128, got 3"),
        (
            {"method": "child-f", "size": 1.5},
            r"size, the share of the gradient, is a number from 0\.001 to 1, got 1\.5",
        ),
        ({"method": "child-d", "weight_decay": 0.1}, "weight_decay is 0 for child-d, because it would move what"),
        ({"rest": "none"}, "rest is one of head, norms, all"),
        ({"device": "tpu"}, "device is one of auto, cpu, cuda"),
        ({"bond": 0}, "bond is an integer of at least 1, got 0"),
        ({"cores": 1}, "cores is an integer of at least 2, got 1"),
        (
            {"cores": 65},
            "cores is at most 64, because more than a side .* only add legs of 1, got 65; take fewer, such as 5",
        ),
        ({"seed": -1}, "seed is an integer of at least 0, got -1"),
        ({"train_size": 1}, "train_size is an integer of at least 2"),
        ({"epochs": 1.5}, r"epochs is an integer of at least 1, got 1\.5"),
        ({"learning_rate": 0.0}, "learning_rate lies between 0 and 1"),
        ({"learning_rate": float("nan")}, "learning_rate lies between 0 and 1, got nan"),
        ({"batch_size": 20, "micro_batch_size": 16}, "multiple of micro_batch_size, got 20 and 16"),
    ],
)
def test_bad_configs_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RunConfig(**options)


@pytest.mark.parametrize(
    ("sentences", "batch_size", "epochs"),
    [
        (3200, 32, 2),
        (3199, 32, 2),
        (3168, 32, 3),
        (640, 32, 10),
        (321, 32, 19),
        (320, 32, 20),
        (40, 32, 20),
        (640, 16, 5),
    ],
)
def test_a_small_task_is_gone_through_more_often(sentences, batch_size, epochs):
    rows = [(f"film {i}", i % 2) for i in range(sentences)]
    task = Task("films", ("bad", "good"), {"train": rows})
    config = RunConfig(batch_size=batch_size)
    assert config.settled(task).epochs == epochs
    assert replace(config, epochs=1).settled(task).epochs == 1


def test_the_epochs_that_a_run_had_are_in_its_record_and_may_be_left_out_again(config, tmp_path):
    config = replace(config, epochs=None, train_size=96)  # of 6 steps an epoch
    record = run(prepare(config), tmp_path / "run", progress=False, splits=("validation",))
    assert record["config"]["epochs"] == 20
    again = run(prepare(config), tmp_path / "run", resume=True, progress=False, splits=("validation",))
    assert again["date"] == record["date"]
    assert again["seconds"] == record["seconds"]


def test_paths_of_a_run_are_its_own(config, tmp_path):
    run(prepare(config), Path(tmp_path / "run"), progress=False, keep_weights=False, splits=("validation",))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == [".lock", "record.json"]


@pytest.mark.parametrize(
    ("family", "most"), [("bert", 32), ("roberta", 30), ("distilbert", 32)]
)  # RoBERTa counts from 2
def test_texts_longer_than_the_models_positions_are_refused(config, tiny_config, tmp_path, family, most):
    folder = shutil.copytree(config.model, tmp_path / "model")
    small = tiny_config(family, vocab_size=30522)
    AutoModelForSequenceClassification.from_config(small).save_pretrained(folder)
    config = replace(config, model=str(folder), max_length=most + 1)
    with pytest.raises(
        ValueError, match=f"has positions for {most} tokens, max_length is {most + 1}; take --max-length"
    ):
        prepare(config)
    prepared = prepare(replace(config, max_length=most))
    for function in (finetune.finetune, evaluation.evaluate):
        with pytest.raises(
            ValueError, match=f"has positions for {most} tokens, max_length is {most + 1}; take --max-len"
        ):
            function(prepared.model, prepared.tokenizer, config.task, max_length=most + 1)
    dataset = tokenise([("good " * 40, 0)] * 2, prepared.tokenizer, most)
    assert len(dataset[0]["input_ids"]) == most
    assert predict(prepared.model, dataset, prepared.tokenizer).shape == (2,)
