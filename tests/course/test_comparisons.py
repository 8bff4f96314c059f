import numpy as np
import pytest
from matplotlib import pyplot as plt

from mpo_tutorial.course import comparisons, widgets
from mpo_tutorial.course.comparisons import RateExplorer
from mpo_tutorial.experiments.statistics import over_seeds

RATES = {
    "cores": {1e-4: [0.7, 0.72], 2e-4: [0.8, 0.84], 4e-4: [0.6, 0.61]},
    "blocks": {2e-4: [0.75, 0.74], 4e-4: [0.85, 0.83], 8e-4: [0.5, 0.5]},
}


@pytest.fixture
def summary() -> dict:
    rates = {
        name: {rate: over_seeds(values) for rate, values in reversed(found.items())} for name, found in RATES.items()
    }
    differences = {"cores": [-0.02, -0.01, -0.015], "blocks": [0.01, 0.02, 0.0]}
    variants = {name: {"minus_beside": over_seeds(values)} for name, values in differences.items()}
    variants["alone"] = {"minus_beside": over_seeds([-0.3])}
    return {"rates": rates, "variants": variants}


def test_lines_are_the_means_of_each_rate_with_their_intervals(ax, summary):
    comparisons.rates(ax, summary, ["cores", "blocks"])
    for bars, name in zip(ax.containers, ("cores", "blocks"), strict=True):
        line, _, (segments,) = bars
        assert list(line.get_xdata()) == list(RATES[name])
        assert line.get_ydata() == pytest.approx([100 * np.mean(values) for values in RATES[name].values()])
        for segment, values in zip(segments.get_segments(), RATES[name].values(), strict=True):
            assert segment[:, 1] == pytest.approx([100 * end for end in over_seeds(values)["interval"]])
        assert bars.get_label() == name
    assert ax.get_xscale() == "log"


def test_differences_lie_on_their_rows_with_the_margin_beside(ax, summary):
    comparisons.differences(ax, summary, ["blocks", "cores"], 0.01)
    for row, (bars, name) in enumerate(zip(ax.containers, ("blocks", "cores"), strict=True)):
        line, _, (segments,) = bars
        found = summary["variants"][name]["minus_beside"]
        assert (line.get_xdata()[0], line.get_ydata()[0]) == (pytest.approx(100 * found["mean"]), row)
        assert segments.get_segments()[0][:, 0] == pytest.approx([100 * end for end in found["interval"]])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["blocks", "cores"]
    assert ax.yaxis_inverted()
    assert [line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1 and line.get_ls() == "--"] == [
        -1.0
    ]


def test_the_figure_in_words_has_each_difference(summary):
    said = comparisons.differences_in_words(summary, ["cores", "alone"])
    assert "cores -1.5 [-2.7, -0.3]; alone -30.0 [-30.0, -30.0]." in said


def test_the_explorer_offers_the_rates_that_all_have_and_says_which_is_best(summary):
    explorer = RateExplorer(summary, {"in cores": "cores", "as blocks": "blocks"})
    assert explorer.rates == (2e-4, 4e-4)
    assert (explorer.best("in cores"), explorer.best("as blocks")) == (2e-4, 4e-4)
    assert (
        "in cores at the rate 0.0002: 82.0 % right [56.6, 107.4], 2 seeds. That is its best rate."
        in explorer.in_words("in cores", 2e-4)
    )
    assert explorer.in_words("as blocks", 2e-4).endswith("Its best rate is 0.0004, with 84.0 %.")


def test_the_figure_rings_what_was_chosen(summary):
    figure = RateExplorer(summary, {"in cores": "cores", "as blocks": "blocks"}).figure("as blocks", 4e-4)
    (ax,) = figure.axes
    ring = ax.lines[-1]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (4e-4, pytest.approx(84.0))
    assert {text.get_text() for text in ax.get_legend().get_texts()} == {"in cores", "as blocks"}


def test_the_widget_follows_variant_and_rate(summary):
    name, rate, shown = widgets.rate_explorer(
        RateExplorer(summary, {"in cores": "cores", "as blocks": "blocks"})
    ).children
    first = shown.value
    assert "in cores at the rate 0.0002" in first
    rate.value = 4e-4
    assert "in cores at the rate 0.0004: 60.5 %" in shown.value
    name.value = "as blocks"
    assert "as blocks at the rate 0.0004: 84.0 %" in shown.value
    assert shown.value.split("base64,")[1] != first.split("base64,")[1]
    assert not plt.get_fignums()
