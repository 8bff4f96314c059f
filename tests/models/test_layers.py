import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS, bonds, shapes
from torch import nn

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape, balanced_shape, paper_shape
from mpo_tutorial.models.layers import MPOEmbedding, MPOLinear, Rebuilt, cached

SHAPE = Shape((3, 2, 4), (2, 5, 2))


@pytest.fixture
def dense() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(24, 20).double()


@pytest.fixture
def table() -> nn.Embedding:
    torch.manual_seed(0)
    return nn.Embedding(24, 20, padding_idx=3).double()


def forward_and_gradients(layer, x):
    layer.zero_grad()
    out = layer(x)
    (out * torch.arange(out.numel()).view_as(out)).sum().backward()
    return out.detach()


@given(data=st.data(), shape=shapes(), seed=SEEDS, leading=st.lists(st.integers(1, 3), max_size=2), bias=st.booleans())
def test_linear_computes_what_the_dense_layer_does(data, shape, seed, leading, bias):
    """In value and in every gradient; of the cores, by the chain rule from the gradient of the dense weight."""
    torch.manual_seed(seed)
    linear = nn.Linear(shape.in_size, shape.out_size, bias=bias).double()
    layer = MPOLinear.from_dense(linear, shape, data.draw(bonds(shape)))
    same = layer.to_dense()
    x = torch.randn(*leading, shape.in_size, dtype=torch.float64, requires_grad=True)
    x_same = x.detach().clone().requires_grad_()
    out, expected = forward_and_gradients(layer, x), forward_and_gradients(same, x_same)
    torch.testing.assert_close(out, expected)
    torch.testing.assert_close(x.grad, x_same.grad)
    if bias:
        torch.testing.assert_close(layer.bias.grad, same.bias.grad)
    assert (layer.bias is None) == (not bias)
    through_the_matrix = torch.autograd.grad(layer.matrix(), list(layer.cores), same.weight.grad.T)
    for core, expected_gradient in zip(layer.cores, through_the_matrix, strict=True):
        torch.testing.assert_close(core.grad, expected_gradient)


@given(data=st.data(), shape=shapes(), seed=SEEDS, size=st.lists(st.integers(0, 4), max_size=2))
def test_embedding_computes_what_the_dense_table_does(data, shape, seed, size):
    torch.manual_seed(seed)
    padding_idx = data.draw(st.none() | st.integers(0, shape.in_size - 1))
    dense = nn.Embedding(shape.in_size, shape.out_size, padding_idx=padding_idx).double()
    layer = MPOEmbedding.from_dense(dense, shape, data.draw(bonds(shape)))
    same = layer.to_dense()
    assert same.padding_idx == layer.padding_idx == padding_idx
    ids = torch.randint(0, shape.in_size, size)
    before = ids.clone()
    torch.testing.assert_close(forward_and_gradients(layer, ids), forward_and_gradients(same, ids))
    through_the_matrix = torch.autograd.grad(layer.matrix(), list(layer.cores), same.weight.grad)
    for core, expected in zip(layer.cores, through_the_matrix, strict=True):
        torch.testing.assert_close(core.grad, expected)
    assert torch.equal(ids, before)


@pytest.mark.parametrize("kind", [MPOLinear, MPOEmbedding])
def test_gradients_of_the_cores_are_right(dense, table, kind):
    if kind is MPOLinear:
        layer, x = MPOLinear.from_dense(dense, SHAPE), torch.randn(5, 24, dtype=torch.float64)
    else:
        layer, x = MPOEmbedding.from_dense(table, SHAPE), torch.tensor([[0, 23, 7], [7, 1, 2]])

    def forward(*cores):
        return torch.func.functional_call(layer, {f"cores.{k}": core for k, core in enumerate(cores)}, (x,))

    assert torch.autograd.gradcheck(forward, tuple(layer.cores))


def test_a_frozen_centre_gets_no_gradient_and_the_others_the_same(dense):
    layer = MPOLinear.from_dense(dense, SHAPE)
    x = torch.randn(5, 24, dtype=torch.float64)
    forward_and_gradients(layer, x)
    expected = [core.grad.clone() for core in layer.cores]
    layer.central.requires_grad_(False)
    layer.central.grad = None
    forward_and_gradients(layer, x)
    assert layer.central.grad is None
    for k in (0, 2):
        torch.testing.assert_close(layer.cores[k].grad, expected[k])


