import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS, bonds, least_discarded, matrices, shapes, usable
from test_mpo import unfolding, with_random_gauge

from mpo_tutorial.maths.entropy import Spectra, cheapest_truncation, entropy, schmidt_values
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape


@given(data=st.data(), shape=shapes())
def test_schmidt_values_are_the_singular_values_of_the_unfolding(data, shape):
    matrix = data.draw(matrices(shape))
    before = matrix.clone()
    cut = data.draw(st.integers(1, shape.n_cores - 1))
    exact = np.linalg.svd(unfolding(matrix, shape, cut), compute_uv=False)
    values = schmidt_values(matrix, shape, cut)
    assert values.shape == exact.shape == (shape.full_bonds[cut - 1],)
    np.testing.assert_allclose(values, exact, atol=3e-7 * exact[0])
    assert torch.equal(matrix, before)


@given(data=st.data(), shape=shapes())
def test_entropies_are_those_of_the_density_matrix(data, shape):
    """-tr rho ln rho for the state that the matrix is: rho from the dense unfolding, no singular value in sight."""
    matrix = data.draw(matrices(shape))
    for cut, found in enumerate(Spectra.of(matrix, shape).entropies(), start=1):
        left = unfolding(matrix, shape, cut)
        rho = left @ left.T
        p = np.linalg.eigvalsh(rho / np.trace(rho)) if np.trace(rho) else np.ones(1)
        p = p[p > 1e-15]
        assert found == pytest.approx(-(p * np.log(p)).sum(), abs=1e-9)
        assert 0 <= found <= math.log(shape.full_bonds[cut - 1]) + 1e-12


@given(data=st.data(), shape=shapes(), seed=SEEDS)
def test_entropies_do_not_depend_on_the_gauge(data, shape, seed):
    mpo = MPO.from_matrix(data.draw(matrices(shape)), shape)
    spectra, other = (Spectra.of(m.to_matrix(), shape) for m in (mpo, with_random_gauge(mpo, seed)))
    np.testing.assert_allclose(spectra.entropies(), other.entropies(), atol=1e-9)


def test_both_conventions_on_a_spectrum_by_hand():
    values = np.array([2.0, 1.0, 1.0])
    physics = -(4 / 6) * math.log(4 / 6) - 2 * (1 / 6) * math.log(1 / 6)
    paper = -(2 / 4) * math.log(2 / 4) - 2 * (1 / 4) * math.log(1 / 4)
    assert entropy(values) == entropy(values, "physics") == pytest.approx(physics)
    assert entropy(values, "paper") == pytest.approx(paper)
    assert entropy(1e-200 * values) == pytest.approx(physics)
    for convention in ("physics", "paper"):
        assert math.copysign(1, entropy(np.array([5.0, 0.0]), convention)) == 1  # 0, and not -0.0
        assert entropy(np.zeros(0), convention) == 0
        assert entropy(np.array([5.0, 0.0]), convention) == 0
        assert entropy(np.zeros(3), convention) == 0


@given(data=st.data(), shape=shapes(padded=False))
def test_bound_is_the_discarded_weight_and_holds(data, shape):
    matrix, cut = data.draw(matrices(shape)), data.draw(bonds(shape))
    spectra = Spectra.of(matrix, shape)
    goal, weights = usable(shape, cut), []
    for k, bond in enumerate(cut, start=1):
        values = np.linalg.svd(unfolding(matrix, shape, k), compute_uv=False)
        weights.append((values[goal[k - 1] :] ** 2).sum())
        tail = values[bond:]
        assert spectra.local_errors(cut)[k - 1] == pytest.approx(np.linalg.norm(tail), abs=1e-6 * (1 + spectra.norm))
        assert spectra.discarded()[k - 1][bond - 1] == pytest.approx((tail**2).sum(), abs=1e-9 * (1 + spectra.norm**2))
    assert spectra.norm == pytest.approx(torch.linalg.matrix_norm(matrix).item())
    squares = least_discarded(shape, cut, weights)
    assert spectra.bound(cut) == pytest.approx(math.sqrt(squares), abs=1e-6 * (1 + spectra.norm))
    if spectra.norm:
        assert spectra.bound(cut, relative=True) == pytest.approx(spectra.bound(cut) / spectra.norm)
    error = torch.linalg.matrix_norm(MPO.from_matrix(matrix, shape, cut).to_matrix() - matrix).item()
    assert error <= spectra.bound(cut) + 1e-6 * spectra.norm


