import numpy as np
import pytest

from mpo_tutorial.course.model_explorers import DepthExplorer, LedgerExplorer, ModelMap, TradeoffExplorer
from mpo_tutorial.experiments import cuts, statistics
from mpo_tutorial.experiments.cut_results import summarise
from mpo_tutorial.models.families import KINDS
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.look import look_at


@pytest.fixture(scope="module")
def tiny_map(tiny_model) -> ModelMap:
    bert, _ = load(tiny_model, n_labels=2, seed=0)
    return ModelMap(bert, seed=1)


def test_the_map_finds_every_matrix_of_the_model(tiny_map):
    assert tiny_map.layers == (0, 1)
    assert tiny_map.kinds[-1] == "pooler"
    assert tiny_map.layer_kinds == tiny_map.kinds[:-1]
    names = {tiny_map.name(layer, kind) for layer in tiny_map.layers for kind in tiny_map.kinds}
    assert names == set(tiny_map.trained) == set(tiny_map.random)


def test_the_map_holds_the_entropies_of_its_matrices(tiny_map):
    table = tiny_map.entropies(2)
    assert table.shape == (2, 6)
    spectra = tiny_map.trained["bert.encoder.layer.1.attention.self.key"]
    weights = spectra.values[1] ** 2 / (spectra.values[1] ** 2).sum()
    assert table[1, 1] == pytest.approx(-(weights * np.log(weights)).sum(), rel=1e-6)
    assert (tiny_map.entropies(2, tiny_map.random) != table).all()
    assert "bert.pooler.dense: 24 x 24" in tiny_map.in_words(1, "pooler")


def test_the_tradeoff_says_what_is_on_record_and_what_was_measured(tiny_cuts, tiny_tuned):
    record = summarise(tiny_cuts)
    explorer = TradeoffExplorer(record, lambda: tiny_tuned)
    assert explorer.parts == cuts.PARTS
    assert explorer.bonds == tuple(sorted({row["max_bond"] for row in record["bonds"]}))
    assert max(explorer.bonds) == tiny_tuned.largest_bond
    point = explorer.points["attention", 2]
    words = explorer.in_words("attention", 2)
    assert "Bonds of the attention matrices at most 2" in words
    assert f"On record: {100 * point['validation']['accuracy']:.1f} %" in words
    assert (
        f"{100 * point['entropy'] / explorer.points['attention', max(explorer.bonds)]['entropy']:.0f} % of the central"
        in words
    )
    assert "Measured" not in words
    told = []
    live = explorer.measure("attention", 2, 10, told.append)
    assert told[-1] == 1
    recorded = statistics.correct_sentences(point["validation"])[:10].mean()
    assert live["accuracy"] == recorded
    assert f"Measured here, on 10 of them: {100 * recorded:.1f} %" in explorer.in_words("attention", 2)
    assert "Measured" not in explorer.in_words("all", 2)


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
    accuracy = np.mean([p["accuracy"]["accuracy"] for p in points])
    words = explorer.in_words("attention", 0.2)
    assert "Cut in attention, 20 % of its parameters left. plain: error " in words
    assert f"fitted to the inputs: error {np.mean([p['states'][0] for p in points]):.2f} after the first" in words
    assert f"accuracy {100 * accuracy:.1f} % [" in words
    plain = np.mean(
        [p["accuracy"]["accuracy"] for p in record["ratios"] if p["part"] == "layer 1" and p["way"] == "plain"]
    )
    uncut = np.mean([p["accuracy"]["accuracy"] for p in record["ratios"] if p["way"] == "uncut"])
    assert f"layer 1 {100 * (plain - uncut):+.1f} [" in explorer.losses_in_words(explorer.layers, 0.5)
    assert "Fitted to the inputs minus plain at 20 %, in points: all " in explorer.gains_in_words("fitted", 0.2)


def test_the_ledgers_are_those_of_the_configs():
    explorer = LedgerExplorer(["albert-base-v2", "distilbert-base-uncased"])
    for choice, parts in explorer.CHOICES.items():
        for name, view in zip(explorer.names, explorer.views(choice), strict=True):
            assert view.cells() == look_at(name, matrices=parts).cells()
    assert "albert-base-v2: 11.7 M parameters, 11.5 M of them in 8 matrices" in explorer.in_words(
        "albert-base-v2", "the paper's"
    )
    assert "1.19 M, 10.2 %" in explorer.in_words("albert-base-v2", "the paper's")
