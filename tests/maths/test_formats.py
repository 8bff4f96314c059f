import math

import numpy as np
import pytest
import torch

from mpo_tutorial.maths import formats
from mpo_tutorial.maths.formats import FORMATS, in_format
from mpo_tutorial.maths.linalg import relative_error
from mpo_tutorial.maths.shapes import balanced_shape

BLOCKS = {"Monarch, 4 blocks": 4, "block tensor train, 16 blocks": 16}


def random(*size: int, seed: int = 0, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("size", [(48, 96), (96, 48)])
def test_a_format_has_the_numbers_that_it_may_and_multiplies_as_its_matrix_does(name, size):
    matrix = random(*size)
    before = matrix.clone()
    network = in_format(name, matrix, matrix.numel() // 2)
    assert 0.8 * matrix.numel() / 2 < network.n_params <= matrix.numel() / 2
    assert network.n_params == sum(factor.numel() for factor in network.factors)
    assert network.to_matrix().shape == size
    x = random(3, 5, size[0], seed=1)
    assert torch.allclose(network.apply(x), x @ network.to_matrix(), atol=1e-10)
    assert torch.equal(matrix, before)
    assert 0.1 < relative_error(network.to_matrix(), matrix) < 1
    again = in_format(name, matrix, matrix.numel() // 2)
    assert torch.equal(again.to_matrix(), network.to_matrix())


def test_the_svd_is_the_best_of_its_rank():
    matrix = random(20, 30)
    network = in_format("SVD", matrix, 7 * 50 + 3)
    values = np.linalg.svd(matrix.numpy(), compute_uv=False)
    lost = np.linalg.norm((matrix - network.to_matrix()).numpy())
    assert lost == pytest.approx(np.linalg.norm(values[7:]))


def test_a_cp_is_a_sum_of_kronecker_products_and_finds_one():
    shape = balanced_shape(40, 18, 3)
    one = [random(i, j, seed=k) for k, (i, j) in enumerate(zip(shape.in_legs, shape.out_legs, strict=True))]
    matrix = torch.kron(torch.kron(one[0], one[1]), one[2])
    found = in_format("CP", matrix, sum(shape.pairs)).to_matrix()
    assert relative_error(found, matrix) < 1e-10
    network = in_format("CP", random(40, 18), 7 * sum(shape.pairs) + 1)
    a, b, c = network.factors
    assert a.shape[-1] == 7
    summed = sum(torch.kron(torch.kron(a[..., r], b[..., r]), c[..., r]) for r in range(a.shape[-1]))
    assert torch.allclose(summed, network.to_matrix(), atol=1e-10)
    for factors in zip(*(factor.flatten(0, 1).norm(dim=0) for factor in network.factors), strict=True):
        assert factors[0] == pytest.approx(factors[1].item()) == pytest.approx(factors[2].item())


def test_a_tucker_finds_a_tensor_that_is_one():
    shape_core = (2, 3, 2)
    core = random(*shape_core)
    shape = balanced_shape(48, 48, 3)
    sides = [
        random(i, j, rank, seed=k)
        for k, (i, j, rank) in enumerate(zip(shape.in_legs, shape.out_legs, shape_core, strict=True))
    ]
    matrix = sum(
        core[u, v, w] * torch.kron(torch.kron(sides[0][..., u], sides[1][..., v]), sides[2][..., w])
        for u in range(2)
        for v in range(3)
        for w in range(2)
    )
    network = in_format("Tucker", matrix, 400)
    assert network.n_params <= 400
    assert all(r >= s for r, s in zip(network.factors[0].shape, shape_core, strict=True))
    assert relative_error(network.to_matrix(), matrix) < 1e-7


def test_a_ring_is_a_trace_of_products():
    matrix = random(24, 24)
    network = in_format("ring", matrix, 24 * 24 // 2)
    a, b, c = network.factors
    digits = [np.unravel_index(np.arange(24), [f.shape[axis] for f in network.factors]) for axis in (1, 2)]
    for row, column in ((0, 0), (7, 19), (23, 5)):
        i, j = [d[row] for d in digits[0]], [d[column] for d in digits[1]]
        product = a[:, i[0], j[0]] @ b[:, i[1], j[1]] @ c[:, i[2], j[2]]
        assert torch.trace(product) == pytest.approx(network.to_matrix()[row, column].item())


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_find_two_block_diagonal_matrices_with_a_permutation_between(name):
    blocks, m, n, rank = BLOCKS[name], 64, 96, 2
    a, d = m // blocks, n // blocks
    left, right = random(blocks, a, blocks * rank), random(blocks, blocks * rank, d, seed=1)
    # x goes through the blocks of `left` (which lie on rows with one b), is reordered, and goes through those of `right`
    matrix = torch.zeros(m, n, dtype=torch.float64)
    for b in range(blocks):
        for c in range(blocks):
            for i in range(a):
                for j in range(d):
                    part = left[b, i, c * rank : (c + 1) * rank] @ right[c, b * rank : (b + 1) * rank, j]
                    matrix[i * blocks + b, c * d + j] = part
    network = in_format(name, matrix, rank * blocks**2 * (a + d))
    assert relative_error(network.to_matrix(), matrix) < 1e-10


def test_more_numbers_lose_less():
    matrix = random(48, 48)
    for name in set(FORMATS) - {"block tensor train, 16 blocks"}:
        errors = [relative_error(in_format(name, matrix, n).to_matrix(), matrix) for n in (1600, 2000)]
        assert errors[1] < errors[0], name


def test_fitted_formats_beat_where_a_random_start_leads(monkeypatch):
    matrix = random(48, 48, seed=3)
    fitted = {name: relative_error(in_format(name, matrix, 1152).to_matrix(), matrix) for name in ("CP", "ring")}
    monkeypatch.setattr(formats, "SWEEPS", 1)
    for name, error in fitted.items():
        assert error < 0.95 * relative_error(in_format(name, matrix, 1152).to_matrix(), matrix)


@pytest.mark.parametrize(
    "name, size, n_params, word",
    [
        ("CPD", (8, 8), 30, "formats are SVD, CP, Tucker, ring, .*got 'CPD'"),
        ("SVD", (8, 8), 15, "rank 1 has 16 parameters, got room for 15"),
        ("CP", (8, 8), 5, "a CP of rank 1 has 12"),
        ("Tucker", (8, 8), 5, "a Tucker of rank 1 has 13"),
        ("ring", (8, 8), 5, "a ring of rank 1 has 12"),
        ("Monarch, 4 blocks", (8, 8), 5, "4 blocks of rank 1 has 64"),
        ("Monarch, 4 blocks", (8, 6), 40, r"4 blocks do not divide a matrix of shape \(8, 6\)"),
    ],
)
def test_what_cannot_be_is_refused(name, size, n_params, word):
    with pytest.raises(ValueError, match=word):
        in_format(name, torch.ones(size), n_params)


def test_seeds_are_other_starts():
    matrix = random(48, 48)
    for name in ("CP", "ring"):
        one, other = (in_format(name, matrix, 1152, seed) for seed in (0, 1))
        assert not torch.equal(one.to_matrix(), other.to_matrix())
        assert math.isclose(
            relative_error(one.to_matrix(), matrix), relative_error(other.to_matrix(), matrix), rel_tol=0.1
        )
