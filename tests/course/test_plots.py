from base64 import b64decode
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from mpo_tutorial.course import plots
from mpo_tutorial.maths.shapes import Shape


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_the_ellipse_has_the_singular_values_as_half_axes(ax):
    plots.ellipse(ax, np.array([[3.0, 0.0], [4.0, 5.0]]))
    distances = np.linalg.norm(ax.lines[1].get_data(), axis=0)
    assert [distances.max(), distances.min()] == pytest.approx([45**0.5, 5**0.5], rel=1e-3)
    assert [np.linalg.norm(arrow.xy) for arrow in ax.texts] == pytest.approx([1, 45**0.5, 1, 5**0.5])


def test_the_cut_stands_behind_the_last_value_that_is_kept(ax):
    plots.spectrum(ax, {"one": np.array([3.0, 2.0, 1.0]), "other": np.array([2.0, 2.0, 2.0])}, cut=2)
    assert list(ax.lines[0].get_ydata()) == [3, 2, 1]
    assert ax.lines[2].get_xdata()[0] == 2.5
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "other"]


def test_an_image_shows_zero_white_and_both_signs_alike(ax):
    plots.matrix_image(ax, np.array([[-2.0, 0.0, 2.0]]), 2.0, "title")
    colours = ax.images[0].cmap(ax.images[0].norm(np.array([-2.0, 0.0, 2.0])))
    assert np.allclose(colours[1], 1, atol=0.01)
    assert ax.images[0].get_clim() == (-2, 2)


def test_the_low_rank_picture_shows_what_adds_up():
    matrix = np.random.default_rng(0).standard_normal((4, 5))
    kept = np.round(matrix)
    figure = plots.low_rank_picture(matrix, kept, np.linalg.svd(matrix, compute_uv=False), 2)
    whole, part, rest = (axes.images[0].get_array() for axes in figure.axes[:3])
    np.testing.assert_allclose(part + rest, whole)
    page = plots.html(figure, 'a "quoted" < text')
    assert page.startswith('<img alt="a &quot;quoted&quot; &lt; text"')
    with Image.open(BytesIO(b64decode(page.split("base64,")[1].split('"')[0]))) as picture:
        assert picture.width > 1000
    assert not plt.get_fignums()


def test_colours_are_told_apart_by_readers_without_green_cones():
    """Deuteranopia simulated on linear RGB (Machado, Oliveira and Fernandes 2009); distances in CIE Lab."""
    simulate = np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    )
    to_xyz = np.array(
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    )

    def lab(colour: str) -> np.ndarray:
        rgb = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        xyz = to_xyz @ np.clip(simulate @ linear, 0, 1) / np.array([0.95047, 1, 1.08883])
        f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    colours = [lab(colour) for colour in plots.COLOURS]
    distances = [np.linalg.norm(a - b) for k, a in enumerate(colours) for b in colours[:k]]
    assert min(distances) > 15
    assert np.linalg.norm(lab("#D55E00") - lab("#7A8B00")) < 15  # a pair that fails, so the measure can


def test_a_chain_is_drawn_with_its_bonds_legs_and_sizes(ax):
    shape = Shape((3, 4, 2), (2, 4, 3))
    plots.chain(ax, shape, (4, 5))
    widths = [line.get_linewidth() for line in ax.lines if line.get_color() == plots.BLUE]
    assert widths[0] < widths[1]
    assert {"4", "5", "24", "320", "30"} <= set(texts(ax))


def test_the_definition_has_a_letter_for_each_axis_and_a_size_for_each_factor(ax):
    plots.contraction(ax, 3)
    assert {"$i_1$", "$j_3$", "$a_1$", "$a_2$", "$T_2[i_3, j_3]$"} <= set(texts(ax))
    assert [text for text in texts(ax) if "times" in text] == [
        r"$1 \times d_1$",
        r"$d_1 \times d_2$",
        r"$d_2 \times 1$",
    ]
    sizes = [(patch.get_width(), patch.get_height()) for patch in ax.patches]
    assert sizes[0][0] > sizes[0][1]
    assert sizes[2][0] < sizes[2][1]
    assert [[*line.get_xdata()] for line in ax.lines if line.get_color() == plots.BLUE] == [[0, 1], [1, 2]]


def test_the_bars_of_cores_are_their_sizes(ax):
    plots.core_parameters(ax, (10, 80, 10), central=1)
    assert [bar.get_height() for bar in ax.patches] == [10, 80, 10]
    assert texts(ax) == ["10.0 %", "80.0 %", "10.0 %"]
    assert [to_hex(bar.get_facecolor()).upper() for bar in ax.patches][1] == plots.ORANGE


def test_entropies_stand_below_what_the_bonds_allow(ax):
    plots.bond_entropies(ax, {"one": (0.5, 1.0)}, (2, 4))
    assert [bar.get_height() for bar in ax.patches] == pytest.approx([np.log(2), np.log(4)])
    assert list(ax.lines[0].get_ydata()) == [0.5, 1.0]


def test_a_heat_map_writes_every_number_in_a_colour_that_can_be_read(ax):
    plots.heat_map(ax, np.array([[0.0, 1.0], [0.25, 0.75]]), (0, 1), ("feed-forward in", "key"), "nats")
    assert texts(ax) == ["0.000", "1.000", "0.250", "0.750"]
    assert [text.get_color() for text in ax.texts] == ["white", "black", "white", "black"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["feed-\nforward\nin", "key"]


def test_curves_show_what_they_are_given(ax):
    plots.error_against_bound(ax, (1, 2), (0.5, 0.0), (0.6, 0.0))
    assert [list(line.get_ydata()) for line in ax.lines] == [[60, 0], [50, 0]]
    ax.clear()
    plots.entropy_against_field(ax, (0.5, 1.0), {"4 sites": (0.6, 0.7)})
    assert list(ax.lines[0].get_ydata()) == [0.6, 0.7]
    ax.clear()
    plots.entropy_against_cut(ax, {"W": (0.5, 0.6, 0.5)}, 4)
    assert list(ax.lines[0].get_data()[0]) == [1, 2, 3]
    ceiling = ax.collections[0].get_paths()[0].vertices[:, 1].max()
    assert ceiling == pytest.approx(2 * np.log(2))


def test_weights_fill_up_with_zeros(ax):
    plots.weights(ax, np.array([0.9, 0.1]), most=4)
    assert [bar.get_height() for bar in ax.patches] == [0.9, 0.1, 0, 0]


def test_axes_are_labelled():
    matrix = np.eye(3)
    figure = plots.low_rank_picture(matrix, matrix, np.ones(3), 3)
    for axes in figure.axes:
        assert axes.get_title()
        assert axes.get_xlabel()
        assert axes.get_ylabel()
