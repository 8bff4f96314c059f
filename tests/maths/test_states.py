import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS

from mpo_tutorial.maths.entropy import entropy
from mpo_tutorial.maths.states import bell, ghz, ising_ground_state, random_state, schmidt_values, w

Z, X, ONE = np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]]), np.eye(2)


def product(operators: list[np.ndarray]) -> np.ndarray:
    result = np.eye(1)
    for operator in operators:
        result = np.kron(result, operator)
    return result


def dense_ring(n: int, field: float, coupling: float) -> np.ndarray:
    hamiltonian = np.zeros((2**n, 2**n))
    for k in range(n):
        hamiltonian -= coupling * product([Z if site in (k, (k + 1) % n) else ONE for site in range(n)])
        hamiltonian -= field * product([X if site == k else ONE for site in range(n)])
    return hamiltonian


def half_chain_entropy(n: int, field: float) -> float:
    return entropy(schmidt_values(ising_ground_state(n, field)[1], (2,) * n, n // 2))


@given(legs=st.lists(st.integers(1, 4), min_size=2, max_size=5), seed=SEEDS, data=st.data())
def test_schmidt_values_give_the_reduced_density_matrix(legs, seed, data):
    cut = data.draw(st.integers(1, len(legs) - 1))
    generator = np.random.default_rng(seed)
    state = generator.standard_normal(math.prod(legs)) + 1j * generator.standard_normal(math.prod(legs))
    before = state.copy()
    values = schmidt_values(state, legs, cut)
    tensor = state.reshape(legs)
    traced = list(range(cut, len(legs)))
    rho = np.tensordot(tensor, tensor.conj(), axes=(traced, traced)).reshape((math.prod(legs[:cut]),) * 2)
    eigenvalues = np.sort(np.linalg.eigvalsh(rho))[::-1][: len(values)]
    np.testing.assert_allclose(values**2, eigenvalues, atol=1e-12 * eigenvalues[0])
    assert np.array_equal(state, before)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_states_by_name_have_the_entropies_of_the_textbook(n):
    for cut in range(1, n):
        legs = (2,) * n
        assert entropy(schmidt_values(ghz(n), legs, cut)) == pytest.approx(math.log(2))
        p = cut / n  # the one spin up is left of the cut, or right of it
        assert entropy(schmidt_values(w(n), legs, cut)) == pytest.approx(-p * math.log(p) - (1 - p) * math.log(1 - p))
    np.testing.assert_allclose(bell(), [math.sqrt(0.5), 0, 0, math.sqrt(0.5)])
    np.testing.assert_allclose(w(3), np.array([0, 1, 1, 0, 1, 0, 0, 0]) / math.sqrt(3))


def test_single_precision_is_computed_in_double():
    values = schmidt_values(ghz(4).astype(np.complex64), (2,) * 4, 2)
    assert values.dtype == np.float64
    assert ghz(np.int8(10)).shape == (1024,)
    assert w(np.int8(10)).sum() == pytest.approx(math.sqrt(10))


def test_random_states_have_pages_entropy():
    """Page 1993: on average sum_{k=b+1}^{ab} 1/k - (a-1)/2b for a cut into a <= b dimensions."""
    a = b = 2**4
    expected = sum(1 / k for k in range(b + 1, a * b + 1)) - (a - 1) / (2 * b)
    found = [entropy(schmidt_values(random_state(8, seed), (2,) * 8, 4)) for seed in range(50)]
    assert np.mean(found) == pytest.approx(expected, abs=4 * np.std(found) / math.sqrt(50))
    parts = np.array([(state.real**2).sum() for state in (random_state(8, seed) for seed in range(50))])
    assert np.linalg.norm(random_state(8, 0)) == pytest.approx(1)
    assert parts.mean() == pytest.approx(0.5, abs=4 * parts.std() / math.sqrt(50))
    assert np.array_equal(random_state(4, 1), random_state(4, 1))
    assert not np.array_equal(random_state(4, 1), random_state(4, 2))


@pytest.mark.parametrize("n", [3, 4, 5])
@pytest.mark.parametrize("parity", [1, -1])
@pytest.mark.parametrize(
    ("field", "coupling"), [(0.0, 1.0), (0.3, 1.0), (1.0, 0.7), (2.0, 1.0), (-0.5, 1.0), (0.5, -1.0)]
)
def test_ising_ground_state_is_the_lowest_of_its_sector(n, parity, field, coupling):
    energy, state = ising_ground_state(n, field, coupling, parity)
    hamiltonian, flip = dense_ring(n, field, coupling), product([X] * n)
    np.testing.assert_allclose(hamiltonian @ state, energy * state, atol=1e-9)
    np.testing.assert_allclose(flip @ state, parity * state, atol=1e-9)
    assert np.linalg.norm(state) == pytest.approx(1)
    other_sector_away = hamiltonian + 100 * (np.eye(2**n) - parity * flip)
    assert energy == pytest.approx(np.linalg.eigvalsh(other_sector_away)[0])


@pytest.mark.parametrize("n", range(3, 11))
@pytest.mark.parametrize("parity", [1, -1])
@pytest.mark.parametrize("field", [0.1, 0.5, 1.0, 2.0])
def test_of_equal_amplitudes_the_first_is_positive(n, parity, field):
    """All up and all down weigh most, and in the odd sector with opposite signs: rounding must not choose between them."""
    _, state = ising_ground_state(n, field, parity=parity)
    assert state[0] > 0
    assert state[-1] == pytest.approx(parity * state[0])


def test_the_same_ground_state_is_found_each_time():
    assert np.array_equal(ising_ground_state(8, 1.0)[1], ising_ground_state(8, 1.0)[1])


@pytest.mark.parametrize("n", [3, 6, 11, 12])
@pytest.mark.parametrize("field", [0.0, 0.4, 1.0, 3.0])
def test_ising_energy_is_the_closed_form(n, field):
    """Free fermions (Pfeuty 1970); in the even sector their momenta are half-odd multiples of 2 pi / n."""
    momenta = (2 * np.arange(n) + 1) * np.pi / n
    expected = -np.sqrt(1 + field**2 - 2 * field * np.cos(momenta)).sum()
    assert ising_ground_state(n, field)[0] == pytest.approx(expected)


def test_critical_entropy_grows_with_a_sixth_of_the_logarithm():
    """S = (c / 3) ln L + constant at a cut of a ring into halves, c = 1/2."""
    sizes = np.arange(4, 13, 2)
    slope, _ = np.polyfit(np.log(sizes), [half_chain_entropy(n, 1.0) for n in sizes], 1)
    assert slope == pytest.approx(1 / 6, rel=0.1)


def test_away_from_the_critical_field_the_entropy_stays():
    assert half_chain_entropy(12, 2.0) == pytest.approx(half_chain_entropy(8, 2.0), rel=0.01)
    assert half_chain_entropy(12, 0.1) == pytest.approx(math.log(2), rel=0.001)


def test_as_many_sites_as_it_says_are_allowed(monkeypatch):
    monkeypatch.setattr("mpo_tutorial.maths.states.MOST_SITES", 4)
    assert ghz(4).shape == ising_ground_state(4, 1.0)[1].shape == (16,)
    for call in (lambda: ghz(5), lambda: ising_ground_state(5, 1.0)):
        with pytest.raises(ValueError, match="to 4 sites here, got 5"):
            call()


def test_bad_input_is_refused():
    cases = [
        (lambda: ising_ground_state(2, 1.0), "3 to 20 sites here, got 2"),
        (lambda: ising_ground_state(21, 1.0), "got 21"),
        (lambda: ising_ground_state(4, 1.0, parity=0), "1 or -1, got 0"),
        (lambda: ising_ground_state(4, math.nan), "finite numbers, got nan"),
        (lambda: ising_ground_state(4, 0.0, 0.0), r"^field and coupling are both 0: every state is a ground state$"),
        (lambda: schmidt_values(np.array(["a"] * 4), (2, 2), 1), "real or complex numbers"),
        (lambda: ghz(1), "2 to 20 sites here, got 1"),
        (lambda: w(2.0), "got 2.0"),
        (lambda: schmidt_values(ghz(2), (2, 3), 1), r"\(2, 3\), a state of shape \(4,\)"),
        (lambda: schmidt_values(ghz(2), (2.0, 2), 1), "must multiply out"),
        (lambda: schmidt_values(ghz(2), (-2, -2), 1), "must multiply out"),
        (lambda: schmidt_values(ghz(2), (2, 2), 2), "1 to 1, got 2"),
        (lambda: schmidt_values(np.array([1.0, math.inf, 0.0, 0.0]), (2, 2), 1), "its entry 1 is not"),
    ]
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
