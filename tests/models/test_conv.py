import pytest
import torch
from torch import nn

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape
from mpo_tutorial.models.conv import MPOConv2d
from mpo_tutorial.models.layers import cached

# (in channels, window, out channels), legs of rows and columns, how it steps
CASES = [
    ((6, (5, 5), 16), ((6, 5, 5), (4, 2, 2)), {}),
    ((4, (3, 3), 6), ((2, 2, 3, 3), (1, 2, 1, 3)), {"padding": 1, "stride": 2}),
    ((3, (1, 2), 4), ((3, 2), (2, 2)), {"padding": (0, 1), "stride": (2, 1), "dilation": (1, 2)}),
    ((2, (3, 3), 5), ((2, 9), (5, 1)), {"padding": "same"}),
]


def dense(sizes, how, bias=True) -> nn.Conv2d:
    torch.manual_seed(0)
    ins, window, outs = sizes
    return nn.Conv2d(ins, outs, window, bias=bias, dtype=torch.float64, **how)


@pytest.mark.parametrize("sizes, legs, how", CASES)
@pytest.mark.parametrize("bias", [True, False])
def test_at_full_bond_it_is_the_dense_layer_in_value_and_gradient(sizes, legs, how, bias):
    conv = dense(sizes, how, bias)
    before = conv.weight.clone()
    layer = MPOConv2d.from_dense(conv, Shape(*legs))
    x = torch.randn(2, sizes[0], 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    assert torch.allclose(layer(ours), conv(other), atol=1e-10)
    layer(ours).square().sum().backward()
    conv(other).square().sum().backward()
    assert torch.allclose(ours.grad, other.grad, atol=1e-8)
    assert torch.equal(conv.weight, before)
    for k, core in enumerate(layer.cores):  # a change of a core changes the loss as the dense gradient says
        step = torch.randn(core.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(k))
        moved = MPO(tuple(c.detach() + (1e-6 * step if n == k else 0) for n, c in enumerate(layer.cores)))
        change = (moved.to_matrix() - layer.mpo.to_matrix()).T.reshape(conv.weight.shape) / 1e-6
        assert (core.grad * step).sum() == pytest.approx((conv.weight.grad * change).sum().item(), rel=1e-4)
    back = layer.to_dense()
    assert torch.allclose(back.weight, conv.weight, atol=1e-12)
    assert (back.stride, back.padding, back.dilation) == (conv.stride, conv.padding, conv.dilation)
    assert (back.bias is None) is not bias
    with cached(layer):
        assert torch.allclose(layer(x), conv(x), atol=1e-10)


def test_rows_are_channel_by_channel_and_in_each_row_by_row():
    conv = dense((2, (3, 2), 4), {})
    layer = MPOConv2d.from_dense(conv, Shape((4, 3), (2, 2)))
    matrix = layer.mpo.to_matrix()
    for channel, row, column in ((0, 0, 0), (1, 2, 0), (1, 0, 1)):
        assert torch.allclose(matrix[channel * 6 + row * 2 + column], conv.weight[:, channel, row, column], atol=1e-12)


def test_a_cut_kernel_is_the_nearest_of_its_bond():
    conv = dense((6, (5, 5), 16), {})
    layer = MPOConv2d.from_dense(conv, Shape((6, 25), (4, 4)), max_bond=5)
    kernel = conv.weight.detach().flatten(1).T.reshape(6, 25, 4, 4).permute(0, 2, 1, 3).reshape(24, 100)
    values = torch.linalg.svdvals(kernel)
    lost = (layer.mpo.to_matrix() - conv.weight.flatten(1).T).norm()
    assert lost.item() == pytest.approx(values[5:].norm().item())


def mean_square_after(layers: int, max_bond: int | None, seed: int, dense: bool = False) -> float:
    """Of images that are continued at their borders by the other side, for zeros there would take something in each layer."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(4, 32, 6, 6, generator=generator)
    for _ in range(layers):
        layer = MPOConv2d.random(Shape((4, 8, 9), (4, 4, 2)), (3, 3), max_bond, generator=generator)
        if dense:
            layer = nn.Conv2d(32, 32, 3, bias=False)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
        with torch.no_grad():
            x = layer(nn.functional.pad(x.relu(), (1, 1, 1, 1), "circular"))
    return x.square().mean().item()


@pytest.mark.parametrize("max_bond, factor", [(None, 3), (16, 4), (4, 12)])
def test_the_mean_square_comes_through_twenty_layers_as_through_dense_ones(max_bond, factor):
    """By its typical value over networks. A spread that is off by a quarter would be a factor of 300 away."""
    ours, others = (
        torch.tensor([mean_square_after(20, max_bond, seed, dense) for seed in range(16)]).log().mean().exp()
        for dense in (False, True)
    )
    assert 0.05 < others < 1  # 32 channels are few: single networks fade, though the mean over networks is kept
    assert others / factor < ours < others * factor


def test_a_random_kernel_has_its_mean_square_exactly_and_no_bias():
    for seed in range(3):
        layer = MPOConv2d.random(Shape((8, 9, 8), (4, 4, 8)), (3, 3), 2, generator=torch.Generator().manual_seed(seed))
        assert layer.kernel().shape == (128, 64, 3, 3)
        assert layer.kernel().square().mean().item() == pytest.approx(2 / 576, rel=1e-4)
        assert torch.equal(layer.bias, torch.zeros(128))
        assert layer.mpo.bonds == (2, 2)


@pytest.mark.parametrize(
    "make, word",
    [
        (lambda: MPOConv2d(MPO.random(Shape((4, 5), (2, 2))), (3, 3)), "20 rows are no multiple of 3 x 3"),
        (
            lambda: MPOConv2d(MPO.random(Shape((4, 9), (2, 2))), (3, 3), torch.zeros(3)),
            r"the bias has the shape \(4,\), got \(3,\)",
        ),
        (lambda: MPOConv2d.from_dense(nn.Conv2d(4, 4, 3, groups=2), Shape((2, 9), (2, 2))), "got 2 groups and zeros"),
        (
            lambda: MPOConv2d.from_dense(nn.Conv2d(4, 4, 3, padding_mode="reflect", padding=1), Shape((4, 9), (2, 2))),
            "got 1 groups and reflect",
        ),
        (lambda: MPOConv2d.from_dense(nn.Conv2d(4, 4, 3), Shape((5, 9), (2, 2))), "legs"),
        (
            lambda: MPOConv2d.random(Shape((4, 9), (2, 2)), (3, 3))(torch.zeros(1, 3, 8, 8)),
            r"images have 4 channels here, got 3 in the shape \(1, 3, 8, 8\)",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, word):
    with pytest.raises(ValueError, match=word):
        make()
