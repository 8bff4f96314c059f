from itertools import product

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from mpo_tutorial.course import figures
from mpo_tutorial.course.tables import TableRow
from mpo_tutorial.experiments.statistics import over_seeds, score

ROWS = [
    TableRow("light, this run", 1_000_000, 21_000_000, 0.78, (0.76, 0.80), 100, 4_000_000),
    TableRow("full, this run", 20_000_000, 20_000_000, 0.79, (0.77, 0.81), 60, 80_000_000),
]
CURVE = [
    {"max_bond": bond, "ratio": ratio, "validation": score(np.arange(500) < right)}
    for bond, ratio, right in ((192, 1.1, 390), (96, 0.6, 300), (32, 0.1, 250))
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


def test_curve_shows_every_point_and_chance(ax):
    assert figures.truncation_curve(ax, CURVE, chance=0.5) is ax
    x, y = ax.lines[0].get_data()
    assert list(x) == pytest.approx([110, 60, 10])
    assert list(y) == pytest.approx([78, 60, 50])
    assert [text for text in texts(ax) if text.isdigit()] == ["192", "96", "32"]
    assert list(ax.lines[1].get_ydata()) == [50, 50]


def test_a_saved_picture_carries_its_description(tmp_path):
    alt_text = figures.demo_alt_text(ROWS, CURVE)
    assert "1.0 million parameters trained: 78.0 %" in alt_text
    assert "60 % at bond 96 (60 % of the size)" in alt_text
    figures.save(figures.demo_picture(ROWS, CURVE, 0.5), tmp_path / "picture.png", alt_text)
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.info["Description"] == alt_text
        assert picture.width >= 1500
    assert not plt.get_fignums()
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_the_chosen_and_the_measured_points_are_marked(ax):
    points = [{**point, "part": "all", "central": 10, "auxiliary": 2} for point in CURVE]
    figures.tradeoff(ax, {"all": points}, 0.5, points[1], [(points[2], score([True, False]))])
    marked = {line.get_marker(): line.get_data() for line in ax.lines if len(line.get_xdata()) == 1}
    assert marked["o"] == ([60], [60])
    assert marked["X"] == ([10], [50])
    ax.clear()
    figures.shares_kept(ax, points[0], {**points[0], "central": 5}, 0.25)
    assert texts(ax) == ["50 %", "100 %", "25 %"]


def test_axes_are_labelled():
    figure = figures.demo_picture(ROWS, CURVE, 0.5)
    for axes in figure.axes:
        assert axes.get_title()
        assert axes.get_xlabel()
        assert axes.get_ylabel()
    plt.close(figure)


def summary() -> dict:
    """Two parts, two ways and two ratios, every number another."""
    rows = [{"way": "uncut", "ratio": None, "part": "none", "accuracy": over_seeds([0.8, 0.82])}]
    for k, (part, way, ratio) in enumerate(product(("query", "key"), ("plain", "bias", "fitted"), (0.8, 0.4))):
        accuracy = over_seeds([0.6 + 0.01 * k, 0.62 + 0.01 * k])
        loss = over_seeds([-0.2 + 0.005 * k, -0.21 + 0.005 * k])
        rows.append({"way": way, "ratio": ratio, "part": part, "accuracy": accuracy, "minus_uncut": loss})
    return {"summary": rows, "layer_ratio": 0.4, "chance": {"unused": 0.51, "validation": 0.5}}


def ends_of_bars(container) -> np.ndarray:
    """Lower and upper ends of an errorbar's intervals, of shape (points, 2)."""
    return np.array([segment[:, 1] for segment in container.lines[2][0].get_segments()])


def test_losses_are_differences_at_the_ratio_of_layers(ax):
    record = summary()
    figures.losses(ax, record, ["key", "query"])
    for container, way in zip(ax.containers, ("plain", "bias", "fitted"), strict=True):
        rows = {r["part"]: r["minus_uncut"] for r in record["summary"] if (r["way"], r["ratio"]) == (way, 0.4)}
        expected = [rows["key"], rows["query"]]
        assert list(container.lines[0].get_ydata()) == pytest.approx([100 * row["mean"] for row in expected])
        np.testing.assert_allclose(ends_of_bars(container), [np.multiply(100, row["interval"]) for row in expected])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["key", "query"]


def test_ways_are_those_of_the_part(ax):
    record = summary()
    figures.accuracy_of_ways(ax, record, "key", ratio=0.4)
    for container, way in zip(ax.containers, ("plain", "bias", "fitted"), strict=True):
        rows = [r for r in record["summary"] if (r["part"], r["way"]) == ("key", way)]
        assert list(container.lines[0].get_ydata()) == pytest.approx([100 * r["accuracy"]["mean"] for r in rows])
        intervals = [np.multiply(100, r["accuracy"]["interval"]) for r in rows]
        np.testing.assert_allclose(ends_of_bars(container), intervals)
    levels = [
        line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2
    ]
    assert {round(level, 6) for level in levels} >= {81.0, 51.0}


def test_a_single_seed_is_drawn_without_an_interval(ax):
    record = summary()
    for row in record["summary"]:
        row["accuracy"]["interval"] = None
    figures.accuracy_of_ways(ax, record, "key")
    for container in ax.containers:
        ends = ends_of_bars(container)
        np.testing.assert_array_equal(ends[:, 0], ends[:, 1])
