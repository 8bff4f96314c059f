import numpy as np
import pytest

from mpo_tutorial.course.network_explorers import NetworkExplorer
from mpo_tutorial.course.network_figures import what_cores_see
from mpo_tutorial.course.widgets import network_explorer
from mpo_tutorial.experiments.statistics import over_seeds
from mpo_tutorial.models.images import order_of


@pytest.fixture
def explorer() -> NetworkExplorer:
    accuracies = {"FC2, MPO, bond 2": (0.80, 0.82), "FC2, MPO, bond 16": (0.87, 0.88), "FC2, dense": (0.88, 0.90)}
    entropies = {2: ([0.6, 0.6, 0.6], [0.1, 0.2, 0.3]), 16: ([2.0, 2.5, 2.0], [1.0, 2.0, 1.5])}
    final = {}
    for name in accuracies:
        bond = int(name.rpartition(" ")[2]) if "bond" in name else None
        before, after = entropies.get(bond, (None, None))
        moved = [[value + 0.2 for value in after] if after else None, after]
        final[name] = [{"result": {"entropies": {"before": before, "after": of}}} for of in moved]
    variants = {name: {"test": over_seeds(values)} for name, values in accuracies.items()}
    return NetworkExplorer({"variants": variants, "final": final})


def test_words_count_the_first_layer_and_say_what_is_on_record(explorer):
    assert explorer.bonds == [2, 16]
    words = explorer.in_words(2)
    assert words.startswith(
        "Bond dimension 2: 288 numbers in the first layer, 0.14 % of the dense one's 200,704. 81.0 ["
    )
    assert "the dense network 89.0 [" in words
    assert words.endswith("after training: 0.20, 0.30, 0.40 nats.")
    assert "14,848 numbers" in explorer.in_words(16)


def test_the_figure_has_every_bond_the_dense_band_and_both_chains(explorer):
    figure = explorer.figure(16)
    left, right = figure.axes
    drawn = sorted(
        (line.get_xdata()[0], round(line.get_ydata()[0], 6)) for line in left.lines if line.get_marker() == "o"
    )
    assert drawn == [(2, 81.0), (16, 87.5)]
    points = {line.get_label(): list(line.get_ydata()) for line in right.lines}
    assert points["random"] == [2.0, 2.5, 2.0]
    assert points["trained"] == pytest.approx([1.1, 2.1, 1.6])
    assert [bar.get_height() for bar in right.patches] == pytest.approx(np.log([16, 16, 16]))


def test_what_wider_bonds_do_is_not_shown_before_one_comes_to_them(explorer):
    narrow, wide = (explorer.figure(bond).axes for bond in (2, 16))
    assert [line.get_xdata()[0] for line in narrow[0].lines if line.get_marker() == "o"] == [2]
    for one, other in zip(narrow, wide, strict=True):
        assert one.get_ylim() == other.get_ylim()
    assert narrow[0].get_xlim() == wide[0].get_xlim()


def test_the_slider_moves_words_and_figure(explorer):
    box = network_explorer(explorer)
    slider, shown = box.children
    assert "Bond dimension 2:" in shown.value
    slider.value = 16
    assert "Bond dimension 16:" in shown.value


def test_what_a_core_sees_are_the_digits_of_a_pixels_place():
    seen = [ax.images[0].get_array() for ax in what_cores_see((4, 7, 7, 4)).axes]
    for row, column in ((0, 0), (13, 27), (27, 5)):
        assert [image[row, column] for image in seen] == [row // 7, row % 7, column // 4, column % 4]
    first = what_cores_see((4, 7, 7, 4), order_of("digits, in blocks")).axes[0].images[0].get_array()
    assert (first[:7] == 0).all()
    assert (first[21:] == 3).all()
