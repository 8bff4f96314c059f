import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS

from mpo_tutorial.maths.linalg import (
    _upper_gram,
    frobenius_norm,
    positive_qr,
    relative_error,
    require_floating,
    scale_of,
    singular_values,
    split,
    svd,
)

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
    np.testing.assert_allclose(s.numpy(), exact[:keep], atol=1e-12 * exact[0])
    error = torch.linalg.matrix_norm(u * s @ vh - matrix).item()
    assert error == pytest.approx(np.linalg.norm(exact[keep:]), abs=1e-12 * exact[0])
    short = u if size[0] <= size[1] else vh.T
    torch.testing.assert_close(short.T @ short, torch.eye(keep, dtype=torch.float64))
    assert (short.amax(0) >= (1 - 1e-4) * short.abs().amax(0)).all()


@pytest.mark.parametrize("size", [(3, 40), (40, 3), (8, 9)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_split_is_an_isometry_and_the_rest(size, dtype):
    matrix = random(size, 0).to(dtype)
    u, s, v = split(matrix, 2)
    rounding = 100 * torch.finfo(dtype).eps
    torch.testing.assert_close(u.T @ u, torch.eye(2, dtype=dtype), atol=rounding, rtol=0)
    best, weights, vh = svd(matrix, 2)
    torch.testing.assert_close(u * s @ v, best * weights @ vh, atol=10 * rounding, rtol=0)


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


def test_both_sides_of_a_square_matrix_are_orthonormal_whatever_its_rank():
    u, _, vh = svd(random((6, 6), 1, rank=2).float())
    for vectors in (u.T, vh):
        torch.testing.assert_close(vectors @ vectors.T, torch.eye(6))


@given(size=SIZES, seed=SEEDS, rank=st.integers(1, 3))
def test_singular_values_are_those_of_numpy(size, seed, rank):
    rank = min(rank, *size)
    for matrix in (random(size, seed), random(size, seed, rank)):
        values = singular_values(matrix)
        exact = np.linalg.svd(matrix.numpy(), compute_uv=False)
        np.testing.assert_allclose(values.numpy(), exact, atol=1e-12 * exact[0])
        assert (values[:-1] >= values[1:]).all()


@pytest.mark.parametrize("size", [(4, 40), (40, 4), (4, 5)])
def test_small_singular_values_keep_their_digits(size):
    left, right = (torch.linalg.qr(random((n, 4), seed))[0] for seed, n in enumerate(size))
    spectrum = torch.tensor(
        [1.0, 5e-9, 1e-10, 1e-11], dtype=torch.float64
    )  # of squares no more than 1e-8 would be left
    matrix = left * spectrum @ right.T
    torch.testing.assert_close(singular_values(matrix), spectrum, atol=1e-13, rtol=0)
    u, s, vh = svd(matrix, 2)
    torch.testing.assert_close(s, spectrum[:2], atol=1e-13, rtol=0)
    assert torch.linalg.matrix_norm(u * s @ vh - matrix).item() == pytest.approx(1e-10, rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [5, 6, 12])
def test_rounding_chooses_no_sign_between_entries_of_one_magnitude(columns, dtype):
    """All entries of the left vectors are 1/2 or -1/2: those of the first row are positive, however the last digits fall."""
    signs = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]], dtype=torch.float64)
    right = torch.linalg.qr(random((columns, 4), 0))[0]
    matrix = signs / 2 * torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64) @ right.T
    for seed in range(20):
        shaken = (matrix + torch.finfo(dtype).eps * random((4, columns), seed)).to(dtype)
        torch.testing.assert_close(svd(shaken)[0], (signs / 2).to(dtype), atol=1e-5, rtol=0)
        torch.testing.assert_close(svd(shaken.T)[2], (signs.T / 2).to(dtype), atol=1e-5, rtol=0)
        torch.testing.assert_close(split(shaken)[0], (signs / 2).to(dtype), atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [-1.0, -0.1, 0.1, 1.0])
def test_qr_has_a_positive_diagonal(factor):
    q, r = positive_qr(factor * torch.eye(3))
    torch.testing.assert_close(r, abs(factor) * torch.eye(3))
    torch.testing.assert_close(q @ r, factor * torch.eye(3))


