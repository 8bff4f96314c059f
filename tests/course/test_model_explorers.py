import numpy as np
import pytest

from mpo_tutorial.course.model_explorers import LedgerExplorer, MemoryExplorer, ModelMap
from mpo_tutorial.models.families import USUAL
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


def test_what_fills_a_gpu_is_counted_from_the_configs():
    explorer = MemoryExplorer(("bert-base-uncased", "albert-base-v2"))
    view = look_at("bert-base-uncased", matrices=USUAL)
    full, light, lora = (explorer.need("bert-base-uncased", method, 32, "float32") for method in explorer.METHODS)
    assert (full.weights, full.gradients, full.optimiser, full.matrices) == (
        4 * view.dense,
        4 * view.dense,
        8 * view.dense,
        0,
    )
    assert light.weights == 4 * (view.dense - view.ledger.dense + view.ledger.total)
    assert light.gradients == lora.gradients == 4 * view.auxiliary
    assert light.matrices == 12 * view.ledger.dense
    assert (lora.weights, lora.matrices) == (4 * (view.dense + view.auxiliary), 0)
    assert full.activations == light.activations == lora.activations
    assert (
        explorer.need("bert-base-uncased", "LoRA (as many numbers)", 64, "float32").activations == 2 * lora.activations
    )
    # ALBERT's layers share their weights, and keep what goes through them one by one.
    albert = explorer.need("albert-base-v2", "full fine-tuning", 32, "float32")
    assert albert.activations == full.activations
    assert albert.weights < full.weights / 9


def test_the_words_say_what_fits():
    words = {
        gigabytes: MemoryExplorer(("bert-large-uncased",), gigabytes=gigabytes).in_words(
            "bert-large-uncased", 32, "float32"
        )
        for gigabytes in (16, 10, 4)
    }
    assert words[16].endswith("All of them fit into 16 GB.")
    assert words[10].endswith("Only LoRA (as many numbers) would fit into 10 GB.")
    assert words[4].endswith("None of them fits into 4 GB.")
    assert "full fine-tuning 12.0 GB, light fine-tuning 12.1 GB, LoRA (as many numbers) 8.4 GB" in words[16]


def test_the_bars_are_as_long_as_what_is_held():
    explorer = MemoryExplorer(("bert-base-uncased",))
    (ax,) = explorer.figure("bert-base-uncased", 8, "bfloat16").axes
    ends: dict[float, float] = {}
    for bar in ax.patches:
        row = bar.get_y() + bar.get_height() / 2
        ends[round(row)] = max(ends.get(round(row), 0), bar.get_x() + bar.get_width())
    totals = [explorer.need("bert-base-uncased", method, 8, "bfloat16").total / 1e9 for method in explorer.METHODS]
    assert [ends[row] for row in range(3)] == pytest.approx(totals)
    assert [text.get_text() for text in ax.texts] == [f"{total:.1f}" for total in totals]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [*explorer.METHODS]
