import matplotlib.pyplot as plt
import pytest
from judged import CURVE, judged
from PIL import Image

from mpo_tutorial.course import figures
from mpo_tutorial.course.tables import TableRow

ROWS = [
    TableRow("light, this run", 1_000_000, 21_000_000, 0.78, (0.76, 0.80), 100, 4_000_000),
    TableRow("full, this run", 20_000_000, 20_000_000, 0.79, (0.77, 0.81), 60, 80_000_000),
]


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_methods_stand_at_what_they_trained_and_reached(ax):
    assert figures.trained_against_accuracy(ax, ROWS) is ax
    heights = [float(container.lines[0].get_ydata()[0]) for container in ax.containers]
    assert heights == pytest.approx([78, 79])
    for container, row in zip(ax.containers, ROWS, strict=True):
        assert container.lines[0].get_xdata()[0] == pytest.approx(row.trained / 1e6, rel=0.1)
    assert texts(ax) == ["light, this run\n78.0 %", "full, this run\n79.0 %"]
    assert ax.get_title() == "Train 5.0 % of the parameters"


def test_one_run_alone_is_compared_with_its_own_model(ax):
    figures.trained_against_accuracy(ax, ROWS[:1])
    assert ax.get_title() == "Train 4.8 % of the parameters"


def test_a_saved_picture_carries_its_description(tmp_path):
    alt_text = figures.demo_alt_text(ROWS, CURVE)
    assert "1.0 million parameters trained: 78.0 %" in alt_text
    assert "60 % at bond 96 (60 % of the size)" in alt_text
    assert "with the head's bias fitted again 78, 72, 56; AUC, times 100, 86, 80, 60." in alt_text
    alone = figures.demo_alt_text(ROWS, [{**CURVE[0], "validation": judged(390, None, 0)}])
    assert alone.endswith("78 % at bond 192 (110 % of the size).")
    figures.save(figures.demo_picture(ROWS, CURVE, 0.5), tmp_path / "picture.png", alt_text)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.info["Description"] == alt_text
        assert picture.width >= 1500
    assert not plt.get_fignums()
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_axes_are_labelled():
    figure = figures.demo_picture(ROWS, CURVE, 0.5)
    for axes in figure.axes:
        assert axes.get_title()
        assert axes.get_xlabel()
        assert axes.get_ylabel()