@given(data=st.data(), shape=shapes(), cutoff=st.floats(0, 0.99))
def test_bonds_of_a_cutoff_are_the_smallest_that_keep_to_it(data, shape, cutoff):
    spectra = Spectra.of(data.draw(matrices(shape)), shape)
    for bond, weights in zip(spectra.bonds_of_cutoff(cutoff), spectra.discarded(), strict=True):
        assert weights[bond - 1] <= cutoff * spectra.norm**2
        assert bond == 1 or weights[bond - 2] > cutoff * spectra.norm**2


@given(data=st.data(), per_parameter=st.booleans(), step=st.integers(1, 3), relative=st.booleans())
def test_the_cheapest_truncation_is_the_cheapest_of_all(data, per_parameter, step, relative):
    spectra, now = {}, {}
    for name in "abc":
        shape = data.draw(shapes(least_cores=3, most_cores=4))
        spectra[name] = Spectra.of(data.draw(matrices(shape)), shape)
        now[name] = usable(shape, data.draw(bonds(shape)))
    costs = {}
    for name in "abc":
        after = list(now[name])
        middle = len(after[:]) // 2 if len(after) % 2 == 0 else (len(after) + 1) // 2
        for k in (middle - 1, middle):
            after[k] = max(1, after[k] - step)
        shape = spectra[name].shape
        after = usable(shape, after)
        if after != now[name]:
            tails = [values[bond:] for values, bond in zip(spectra[name].values, after, strict=True)]
            error = math.sqrt(least_discarded(shape, after, [(tail**2).sum() for tail in tails]))
            error = error / (np.linalg.norm(spectra[name].values[0]) or 1) if relative else error
            saved = sum(
                a * pair * b - c * pair * d
                for a, b, c, d, pair in zip(
                    (1, *now[name]), (*now[name], 1), (1, *after), (*after, 1), shape.pairs, strict=True
                )
            )
            costs[name] = error**2 / saved if per_parameter else error
    if not costs:
        with pytest.raises(ValueError, match=r"^no central bond is left to cut: all are 1$"):
            cheapest_truncation(spectra, now, step, relative, per_parameter)
        return
    name, after = cheapest_truncation(spectra, now, step, relative, per_parameter)
    assert costs[name] == pytest.approx(min(costs.values()))
    assert sum(now[name]) > sum(after)


def test_bounds_hold_down_to_the_last_digits():
    """Small singular values beside a large one, an unfolding with a long side, and a float32 matrix."""
    shape = Shape((8, 2, 8), (8, 2, 8))
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(n, 64, dtype=torch.float64, generator=generator))[0] for n in (64, 256))
    spectrum = torch.full((64,), 3e-7, dtype=torch.float64)
    spectrum[0] = 1
    unfolded = (left * spectrum @ right.T).reshape(8, 8, 2, 2, 8, 8)
    matrix = unfolded.permute(0, 2, 4, 1, 3, 5).reshape(128, 128)
    spectra = Spectra.of(matrix, shape)
    np.testing.assert_allclose(spectra.values[0], spectrum.numpy(), rtol=1e-6)
    cut = (1, 64)
    error = torch.linalg.matrix_norm(MPO.from_matrix(matrix, shape, cut).to_matrix() - matrix).item()
    assert error == pytest.approx(spectra.bound(cut), rel=1e-6)
    in_float32 = MPO.from_matrix(matrix.float(), shape, cut).to_matrix()
    assert torch.linalg.matrix_norm(in_float32.double() - matrix).item() <= spectra.bound(cut) + 1e-6


