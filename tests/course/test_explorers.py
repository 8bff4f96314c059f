import numpy as np
import pytest
import torch

from mpo_tutorial.course.explorers import BondExplorer, EntropyExplorer, RankExplorer
from mpo_tutorial.maths import states


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


def test_the_entropy_of_the_ring_is_that_of_a_dense_calculation():
    explorer = EntropyExplorer(6, fields=(0.5,))
    state = states.ising_ground_state(6, 0.5)[1]
    density = state.reshape(8, 8) @ state.reshape(8, 8).T
    weights = np.linalg.eigvalsh(density)
    weights = weights[weights > 1e-15]
    dense = -(weights * np.log(weights)).sum()
    assert explorer.entropies == [pytest.approx(dense, abs=1e-9)]
    assert f"{dense:.4f} nats" in explorer.in_words(0.5)


def test_the_curve_is_drawn_as_far_as_the_slider_has_come():
    explorer = EntropyExplorer(4, fields=(0.5, 1.0, 2.0))
    curve, point = explorer.figure(1.0).axes[0].lines
    assert np.isnan(curve.get_ydata()).tolist() == [True, False, False]
    assert curve.get_ydata()[1:].tolist() == explorer.entropies[1:]
    assert point.get_xdata()[0] == 1.0
    curve, cat, _ = explorer.figure(1.0, whole=True).axes[0].lines
    assert curve.get_ydata().tolist() == explorer.entropies
    assert cat.get_ydata()[0] == np.log(2)


@pytest.fixture
def bonds() -> BondExplorer:
    matrix = torch.randn(12, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return BondExplorer(matrix, ((3, 2, 2), (2, 2, 2)))


def test_bonds_are_cut_one_by_one_and_the_words_agree_with_the_matrix(bonds):
    cut = bonds.cut((3, 2))
    assert cut.bonds == (3, 2)
    error = torch.linalg.norm(cut.to_matrix() - bonds.matrix) / torch.linalg.norm(bonds.matrix)
    bound = np.hypot(np.linalg.norm(bonds.spectra.values[0][3:]), np.linalg.norm(bonds.spectra.values[1][2:]))
    words = bonds.in_words(3, 2)
    assert f"{cut.n_params} numbers instead of 96" in words
    assert f"Error {100 * error:.1f} %" in words
    assert f"bound {100 * bound / torch.linalg.norm(bonds.matrix):.1f} %" in words


def test_a_bond_that_its_neighbour_cannot_use_is_said_to_be_smaller():
    shape = ((2, 2, 2, 2), (2, 2, 2, 2))
    explorer = BondExplorer(torch.randn(16, 16, generator=torch.Generator().manual_seed(0)), shape)
    assert explorer.full_bonds == (4, 16, 4)
    assert explorer.in_words(1, 16, 4).startswith("Bonds 1, 4, 4 (asked 1, 16, 4; the neighbours cannot use more)")


def test_presets_are_legal_bonds(bonds):
    presets = bonds.presets()
    assert presets["full"] == bonds.full_bonds == (6, 4)
    assert presets["one"] == (1, 1)
    for name, asked in presets.items():
        assert ("error 0.0 %" in bonds.in_words(*asked).lower()) == (name == "full")
