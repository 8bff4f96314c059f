"""Quantum states of a chain of sites, as vectors of amplitudes, and their Schmidt values.

The amplitude of the basis state (b_1, .., b_n) stands at b_1 b_2 .. b_n read as a number, the first site first: of three
spins, `|011>` is entry 3.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array, diags_array
from scipy.sparse.linalg import eigsh

from mpo_tutorial.maths.entropy import check_cut
from mpo_tutorial.maths.shapes import is_integer

MOST_SITES = 20


def schmidt_values(state: np.ndarray, legs: Sequence[int], cut: int) -> np.ndarray:
    """Schmidt values of a state, a vector of prod(legs) amplitudes, at the cut after its first `cut` sites.

    >>> schmidt_values(bell(), (2, 2), 1).round(4)
    array([0.7071, 0.7071])

    Parameters
    ----------
    state : real or complex array of shape (prod(legs),)
    legs : sequence of int
        Dimension of each site: (2,) * n for n spins.
    cut : int, 1 to n - 1

    Returns
    -------
    float64 array, descending

    Raises
    ------
    ValueError
        If the legs do not multiply out to the state, it is not finite, or the cut is out of range.
    """
    state = np.asarray(state)
    if state.dtype.kind not in "iufc":
        raise ValueError(f"a state is an array of real or complex numbers, got {state.dtype}")
    state = state.astype(np.result_type(state, np.float64))
    if any(not is_integer(leg) or leg < 1 for leg in legs) or state.shape != (math.prod(legs),):
        raise ValueError(f"the legs must multiply out to the state: {tuple(legs)}, a state of shape {state.shape}")
    if not np.isfinite(state).all():
        raise ValueError(f"a state must be finite, its entry {np.flatnonzero(~np.isfinite(state))[0]} is not")
    check_cut(cut, len(legs))
    return np.linalg.svd(state.reshape(math.prod(legs[:cut]), -1), compute_uv=False)


def bell() -> np.ndarray:
    """`(|00> + |11>) / sqrt 2`: one bit of entanglement, entropy ln 2."""
    return ghz(2)


def ghz(n_sites: int) -> np.ndarray:
    """`(|0..0> + |1..1>) / sqrt 2`: entropy ln 2 at every cut."""
    state = np.zeros(2 ** _checked(n_sites))
    state[[0, -1]] = math.sqrt(0.5)
    return state


def w(n_sites: int) -> np.ndarray:
    """One spin up among n, wherever it is: `(|10..0> + |01..0> + .. + |0..01>) / sqrt n`."""
    state = np.zeros(2 ** _checked(n_sites))
    state[2 ** np.arange(n_sites, dtype=int)] = 1 / math.sqrt(n_sites)
    return state


def random_state(n_sites: int, seed: int) -> np.ndarray:
    """Complex amplitudes, uniform on the sphere. Its entropy is nearly the largest that a cut allows (Page 1993)."""
    generator = np.random.default_rng(seed)
    state = generator.standard_normal((2 ** _checked(n_sites), 2)) @ [1, 1j]
    return state / np.linalg.norm(state)


def ising_ground_state(n_sites: int, field: float, coupling: float = 1.0, parity: int = 1) -> tuple[float, np.ndarray]:
    """Ground state of the periodic transverse-field Ising chain, -J sum Z_i Z_{i+1} - h sum X_i, in a parity sector.

    The Hamiltonian does not change under a flip of all spins, P = prod X_i. In a weak field the lowest states with P = 1
    and P = -1 differ in energy by less than rounding, and a solver that looks at both returns any mixture. Here it looks
    at one. (Written in the X basis, P counts the minus signs, so a sector is every second basis state.)

    Parameters
    ----------
    n_sites : int, 3 to 20
    field, coupling : float
        h and J.
    parity : {1, -1}

    Returns
    -------
    energy : float
    state : float64 array of shape (2 ** n_sites,)
        In the Z basis, its largest amplitude positive.

    Raises
    ------
    ValueError
        If a number is out of range.
    """
    if not is_integer(n_sites) or not 3 <= n_sites <= MOST_SITES:
        raise ValueError(f"a ring has 3 to {MOST_SITES} sites here, got {n_sites!r}")
    if parity not in (1, -1):
        raise ValueError(f"parity is 1 or -1, got {parity!r}")
    if not (math.isfinite(field) and math.isfinite(coupling)):
        raise ValueError(f"field and coupling are finite numbers, got {field!r} and {coupling!r}")
    if field == coupling == 0:
        raise ValueError("field and coupling are both 0: every state is a ground state")
    n_sites = int(n_sites)
    states = np.arange(2**n_sites)
    minuses = np.bitwise_count(states)
    sector = states[minuses % 2 == (parity == -1)]
    place = np.empty(2**n_sites, dtype=int)
    place[sector] = np.arange(len(sector))
    bonds = [1 << i | 1 << (i + 1) % n_sites for i in range(n_sites)]  # Z_i Z_{i+1} flips both signs in the X basis
    rows = np.concatenate([place[sector ^ bond] for bond in bonds])
    columns = np.tile(np.arange(len(sector)), n_sites)
    flips = coo_array((np.full(len(rows), -coupling), (rows, columns)), shape=(len(sector),) * 2)
    hamiltonian = flips.tocsr() + diags_array(-field * (n_sites - 2.0 * minuses[sector]))
    start = np.random.default_rng(0).standard_normal(len(sector))
    energy, vector = eigsh(hamiltonian, k=1, which="SA", v0=start)
    state = np.zeros(2**n_sites)
    state[sector] = vector[:, 0]
    for site in range(n_sites):  # from the X basis to the Z basis, site by site
        a, b = np.moveaxis(state.reshape(2**site, 2, -1), 1, 0)
        state = np.stack([a + b, a - b], axis=1).ravel() * math.sqrt(0.5)
    return float(energy[0]), state * np.sign(state[np.abs(state).argmax()])


def _checked(n_sites: int) -> int:
    if not is_integer(n_sites) or not 2 <= n_sites <= MOST_SITES:
        raise ValueError(f"a chain has 2 to {MOST_SITES} sites here, got {n_sites!r}")
    return int(n_sites)  # NumPy's integers overflow
