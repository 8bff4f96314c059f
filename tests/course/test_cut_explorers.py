import numpy as np
import pytest

from mpo_tutorial.course.cut_explorers import DepthExplorer, TradeoffExplorer
from mpo_tutorial.course.cut_figures import WAYS
from mpo_tutorial.experiments import cuts, statistics
from mpo_tutorial.experiments.cut_results import summarise
from mpo_tutorial.experiments.threshold import judge
from mpo_tutorial.models.families import KINDS


def test_the_tradeoff_says_what_is_on_record_and_what_was_measured(tiny_cuts, tiny_tuned):
    record = summarise(tiny_cuts)
    explorer = TradeoffExplorer(record, lambda: tiny_tuned)
    assert explorer.parts == cuts.PARTS
    assert explorer.bonds == tuple(sorted({row["max_bond"] for row in record["bonds"]}))
    assert max(explorer.bonds) == tiny_tuned.largest_bond
    point = explorer.points["attention", 2]
    recorded = point["validation"]
    words = explorer.in_words("attention", 2)
    assert "Bonds of the attention matrices at most 2" in words
    assert f"On record, on {recorded['n']} validation sentences: accuracy {100 * recorded['accuracy']:.1f} %" in words
    whole = explorer.points["attention", max(explorer.bonds)]
    assert f"{100 * point['entropy'] / whole['entropy']:.0f} % of the central" in words
    assert "Measured" not in words
    told = []
    live = explorer.measure("attention", 2, 10, told.append)
    assert told[-1] == 1
    first = statistics.correct_sentences(recorded)[:10].mean()
    assert live["accuracy"] == first
    said = f"Measured here, on 10 of them: accuracy {100 * first:.1f} % ["
    assert said in explorer.in_words("attention", 2)
    assert explorer.in_words("attention", 2).endswith(f"], on record {100 * first:.1f} %.")
    assert "Measured" not in explorer.in_words("all", 2)


def test_the_tradeoff_says_what_it_is_asked_to_judge_by(tiny_cuts, tiny_tuned):
    explorer = TradeoffExplorer(summarise(tiny_cuts), lambda: tiny_tuned)
    recorded = explorer.points["all", 2]["validation"]
    again = recorded["refitted"]
    live = explorer.measure("all", 2, 10)
    words = explorer.in_words("all", 2, "refitted")
    low, high = again["interval"]
    assert f"bias fitted again {100 * again['accuracy']:.1f} % [{100 * low:.1f}, {100 * high:.1f}]" in words
    assert f"on record {100 * statistics.correct_sentences(again)[:10].mean():.1f} %." in words
    words = explorer.in_words("all", 2, "auc")
    assert f"sentences: AUC {100 * recorded['auc']:.1f} %. Measured" in words
    assert words.endswith(f"on 10 of them: AUC {100 * live['auc']:.1f} %.")
    alone = judge([0, 1, 1], np.eye(2)[[0, 1, 1]])
    explorer.measured["all", 2] = alone
    assert words.replace(f"AUC {100 * live['auc']:.1f} %", "too few of a class for the AUC").replace(
        "on 10 of", "on 3 of"
    ) == explorer.in_words("all", 2, "auc")


def test_the_depth_shows_no_other_ways_than_it_is_asked_to(tiny_cuts):
    record = summarise(tiny_cuts)
    plain, every = DepthExplorer(record, ["plain"]), DepthExplorer(record)
    assert plain.states("attention", 0.2) == {"plain": every.states("attention", 0.2)["plain"]}
    assert {row["way"] for row in plain.record["summary"]} == {"uncut", "plain"}
    assert (plain.parts, plain.layers, plain.kinds, plain.ratios) == (
        every.parts,
        every.layers,
        every.kinds,
        every.ratios,
    )
    assert "fitted" in every.in_words("attention", 0.2)
    assert "fitted" not in plain.in_words("attention", 0.2)
    assert (plain.ways, every.ways) == (("plain",), tuple(WAYS))


def test_the_depth_shows_means_over_seeds_and_their_accuracies(tiny_cuts):
    record = summarise(tiny_cuts)
    explorer = DepthExplorer(record)
    assert explorer.parts == (*cuts.PARTS, "embedding")
    assert explorer.layers == ("layer 0", "layer 1")
    assert explorer.kinds == KINDS
    assert explorer.ratios == (0.2, 0.5)
    points = [p for p in record["ratios"] if (p["way"], p["part"], p["ratio"]) == ("fitted", "attention", 0.2)]
    assert len(points) == 2
    assert explorer.states("attention", 0.2)["fitted"] == pytest.approx(np.mean([p["states"] for p in points], axis=0))
    accuracy = np.mean([p["unused"]["accuracy"] for p in points])
    words = explorer.in_words("attention", 0.2)
    assert "Cut in attention, 20 % of its parameters left. plain: error " in words
    assert f"fitted chain: error {np.mean([p['states'][0] for p in points]):.2f} after the first" in words
    assert f"accuracy {100 * accuracy:.1f} % [" in words
    plain = np.mean(
        [p["unused"]["accuracy"] for p in record["ratios"] if p["part"] == "layer 1" and p["way"] == "plain"]
    )
    uncut = np.mean([p["unused"]["accuracy"] for p in record["ratios"] if p["way"] == "uncut"])
    assert f"layer 1 {100 * (plain - uncut):+.1f} [" in explorer.losses_in_words(explorer.layers, 0.5)
    assert "Fitted chain minus plain at 20 %, accuracy in points: all " in explorer.gains_in_words("fitted", 0.2)


@pytest.mark.parametrize(
    ("measure", "name", "of"),
    [
        ("refitted", "accuracy, bias fitted again", lambda judged: judged["refitted"]["accuracy"]),
        ("auc", "AUC", lambda judged: judged["auc"]),
    ],
)
def test_the_depth_is_judged_by_each_measure(tiny_cuts, measure, name, of):
    record = summarise(tiny_cuts)
    explorer = DepthExplorer(record)
    found = {
        way: [
            of(p["unused"])
            for p in record["ratios"]
            if (p["way"], p["part"]) == (way, part) and p["ratio"] in (None, 0.2)
        ]
        for way, part in (("uncut", "none"), ("plain", "all"), ("fitted", "all"))
    }
    plain, fitted, uncut = (np.array(found[way]) for way in ("plain", "fitted", "uncut"))
    assert f"{name} {100 * fitted.mean():.1f} % [" in explorer.in_words("all", 0.2, measure)
    losses = explorer.losses_in_words(["all"], 0.2, measure=measure)
    assert losses.startswith(f"Change of {name} in points at 20 %, plain: all {100 * (plain - uncut).mean():+.1f} [")
    gains = explorer.gains_in_words("fitted", 0.2, measure)
    assert f"{name} in points: all {100 * (fitted - plain).mean():+.1f} [" in gains
    losses = explorer.gains_in_words("plain", 0.2, measure, over="fitted")
    assert losses.startswith(f"Plain minus fitted chain at 20 %, {name} in points: all ")
    assert f" all {100 * (plain - fitted).mean():+.1f} [" in losses