@pytest.mark.parametrize("factor", [1e-200, 1e200])
def test_matrices_that_cannot_be_squared_have_schmidt_values(factor):
    shape = Shape((2, 2), (2, 2))
    matrix = torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    values, scaled = (Spectra.of(m, shape).values[0] for m in (matrix, factor * matrix))
    np.testing.assert_allclose(scaled, factor * values, rtol=1e-12)
    assert entropy(scaled) == pytest.approx(entropy(values))
    assert entropy(np.array([1e308, 1e308]), "paper") == pytest.approx(math.log(2))


def test_spectra_take_either_convention():
    spectra = Spectra.of(torch.diag(torch.tensor([4.0, 2.0, 2.0, 3.0])), Shape((2, 2), (2, 2)))
    found = [spectra.entropies(convention) for convention in ("physics", "paper")]
    assert found == [(entropy(spectra.values[0], convention),) for convention in ("physics", "paper")]
    assert found[0] != found[1]


def test_errors_are_compared_as_they_are_unless_relative():
    shape = Shape((2, 2), (2, 2))
    small = torch.diag(torch.tensor([1.0, 1.0, 1.0, -1.0]))  # its last Schmidt value is a large share of a small norm
    large = 100 * torch.eye(4) + torch.diag(torch.tensor([10.0, 0.0, 0.0, 0.0]))
    spectra, now = (
        {"small": Spectra.of(small, shape), "large": Spectra.of(large, shape)},
        {"small": (2,), "large": (2,)},
    )
    assert cheapest_truncation(spectra, now)[0] == cheapest_truncation(spectra, now, relative=False)[0] == "small"
    assert cheapest_truncation(spectra, now, relative=True)[0] == "large"


def test_only_the_two_bonds_beside_the_central_core_are_cut():
    spectra = {"only": Spectra.of(torch.eye(32), Shape((2,) * 5, (2,) * 5))}
    assert cheapest_truncation(spectra, {"only": (4, 16, 16, 4)}, step=3) == ("only", (4, 13, 13, 4))


def test_with_two_cores_the_only_bond_is_central():
    shape = Shape((2, 2), (2, 2))
    spectra = {"only": Spectra.of(torch.eye(4), shape)}
    assert cheapest_truncation(spectra, {"only": (4,)}) == ("only", (3,))


def test_bad_input_is_refused():
    shape, values = Shape((2, 2, 2), (2, 2, 2)), np.array([1.0])
    spectra = Spectra.of(torch.eye(8), shape)
    cases = [
        (lambda: entropy(values, "bits"), "physics, paper, got 'bits'"),
        (lambda: entropy(np.array([1.0, -1.0])), "not negative"),
        (lambda: entropy(np.array([math.nan])), "finite"),
        (lambda: entropy(np.eye(2)), "a list of finite"),
        (lambda: entropy(np.array([1j])), "a list of finite"),
        (lambda: schmidt_values(np.eye(8), shape, 1), "got float64"),
        (lambda: cheapest_truncation({"a": spectra}, {"b": (4, 4)}), "of the same matrices"),
        (lambda: schmidt_values(torch.eye(8), shape, 0), "1 to 2, got 0"),
        (lambda: schmidt_values(torch.eye(8), shape, 3), "1 to 2, got 3"),
        (lambda: schmidt_values(torch.eye(4), shape, 1), r"8 x 8 matrices, got \(4, 4\)"),
        (lambda: schmidt_values(torch.eye(8) * math.nan, shape, 1), "finite"),
        (lambda: schmidt_values(torch.eye(8, dtype=torch.int64), shape, 1), "floating point"),
        (lambda: schmidt_values(torch.eye(8, dtype=torch.complex64), shape, 1), "floating point"),
        (lambda: spectra.bound((4,)), "have 2 inner bonds"),
        (lambda: spectra.bound((4, 5)), "from 1 to 4, got 5"),
        (lambda: spectra.bound((0, 4)), "from 1 to 4, got 0"),
        (lambda: spectra.bound((1.5, 4)), "got 1.5"),
        (lambda: spectra.bonds_of_cutoff(1.0), r"\[0, 1\), got 1.0"),
        (lambda: cheapest_truncation({"a": spectra}, {"a": (4, 4)}, step=0), "positive integer, got 0"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