@pytest.mark.parametrize("kind", [MPOLinear, MPOEmbedding])
def test_cached_gives_the_same_and_lets_go(dense, table, kind):
    layer = kind.from_dense(dense if kind is MPOLinear else table, SHAPE)
    x = torch.randn(3, 24, dtype=torch.float64) if kind is MPOLinear else torch.tensor([1, 5, 5])
    with cached(layer):
        inside = layer(x)
        kept = layer._cached_matrix
    assert kept.shape == (24, 20)
    torch.testing.assert_close(inside, layer(x))
    assert layer._cached_matrix is None
    with pytest.raises(RuntimeError, match="boom"), cached(layer):
        raise RuntimeError("boom")
    assert layer._cached_matrix is None


def test_an_inner_cache_leaves_the_outer_one(dense):
    layer = MPOLinear.from_dense(dense, SHAPE)
    with cached(layer):
        with cached(layer):
            pass
        assert layer._cached_matrix is not None
    assert layer._cached_matrix is None


@pytest.mark.parametrize("kind", [MPOLinear, MPOEmbedding])
def test_copies_and_state_dicts_carry_the_cores(dense, table, kind):
    layer = kind.from_dense(dense if kind is MPOLinear else table, SHAPE, max_bond=3)
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.central.zero_()
    assert layer.central.abs().max() > 0
    other.load_state_dict(layer.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(layer.cores, other.cores, strict=True))


def test_the_dense_layer_is_not_changed(dense, table):
    before = dense.weight.detach().clone(), table.weight.detach().clone()
    layer, embedding = MPOLinear.from_dense(dense, SHAPE), MPOEmbedding.from_dense(table, SHAPE)
    with torch.no_grad():
        layer.bias.zero_()
        layer.to_dense().weight.zero_()
        embedding.to_dense().weight.zero_()
    assert torch.equal(dense.weight, before[0])
    assert torch.equal(table.weight, before[1])
    assert dense.bias.abs().max() > 0
    assert layer.matrix().abs().max() > 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_in_other_precisions(dense, table, dtype):
    rounding = 10 * torch.finfo(dtype).eps
    x, ids = torch.randn(7, 24, dtype=dtype), torch.arange(24)
    linear, embedding = dense.to(dtype), table.to(dtype)
    for layer in (MPOLinear.from_dense(linear, SHAPE), MPOLinear.from_dense(linear.double(), SHAPE).to(dtype)):
        out = layer(x)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), dense.double()(x.double()), atol=rounding, rtol=rounding)
    out = MPOEmbedding.from_dense(embedding, SHAPE)(ids)
    assert out.dtype == dtype
    torch.testing.assert_close(out.double(), table.double()(ids), atol=4 * rounding, rtol=4 * rounding)


def test_autocast_rounds_as_it_does_for_dense_layers(dense, table):
    dense, table = dense.float(), table.float()
    layer, embedding = MPOLinear.from_dense(dense, SHAPE), MPOEmbedding.from_dense(table, SHAPE)
    x, ids = torch.randn(7, 24), torch.arange(24)
    with torch.autocast("cpu", torch.bfloat16):
        out, expected = layer(x), dense(x)
        rows = embedding(ids)
        out.sum().backward()
    assert out.dtype == expected.dtype == torch.bfloat16
    assert layer.central.grad.dtype == torch.float32
    torch.testing.assert_close(out, expected, atol=0.05, rtol=0.05)
    assert rows.dtype == torch.float32
    torch.testing.assert_close(rows, table(ids), atol=1e-5, rtol=1e-5)


def test_the_linear_layer_compiles_in_one_piece(dense):
    """With the tracing of `torch.compile`, without its C++ code generation, which needs a compiler."""
    layer = MPOLinear.from_dense(dense, SHAPE)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(5, 24, dtype=torch.float64)
    torch.testing.assert_close(compiled(x), layer(x))
    compiled(x).sum().backward()
    assert layer.cores[0].grad is not None
    for rows in (7, 9, 2000):
        x = torch.randn(rows, 24, dtype=torch.float64)
        torch.testing.assert_close(compiled(x), layer(x))


