import numpy as np
import pytest

from mpo_tutorial.explorers import RankExplorer


@pytest.mark.parametrize("size", [(5, 3), (3, 5), (1, 1), (4, 4)])
def test_errors_counts_and_approximations_belong_together(size):
    matrix = np.random.default_rng(0).standard_normal(size)
    explorer = RankExplorer(matrix)
    assert explorer.largest_rank == min(size)
    for rank in range(1, min(size) + 1):
        lost = matrix - explorer.approximation(rank)
        assert explorer.error(rank) == pytest.approx(np.linalg.norm(lost) / np.linalg.norm(matrix), abs=1e-14)
        assert np.linalg.matrix_rank(explorer.approximation(rank)) == rank
        assert explorer.n_params(rank) == rank * size[0] + rank * size[1]


@pytest.mark.parametrize(("size", "rank"), [((384, 384), 191), ((384, 1536), 307), ((2, 2), 0), ((3, 7), 2)])
def test_break_even_is_the_last_rank_that_saves(size, rank):
    explorer = RankExplorer(np.ones(size))
    assert explorer.break_even == rank
    assert explorer.n_params(rank) < np.prod(size) <= explorer.n_params(rank + 1)


def test_a_zero_matrix_has_no_error():
    explorer = RankExplorer(np.zeros((2, 3)))
    assert explorer.error(1) == 0
    assert "error 0.0 %" in explorer.in_words(1)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.array([[1.0, np.nan]]), "got nan in row 0, column 1"),
        (np.ones(3), r"got float64 of shape \(3,\)"),
        (np.ones((0, 3)), r"of shape \(0, 3\)"),
        (np.array([["a"]]), "a matrix of real numbers is needed"),
    ],
)
def test_what_is_no_matrix_is_refused(matrix, message):
    with pytest.raises(ValueError, match=message):
        RankExplorer(matrix)
