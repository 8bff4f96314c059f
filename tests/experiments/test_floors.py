from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import TINY
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from mpo_tutorial.experiments import compare, floors, records, study
from mpo_tutorial.experiments.compare import TRIAL, Variant, summarise
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.evaluation import vectors
from mpo_tutorial.experiments.finetune import prepare
from mpo_tutorial.experiments.light import LIGHT
from mpo_tutorial.experiments.statistics import correct_sentences
from mpo_tutorial.models.sources import model_path


@pytest.fixture
def prepared(tiny_model, tiny_task):
    config = RunConfig(model=tiny_model, task=tiny_task, method="head", pooling="mean", train_size=96, device="cpu")
    return prepare(config)


def test_guessing_says_what_most_training_sentences_are(prepared):
    rows = prepared.task.splits["train"]
    most = [row for row in rows if row[1] == 1][:20] + [row for row in rows if row[1] == 0][:9]
    prepared.task.splits["train"] = most
    prepared = replace(prepared, config=replace(prepared.config, train_size=None))
    found = floors.measure(prepared, "guessing", ["test"], ["validation"])
    labels = np.array([label for _, label in prepared.task.splits["test"]])
    assert np.array_equal(correct_sentences(found["test"]), labels == 1)
    assert found["parameters"]["trained"] == found["stored_bytes"] == 0


def test_the_probe_is_a_logistic_regression_on_what_the_head_would_read(prepared):
    """Vectors by hand: the mean over a sentence's tokens, one sentence at a time."""

    def vectors(split: str) -> np.ndarray:
        rows = prepared.task.train(96) if split == "train" else prepared.task.splits[split]
        encoder = prepared.model.eval().base_model
        with torch.inference_mode():
            states = [encoder(**prepared.tokenizer(text, return_tensors="pt")).last_hidden_state for text, _ in rows]
        return torch.stack([state[0].mean(0) for state in states]).numpy()

    train, test, validation = (vectors(split) for split in ("train", "test", "validation"))
    labels = {split: np.array(prepared.dataset(split)["labels"]) for split in ("train", "test", "validation")}
    found = floors.measure(prepared, "logistic probe", ["test"], ["validation"])
    mean, spread = train.mean(0), train.std(0)
    accuracies = {}
    for strength in floors.STRENGTHS:
        probe = LogisticRegression(C=strength, max_iter=5000).fit((train - mean) / spread, labels["train"])
        right = probe.predict((validation - mean) / spread) == labels["validation"]
        accuracies[strength] = (right.mean(), probe.predict((test - mean) / spread) == labels["test"])
    best = max(accuracies, key=lambda strength: accuracies[strength][0])
    assert found["strength"] == best
    assert np.mean(correct_sentences(found["test"]) == accuracies[best][1]) > 0.97  # the same to rounding
    assert found["parameters"]["trained"] == 24 + 1
    assert found["stored_bytes"] == 4 * 25


@pytest.mark.parametrize("pooling", ["first", "mean"])
@pytest.mark.parametrize("family", TINY)
def test_every_family_has_its_probe(tiny_config, tiny_task, tmp_path, family, pooling):
    """RoBERTa's and DistilBERT's heads have random layers of their own, which a probe on the pretrained model leaves out."""
    config = tiny_config(family, vocab_size=30522)
    AutoModel.from_config(config).save_pretrained(tmp_path / family)
    AutoTokenizer.from_pretrained(model_path("minilm")).save_pretrained(tmp_path / family)
    options = {"task": tiny_task, "method": "head", "pooling": pooling, "max_length": 20, "device": "cpu"}
    prepared = prepare(RunConfig(model=str(tmp_path / family), **options))
    dataset = prepared.dataset("test")
    found = vectors(prepared.model, dataset, prepared.tokenizer)
    encoder = AutoModel.from_pretrained(tmp_path / family).eval()
    for row, vector in zip(dataset, found, strict=True):
        sentence = {name: torch.tensor([row[name]]) for name in ("input_ids", "attention_mask")}
        with torch.inference_mode():
            (states,) = encoder(**sentence).last_hidden_state
        expected = states[0] if pooling == "first" else states.mean(0)
        np.testing.assert_allclose(vector, expected.numpy(), atol=1e-4)
    assert floors.measure(prepared, "logistic probe", ["test"], ["validation"])["test"]["n"] == len(dataset)


def test_every_comparison_has_its_floors(tiny_model, tiny_task, tmp_path):
    small = replace(TRIAL, variants={"light": Variant((5e-3,), {}, 1), "full": Variant((3e-3,), {"method": "full"}, 2)})
    base = RunConfig(model=tiny_model, task=tiny_task, train_size=32, epochs=1, device="cpu")
    points = study.run(compare.study(small, base), tmp_path / "out", progress=False)
    summary = summarise(points, small)
    assert [*summary["variants"]] == ["light", "full", "guessing", "logistic probe"]
    assert [*summary["final"]] == ["light", "full"]
    for name in ("guessing", "logistic probe"):
        row = summary["variants"][name]
        full = [p["result"]["test"]["accuracy"] for p in summary["final"]["full"]]
        differences = row["test"]["mean"] - np.array(full)
        assert row["minus_beside"]["mean"] == pytest.approx(differences.mean())
        assert row["minus_beside"]["seeds"] == 2
        assert (row["test"]["interval"], row["rate"]) == (None, None)


def test_methods_of_the_record_beat_its_floors():
    rows = summarise(records.shipped_points("light"), LIGHT)["variants"]
    probe, guess = (rows[name]["test"]["mean"] for name in ("logistic probe", "guessing"))
    assert guess == 0.5
    assert probe > 0.6
    for name in ("light", "full", "BitFit", "random subspace", "random mask"):
        assert rows[name]["test"]["interval"][0] > probe, name