def test_a_chained_layer_compiles_too():
    torch.manual_seed(0)
    layer = MPOLinear.random(CHAINED, 1).double()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert layer.route_of_all()
    for rows in (5, 7, 9):
        x = torch.randn(rows, 4096, dtype=torch.float64)
        torch.testing.assert_close(compiled(x), layer(x))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch hides its own
def test_the_embedding_compiles_around_its_lookup(table):
    layer = MPOEmbedding.from_dense(table, SHAPE)
    compiled = torch.compile(layer, backend="aot_eager")
    ids = torch.tensor([3, 1, 23])
    torch.testing.assert_close(compiled(ids), layer(ids))


@pytest.mark.filterwarnings("ignore:`torch.jit.* is deprecated")
def test_the_embedding_says_what_to_do_for_an_export(table):
    layer, ids = MPOEmbedding.from_dense(table, SHAPE), torch.tensor([3, 1, 23])
    for export in (torch.export.export, torch.jit.trace):
        with pytest.raises(NotImplementedError, match=r"cannot be exported, .*; export what decompress returns"):
            export(layer, (ids,))
    with cached(layer):
        torch.testing.assert_close(torch.export.export(layer, (ids,)).module()(ids), table(ids))


@pytest.mark.parametrize("max_bond", [None, 3])
def test_new_layers_spread_as_new_dense_ones_do(max_bond):
    """Variance 1 / (3 in) of nn.Linear, 1 of nn.Embedding, within four standard errors over new layers."""
    shape = Shape((2, 3, 2), (2, 2, 3), (1, 0))
    torch.manual_seed(0)
    for new, dense in (
        (lambda: MPOLinear.random(shape, max_bond).matrix(), lambda: nn.Linear(11, 12).weight),
        (lambda: MPOEmbedding.random(shape, max_bond).matrix(), lambda: nn.Embedding(11, 12).weight),
    ):
        squares = [new().detach().square().mean().item() for _ in range(600)]
        expected = np.mean([dense().detach().square().mean().item() for _ in range(600)])
        assert abs(np.mean(squares) - expected) < 4 * np.std(squares) / 600**0.5 + 0.01 * expected
    biases = torch.stack([MPOLinear.random(shape).bias.detach() for _ in range(100)])
    assert biases.abs().max() <= 11**-0.5
    assert biases.var().item() == pytest.approx(1 / 33, rel=0.1)
    assert MPOLinear.random(shape, bias=False).bias is None


def test_ids_beyond_the_table_are_refused_though_padding_has_room(table):
    layer = MPOEmbedding.from_dense(nn.Embedding(22, 20), Shape((3, 2, 4), (2, 5, 2), (2, 0)))
    assert layer(torch.tensor([21])).shape == (1, 20)
    for ids in ([22], [-1], [0, 100]):
        with pytest.raises(IndexError, match="ids are 0 to 21, got"):
            layer(torch.tensor(ids))


def test_ids_are_of_the_types_that_a_dense_table_takes(table):
    layer = MPOEmbedding.from_dense(table, SHAPE)
    torch.testing.assert_close(layer(torch.tensor([1, 23], dtype=torch.int32)), table(torch.tensor([1, 23])))
    for dtype in (torch.int8, torch.uint8, torch.float32, torch.bool):
        with pytest.raises(ValueError, match=f"int32 or int64, got {dtype}"):
            layer(torch.ones(2, dtype=dtype))


def test_a_padding_row_counts_from_the_end_and_must_exist():
    assert MPOEmbedding.from_dense(nn.Embedding(24, 20, padding_idx=-1), SHAPE).padding_idx == 23
    assert MPOEmbedding.random(SHAPE, padding_idx=-1).padding_idx == 23
    for row in (24, -25):
        with pytest.raises(ValueError, match=f"-24 to 23, got {row}"):
            MPOEmbedding.random(SHAPE, padding_idx=row)


def test_sizes_that_do_not_fit_are_refused(dense):
    layer = MPOLinear.from_dense(dense, SHAPE)
    with pytest.raises(ValueError, match=r"the bias has the shape \(20,\), got \(24,\)"):
        MPOLinear(layer.mpo, torch.zeros(24))
    with pytest.raises(ValueError, match="the layer's size stays"):
        layer.set_mpo(MPO.random(((2, 2), (2, 2))))


