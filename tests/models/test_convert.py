import copy
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from mpo_tutorial.models.convert import count, decompose, decompress, freeze
from mpo_tutorial.models.families import USUAL
from mpo_tutorial.models.layers import MPOLinear, cached, mpo_layers
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.truncation import truncate


@pytest.fixture(scope="module")
def minilm():
    """The real model, dense, and the same one compressed, with its ledger and its tokenizer."""
    dense, tokenizer = load("minilm", 2, seed=0)
    mpo = copy.deepcopy(dense)
    return dense.eval(), mpo.eval(), decompose(mpo), tokenizer


@pytest.fixture
def tiny(tiny_model):
    model, _ = load(tiny_model, 2, seed=0)
    return model.eval()


def test_ledger_of_the_embedded_model(minilm):
    dense, mpo, ledger, _ = minilm
    weights = [m.weight for name, m in dense.bert.named_modules() if isinstance(m, nn.Linear)]
    assert len(ledger.rows) == len(weights) == 6 * 6
    assert ledger.dense == sum(weight.numel() for weight in weights)
    assert ledger.central == ledger.dense  # at full bond and with these legs the central core is as large as the matrix
    assert ledger.auxiliary == sum(bond**2 for row in ledger.rows for bond in row.bonds)
    assert ledger.ratio == ledger.total / ledger.dense
    assert ledger.largest_error < 1e-5
    assert count(mpo) - count(dense) == ledger.total - ledger.dense


def test_ledgers_table_adds_up(minilm):
    _, _, ledger, _ = minilm
    *lines, total = ledger.cells()
    assert sum(int(line[0]) for line in lines) == int(total[0]) == len(ledger.rows)
    assert ("24", "3.4.4.4.2 x 2.4.4.4.3", "6.96.96.6") in [line[:3] for line in lines]
    assert total[5] == f"{ledger.auxiliary / 1e6:.2f} M"


def test_rebuilt_model_at_full_bond_gives_the_dense_logits(minilm):
    dense, mpo, _, tokenizer = minilm
    batch = tokenizer(["a film to remember", "two hours of my life , gone"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = dense(**batch).logits
        torch.testing.assert_close(mpo(**batch).logits, expected, atol=1e-4, rtol=0)
        with cached(mpo):
            torch.testing.assert_close(mpo(**batch).logits, expected, atol=1e-4, rtol=0)


def test_light_fine_tuning_trains_at_most_1_11_million(minilm):
    _, mpo, ledger, _ = minilm
    freeze(mpo, "head")
    head = 384 * 2 + 2
    assert count(mpo, trained_only=True) == ledger.auxiliary + head <= 1_110_000


def test_what_is_frozen(tiny):
    decompose(tiny)
    freeze(tiny, "head")
    trained = {name for name, p in tiny.named_parameters() if p.requires_grad}
    assert trained == {
        name
        for name, _ in tiny.named_parameters()
        if name.startswith("classifier.") or (".cores." in name and not name.endswith(".cores.2"))
    }
    freeze(tiny, "all")
    frozen = {name for name, p in tiny.named_parameters() if not p.requires_grad}
    assert frozen == {name for name, _ in tiny.named_parameters() if name.endswith(".cores.2")}


@pytest.mark.parametrize("n_cores", [2, 3, 4, 6])
def test_any_number_of_cores_from_two(tiny, n_cores):
    ledger = decompose(tiny, n_cores)
    assert ledger.largest_error < 1e-5
    assert all(len(layer.cores) == n_cores for layer in mpo_layers(tiny))
    assert all(layer.central is layer.cores[n_cores // 2] for layer in mpo_layers(tiny))


def test_truncation_caps_all_bonds_and_keeps_what_survives(tiny):
    decompose(tiny)
    before = [layer.mpo for layer in mpo_layers(tiny)]
    truncate(tiny, max_bond=5)
    for layer, mpo in zip(mpo_layers(tiny), before, strict=True):
        assert max(layer.mpo.bonds) == 5
        torch.testing.assert_close(layer.mpo.to_matrix(), mpo.truncate(5).to_matrix())


def test_compressing_with_a_cap_is_compressing_and_truncating(tiny):
    other = copy.deepcopy(tiny)
    decompose(tiny, max_bond=5)
    decompose(other)
    truncate(other, max_bond=5)
    for a, b in zip(mpo_layers(tiny), mpo_layers(other), strict=True):
        torch.testing.assert_close(a.mpo.to_matrix(), b.mpo.to_matrix(), atol=1e-3, rtol=1e-2)


def test_classifier_stays_dense_and_depends_on_the_seed(tiny_model):
    first, again, other = (load(tiny_model, 3, seed)[0] for seed in (0, 0, 1))
    decompose(first)
    assert isinstance(first.classifier, nn.Linear)
    assert isinstance(first.bert.pooler.dense, MPOLinear)
    assert torch.equal(first.classifier.weight, again.classifier.weight)
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_what_cannot_be_compressed_or_frozen_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="the model has none; compress it first"):
        freeze(tiny)
    decompose(tiny)
    with pytest.raises(ValueError, match="rest is one of head, norms, all, got 'most'"):
        freeze(tiny, "most")
    with pytest.raises(ValueError, match=r"query is an MPO already; truncate it"):
        decompose(tiny)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is no model that AutoModelForSequenceClassification can load"):
        load(str(tmp_path), 2, seed=0)


def test_a_side_that_does_not_split_is_padded_and_said_to_be():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=10, hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=97)
    model = BertForSequenceClassification(config).eval()
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        expected = model(ids).logits
        ledger = decompose(model)
        torch.testing.assert_close(model(ids).logits, expected, atol=1e-5, rtol=0)
    assert {row.padding for row in ledger.rows} == {(0, 0), (0, 3), (3, 0)}
    assert sum("padded by 0.3" in line[1] for line in ledger.cells()) == 1
    assert ledger.dense == 5 * 24**2 + 2 * 24 * 97


def test_an_encoder_with_tensors_missing_or_of_another_shape_is_refused(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    for changed in ({**tensors, name: torch.zeros(24, 59)}, {key: t for key, t in tensors.items() if key != name}):
        save_file(changed, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=f"1 tensors are missing or of another shape, the first is bert.{name}"):
            load(str(folder), 2, seed=0)


@pytest.mark.parametrize(("matrices", "dense"), [(USUAL, False), (USUAL, True), ("all", True)])
def test_exported_a_model_computes_the_same(tiny, matrices, dense):
    decompose(tiny, matrices=matrices, max_bond=5)
    model = decompress(tiny) if dense else tiny
    ids = torch.tensor([[101, 3, 2045, 102], [101, 9, 8, 102]])
    with torch.no_grad():
        exported = torch.export.export(model, (ids,)).module()
        assert torch.equal(exported(ids).logits, model(ids).logits)


def test_a_tokenizer_with_more_words_than_the_embedding_has_rows_is_refused(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens("cinematographically")
    tokenizer.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"must be rows of the embedding, .* has 30523 words and 30522 rows; save"):
        load(str(folder))
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    model.resize_token_embeddings(30523)
    model.save_pretrained(folder)
    model, tokenizer = load(str(folder))
    assert model(**tokenizer("cinematographically good", return_tensors="pt")).logits.shape == (1, 2)
