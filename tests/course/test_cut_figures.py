from itertools import product

import numpy as np
import pytest
from judged import CURVE, judged

from mpo_tutorial.course import cut_figures
from mpo_tutorial.experiments.statistics import over_seeds


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def curves(ax) -> dict[str, list[float]]:
    """Heights of the lines that the legend names."""
    return {line.get_label(): list(line.get_ydata()) for line in ax.lines if not line.get_label().startswith("_")}


def test_the_curve_shows_every_point_by_all_measures_and_chance(ax):
    assert cut_figures.truncation_curve(ax, CURVE, chance=0.5) is ax
    assert list(ax.lines[0].get_xdata()) == pytest.approx([110, 60, 10])
    expected = {"accuracy": [78, 60, 50], "accuracy, bias fitted again": [77.6, 72, 56], "AUC": [86, 80, 60]}
    assert curves(ax) == {name: pytest.approx(values) for name, values in expected.items()}
    assert [text for text in texts(ax) if text.isdigit()] == ["192", "96", "32"]
    assert [50, 50] in [list(line.get_ydata()) for line in ax.lines]
    assert ax.get_ylim()[1] > 86


def test_what_was_not_measured_is_not_drawn(ax):
    cut_figures.truncation_curve(ax, [*CURVE, {**CURVE[-1], "validation": judged(250, None, 0)}], chance=0.5)
    assert curves(ax).keys() == {"accuracy"}


@pytest.mark.parametrize(("measure", "heights"), [("accuracy", (60, 50)), ("refitted", (72, 56)), ("auc", (80, 60))])
def test_the_chosen_and_the_measured_points_are_marked(ax, measure, heights):
    points = [{**point, "part": "all"} for point in CURVE]
    cut_figures.tradeoff(ax, {"all": points}, 0.5, points[1], [(points[2], points[2]["validation"])], measure)
    marked = {line.get_marker(): line.get_data() for line in ax.lines if len(line.get_xdata()) == 1}
    assert [marked[mark][1][0] for mark in "oX"] == pytest.approx(heights)
    assert [marked[mark][0][0] for mark in "oX"] == pytest.approx([60, 10])
    interval = cut_figures.interval_of(points[1]["validation"], measure)
    assert (interval is None) == (measure == "auc")
    assert ends_of_bars(ax.containers[0])[0] == pytest.approx(
        np.multiply(100, interval) if interval else 2 * [heights[0]]
    )


def test_shares_are_those_of_the_whole(ax):
    cut_figures.shares_kept(ax, {"central": 10, "auxiliary": 2}, {"central": 5, "auxiliary": 2}, 0.25)
    assert texts(ax) == ["50 %", "100 %", "25 %"]


def summary() -> dict:
    """Two parts, two ways and two ratios, every number another."""
    uncut = {"way": "uncut", "ratio": None, "part": "none"}
    rows = [{**uncut, "accuracy": over_seeds([0.8, 0.82]), "auc": over_seeds([0.9, 0.92])}]
    for k, (part, way, ratio) in enumerate(product(("query", "key"), ("plain", "fitted"), (0.8, 0.4))):
        measures = {
            "accuracy": over_seeds([0.6 + 0.01 * k, 0.62 + 0.01 * k]),
            "auc": over_seeds([0.7 + 0.01 * k, 0.74]),
        }
        losses = {"accuracy": over_seeds([-0.2 + 0.005 * k, -0.21]), "auc": over_seeds([-0.1 + 0.005 * k, -0.15])}
        rows.append({"way": way, "ratio": ratio, "part": part, **measures, "minus_uncut": losses})
    return {"summary": rows, "layer_ratio": 0.4, "chance": {"unused": 0.51, "validation": 0.5}}


def ends_of_bars(container) -> np.ndarray:
    """Lower and upper ends of an errorbar's intervals, of shape (points, 2)."""
    return np.array([segment[:, 1] for segment in container.lines[2][0].get_segments()])


@pytest.mark.parametrize("measure", ["accuracy", "auc"])
def test_losses_are_differences_at_the_ratio_of_layers(ax, measure):
    record = summary()
    cut_figures.losses(ax, record, ["key", "query"], measure)
    for container, way in zip(ax.containers, ("plain", "fitted"), strict=True):
        rows = {r["part"]: r["minus_uncut"] for r in record["summary"] if (r["way"], r["ratio"]) == (way, 0.4)}
        expected = [rows["key"][measure], rows["query"][measure]]
        assert list(container.lines[0].get_ydata()) == pytest.approx([100 * row["mean"] for row in expected])
        np.testing.assert_allclose(ends_of_bars(container), [np.multiply(100, row["interval"]) for row in expected])
    assert [text.get_text() for text in ax.get_xticklabels()] == ["key", "query"]


@pytest.mark.parametrize(("measure", "levels"), [("accuracy", {81.0, 51.0}), ("auc", {91.0, 50.0})])
def test_ways_are_those_of_the_part(ax, measure, levels):
    record = summary()
    cut_figures.ways_compared(ax, record, "key", ratio=0.4, measure=measure)
    for container, way in zip(ax.containers, ("plain", "fitted"), strict=True):
        rows = [r for r in record["summary"] if (r["part"], r["way"]) == ("key", way)]
        assert list(container.lines[0].get_ydata()) == pytest.approx([100 * r[measure]["mean"] for r in rows])
        intervals = [np.multiply(100, r[measure]["interval"]) for r in rows]
        np.testing.assert_allclose(ends_of_bars(container), intervals)
    drawn = [line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1 and len(line.get_ydata()) == 2]
    assert {round(level, 6) for level in drawn} >= levels


def test_a_single_seed_is_drawn_without_an_interval(ax):
    record = summary()
    for row in record["summary"]:
        row["accuracy"]["interval"] = None
    cut_figures.ways_compared(ax, record, "key")
    for container in ax.containers:
        ends = ends_of_bars(container)
        np.testing.assert_array_equal(ends[:, 0], ends[:, 1])
