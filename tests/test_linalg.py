import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS

from mpo_tutorial.linalg import positive_qr, relative_error, singular_values, svd

SIZES = st.tuples(st.integers(1, 30), st.integers(1, 30))


def random(size, seed, rank=None):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(size, generator=generator, dtype=torch.float64)
    return matrix if rank is None else matrix[:, :rank] @ matrix[:rank]


@given(size=SIZES, seed=SEEDS, keep=st.integers(1, 30))
def test_svd_is_the_best_approximation_of_its_rank(size, seed, keep):
    matrix = random(size, seed)
    keep = min(keep, *size)
    u, s, vh = svd(matrix, keep)
    exact = np.linalg.svd(matrix.numpy(), compute_uv=False)
    np.testing.assert_allclose(s.numpy(), exact[:keep], atol=1e-7 * exact[0])
    error = torch.linalg.matrix_norm(u * s @ vh - matrix).item()
    assert error == pytest.approx(np.linalg.norm(exact[keep:]), abs=1e-7 * exact[0])
    short = u if size[0] <= size[1] else vh.T
    torch.testing.assert_close(short.T @ short, torch.eye(keep, dtype=torch.float64))
    assert (short.gather(0, short.abs().argmax(0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("size", [(3, 40), (40, 3), (8, 9), (9, 8)])
def test_float32_keeps_its_digits(size):
    matrix = random(size, 0)
    u, s, vh = svd(matrix.float())
    assert s.dtype == torch.float32
    assert relative_error(u * s @ vh, matrix) < 1e-6


@pytest.mark.parametrize("size", [(6, 50), (50, 6), (6, 7)])
def test_ranks_below_the_size_survive(size):
    for matrix in (torch.zeros(size), torch.ones(size), random(size, 1, rank=2)):
        u, s, vh = svd(matrix)
        torch.testing.assert_close(u * s @ vh, matrix)


@given(size=SIZES, seed=SEEDS, rank=st.integers(1, 3))
def test_singular_values_are_those_of_numpy(size, seed, rank):
    rank = min(rank, *size)
    for matrix in (random(size, seed), random(size, seed, rank)):
        values = singular_values(matrix)
        exact = np.linalg.svd(matrix.numpy(), compute_uv=False)
        np.testing.assert_allclose(values.numpy(), exact, atol=3e-8 * math.sqrt(30) * exact[0])
        assert (values[:-1] >= values[1:]).all()


@pytest.mark.parametrize("size", [(4, 40), (40, 4)])
def test_what_rounding_left_of_a_zero_is_zero(size):
    assert (singular_values(random(size, 0, rank=1))[1:] == 0).all()


def test_qr_has_a_positive_diagonal():
    matrix = -torch.eye(3)
    q, r = positive_qr(matrix)
    torch.testing.assert_close(r, torch.eye(3))
    torch.testing.assert_close(q @ r, matrix)


def test_relative_error_of_nothing():
    zero = torch.zeros(2, 2)
    assert relative_error(zero, zero) == 0
    assert relative_error(torch.eye(2), zero) == math.inf
