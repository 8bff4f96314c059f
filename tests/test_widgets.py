import numpy as np
import pytest
from matplotlib import pyplot as plt

from mpo_tutorial import widgets


@pytest.fixture
def matrix() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((6, 8))


def test_the_slider_moves_words_and_picture(matrix):
    slider, shown = widgets.rank_explorer(matrix).children
    first = shown.value
    assert "Rank 1 of 6: 14 numbers instead of 48" in first
    slider.value = 6
    assert "Rank 6 of 6: 84 numbers instead of 48 (175 %), error 0.0 %" in shown.value
    assert shown.value.split("base64,")[1] != first.split("base64,")[1]
    assert not plt.get_fignums()


def test_no_setting_of_the_slider_is_an_error(matrix):
    slider, shown = widgets.rank_explorer(matrix, rank=3).children
    for rank in (-5, 0, 1, 3, 6, 7, 10**9, 2):
        slider.value = rank
        assert f"Rank {min(max(rank, 1), 6)} of 6" in shown.value


def test_a_matrix_with_nan_gets_a_sentence(matrix):
    matrix[2, 3] = np.nan
    assert "got nan in row 2, column 3" in widgets.rank_explorer(matrix).value
