import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import bonds, matrices, shapes, usable

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape
from mpo_tutorial.maths.two_site import two_site


def error(mpo: MPO, matrix: torch.Tensor) -> float:
    return float(np.linalg.norm(mpo.to_matrix().numpy() - matrix.numpy()))


@given(data=st.data(), shape=shapes())
def test_the_error_never_grows_and_the_caps_are_kept(data, shape):
    matrix, caps = data.draw(matrices(shape)), usable(shape, data.draw(bonds(shape)))
    start = MPO.from_matrix(matrix, shape, caps)
    before = [core.clone() for core in start.cores]
    found = two_site(start, matrix, caps)
    assert all(bond <= cap for bond, cap in zip(found.bonds, caps, strict=True))
    assert error(found, matrix) <= error(start, matrix) + 1e-9 * (1 + np.linalg.norm(matrix.numpy()))
    assert all(torch.equal(a, b) for a, b in zip(before, start.cores, strict=True))


@pytest.mark.parametrize("legs", [((2, 3, 2), (3, 2, 2)), ((2, 2, 2, 2), (2, 3, 2, 1)), ((3, 4), (2, 5))])
def test_bonds_grow_until_the_matrix_is_there(legs):
    """From bonds of 1: each pair lets the bond in it grow by the legs beside it, and full bonds hold everything."""
    shape = Shape(*legs)
    matrix = torch.randn(shape.in_size, shape.out_size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    start = MPO.from_matrix(matrix, shape, 1)
    found = two_site(start, matrix, shape.full_bonds, sweeps=10)
    assert found.bonds == shape.full_bonds
    assert error(found, matrix) <= 1e-9 * np.linalg.norm(matrix.numpy())


@pytest.mark.parametrize("seed", range(5))
def test_as_near_as_quimb_comes(seed):
    """At least: both end at local optima. quimb sweeps the same chain, in and out legs as one site, until it has settled."""
    import quimb.tensor as qtn

    rng = np.random.default_rng(seed)
    shape, bond = Shape((2, 3, 2, 2), (2, 2, 3, 2)), 3
    matrix = torch.from_numpy(rng.normal(size=(24, 24)) * np.geomspace(1, 0.05, 24))
    found = two_site(MPO.from_matrix(matrix, shape, bond), matrix, bond, sweeps=40)
    legs = matrix.numpy().reshape(*shape.in_legs, *shape.out_legs).transpose(0, 4, 1, 5, 2, 6, 3, 7)
    whole = qtn.MatrixProductState.from_dense(legs.reshape(-1), dims=shape.pairs, cutoff=0.0)
    theirs = qtn.tensor_network_1d_compress(
        whole, max_bond=bond, cutoff=0.0, method="fit", bsz=2, max_iterations=80, tol=1e-14, optimize="greedy"
    )
    lost = np.linalg.norm(theirs.to_dense().reshape(-1) - legs.reshape(-1))
    assert error(found, matrix) <= 1.002 * lost
    assert error(found, matrix) < error(MPO.from_matrix(matrix, shape, bond), matrix)
