from dataclasses import replace

import numpy as np
import pytest
import torch

from mpo_tutorial.course import tables
from mpo_tutorial.experiments import compare, forms, network_study, watch
from mpo_tutorial.experiments import study as engine
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare, run
from mpo_tutorial.experiments.network_study import CHAIN, DECOMPOSED, DENSE, NETWORKS, entropies
from mpo_tutorial.experiments.tasks import load_task
from mpo_tutorial.maths.entropy import entropy, schmidt_values
from mpo_tutorial.models.networks import fc2_layers, network

BASE = {"task": "digits", "method": "full", "batch_size": 32, "micro_batch_size": 32, "epochs": 1, "train_size": 128}


def setting(name: str) -> dict:
    variant = NETWORKS.variants[name]
    options = {**variant.options, "task": variant.options["task"].replace("fashion_mnist", "digits")}
    config = RunConfig(**{**BASE, **options}, learning_rate=variant.rates[1])
    return {"variant": name, "config": config.as_dict(), "splits": ["validation", "test"]}


@pytest.mark.parametrize("name", [CHAIN, DECOMPOSED, "FC2, CP", f"{CHAIN}, pixels shuffled", "LeNet-5, MPO"])
def test_a_network_is_trained_and_its_entropies_move(name):
    wanted = setting(name)
    result = network_study.measure("cpu", wanted)
    forms.require(result, name, network_study.form(wanted), "")
    found = result["entropies"]
    assert len(found["before"]) == len(found["after"]) == 3
    assert found["before"] != found["after"]
    if name in (CHAIN, DECOMPOSED):
        assert result["parameters"]["trained"] == result["parameters"]["total"] == 15_584 + 256 + 10


def test_a_decomposed_network_begins_where_the_dense_one_ended(monkeypatch):
    """With next to no rate it knows what the dense one has learnt, as far as the cut has left it."""
    long = {"epochs": 12, "train_size": None}
    wanted = setting(DECOMPOSED)
    wanted["config"] = {**wanted["config"], **long, "learning_rate": 1e-9}
    monkeypatch.setattr(network_study, "EPOCHS", 12)
    fresh = setting(CHAIN)
    fresh["config"] = {**fresh["config"], "learning_rate": 1e-9}
    assert (
        network_study.measure("cpu", fresh)["test"]["accuracy"]
        < 0.4
        < 0.7
        < network_study.measure("cpu", wanted)["test"]["accuracy"]
    )


def test_entropies_are_those_of_the_matrix():
    torch.manual_seed(0)
    model = network("fc2-mpo-4")
    matrix, shape = model.head[1].mpo.to_matrix(), fc2_layers(4)[0].shape
    assert entropies(model) == pytest.approx(
        [entropy(schmidt_values(matrix, shape, cut)) for cut in (1, 2, 3)], rel=1e-4
    )
    assert entropies(network("fc2")) is None


def test_chains_stand_beside_formats_of_as_many_numbers_and_the_dense_network():
    assert NETWORKS.primary == (CHAIN, DENSE)
    assert (NETWORKS.margin, NETWORKS.tuned_for, NETWORKS.moves, len(NETWORKS.tuning_seeds)) == (0.01, 0.5, 6, 3)
    for name, variant in NETWORKS.variants.items():
        if variant.rate_of is None:
            low, middle, high = variant.rates
            assert (2 * low, 2 * middle) == (middle, high)
        assert variant.seeds == 5
        assert variant.beside in NETWORKS.variants
        network(variant.options["model"])  # each has a name that is known
        assert variant.options["task"].startswith("fashion_mnist"), name
    models = {name: NETWORKS.variants[name].options["model"] for name in ("FC2, SVD", "FC2, CP", "FC2, Tucker")}
    room = fc2_layers(16)[0].n_params
    for model in models.values():
        own = sum(p.numel() for name, p in network(model).head[1].named_parameters() if "parametrizations" in name)
        assert 0.97 * room < own <= room


