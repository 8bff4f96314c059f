import numpy as np
import pytest
from matplotlib import pyplot as plt

from mpo_tutorial.course import movement_figures, widgets
from mpo_tutorial.course.explorers import MovementExplorer
from mpo_tutorial.experiments.movement import TRAINED_HEAD, UPDATE
from mpo_tutorial.experiments.movement_results import TABLE_1, summarise

QUERY = "bert.encoder.layer.1.attention.self.query"


@pytest.fixture(scope="module")
def record(tiny_movement) -> dict:
    return summarise(tiny_movement)


@pytest.fixture(scope="module")
def explorer(record) -> MovementExplorer:
    return MovementExplorer(record)


def test_bars_are_the_shares_of_each_kind_and_of_the_papers_table(ax, record):
    assert movement_figures.changes_by_kind(ax, record) is ax
    kinds = record["kinds"]
    moved = kinds["word embedding"]["in_moved_rows"]
    first, *others = ([found[size]["mean"] for size in ("small", "middle", "large")] for found in kinds.values())
    expected = [first, [moved[size]["mean"] for size in moved], *others, *TABLE_1.values()]
    widths = np.array([[bar.get_width() for bar in bars] for bars in ax.containers]).T
    assert widths == pytest.approx(100 * np.array(expected))
    starts = np.array([[bar.get_x() for bar in bars] for bars in ax.containers]).T
    assert starts == pytest.approx(np.cumsum(widths, axis=1) - widths)
    word, *others = kinds
    names = [word, "its rows that moved", *others, "embedding (paper)", "feed-forward (paper)", "attention (paper)"]
    assert [label.get_text() for label in ax.get_yticklabels()] == names


def test_each_way_has_its_gains_with_intervals_and_the_spread_of_matrices(ax, record):
    movement_figures.gains(ax, record)
    for change, container, spread in zip((TRAINED_HEAD, UPDATE), ax.containers, ax.collections[::2], strict=True):
        found = record["reach"][change].values()
        points, _, (bars,) = container.lines
        assert list(points.get_xdata()) == pytest.approx([row["gain"]["mean"] for row in found])
        ends = [[left, right] for (left, _), (right, _) in bars.get_segments()]
        assert ends == pytest.approx(np.array([row["gain"]["interval"] for row in found]))
        ends = [[left, right] for (left, _), (right, _) in spread.get_segments()]
        assert ends == pytest.approx(np.array([[row["least"], row["most"]] for row in found]))
    assert [label.get_text() for label in ax.get_yticklabels()] == [*record["reach"][UPDATE]]
    assert [list(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "--"] == [[1, 1]]


def test_the_picture_is_said_in_words(record):
    said = movement_figures.movement_alt_text(record)
    shares = [100 * record["kinds"]["query"][size]["mean"] for size in ("small", "middle", "large")]
    assert f"query {', '.join(f'{share:.0f}' for share in shares)};" in said
    gains = [record["reach"][change]["legs in, out"]["gain"]["mean"] for change in (TRAINED_HEAD, UPDATE)]
    assert f"legs in, out {', '.join(f'{gain:.2f}' for gain in gains)};" in said
    figure = movement_figures.movement_picture(record)
    assert len(figure.axes) == 2


def test_the_explorer_finds_each_matrix(explorer, record):
    assert explorer.layers == (0, 1)
    assert explorer.kinds == (*record["kinds"],)
    assert {row["name"] for row in explorer.rows(1, "query")} == {QUERY}
    assert {row["name"] for row in explorer.rows(1, "word embedding")} == {"bert.embeddings.word_embeddings"}


def test_the_explorer_says_the_means_over_seeds(explorer, tiny_movement):
    rows = [point["result"]["matrices"][QUERY] for point in tiny_movement]
    share, dimension, low_rank = explorer.in_reach(1, "query")
    assert share == pytest.approx(np.mean([row["shares"][UPDATE][0] for row in rows]))
    assert low_rank == pytest.approx(np.mean([row["low_rank"][UPDATE] for row in rows]))
    words = explorer.in_words(1, "query")
    assert (
        f"{QUERY}, 24 x 24, mean of 2 seeds: full fine-tuning moved it by {50 * sum(row['moved'] for row in rows):.2f} %"
        in words
    )
    assert f"have {100 * share:.1f} % of the update in reach, with {100 * dimension:.1f} % of the dimensions" in words
    assert "rows" not in words
    of_table = explorer.in_words(0, "word embedding")
    touched = np.mean([p["result"]["matrices"]["bert.embeddings.word_embeddings"]["rows"] for p in tiny_movement])
    assert f"{100 * (1 - touched):.0f} % of its rows did not change at all; of the numbers in the others" in of_table
    assert "reach" not in of_table


def test_the_explorers_picture_shows_sizes_and_ranks(explorer):
    figure = explorer.figure(0, "value")
    left, right = figure.axes
    assert sum(bar.get_height() for bar in left.patches) == pytest.approx(100, abs=0.1)
    assert list(right.lines[0].get_ydata()) == pytest.approx(100 * explorer.mean(0, "value", "spectrum"))
    assert right.lines[1].get_ydata()[0] == pytest.approx(100 * explorer.in_reach(0, "value")[0])


def test_what_is_in_reach_may_be_kept_for_later(record):
    explorer = MovementExplorer(record, reach=False)
    assert "reach" not in explorer.in_words(1, "query")
    figure = explorer.figure(1, "query")
    assert len(figure.axes) == 1


def test_a_bar_stands_at_the_sizes_that_it_counts(ax):
    sizes = np.zeros(len(movement_figures.EDGES) + 1)
    sizes[9] = 1  # above 1e-4, up to the next edge
    movement_figures.sizes_of_changes(ax, sizes)
    (bar,) = [bar for bar in ax.patches if bar.get_height() > 0]
    assert -4 < bar.get_x() < bar.get_x() + bar.get_width() < -3.75


def test_layer_and_matrix_are_chosen_from_lists(explorer):
    layer, kind, shown = widgets.movement_explorer(explorer).children
    for number in layer.options:
        layer.value = number
        for name in kind.options:
            kind.value = name
            assert "full fine-tuning moved it by" in shown.value
    layer.value, kind.value = 1, "query"
    assert QUERY in shown.value
    assert not plt.get_fignums()