def test_what_an_embedding_cannot_do_is_refused():
    for option in ({"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}):
        with pytest.raises(ValueError, match=f"has no {next(iter(option))}"):
            MPOEmbedding.from_dense(nn.Embedding(24, 20, **option), SHAPE)
    with pytest.raises(ValueError, match=r"got torch\.complex64"):
        MPOLinear.from_dense(nn.Linear(24, 20, dtype=torch.complex64), SHAPE)


def test_the_representation_says_what_is_inside():
    layer = MPOEmbedding.from_dense(nn.Embedding(97, 24), balanced_shape(97, 24, 3), max_bond=4)
    assert "97 -> 24, legs 5.5.4 x 2.4.3, padding (3, 0), bonds 4.4, ratio 0.175" in repr(layer)


CHAINED = Shape((4, 16, 16, 4), (4, 16, 16, 4))  # large enough for the chain to be taken at a bond of 1


@pytest.mark.parametrize("bias", [True, False])
def test_where_the_chain_is_cheaper_it_is_taken_and_computes_the_same(bias):
    torch.manual_seed(0)
    layer = MPOLinear.random(CHAINED, 1, bias=bias).double()
    assert layer.route(6)
    x = torch.randn(2, 3, 4096, dtype=torch.float64, requires_grad=True)
    other = layer.to_dense()
    assert torch.allclose(layer(x), other(x), atol=1e-10)
    assert layer(x).shape == (2, 3, 4096)
    (ours,) = torch.autograd.grad(layer(x).square().sum(), x)
    (theirs,) = torch.autograd.grad(other(x).square().sum(), x)
    assert torch.allclose(ours, theirs, atol=1e-8)
    layer(x).square().sum().backward()
    through = [core.grad.clone() for core in layer.cores]
    layer.zero_grad()
    torch.nn.functional.linear(x, layer.matrix().T, layer.bias).square().sum().backward()
    for found, core in zip(through, layer.cores, strict=True):
        assert torch.allclose(found, core.grad, rtol=1e-8)


def test_a_matrix_that_no_batch_would_use_is_not_cached_and_never_made(monkeypatch):
    layer, wide = MPOLinear.random(CHAINED, 1), MPOLinear.random(SHAPE, 2)
    assert wide.route_of_all() is None
    model = nn.ModuleList([layer, wide])
    with cached(model):
        assert layer._cached_matrix is None
        assert wide._cached_matrix is not None
        monkeypatch.setattr(MPOLinear, "matrix", lambda _: pytest.fail("the matrix was made"))
        assert layer(torch.zeros(1, 4096)).shape == (1, 4096)


def test_the_batch_at_hand_decides(monkeypatch):
    torch.manual_seed(0)
    layer = MPOLinear.random(paper_shape("feed_forward_in"), 1).double()
    dense, x = layer.to_dense(), torch.randn(4, 16, 768, dtype=torch.float64)
    taken = []
    apply = MPO.apply
    monkeypatch.setattr(MPO, "apply", lambda mpo, x, route: taken.append(x.shape) or apply(mpo, x, route))
    assert torch.allclose(layer(x[0, :1]), dense(x[0, :1]))  # to rebuild the matrix for a row would take longest
    assert taken == [(1, 768)]
    with cached(layer):
        assert torch.allclose(layer(x[0, :1]), dense(x[0, :1]))
        assert taken == [(1, 768)]
        assert torch.allclose(layer(x), dense(x))
        assert taken == [(1, 768), (4, 16, 768)]


def test_cores_get_the_same_gradients_when_a_step_keeps_a_matrix_that_some_batches_use():
    torch.manual_seed(0)
    layer = MPOLinear.random(paper_shape("feed_forward_in"), 1)
    x = torch.randn(65, 768)
    layer(x).square().sum().backward()
    wanted = [core.grad.clone() for core in layer.cores]
    layer.zero_grad()
    rebuilt = Rebuilt(layer)
    assert [bool(layer.route(rows)) for rows in (1, 64)] == [False, True]
    for batch in x.split([1, 64]):
        layer(batch).square().sum().backward()
    rebuilt.backward()
    for core, gradient in zip(layer.cores, wanted, strict=True):
        assert torch.allclose(core.grad, gradient, rtol=1e-3, atol=1e-5 * gradient.abs().max().item())
