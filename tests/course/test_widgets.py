import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt

from mpo_tutorial.course import widgets


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


def test_the_field_moves_the_entropy():
    slider, shown = widgets.entropy_explorer(6, field=0.5).children
    first = shown.value
    assert "Field 0.50 J" in first
    slider.value = 1.0
    assert "Field 1.00 J" in shown.value
    assert shown.value.split("base64,")[1] != first.split("base64,")[1]
    for field in (-1, 0, 5, 1e9):
        slider.value = field
        assert f"Field {min(max(field, 0.05), 2):.2f} J" in shown.value
    assert not plt.get_fignums()


@pytest.fixture
def bond_explorer():
    matrix = torch.randn(12, 8, generator=torch.Generator().manual_seed(0))
    return widgets.bond_explorer(matrix, ((3, 2, 2), (2, 2, 2)))


def test_each_bond_has_a_slider_up_to_its_full_bond(bond_explorer):
    first, second, _, shown = bond_explorer.children
    assert (first.max, second.max) == (6, 4)
    before = shown.value
    assert "Bonds 6, 4: " in before
    second.value = 2
    assert "Bonds 6, 2: " in shown.value
    assert shown.value.split("base64,")[1] != before.split("base64,")[1]
    for bond in (-3, 0, 99):
        first.value = bond
        assert f"Bonds {min(max(bond, 1), 6)}, 2" in shown.value
    assert not plt.get_fignums()


def test_presets_set_all_bonds_and_reset_brings_them_back(bond_explorer):
    first, second, buttons, shown = bond_explorer.children
    named = {button.description: button for button in buttons.children}
    for name, bonds in (("half", (3, 2)), ("one", (1, 1)), ("quarter", (1, 1)), ("reset", (6, 4))):
        named[name].click()
        assert (first.value, second.value) == bonds
        assert f"Bonds {bonds[0]}, {bonds[1]}: " in shown.value
    first.value = 2  # the sliders still answer one by one
    assert "Bonds 2, 4" in shown.value


def test_a_matrix_that_makes_no_chain_gets_a_sentence():
    shape = ((3, 2, 2), (2, 2, 2))
    assert "got nan in row 0, column 0" in widgets.bond_explorer(torch.full((12, 8), torch.nan), shape).value
    assert "the legs must multiply out" in widgets.bond_explorer(torch.ones(5, 5), shape).value


def test_layer_and_matrix_are_chosen_from_lists(tiny_model):
    from mpo_tutorial.course.model_explorers import ModelMap
    from mpo_tutorial.models.loading import load

    layer, kind, shown = widgets.model_map(ModelMap(load(tiny_model, n_labels=2, seed=0)[0])).children
    for number in layer.options:
        layer.value = number
        for name in kind.options:
            kind.value = name
            place = "bert.pooler" if name == "pooler" else f"bert.encoder.layer.{number}."
            assert place in shown.value
    assert not plt.get_fignums()


def test_a_model_that_cannot_be_had_is_said_in_the_widget():
    def missing():
        raise FileNotFoundError("not installed; type: pip install it")

    _, bond, _, row, shown = widgets.tradeoff_explorer(missing).children
    row.children[0].click()
    assert shown.value == "<p>not installed; type: pip install it</p>"
    bond.value = 96
    assert "On record" in shown.value
