import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS, bonds, matrices, shapes, usable

from mpo_tutorial.maths.metric import LegMetric, output_error, output_spectra
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape


def metric_of(size: int, seed: int) -> torch.Tensor:
    """Second moments of inputs that are far from alike in all directions."""
    rng = np.random.default_rng(seed)
    rows = (
        rng.normal(size=(2 * size + 3, size)) * np.geomspace(1, 8, size) @ np.linalg.qr(rng.normal(size=(size, size))).Q
    )
    return torch.from_numpy(rows.T @ rows / len(rows))


def kronecker(roots) -> np.ndarray:
    whole = np.ones((1, 1))
    for root in roots:
        whole = np.kron(whole, root.numpy())
    return whole


@given(data=st.data(), shape=shapes(), seed=SEEDS)
def test_the_bound_holds_for_what_is_cut(data, shape, seed):
    """For random inputs, their outputs computed in NumPy, as well as for the metric."""
    matrix, cut = data.draw(matrices(shape)), usable(shape, data.draw(bonds(shape)))
    rows = np.random.default_rng(seed).normal(size=(3 * shape.in_size, shape.in_size)) * np.geomspace(
        1, 9, shape.in_size
    )
    metric = torch.from_numpy(rows.T @ rows / len(rows))
    legs = LegMetric.near(metric, shape)
    mpo, spectra = legs.truncate(matrix, cut), legs.spectra(matrix)
    assert all(bond <= most for bond, most in zip(mpo.bonds, cut, strict=True))
    bound = legs.excess(metric) ** 0.5 * spectra.bound(cut)
    lost = rows @ (matrix - mpo.to_matrix()).numpy()
    error = np.sqrt((lost**2).sum() / len(rows))
    assert output_error(matrix, mpo.to_matrix(), metric) == pytest.approx(error, rel=1e-6, abs=1e-9 * (1 + bound))
    assert error <= bound * (1 + 1e-6) + 1e-6 * np.sqrt((rows**2).sum() / len(rows)) * np.abs(matrix.numpy()).sum()


@given(shape=shapes(), seed=SEEDS)
def test_the_excess_is_the_least_that_lies_above(shape, seed):
    metric = metric_of(shape.in_size, seed)
    legs = LegMetric.near(metric, shape)
    root = kronecker(legs.roots)
    padded = np.pad(metric.numpy(), (0, shape.padding[0]))
    gap = np.linalg.eigvalsh(legs.excess(metric) * root @ root.T - padded)
    assert abs(gap[0]) <= 1e-6 * gap[-1] + 1e-9  # touches zero, and is nowhere below


@pytest.mark.parametrize("k", [0, 1, 2])
def test_where_the_legs_are_independent_one_cut_loses_just_what_is_said(k):
    """Then K is C, c is 1, and the best output error at one bond is what a dense SVD in NumPy discards."""
    shape = Shape((3, 2, 4, 2), (2, 4, 2, 3))
    metric = torch.from_numpy(kronecker([metric_of(size, seed) for seed, size in enumerate(shape.in_legs)]))
    matrix = torch.randn(48, 48, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    legs = LegMetric.near(metric, shape)
    assert legs.excess(metric) == pytest.approx(1)
    values, vectors = np.linalg.eigh(metric.numpy())
    turned = (vectors * np.sqrt(values)) @ vectors.T @ matrix.numpy()
    np.testing.assert_allclose(legs.to_coordinates(matrix).numpy(), turned, atol=1e-8)
    cut = list(shape.full_bonds)
    cut[k] = 3
    left = np.prod(shape.in_legs[: k + 1]), np.prod(shape.out_legs[: k + 1])
    folded = turned.reshape(left[0], -1, left[1], 48 // left[1]).transpose(0, 2, 1, 3).reshape(left[0] * left[1], -1)
    least = np.sqrt((np.linalg.svd(folded, compute_uv=False)[3:] ** 2).sum())
    assert legs.spectra(matrix).bound(cut) == pytest.approx(least)
    assert output_error(matrix, legs.truncate(matrix, cut).to_matrix(), metric) == pytest.approx(least)
    assert output_error(matrix, MPO.from_matrix(matrix, shape, cut).to_matrix(), metric) > 1.01 * least


@given(data=st.data(), shape=shapes(), seed=SEEDS)
def test_into_the_coordinates_and_back(data, shape, seed):
    matrix = data.draw(matrices(shape))
    legs = LegMetric.near(metric_of(shape.in_size, seed), shape)
    mpo = MPO.from_matrix(legs.to_coordinates(matrix), (shape.in_legs, shape.out_legs))
    back = legs.from_coordinates(mpo)
    torch.testing.assert_close(back.to_matrix(), matrix, atol=1e-6 * (1 + matrix.abs().max().item()), rtol=1e-6)
    assert back.shape == shape


@pytest.mark.parametrize("padding", [(0, 0), (1, 2)])
def test_estimates_are_what_a_dense_svd_loses_of_the_outputs(padding):
    """Every bond at every dimension, by NumPy; inputs are drawn, so to a few per cent."""
    shape = Shape((3, 2, 4, 2), (2, 4, 2, 3), padding)
    rows, columns = shape.in_size, shape.out_size
    metric = metric_of(rows, 5)
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    spectra = output_spectra(matrix, shape, metric)
    padded = np.pad(matrix.numpy(), ((0, padding[0]), (0, padding[1])))
    whole = np.pad(metric.numpy(), (0, padding[0]))
    for k, (weights, full) in enumerate(zip(spectra.discarded(), shape.full_bonds, strict=True), start=1):
        left = np.prod(shape.in_legs[:k]), np.prod(shape.out_legs[:k])
        folded = padded.reshape(left[0], 48 // left[0], left[1], 48 // left[1]).transpose(0, 2, 1, 3)
        u, s, vh = np.linalg.svd(folded.reshape(left[0] * left[1], -1), full_matrices=False)
        losses = []
        for bond in range(full + 1):
            kept = (u[:, :bond] * s[:bond] @ vh[:bond]).reshape(left[0], left[1], 48 // left[0], 48 // left[1])
            lost = padded - kept.transpose(0, 2, 1, 3).reshape(48, 48)
            losses.append(np.trace(lost.T @ whole @ lost))
        rising = np.maximum.accumulate(losses[::-1])[::-1]
        np.testing.assert_allclose(weights, rising[1:], rtol=0.2, atol=1e-6 * losses[0])
        assert spectra.values[k - 1] @ spectra.values[k - 1] == pytest.approx(losses[0], rel=0.1)


def test_what_is_no_metric_is_refused():
    shape = Shape((2, 3), (3, 2))
    with pytest.raises(ValueError, match=r"^the metric is of 6 inputs, got the shape \(5, 5\)$"):
        LegMetric.near(torch.eye(5), shape)
    with pytest.raises(ValueError, match=r"^a metric has a positive trace, got 0"):
        LegMetric.near(torch.zeros(6, 6), shape)
    with pytest.raises(ValueError, match="must be finite"):
        LegMetric.near(torch.full((6, 6), torch.nan), shape)
