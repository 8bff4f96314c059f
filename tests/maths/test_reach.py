import math

import numpy as np
import pytest
import torch
from tangents import projected, tangent
from torch import Tensor

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.reach import Reach, dimension, low_rank_share
from mpo_tutorial.maths.shapes import Shape, balanced_shape

# Equal sides, unequal and odd ones, legs of 1, two to seven cores, all of the matrix in reach.
SHAPES = [
    ((2, 3, 2), (2, 3, 2)),
    ((3, 2, 2), (1, 3, 5)),
    ((5, 3, 1), (1, 1, 7)),
    ((2, 2, 3, 2, 2), (2, 1, 2, 2, 1)),
    ((1, 2, 2, 3), (2, 2, 3, 1)),
    ((2, 3), (3, 2)),
    ((2, 1, 2), (1, 2, 1)),  # a pencil of square matrices
    ((2, 1, 3), (1, 2, 1)),
    ((2, 1, 2, 1, 2, 1, 2), (1, 2, 1, 3, 1, 2, 1)),
]
GAUGES = ("centred", "tt-svd", "amb")


def drawn(shape, n: int = 1, seed: int = 0) -> Tensor:
    """Matrices of the shape, in float64."""
    sizes = [math.prod(legs) for legs in shape]
    return torch.randn(n, *sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chain(matrix: Tensor, shape, gauge: str) -> MPO:
    if gauge == "amb":
        return MPO.from_blocks(matrix, shape)
    mpo = MPO.from_matrix(matrix, shape)
    return mpo if gauge == "centred" else mpo.canonize(len(mpo.cores) - 1)


def by_loops(matrix: Tensor, shape) -> np.ndarray:
    """All X M and M Y, as columns: each with one number of X or Y that is 1, summed entry by entry over the legs."""
    (i, j), c = shape, len(shape[0]) // 2
    cut = [(math.prod(legs[:c]), legs[c], math.prod(legs[c + 1 :])) for legs in (i, j)]
    tensor = np.einsum("abcxyz->axbycz", matrix.numpy().reshape(*cut[0], *cut[1]))
    (left_in, _, right_in), (left_out, _, right_out) = cut
    columns = []
    for a, x, p, q in np.ndindex(left_in, left_out, left_in, left_out):
        moved = np.zeros_like(tensor)
        moved[a, x] = tensor[p, q]
        columns.append(moved)
    for c_, z, p, q in np.ndindex(right_in, right_out, right_in, right_out):
        moved = np.zeros_like(tensor)
        moved[..., c_, z] = tensor[..., p, q]
        columns.append(moved)
    return np.stack([np.einsum("axbycz->abcxyz", moved).ravel() for moved in columns], axis=1)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_what_is_in_reach_is_what_the_auxiliary_cores_move_in_every_gauge(shape):
    matrix, change = drawn(shape, 2)
    found = Reach(matrix, shape).project(change).numpy()
    np.testing.assert_allclose(found, projected(by_loops(matrix, shape), change), atol=1e-7)
    for gauge in GAUGES:
        np.testing.assert_allclose(found, projected(tangent(chain(matrix, shape, gauge)), change), atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_directions_are_as_many_as_the_jacobians_rank_and_the_same_in_every_gauge(shape):
    (matrix,) = drawn(shape)
    spans = [tangent(chain(matrix, shape, gauge)) for gauge in GAUGES]
    ranks = [np.linalg.matrix_rank(span, rtol=1e-10) for span in (*spans, np.hstack(spans))]
    assert ranks == [dimension(shape)] * 4


def test_the_step_of_gradient_descent_is_not_the_same_in_every_gauge():
    shape = SHAPES[3]
    matrix, gradient = drawn(shape, 2)
    steps = []
    for gauge in GAUGES:
        jacobian = tangent(chain(matrix, shape, gauge))
        steps.append(jacobian @ (jacobian.T @ gradient.flatten().numpy()))
    for k, step in enumerate(steps):
        for other in steps[:k]:
            assert np.linalg.norm(step - other) > 0.1 * np.linalg.norm(step)


def test_the_share_is_the_squared_norm_of_the_part():
    shape = SHAPES[0]
    matrix, change = drawn(shape, 2)
    reach = Reach(matrix, shape)
    part = projected(by_loops(matrix, shape), change)
    share = (part**2).sum() / change.square().sum().item()
    assert 0 < share < 1
    assert reach.share(change) == pytest.approx(share, abs=1e-12)
    assert reach.share(torch.from_numpy(part)) == pytest.approx(1)
    assert reach.share(change - torch.from_numpy(part)) == pytest.approx(0, abs=1e-12)


def test_of_random_changes_the_share_of_dimensions_is_in_reach_in_the_mean():
    shape = ((3, 2, 2), (2, 3, 2))
    matrix, *changes = drawn(shape, 401)
    reach = Reach(matrix, shape)
    shares = [reach.share(change) for change in changes]
    mean, error = np.mean(shares), np.std(shares) / math.sqrt(len(shares))
    assert abs(mean - dimension(shape) / matrix.numel()) < 4 * error < 0.02


def test_a_matrix_of_low_rank_reaches_less():
    shape = ((3, 2, 3), (2, 2, 2))
    matrix, change = drawn(shape, 2)
    matrix[:] = matrix[:, :1] @ matrix[:1]
    found = Reach(matrix, shape).project(change).numpy()
    np.testing.assert_allclose(found, projected(by_loops(matrix, shape), change), atol=1e-7)
    assert np.linalg.matrix_rank(by_loops(matrix, shape), rtol=1e-10) < dimension(shape)


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_sizes_of_numbers_make_no_difference(size):
    shape = SHAPES[1]
    matrix, change = drawn(shape, 2)
    expected = Reach(matrix, shape).share(change)
    assert Reach(size * matrix, shape).share(size * change) == pytest.approx(expected, rel=1e-9)
    assert Reach(matrix, shape).share(change.float()) == pytest.approx(expected, rel=1e-5)


def test_real_shapes_are_counted():
    for sizes in ((384, 384), (384, 1536), (1536, 384)):
        shape = balanced_shape(*sizes)
        a, *_, b = MPO.from_blocks(torch.ones(sizes), shape).cores
        assert dimension(shape) == a.numel() + b.numel() - 1


def test_of_low_rank_is_what_the_first_singular_vectors_hold():
    (change,) = drawn(((2, 3, 2), (2, 3, 5)))  # 12 x 30
    u, s, vh = np.linalg.svd(change.numpy())
    for directions, rank in ((40, 0), (41, 1), (42 * 5 - 26, 4), (42 * 5 - 25, 5), (10**6, 12)):
        kept = np.linalg.norm(u[:, :rank] * s[:rank] @ vh[:rank]) ** 2 / np.linalg.norm(change) ** 2
        assert low_rank_share(change, directions) == pytest.approx(kept, abs=1e-12)


def test_what_has_no_reach_is_refused():
    shape = SHAPES[0]
    matrix, change = drawn(shape, 2)
    reach = Reach(matrix, shape)
    with pytest.raises(ValueError, match="this change is zero"):
        reach.share(torch.zeros_like(change))
    with pytest.raises(ValueError, match="the legs must multiply out"):
        reach.share(change[:-1])
    change[2, 3] = torch.inf
    with pytest.raises(ValueError, match="must be finite, got inf in row 2, column 3"):
        reach.share(change)
    padded = Shape((2, 3, 2), (2, 3, 2), padding=(1, 0))
    for refused in (lambda: Reach(matrix[:-1], padded), lambda: dimension(padded)):
        with pytest.raises(ValueError, match=r"got the padding \(1, 0\); take other legs"):
            refused()
