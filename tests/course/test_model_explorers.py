import numpy as np
import pytest

from mpo_tutorial.course.model_explorers import LedgerExplorer, ModelMap
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


def test_the_ledgers_are_those_of_the_configs():
    explorer = LedgerExplorer(["albert-base-v2", "distilbert-base-uncased"])
    for choice, parts in explorer.CHOICES.items():
        for name, view in zip(explorer.names, explorer.views(choice), strict=True):
            assert view.cells() == look_at(name, matrices=parts).cells()
    assert "albert-base-v2: 11.7 M parameters, 11.5 M of them in 8 matrices" in explorer.in_words(
        "albert-base-v2", "the paper's"
    )
    assert "1.19 M, 10.2 %" in explorer.in_words("albert-base-v2", "the paper's")
