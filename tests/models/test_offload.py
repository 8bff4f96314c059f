"""Models of which accelerate keeps a part elsewhere, on disk or in another memory, until it is called."""

import copy

import pytest
import torch
from accelerate import cpu_offload, disk_offload
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification

from mpo_tutorial.models.convert import decompose, decompress, freeze
from mpo_tutorial.models.layers import cached, mpo_layers
from mpo_tutorial.models.truncation import truncate

IDS = torch.tensor([[5, 9, 96, 1, 1], [7, 0, 3, 4, 8]])
DEVICES = {"bert.embeddings": "cpu", "bert.encoder": "disk", "bert.pooler": "cpu", "classifier": "cpu"}


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def by_device_map(model, folder):
    model.save_pretrained(folder / "model")
    return type(model).from_pretrained(folder / "model", device_map=DEVICES, offload_folder=folder / "offload")


def all_on_disk(model, folder):
    model.save_pretrained(folder / "model")
    devices = dict.fromkeys(DEVICES, "disk") | {"classifier": "cpu"}
    return type(model).from_pretrained(folder / "model", device_map=devices, offload_folder=folder / "offload")


def to_cpu(model, folder):
    return cpu_offload(copy.deepcopy(model), execution_device=torch.device("cpu"))


def to_disk(model, folder):
    model = copy.deepcopy(model)
    disk_offload(model, folder / "offload", execution_device=torch.device("cpu"))
    return model


@pytest.fixture
def make(tiny_config):
    def make(which=("attention", "feed-forward", "pooler"), auto=AutoModelForSequenceClassification, **options):
        torch.manual_seed(0)
        model = auto.from_config(tiny_config("bert", initializer_range=0.2))
        decompose(model, 3, which=which, **options)
        return model

    return make


offloads = pytest.mark.parametrize("offload", [by_device_map, all_on_disk, to_cpu, to_disk])


@pytest.mark.filterwarnings("ignore:Attempting to save a model with offloaded modules")  # it asks for memory
@offloads
@pytest.mark.parametrize("which", [("attention", "feed-forward", "pooler"), ("all",)])
def test_an_offloaded_model_computes_the_same_at_each_call(make, tmp_path, offload, which):
    model = make(which)
    expected = logits(model)
    offloaded = offload(model, tmp_path)
    assert any(p.is_meta for p in offloaded.parameters())
    for _ in range(2):
        assert torch.equal(logits(offloaded), expected)
    with cached(offloaded), cached(model):
        assert torch.equal(logits(offloaded), logits(model))
    if offload in (by_device_map, all_on_disk):
        offloaded.save_pretrained(tmp_path / "again")
        assert torch.equal(logits(type(model).from_pretrained(tmp_path / "again")), expected)
    assert offloaded.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("offload", [to_cpu, to_disk])
def test_a_tied_output_layer_computes_the_same_too(make, tmp_path, offload):
    model = make(("embedding",), AutoModelForMaskedLM)
    expected = logits(model)
    offloaded = offload(model, tmp_path)
    for _ in range(2):
        assert torch.equal(logits(offloaded), expected)


@offloads
def test_offloaded_cores_are_read_frozen_and_cut(make, tmp_path, offload):
    model = make(("all",))
    offloaded = offload(model, tmp_path)
    for layer, same in zip(mpo_layers(offloaded), mpo_layers(model), strict=True):
        assert torch.equal(layer.mpo.to_matrix(), same.mpo.to_matrix())
        assert torch.equal(layer.matrix(), same.matrix())
        assert layer.extra_repr() == same.extra_repr()
    freeze(offloaded)
    freeze(model)
    assert [p.requires_grad for p in offloaded.parameters()] == [p.requires_grad for p in model.parameters()]
    for each in (offloaded, model):
        truncate(each, max_bond=3)
    assert torch.equal(logits(offloaded), logits(model))


@offloads
def test_an_offloaded_model_is_not_converted(make, tmp_path, offload):
    for name, model in (("mpo", make()), ("dense", decompress(make()))):
        (tmp_path / name).mkdir()
        offloaded = offload(model, tmp_path / name)
        before = type(offloaded), [type(module) for module in offloaded.modules()]
        for convert in (decompose, decompress):
            with pytest.raises(ValueError, match=r"need a model in memory, \d+ tensors of this \w+ are offloaded"):
                convert(offloaded)
        assert (type(offloaded), [type(module) for module in offloaded.modules()]) == before
