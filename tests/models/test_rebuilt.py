"""Matrices rebuilt once for a step give the gradients that rebuilding for each micro-batch gives."""

import copy

import pytest
import torch
from conftest import TINY
from transformers import AutoModelForSequenceClassification

from mpo_tutorial.models.convert import decompose, decompress, freeze
from mpo_tutorial.models.layers import MPOEmbedding, MPOLinear, Rebuilt, mpo_layers

BATCHES = [
    (torch.tensor([[5, 9, 96, 7, 12], [7, 8, 3, 1, 1]]), torch.tensor([0, 1])),
    (torch.tensor([[11, 9, 6], [70, 80, 3]]), torch.tensor([1, 1])),
]


@pytest.fixture
def make(tiny_config):
    def make(model_type="bert", matrices="attention, feed-forward, pooler", n_cores=5, gauge="centred", **options):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(tiny_config(model_type)).eval()
        decompose(model, n_cores, matrices=matrices, gauge=gauge)
        freeze(model, **options)
        return model

    return make


def backward(model) -> None:
    for ids, labels in BATCHES:
        model(ids, labels=labels).loss.backward()


def gradients(model) -> dict[str, torch.Tensor | None]:
    return {name: None if p.grad is None else p.grad.double() for name, p in model.named_parameters()}


@pytest.mark.parametrize("model_type", TINY)
@pytest.mark.parametrize(
    ("matrices", "options"),
    [
        ("attention, feed-forward, pooler", {}),
        ("all", {"rest": "all"}),
        ("attention", {"rest": "norms", "blocks": "left"}),
        ("attention, feed-forward", {"n_cores": 4, "gauge": "tt-svd"}),
        ("feed-forward", {"gauge": "amb", "blocks": "right"}),
    ],
)
def test_gradients_of_two_micro_batches_are_those_of_plain_autograd(make, model_type, matrices, options):
    plain = make(model_type, matrices, **options)
    model = copy.deepcopy(plain)
    backward(plain)
    rebuilt = Rebuilt(model)
    backward(model)
    linear = [layer for layer in mpo_layers(model) if isinstance(layer, MPOLinear)]
    assert all(core.grad is None for layer in linear for core in layer.cores)
    rebuilt.backward()
    found, expected = gradients(model), gradients(plain)
    assert any(".cores." in name and gradient is not None for name, gradient in found.items())
    for name, gradient in expected.items():
        if gradient is None:
            # A layer that no sentence reaches has no gradient; side by side with others it has one of 0.
            assert found[name] is None or not found[name].any(), name
        else:
            torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-5)


def test_the_losses_are_the_same_and_gradients_add_up_over_steps(make):
    plain = make()
    model = copy.deepcopy(plain)
    for _ in range(2):
        backward(plain)
        rebuilt = Rebuilt(model)
        for ids, labels in BATCHES:
            torch.testing.assert_close(model(ids, labels=labels).loss, plain(ids, labels=labels).loss)
        backward(model)
        rebuilt.backward()
    for (name, found), expected in zip(gradients(model).items(), gradients(plain).values(), strict=True):
        if expected is not None:
            torch.testing.assert_close(
                found, expected, atol=2e-6, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
            )


def test_matrices_are_rebuilt_anew_after_a_step(make):
    model = make()
    rebuilt = Rebuilt(model)
    backward(model)
    rebuilt.backward()
    layer = mpo_layers(model)[0]
    before = layer.matrix().detach()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1).step()
    torch.testing.assert_close(layer.matrix(), layer.mpo.to_matrix())
    assert not torch.equal(layer.matrix(), before)


def test_a_step_that_is_broken_off_leaves_no_matrix_behind(make):
    model = make()
    rebuilt = Rebuilt(model)
    ids, labels = BATCHES[0]
    model(ids, labels=labels).loss.backward()
    with pytest.raises(IndexError):
        model(ids + 97, labels=labels)
    rebuilt.forget()
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(1.5)
        expected = copy.deepcopy(model)(ids).logits
        assert torch.equal(model(ids).logits, expected)
    layer = mpo_layers(model)[0]
    torch.testing.assert_close(layer.matrix(), layer.mpo.to_matrix())


def test_what_is_frozen_gets_no_gradient(make):
    model = make()
    for layer in mpo_layers(model):
        layer.requires_grad_(False)
    rebuilt = Rebuilt(model)
    assert not any(layer.matrix().requires_grad for layer in mpo_layers(model))
    backward(model)
    rebuilt.backward()
    assert all(core.grad is None for layer in mpo_layers(model) for core in layer.cores)
    assert model.classifier.weight.grad is not None


def test_a_table_is_not_rebuilt(make):
    model = make(matrices="all")
    rebuilt = Rebuilt(model)
    table = model.get_input_embeddings()
    assert isinstance(table, MPOEmbedding)
    assert table._cached_matrix is None
    assert all((layer._cached_matrix is None) == (layer is table) for layer in mpo_layers(model))
    rebuilt.forget()
    assert all(layer._cached_matrix is None for layer in mpo_layers(model))


def test_gradients_of_matrices_are_those_of_the_dense_layers_laid_out_alike(make):
    model = make()
    dense = decompress(model)
    rebuilt = Rebuilt(model)
    assert rebuilt.gradients == []
    backward(model)
    backward(dense)
    found = {id(layer): gradient for layer, gradient in zip(rebuilt.layers, rebuilt.gradients, strict=True)}
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, MPOLinear)]
    assert len(layers) == len(found)
    for name, layer in layers:
        expected = dense.get_submodule(name).weight.grad.T
        torch.testing.assert_close(found[id(layer)], expected, atol=1e-6, rtol=1e-4)
        assert found[id(layer)].stride() == layer.matrix().stride() == expected.stride()
