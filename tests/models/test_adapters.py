"""Adapters that transformers puts into a model itself, by PEFT."""

import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from mpo_tutorial.models.convert import decompose
from mpo_tutorial.models.loading import load

IDS = torch.tensor([[101, 3, 2045, 102], [101, 9, 8, 102]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.fixture
def base(tiny_model, tmp_path):
    """A compressed model's folder, and the model with an adapter on its head."""
    model, tokenizer = load(tiny_model, 2, seed=0)
    decompose(model)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    model.add_adapter(LoraConfig(target_modules=["classifier"], r=2))
    return tmp_path / "base", model


def files(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_adapters_alone_are_saved_and_come_back_on_their_base(base, tmp_path):
    folder, model = base
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.fill_(0.1)
    expected, before = logits(model), (folder / "config.json").read_bytes()
    assert not torch.equal(expected, logits(AutoModelForSequenceClassification.from_pretrained(folder)))
    for place in (tmp_path / "adapter", folder):
        model.save_pretrained(place)
        assert torch.equal(logits(AutoModelForSequenceClassification.from_pretrained(place)), expected)
    assert files(tmp_path / "adapter") == {"adapter_config.json", "adapter_model.safetensors"}
    assert (folder / "config.json").read_bytes() == before


def test_a_trainer_writes_its_checkpoint(base, tmp_path):
    _, model = base
    rows = Dataset.from_dict({"input_ids": IDS.tolist(), "labels": [0, 1]})
    how = TrainingArguments(
        tmp_path / "run", max_steps=1, save_steps=1, use_cpu=True, report_to="none", disable_tqdm=True
    )
    Trainer(model, how, train_dataset=rows).train()
    assert {"adapter_config.json", "adapter_model.safetensors"} <= files(tmp_path / "run/checkpoint-1")
