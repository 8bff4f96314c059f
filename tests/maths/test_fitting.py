import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import matrices, shapes

from mpo_tutorial.maths import fitting
from mpo_tutorial.maths.fitting import MOST_SWEEPS, SETTLED, STEPS, _conjugate_gradients, fit
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape


def metric_of(size: int, seed: int = 0) -> torch.Tensor:
    """Second moments of inputs that are far from alike in all directions."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(size, size))).Q
    rows = rng.normal(size=(4 * size, size)) * np.geomspace(1, 5, size) @ directions
    return torch.from_numpy(rows.T @ rows / len(rows))


def error(mpo: MPO, matrix: torch.Tensor, metric: torch.Tensor) -> float:
    """tr (M - M')^T C (M - M'), in NumPy."""
    difference = (matrix - mpo.to_matrix()).numpy()
    return float(np.trace(difference.T @ metric.numpy() @ difference))


def root_of(metric: torch.Tensor) -> np.ndarray:
    values, vectors = np.linalg.eigh(metric.numpy())
    return (vectors * np.sqrt(values)) @ vectors.T


@given(data=st.data(), shape=shapes())
def test_sweeps_never_raise_the_error_and_keep_the_bonds(data, shape):
    matrix = data.draw(matrices(shape)).double()
    caps = tuple(data.draw(st.integers(1, bond)) for bond in shape.full_bonds)
    start, metric = MPO.from_matrix(matrix, shape, caps), metric_of(shape.in_size)
    before = [core.clone() for core in start.cores]
    errors = [error(fit(start, matrix, metric, sweeps), matrix, metric) for sweeps in (0, 1, 2)]
    scale = float(np.trace(matrix.numpy().T @ metric.numpy() @ matrix.numpy()))
    assert errors[0] == pytest.approx(error(start, matrix, metric), rel=1e-6, abs=1e-12 * scale)
    assert errors[1] <= errors[0] + 1e-12 * scale
    assert errors[2] <= errors[1] + 1e-12 * scale
    fitted = fit(start, matrix, metric)
    assert fitted.shape == start.shape
    assert fitted.n_params <= start.n_params
    assert all(torch.equal(a, b) for a, b in zip(before, start.cores, strict=True))


@pytest.mark.parametrize("bond", [1, 3, 7])
def test_with_alike_inputs_the_plain_cut_of_two_cores_stays(bond):
    """By Eckart and Young nothing is better than the SVD, so there is nothing to gain."""
    shape, matrix = Shape((4, 3), (5, 2)), torch.randn(12, 10, dtype=torch.float64)
    plain = MPO.from_matrix(matrix, shape, bond)
    fitted = fit(plain, matrix, torch.eye(12, dtype=torch.float64), sweeps=5)
    torch.testing.assert_close(fitted.to_matrix(), plain.to_matrix())


@pytest.mark.parametrize("bond", [1, 2, 4])
def test_with_a_kronecker_metric_the_best_two_cores_are_found(bond):
    """A metric A x B folds into two cores: the least error is what the SVD of (A x B)^(1/2) M, its legs regrouped, discards."""
    rng = np.random.default_rng(bond)
    matrix = torch.from_numpy(rng.normal(size=(12, 10)))
    metric = torch.from_numpy(np.kron(metric_of(4, 1).numpy(), metric_of(3, 2).numpy()))
    folded = (root_of(metric) @ matrix.numpy()).reshape(4, 3, 5, 2).transpose(0, 2, 1, 3).reshape(20, 6)
    least = float((np.linalg.svd(folded, compute_uv=False)[bond:] ** 2).sum())
    start = MPO.from_matrix(matrix, ((4, 3), (5, 2)), bond)
    found = error(fit(start, matrix, metric, sweeps=100), matrix, metric)
    assert least * (1 - 1e-9) <= found <= least * 1.001
    assert error(start, matrix, metric) > 1.05 * least


def test_at_the_end_no_core_alone_can_do_better():
    """Each core's problem solved densely, by NumPy's least squares, with the others where the sweeps left them."""
    rng = np.random.default_rng(3)
    shape = Shape((2, 3, 2), (2, 2, 2), padding=(1, 0))
    matrix, metric = torch.from_numpy(rng.normal(size=(11, 8))), metric_of(11)
    fitted = fit(MPO.from_matrix(matrix, shape, 2), matrix, metric, sweeps=400)
    reached = error(fitted, matrix, metric)
    for k, core in enumerate(fitted.cores):
        units = torch.eye(core.numel(), dtype=torch.float64).reshape(-1, *core.shape)
        chains = (MPO((*fitted.cores[:k], unit, *fitted.cores[k + 1 :]), shape.padding) for unit in units)
        design = np.stack([(root_of(metric) @ chain.to_matrix().numpy()).ravel() for chain in chains], axis=1)
        target = (root_of(metric) @ matrix.numpy()).ravel()
        best = np.linalg.lstsq(design, target, rcond=None)[0]
        assert reached == pytest.approx(float(((design @ best - target) ** 2).sum()), rel=1e-3)


def test_a_core_of_few_numbers_is_fitted_exactly_at_its_turn():
    """As many steps of conjugate gradients as there are numbers are enough; NumPy's least squares say the same."""
    rng = np.random.default_rng(5)
    matrix, metric = torch.from_numpy(rng.normal(size=(8, 1))), metric_of(8)
    first, last = fit(MPO.from_matrix(matrix, ((2, 4), (1, 1)), 1), matrix, metric, sweeps=1).canonize(1).cores
    assert last.numel() == STEPS
    design = root_of(metric) @ np.kron(first.numpy().reshape(2, 1), np.eye(4))
    best = np.linalg.lstsq(design, root_of(metric) @ matrix.numpy(), rcond=None)[0]
    np.testing.assert_allclose(last.numpy().reshape(4, 1), best, rtol=1e-6)