def test_a_study_of_digits_can_be_resumed_and_told(tmp_path, monkeypatch):
    short = {name: replace(NETWORKS.variants[name], seeds=2) for name in (CHAIN, DENSE)}
    for variant in short.values():
        variant.options["task"] = "digits"
    monkeypatch.setattr(network_study, "FASHION", "digits")
    comparison = replace(NETWORKS, variants=short, tuning_seeds=(100,), moves=0)
    monkeypatch.setattr(network_study, "NETWORKS", comparison)
    made = network_study.study(RunConfig(train_size=64))
    points = engine.run(made, tmp_path)
    assert engine.run(made, tmp_path, resume=True) == points
    assert {point["setting"]["variant"] for point in points} == {CHAIN, DENSE, "guessing", "logistic probe"}
    summary = compare.summarise(points, comparison)
    rows = tables.cells_of_comparison(summary)
    assert [row[0] for row in rows] == [CHAIN, DENSE, "guessing", "logistic probe"]
    decided, how = tables.sentences_of_comparison(summary, comparison)
    assert "(449 images)" in decided
    assert how.startswith("64 training images of digits")
    probe = summary["variants"]["logistic probe"]["test"]["mean"]
    assert summary["variants"]["guessing"]["test"]["mean"] < 0.2 < 0.6 < probe


def test_a_killed_run_of_a_network_ends_as_one_that_was_not(tmp_path):
    config = RunConfig(**{**BASE, "epochs": 14}, model="fc2-mpo-4", learning_rate=4e-3)
    whole = run(prepare(config), tmp_path / "whole", progress=False)
    original = watch.Watch.on_step_end

    def die(self, args, state, control, **kwargs):
        if state.global_step == 53:
            raise ZeroDivisionError
        return original(self, args, state, control, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watch.Watch, "on_step_end", die)
        with pytest.raises(ZeroDivisionError):
            run(prepare(config), tmp_path / "stopped", progress=False)
    again = run(prepare(config), tmp_path / "stopped", resume=True, progress=False)
    assert again["test"] == whole["test"]
    first, second = ((tmp_path / name / "task.safetensors").read_bytes() for name in ("whole", "stopped"))
    assert first == second


@pytest.mark.parametrize(
    "config, word",
    [
        ({"model": "fc2", "task": "rotten_tomatoes"}, "fc2 tells 10 classes of images apart, 2 classes are asked for"),
        ({"model": "minilm", "task": "digits"}, "the model reads sentences, the task has images; take --model fc2"),
        ({"model": "fc2-mpo", "task": "digits"}, "unknown model|hub"),
        (
            {"model": "densenet-12", "task": "digits"},
            "the network reads images of 3 x 32 x 32, channels first, the task has 784 numbers an image; take --task cifar10",
        ),
    ],
)
def test_sentences_and_images_are_not_mixed(config, word):
    config = RunConfig(**{**BASE, "task": config["task"]}, model=config["model"], learning_rate=1e-3)
    with pytest.raises((ValueError, ConnectionError), match=word):
        prepare(config).dataset("train")


def test_splits_of_images_are_the_same_in_every_order():
    plain, shuffled = load_task("digits"), load_task("digits, shuffled")
    for split, rows in plain.splits.items():
        others = shuffled.splits[split]
        assert [label for _, label in rows] == [label for _, label in others]
        ours, theirs = (np.frombuffer(of[0][0], dtype=np.uint8) for of in (rows, others))
        assert sorted(ours) == sorted(theirs)
        assert (ours != theirs).any()
    everything = [pixels for rows in plain.splits.values() for pixels, _ in rows]
    assert len(everything) == len(set(everything))


def test_a_network_in_memory_is_trained_whole(tmp_path):
    import mpo_tutorial as mt

    model, pixels = mt.load("fc2-mpo-4", n_labels=10)
    before = [core.clone() for core in model.head[1].cores]
    record = mt.finetune(
        model, pixels, "digits", epochs=1, train_size=64, learning_rate=4e-3, progress=False, out=tmp_path
    )
    assert record["config"]["model"] == "fc2-mpo-4"
    assert record["config"]["method"] == "full"
    assert (
        record["parameters"]["trained"] == record["parameters"]["total"] == sum(p.numel() for p in model.parameters())
    )
    assert all((core != old).any() for core, old in zip(model.head[1].cores, before, strict=True))
