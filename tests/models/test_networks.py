from functools import partial

import pytest
import torch
from torch import nn

from mpo_tutorial.models.convert import count
from mpo_tutorial.models.layers import MPOLinear, mpo_layers
from mpo_tutorial.models.networks import LENETS_CHAINS, PAPERS_LAYERS, Chained, fc2, fc2_layers, lenet5, ratio

# Gao et al. 2020: rho, as printed.
PAPERS_RATIOS = {
    "FC2": "0.0767",
    "LeNet-5": "0.05",
    "ResNet, width 4": "0.11",
    "DenseNet, growth 12": "0.129",
    "DenseNet, growth 24": "0.089",
}
# Where the count by the authors' code is another: it, and what is printed.
NEARLY = {"VGG-16": ("0.0004", "0.0005"), "VGG-19": ("0.0004", "0.0005"), "DenseNet, growth 40": ("0.069", "0.070")}


def test_the_papers_ratios_come_out_but_for_three_in_the_last_digit():
    assert {*PAPERS_RATIOS, *NEARLY} == {*PAPERS_LAYERS}
    for name, layers in PAPERS_LAYERS.items():
        ours, printed = NEARLY.get(name) or (PAPERS_RATIOS[name],) * 2
        digits = len(printed.partition(".")[2])
        assert f"{ratio(layers):.{digits}f}" == ours
        assert round(abs(float(ours) - float(printed)) * 10**digits) == (name in NEARLY)


def test_fc2_counts_as_the_paper_does():
    counts = {bond: sum(layer.n_params for layer in fc2_layers(bond)) for bond in (2, 4, 8, 16)}
    by_hand = {bond: 2 * 16 * bond + 2 * 28 * bond**2 + 2 * 16 + 64 + 640 for bond in counts}
    assert counts == by_hand
    assert (counts[2], counts[16]) == (1024, 15_584)
    model = fc2(16)
    assert count(model) == 15_584 + 256 + 10


def test_lenet5s_three_layers_by_hand():
    first, second, third = PAPERS_LAYERS["LeNet-5"]
    assert first.n_params == 16 + 4 * 50 * 4 + 4 * 60 * 4 + 16
    assert second.n_params == 16 + 4 * 15 * 4 + 4 * 42 * 4 + 16
    assert third.n_params == 4 + 2 * 15 * 2 + 2 * 14 * 2 + 4
    assert (first.n_dense, second.n_dense, third.n_dense) == (400 * 120, 120 * 84, 84 * 10)
    dense, chained = lenet5(None), lenet5()
    saved = sum(layer.n_dense - layer.n_params for layer in (first, second, third))
    assert count(dense) - count(chained) == saved
    assert count(dense) == 61_706  # as everybody counts LeNet-5
    assert count(dense) - count(lenet5("first")) == first.n_dense - first.n_params
    kernels = (25 * 6 - (5 * 2 * 4 + 4 * 5 * 3)) + (150 * 16 - (6 * 4 * 4 + 4 * 5 * 2 * 4 + 4 * 5 * 2))
    assert count(chained) - count(lenet5("all")) == kernels
    with pytest.raises(ValueError, match="one of None, 'first', 'layers', 'all', got True"):
        lenet5(True)


@pytest.mark.parametrize(
    "make", [lambda: fc2(4), lambda: fc2(None), *(partial(lenet5, which) for which in LENETS_CHAINS)]
)
def test_a_network_takes_images_and_all_of_it_learns(make):
    torch.manual_seed(0)
    model = make()
    images = torch.randn(3, 1, 28, 28)
    logits = model(images)
    assert logits.shape == (3, 10)
    nn.functional.cross_entropy(logits, torch.tensor([1, 5, 9])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_new_chains_spread_as_new_dense_layers_do():
    torch.manual_seed(0)
    images = torch.randn(64, 784)
    ours = torch.stack([MPOLinear.random(fc2_layers(16)[0].shape, 16)(images).var().detach() for _ in range(40)])
    other = torch.stack([nn.Linear(784, 256)(images).var().detach() for _ in range(5)])
    assert ours.mean() == pytest.approx(other.mean().item(), rel=0.2)


@pytest.mark.parametrize("bond", [0, -1, 2.5])
def test_a_bond_below_one_is_refused(bond):
    with pytest.raises(ValueError, match="bond"):
        fc2(bond)


def test_a_bond_is_as_wide_as_it_can_be():
    wide = Chained((2, 3), (2, 3), 100)
    assert wide.shape.caps(100) == (4,)
    assert mpo_layers(fc2(1000))[0].mpo.bonds == (16, 448, 16)