@pytest.mark.parametrize("size", [(4, 8), (3, 8), (3, 40)])
def test_a_wide_float32_matrix_is_split_into_an_isometry_and_the_rest_without_weights(size):
    matrix = random(size, 0).float()
    u, s, v = split(matrix)
    assert torch.equal(s, torch.ones(size[0]))
    torch.testing.assert_close(v, u.T @ matrix)
    torch.testing.assert_close(split(random((4, 7), 0).float())[1], singular_values(random((4, 7), 0)).float())


def test_a_wide_float64_matrix_is_split_without_squares():
    left, right = (torch.linalg.qr(random((n, 3), seed))[0] for seed, n in enumerate((3, 40)))
    u, s, v = split(left * torch.tensor([1.0, 1e-9, 1e-11], dtype=torch.float64) @ right.T)
    assert ((u.T @ left).abs() - torch.eye(3)).abs().max() < 1e-3  # through squares the last two would mix
    torch.testing.assert_close(s[:, None] * v, u.T @ left @ torch.diag(s) @ right.T, atol=1e-13, rtol=0)


@pytest.mark.parametrize("chunk", [1, 6, 12, 10**6])
def test_the_gram_matrix_is_summed_over_chunks_on_the_matrixs_device(chunk):
    matrix = random((5, 17), 0)
    gram = _upper_gram(matrix, chunk=chunk)
    torch.testing.assert_close(gram.triu(), (matrix @ matrix.T).triu())
    assert _upper_gram(matrix.to("meta"), chunk=chunk).device.type == "meta"


def test_what_is_no_tensor_is_named_by_its_type():
    with pytest.raises(ValueError, match=r"tensors of torch, got list$"):
        require_floating([1.0])


def test_relative_error_of_nothing():
    zero = torch.zeros(2, 2)
    assert relative_error(zero, zero) == 0
    assert relative_error(torch.eye(2), zero) == math.inf


@pytest.mark.parametrize("factor", [1e-170, 1.0, 1e200])
def test_relative_error_and_norm_of_what_cannot_be_squared(factor):
    matrix = random((3, 4), 0)
    assert frobenius_norm(factor * matrix) == pytest.approx(factor * torch.linalg.matrix_norm(matrix).item())
    assert relative_error(factor * 1.5 * matrix, factor * matrix) == pytest.approx(0.5)


def test_relative_error_of_half_precision_is_that_of_the_numbers():
    huge = torch.tensor([[60000.0]], dtype=torch.float16)
    assert relative_error(-huge, huge) == 2


def test_relative_error_does_not_broadcast():
    with pytest.raises(ValueError, match=r"one shape, got \(1, 4\) and \(3, 4\)"):
        relative_error(torch.ones(1, 4), torch.ones(3, 4))


@pytest.mark.parametrize("largest", [3e-300, 1e-7, 0.1, 1.0, 1e6, 5e20])
def test_scaling_rounds_nothing(largest):
    tensor = largest * torch.tensor([[0.3, -1.0]], dtype=torch.float64)
    scale = scale_of(tensor)
    assert torch.equal(tensor / scale * scale, tensor)
    assert 2**-20 <= (tensor / scale).abs().max() <= 2**20
    assert (scale == 1) == (2**-20 <= largest <= 2**20)
    assert scale_of(torch.zeros(2)) == scale_of(torch.zeros(0, 2)) == 1


def test_the_scale_is_the_power_of_two_below():
    for largest, scale in (
        (2.0**20, 1),
        (2.0**21, 2**21),
        (3 * 2.0**30, 2**31),
        (2.0**-20, 1),
        (1.5 * 2.0**-21, 2**-21),
    ):
        assert scale_of(torch.tensor([0.1, -1]) * largest) == scale


def test_what_is_not_finite_is_found_in_any_shape():
    tensor = torch.zeros(2, 3, 4)
    tensor[1, 2, 3] = -math.inf
    with pytest.raises(ValueError, match=r"got -inf in index \[1, 2, 3\]"):
        scale_of(tensor)
