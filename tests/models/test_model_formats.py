import pytest
import torch

from mpo_tutorial.maths.formats import FORMATS, in_format
from mpo_tutorial.models.convert import decompose
from mpo_tutorial.models.families import mpo_matrices
from mpo_tutorial.models.formats import put_networks, share_layers
from mpo_tutorial.models.loading import load


@pytest.fixture
def model(tiny_model):
    model, _ = load(tiny_model)
    return model.eval()


IDS = torch.tensor([[2, 7, 9, 3], [2, 11, 5, 3]])


@pytest.mark.parametrize("name", [name for name in FORMATS if "16" not in name])
def test_a_model_computes_with_the_networks_matrices_and_trains_their_factors(model, name):
    decompose(model)
    layers = mpo_matrices(model)
    matrices = {of: layer.mpo.to_matrix() for of, layer in layers.items()}
    networks = {of: in_format(name, matrix, matrix.numel() // 2) for of, matrix in matrices.items()}
    other = load(model.name_or_path)[0].eval()
    with torch.no_grad():
        for of, network in networks.items():
            other.get_submodule(of).weight.copy_(network.to_matrix().T)
    biases = {of: layer.bias.clone() for of, layer in layers.items()}
    put_networks(model, networks)
    assert torch.allclose(model(IDS).logits, other(IDS).logits, atol=1e-5)
    model(IDS).logits.sum().backward()
    for of, network in networks.items():
        layer = model.get_submodule(of)
        factors = dict(layer.parametrizations.weight.named_parameters())
        assert [f.shape for f in factors.values()] == [f.shape for f in network.factors]
        assert torch.equal(layer.bias, biases[of])
        if "pooler" not in of:
            assert all(f.grad.abs().max() > 0 for f in factors.values()), of


def test_whom_networks_do_not_fit_is_named(model):
    network = in_format("SVD", torch.ones(24, 24), 200)
    name = "bert.encoder.layer.0.attention.self.query"
    with pytest.raises(ValueError, match=f"MPOLinear layers, {name} is a Linear"):
        put_networks(model, {name: network})
    decompose(model)
    with pytest.raises(ValueError, match=r"intermediate.dense has the size \(24, 60\), the network \(24, 24\)"):
        put_networks(model, {"bert.encoder.layer.0.intermediate.dense": network})


def test_layers_of_a_group_are_the_first_of_it(model):
    first, second = model.bert.encoder.layer
    before = model(IDS).logits
    share_layers(model, 2)
    assert [*model.bert.encoder.layer] == [first, second]
    assert torch.equal(model(IDS).logits, before)
    share_layers(model, 1)
    assert [*model.bert.encoder.layer] == [first, first]
    assert not torch.allclose(model(IDS).logits, before)
    other = load(model.name_or_path)[0].eval()
    other.bert.encoder.layer[1].load_state_dict(other.bert.encoder.layer[0].state_dict())
    assert torch.equal(model(IDS).logits, other(IDS).logits)


@pytest.mark.parametrize("groups", [0, 3])
def test_groups_that_do_not_divide_the_layers_are_refused(model, groups):
    with pytest.raises(ValueError, match=f"groups divide the 2 layers, got {groups}"):
        share_layers(model, groups)


def test_a_model_of_one_layer_has_none_to_share(model):
    model.bert.encoder.layer = model.bert.encoder.layer[:1]
    with pytest.raises(ValueError, match="BertForSequenceClassification has no list of layers"):
        share_layers(model, 1)