def test_a_sweep_goes_there_and_back_and_leaves_the_centre_on_the_central_core(monkeypatch):
    shape, visited, move = Shape((2, 2, 2, 2), (2, 1, 2, 1)), [], fitting.move_centre
    matrix, metric = torch.randn(16, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), metric_of(16)
    start = MPO.from_matrix(matrix, shape, 2)
    monkeypatch.setattr(fitting, "move_centre", lambda cores, k, **ends: visited.append(k) or move(cores, k, **ends))
    fitted = fit(start, matrix, metric, sweeps=2)
    assert visited == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1]
    for k, core in enumerate(fitted.cores):
        unfolded = core.reshape(-1, core.shape[3]).T if k < 2 else core.reshape(core.shape[0], -1)
        if k != 2:
            torch.testing.assert_close(unfolded @ unfolded.T, torch.eye(len(unfolded), dtype=torch.float64))


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_conjugate_gradients_solve_small_systems_of_any_scale(size, scale):
    diagonal = scale * torch.arange(1.0, STEPS + 1, dtype=torch.float64)
    target = size * torch.tensor([1.0, -2.0, 3.0, -4.0], dtype=torch.float64)
    found = _conjugate_gradients(lambda x: diagonal * x, target, torch.zeros_like(target))
    np.testing.assert_allclose(found, target / diagonal, rtol=1e-6)


@pytest.mark.parametrize("noise", [0.0, -1e-20])
def test_conjugate_gradients_take_no_step_where_the_curvature_is_not_positive(noise):
    diagonal, start = torch.tensor([1.0, noise]), torch.tensor([1.0, 0.0])
    found = _conjugate_gradients(lambda x: diagonal * x, torch.tensor([1.0, 1e-2]), start)
    assert torch.equal(found, start)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_cores_keep_their_dtype(dtype):
    matrix = torch.randn(12, 10)
    start = MPO.from_matrix(matrix.to(dtype), ((4, 3), (5, 2)), 2)
    fitted = fit(start, matrix, metric_of(12).float())
    assert {core.dtype for core in fitted.cores} == {dtype}
    assert error(MPO(tuple(core.double() for core in fitted.cores)), matrix.double(), metric_of(12)) < error(
        MPO(tuple(core.double() for core in start.cores)), matrix.double(), metric_of(12)
    )


def random_start(dtype=torch.float64) -> tuple[MPO, torch.Tensor]:
    matrix = torch.randn(12, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).to(dtype)
    return MPO.from_matrix(matrix, ((4, 3), (5, 2)), 2), matrix


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rank", [0, 1, 5])
@pytest.mark.parametrize("factor", [1e-40, 1e-20, 1.0, 1e20, 1e36])
def test_directions_that_no_input_takes_are_no_reason_to_fail(dtype, rank, factor):
    """There the curvature is zero, or what rounding makes of it, on every machine another."""
    start, matrix = random_start(dtype)
    inputs = torch.randn(rank, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    metric = (factor * (inputs.T @ inputs)).to(dtype)
    lost = [inputs @ (matrix - mpo.to_matrix()).double() for mpo in (start, fit(start, matrix, metric))]
    assert lost[1].square().sum() <= lost[0].square().sum()
    assert rank == 0 or lost[1].square().sum() < 0.9 * lost[0].square().sum()


@pytest.mark.parametrize("metric", [torch.zeros(12, 12), -torch.eye(12), torch.eye(12).flip(0)])
def test_a_metric_that_is_not_positive_leaves_the_matrix_as_it_was(metric):
    start, matrix = random_start()
    torch.testing.assert_close(fit(start, matrix, metric).to_matrix(), start.to_matrix())


@pytest.mark.parametrize(
    ("dtype", "factor"), [(torch.float32, 2.0**-90), (torch.float32, 2.0**90), (torch.float64, 2.0**600)]
)
def test_numbers_that_cannot_be_squared_are_fitted_like_others(dtype, factor):
    (start, matrix), metric = random_start(dtype), metric_of(12).to(dtype)
    fitted = fit(factor * start, factor * matrix, metric / factor)
    torch.testing.assert_close(
        fitted.to_matrix() / factor, fit(start, matrix, metric).to_matrix(), rtol=1e-3, atol=1e-3
    )


def test_what_is_not_finite_is_refused():
    (start, matrix), metric = random_start(), metric_of(12)
    for arguments in (
        (np.nan * start, matrix, metric),
        (start, np.inf * matrix, metric),
        (start, matrix, np.nan * metric),
    ):
        with pytest.raises(ValueError, match=r"must be finite, got (nan|inf|-inf) in"):
            fit(*arguments)


def test_left_to_itself_it_sweeps_until_a_sweep_brings_next_to_nothing():
    """And no sooner: the errors after each number of sweeps say when that is."""
    shape = Shape((3, 4, 2), (2, 4, 3))
    matrix = torch.randn(24, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    metric, start = metric_of(24), MPO.from_matrix(matrix, shape, 3)
    errors = [error(fit(start, matrix, metric, sweeps), matrix, metric) for sweeps in range(MOST_SWEEPS)]
    last = next(k for k in range(1, MOST_SWEEPS) if errors[k - 1] - errors[k] <= SETTLED * errors[k - 1])
    assert last > 3
    assert error(fit(start, matrix, metric), matrix, metric) == pytest.approx(errors[last], rel=1e-9)
