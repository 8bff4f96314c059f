import numpy as np
import pytest

from mpo_tutorial.course import squeeze_figures
from mpo_tutorial.course.squeeze_tables import (
    RACE_HEAD,
    STEP_HEAD,
    cells_of_race,
    cells_of_step,
    sentences_of_squeezing,
)
from mpo_tutorial.experiments.plans import Plan
from mpo_tutorial.experiments.statistics import over_seeds

QUERY, KEY, OUT = (
    f"bert.encoder.layer.{k}.{end}"
    for k, end in ((0, "attention.self.query"), (1, "attention.self.key"), (1, "output.dense"))
)
CUT = {"matrix": KEY, "before": [6, 9, 9, 6], "after": [6, 5, 5, 6], "estimate": 0.25, "error": 0.2}


def step(number: int, parameters: int, accuracy: float | None, *cuts: dict, loss_before: float | None = None) -> dict:
    judged = None if accuracy is None else {"accuracy": accuracy, "auc": accuracy + 0.1}
    losses = {"loss_before": loss_before, "loss_after": None if accuracy is None else 1 - accuracy}
    return {
        "number": number,
        "cuts": cuts,
        "parameters": parameters,
        "done": 4 * number,
        **losses,
        "validation": judged,
    }


def test_each_matrix_has_its_square_and_the_picked_one_a_frame(ax):
    squeeze_figures.matrices_left(ax, {QUERY: 1.1, KEY: 0.5, OUT: 0.25}, [OUT])
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["query", "key", "ff out"]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0", "1"]
    assert {text.get_position(): text.get_text() for text in ax.texts} == {(0, 0): "110", (1, 1): "50", (1, 2): "25"}
    picture = np.ma.filled(ax.images[0].get_array(), np.nan)
    np.testing.assert_allclose(picture, [[110, np.nan], [np.nan, 50], [np.nan, 25]])
    (frame,) = ax.patches
    assert frame.get_xy() == (0.5, 1.5)


def test_the_way_down_has_every_step_that_was_looked_at_and_marks_one(ax):
    steps = [step(0, 1000, 0.8), step(1, 800, None, CUT), step(2, 500, 0.6, CUT)]
    squeeze_figures.way_down(ax, steps, dense=1000, chosen=2)
    lines = {line.get_label(): line for line in ax.lines}
    for name, heights in (("accuracy", [80, 60]), ("AUC", [90, 70])):
        assert list(lines[name].get_xdata()) == pytest.approx([100, 50])
        assert list(lines[name].get_ydata()) == pytest.approx(heights)
    marked = [line for line in ax.lines if line.get_markersize() == 16]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in marked] == [(50, 60), (50, pytest.approx(70))]


def test_estimates_are_set_against_the_truth_with_a_line_where_they_are_equal(ax):
    squeeze_figures.estimates(ax, {"first": ([1.0, 4.0], [0.5, 3.0]), "second": ([2.0], [2.0])})
    lines = {line.get_label(): line for line in ax.lines}
    assert [list(data) for data in lines["first"].get_data()] == [[1.0, 4.0], [0.5, 3.0]]
    assert [list(data) for data in lines["equal"].get_data()] == [[0.5, 4.0]] * 2


def summary() -> dict:
    row = {"rate": 4e-4, "trained": 684_738, "total": 17_255_370, "stored_bytes": 21_350_184}
    test = {"test": over_seeds([0.7, 0.8, 0.75])}
    result = {"cores": 5_306_056, "bytes": 69_021_480}
    variants = {
        "one": {**row, **test, "minus_beside": over_seeds([-0.01, -0.03, -0.02])},
        "other": {**row, "test": over_seeds([0.9]), "minus_beside": None},
    }
    return {
        "variants": {**variants, "floor": {**row, "rate": None}},
        "final": {name: [{"result": result}] for name in variants},
    }


def test_the_race_has_a_bar_for_each_and_a_line_for_the_uncut(ax):
    squeeze_figures.race(ax, summary(), {"one": "the first", "other": "the second"}, "other")
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["the first", "the second"]
    low, high = summary()["variants"]["one"]["test"]["interval"]
    ends = [container.lines[2][0].get_segments()[0][:, 0] for container in ax.containers]
    np.testing.assert_allclose(ends[0], [100 * low, 100 * high])
    np.testing.assert_allclose(ends[1], [90, 90])
    assert [line.get_xdata()[0] for line in ax.lines if line.get_label() == "other 90.0"] == [90]
    assert ax.yaxis_inverted()


def test_the_table_of_the_race_counts_cores_and_bytes():
    one, other = cells_of_race(summary())
    assert one[:4] == ("one", "5.31 M", "0.68 M", "69.0 MB")
    assert one[4].startswith("75.0 [")
    assert one[5].startswith("-2.0 [")
    assert one[6:] == ("3", "0.0004")
    assert (other[0], other[5]) == ("other", "")
    assert len(one) == len(RACE_HEAD)
    assert [row[0] for row in cells_of_race(summary(), ["other"])] == ["other"]


def test_a_step_is_a_row():
    row = dict(zip(STEP_HEAD, cells_of_step(step(3, 1234, 0.75, CUT, loss_before=0.5)), strict=True))
    assert row == {
        "step": "3",
        "matrix": KEY,
        "bonds": "6.9.9.6 > 6.5.5.6",
        "estimate": "0.25",
        "error": "0.2",
        "numbers": "1,234",
        "steps": "12",
        "loss before": "0.500",
        "after": "0.250",
        "accuracy": "75.0 %",
        "AUC": "0.850",
    }
    several = dict(
        zip(
            STEP_HEAD,
            cells_of_step(step(1, 10, None, {**CUT, "error": 3.0, "estimate": None}, {**CUT, "error": 4.0})),
            strict=True,
        )
    )
    assert [several[name] for name in ("matrix", "bonds", "estimate", "error", "accuracy", "after")] == [
        "2 matrices",
        "",
        "",
        "5",
        "",
        "",
    ]


def test_how_it_ended_is_said_in_words():
    record = {
        "plan": Plan(delta=0.1).as_dict(),
        "parameters": {"cores": 600, "dense": 1000, "total": 2000},
        "bytes": 8_000_000,
        "stopped": "more than delta was lost",
        "kept": 1,
        "steps": [step(0, 900, 0.8), step(1, 600, 0.7), step(2, 500, 0.5)],
        "test": {"accuracy": 0.7, "interval": (0.65, 0.75)},
    }
    ended, size, scores = sentences_of_squeezing(record)
    assert ended == (
        "It ended because more than delta was lost (delta 0.1 of the loss), in step 2; the model is what it was after step 1."
    )
    assert "Numbers in the cores 600, 60.0 % of the matrices'" in size
    assert "8.0 MB" in size
    assert "test 70.0 % [65.0, 75.0]" in scores
    whole = sentences_of_squeezing({**record, "kept": 2, "stopped": "the plan is done"})[0]
    assert whole == "It ended because the plan is done."
    assert "what it was as it came" in sentences_of_squeezing({**record, "kept": 0})[0]
