import copy

import pytest
import torch
from torch import nn

from mpo_tutorial.layers import MPOLinear, cached
from mpo_tutorial.shapes import Shape

SHAPE = Shape((3, 2, 4), (2, 5, 2))


@pytest.fixture
def dense() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(24, 20).double()


@pytest.mark.parametrize("leading", [(), (7,), (2, 3)])
def test_layer_computes_what_the_dense_one_does(dense, leading):
    layer = MPOLinear.from_dense(dense, SHAPE)
    x = torch.randn(*leading, 24, dtype=torch.float64, requires_grad=True)
    x_dense = x.detach().clone().requires_grad_()
    out, expected = layer(x), dense(x_dense)
    torch.testing.assert_close(out, expected)
    out.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(x.grad, x_dense.grad)
    torch.testing.assert_close(layer.bias.grad, dense.bias.grad)


def test_gradients_of_the_cores_are_right(dense):
    layer = MPOLinear.from_dense(dense, SHAPE)
    x = torch.randn(5, 24, dtype=torch.float64)
    cores = tuple(layer.cores)

    def forward(*cores):
        return torch.func.functional_call(layer, {f"cores.{k}": core for k, core in enumerate(cores)}, (x,))

    assert torch.autograd.gradcheck(forward, cores)


def test_a_layer_without_bias(dense):
    layer = MPOLinear.from_dense(nn.Linear(24, 20, bias=False), SHAPE)
    assert layer.bias is None
    assert layer(torch.zeros(1, 24)).abs().max() == 0


def test_cached_gives_the_same_and_lets_go(dense):
    layer = MPOLinear.from_dense(dense, SHAPE)
    x = torch.randn(3, 24, dtype=torch.float64)
    with cached(layer):
        inside = layer(x)
        kept = layer._cached_matrix
    assert kept.shape == (24, 20)
    assert torch.equal(inside, layer(x))
    assert layer._cached_matrix is None
    with pytest.raises(RuntimeError, match="boom"), cached(layer):
        raise RuntimeError("boom")
    assert layer._cached_matrix is None


def test_copies_and_state_dicts_carry_the_cores(dense):
    layer = MPOLinear.from_dense(dense, SHAPE, max_bond=3)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.central.zero_()
    assert layer.central.abs().max() > 0
    other.load_state_dict(layer.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(layer.cores, other.cores, strict=True))


def test_the_dense_layer_is_not_changed(dense):
    before = dense.weight.detach().clone()
    layer = MPOLinear.from_dense(dense, SHAPE)
    with torch.no_grad():
        layer.bias.zero_()
    assert torch.equal(dense.weight, before)
    assert dense.bias.abs().max() > 0
