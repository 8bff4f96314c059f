import copy
import re

import pytest
import torch
from conftest import TINY
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2Model,
)

from mpo_tutorial.models.convert import count, decompose, decompress, freeze, outline
from mpo_tutorial.models.families import KINDS, KNOWN, PARTS, config_by_name, dense_matrices, place
from mpo_tutorial.models.layers import MPOEmbedding, MPOLinear, TiedLinear, mpo_layers

IDS = torch.tensor([[5, 9, 96, 1, 1], [7, 0, 3, 4, 8]])


def classifier(config):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(config).eval()


def masked(config):
    torch.manual_seed(0)
    return AutoModelForMaskedLM.from_config(config).eval()


def test_names_of_every_family_are_known():
    expected = {
        "bert.encoder.layer.3.attention.self.query": (3, "query", "attention"),
        "roberta.encoder.layer.0.attention.output.dense": (0, "attention output", "attention"),
        "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn": (0, "feed-forward in", "feed-forward"),
        "albert.encoder.albert_layer_groups.0.albert_layers.0.attention.dense": (0, "attention output", "attention"),
        "albert.encoder.embedding_hidden_mapping_in": (None, "embedding projection", "projection"),
        "albert.pooler": (None, "pooler", "pooler"),
        "distilbert.transformer.layer.5.attention.out_lin": (5, "attention output", "attention"),
        "distilbert.transformer.layer.5.ffn.lin2": (5, "feed-forward out", "feed-forward"),
        "mobilebert.encoder.layer.7.ffn.2.output.dense": (7, "feed-forward out, 2", "feed-forward"),
        "mobilebert.encoder.layer.7.output.dense": (7, "feed-forward out", "feed-forward"),
        "mobilebert.encoder.layer.7.output.bottleneck.dense": (7, "bottleneck out", "projection"),
        "mobilebert.encoder.layer.7.bottleneck.attention.dense": (7, "bottleneck in, attention", "projection"),
        "bert.embeddings.word_embeddings": (None, "word embedding", "embedding"),
    }
    assert {name: place(name) for name in expected} == expected
    for name in (
        "bert.embeddings.position_embeddings",
        "classifier",
        "cls.predictions.transform.dense",
        "lm_head.dense",
    ):
        assert place(name) is None


@pytest.mark.parametrize("model_type", TINY)
def test_all_means_every_matrix_of_the_encoder(tiny_config, model_type):
    model = classifier(tiny_config(model_type))
    dense = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not re.match("classifier|pre_classifier", name)
    }
    embedding = {f"{model.base_model_prefix}.embeddings.word_embeddings"}
    assert {name for name, _ in dense_matrices(model, "all")} == dense | embedding
    usual = {name for name, _ in dense_matrices(model)}
    assert usual == {name for name in dense if place(name).part != "projection"}


def test_matrices_are_chosen_by_part_by_kind_and_by_pattern(tiny_config):
    model = classifier(tiny_config("bert"))
    assert {place(name).kind for name, _ in dense_matrices(model, "attention")} == set(KINDS[:4])
    assert len(list(dense_matrices(model, "query, feed-forward out"))) == 2 * 2
    assert {place(name).layer for name, _ in dense_matrices(model, "*.layer.1.*")} == {1}
    assert len(list(dense_matrices(model, "*.layer.1.*, pooler"))) == 6 + 1


@pytest.mark.parametrize("make", [classifier, masked])
@pytest.mark.parametrize("model_type", TINY)
def test_full_bonds_change_nothing_and_decompress_gives_the_plain_model_back(tiny_config, model_type, make):
    dense = make(tiny_config(model_type))
    mpo = copy.deepcopy(dense)
    decompose(mpo, n_cores=3, matrices="all")
    plain = decompress(mpo)
    assert type(plain) is type(dense)
    assert type(plain.config) is type(dense.config)
    assert not mpo_layers(plain)
    assert count(plain) == count(dense)
    assert mpo_layers(mpo), "the compressed model stays as it was"
    assert len({id(module.config) for module in mpo.modules() if hasattr(module, "config")}) == 1
    with torch.no_grad():
        expected = dense(IDS).logits
        torch.testing.assert_close(mpo(IDS).logits, expected, atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(plain(IDS).logits, expected, atol=2e-4, rtol=1e-4)
    for (name, tensor), (_, found) in zip(dense.state_dict().items(), plain.state_dict().items(), strict=True):
        torch.testing.assert_close(found, tensor, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("model_type", TINY)
def test_tied_embeddings_stay_tied(tiny_config, model_type):
    model = masked(tiny_config(model_type))
    dense = count(model)
    ledger = decompose(model, n_cores=3, matrices="embedding")
    assert count(model) == dense + ledger.total - ledger.dense, "the table is counted once"
    embedding, output = model.get_input_embeddings(), model.get_output_embeddings()
    assert isinstance(embedding, MPOEmbedding)
    assert isinstance(output, TiedLinear)
    with torch.no_grad():
        before = model(IDS).logits
        embedding.central.mul_(2)
        assert not torch.allclose(model(IDS).logits, before)
        torch.testing.assert_close(output.weight, embedding.matrix())
    other = copy.deepcopy(model)
    assert other.get_output_embeddings()._tied_to[0] is other.get_input_embeddings()
    plain = decompress(model)
    assert plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
    assert count(plain) == dense


def test_gradients_of_a_tied_table_come_from_both_ends(tiny_config):
    model = masked(tiny_config("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
    plain = copy.deepcopy(model)
    decompose(model, n_cores=3, matrices="embedding")
    embedding = model.get_input_embeddings()
    loss = model(IDS, labels=IDS).loss
    loss.backward()
    table = embedding.matrix().detach().requires_grad_()
    plain.get_input_embeddings().weight = plain.get_output_embeddings().weight = nn.Parameter(table)
    plain(IDS, labels=IDS).loss.backward()
    whole = plain.get_input_embeddings().weight.grad
    cores = [core.detach().requires_grad_() for core in embedding.cores]
    from mpo_tutorial.maths.contraction import contract

    expected = torch.autograd.grad((contract(cores, embedding.padding) * whole).sum(), cores)
    for core, gradient in zip(embedding.cores, expected, strict=True):
        torch.testing.assert_close(core.grad, gradient, atol=1e-5, rtol=1e-4)


def test_layers_that_albert_shares_stay_one(tiny_config):
    model = classifier(tiny_config("albert", num_hidden_layers=6))
    ledger = decompose(model, n_cores=3)
    assert len(ledger.rows) == 6 + 1
    calls = []
    model.albert.encoder.albert_layer_groups[0].albert_layers[0].ffn.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(IDS)
    assert len(calls) == 6
    assert count(model, trained_only=False) == count(outline(model.config))


def test_a_module_with_two_names_is_swapped_under_both(tiny_config):
    model = classifier(tiny_config("bert"))
    layers = model.bert.encoder.layer
    layers[1].intermediate = layers[0].intermediate
    before = count(model)
    ledger = decompose(model, n_cores=3)
    assert layers[1].intermediate.dense is layers[0].intermediate.dense
    assert isinstance(layers[1].intermediate.dense, MPOLinear)
    assert count(model) == before + ledger.total - ledger.dense
    plain = decompress(model)
    assert plain.bert.encoder.layer[1].intermediate.dense is plain.bert.encoder.layer[0].intermediate.dense


def test_ledger_of_albert_is_the_papers():
    """Liu et al. 2021: 11.85 M in the listed matrices, 0.94 M auxiliary; 12.7 M in all, 1.2 M of them trained."""
    model = outline(config_by_name("albert-base-v2"))
    ledger = decompose(model, matrices="embedding, attention, feed-forward")
    assert (round(ledger.dense / 1e6, 2), round(ledger.total / 1e6, 2)) == (10.92, 11.85)
    assert round(ledger.auxiliary / 1e6, 2) == 0.94
    model = outline(config_by_name("albert-base-v2"))
    ledger = decompose(model, matrices="embedding, attention, feed-forward, pooler")
    assert ledger.auxiliary == 1_010_164
    assert ledger.largest_error is None
    freeze(model, "all")
    encoder = model.base_model  # the classifier's size depends on the task
    assert (count(encoder), count(encoder, trained_only=True)) == (12_693_748, 1_186_036)


def test_known_models_have_the_sizes_that_the_paper_gives():
    """Liu et al. 2021, Tables 3 and 4, in millions; RoBERTa's is what its authors give."""
    millions = {name: count(outline(config_by_name(name))) / 1e6 for name in KNOWN}
    assert millions["bert-base-uncased"] == pytest.approx(110, abs=1)
    assert millions["albert-base-v2"] == pytest.approx(11.6, abs=0.1)
    assert millions["distilbert-base-uncased"] == pytest.approx(66, abs=1)
    assert millions["google/mobilebert-uncased"] == pytest.approx(25.3, abs=1)
    assert millions["roberta-base"] == pytest.approx(125, abs=1)


def test_an_outline_has_the_ledger_of_the_model_itself(tiny_config):
    config = tiny_config("mobilebert")
    before = config.to_dict()
    with_weights, without = (
        decompose(model, n_cores=3, max_bond=4, matrices="all") for model in (classifier(config), outline(config))
    )
    assert config.to_dict() == before
    model = outline(config)
    decompose(model, n_cores=3, matrices="all")
    assert all(tensor.is_meta for tensor in model.state_dict().values())
    for row, other in zip(with_weights.rows, without.rows, strict=True):
        assert (row.name, row.bonds, row.central, row.auxiliary) == (
            other.name,
            other.bonds,
            other.central,
            other.auxiliary,
        )
        assert row.error > 0
        assert other.error is None
    assert without.cells()[-1][-1] == ""
    assert len(without.matrix_cells()) == len(without.rows) + 1
    assert without.matrix_cells()[-1][1:] == without.cells()[-1][1:]


def test_what_has_no_matrix_to_decompose_is_refused(tiny_config):
    with pytest.raises(ValueError, match=r"no matrix to decompose among attention.* in GPT2Model; it has Conv1D, "):
        decompose(GPT2Model(GPT2Config(vocab_size=9, n_embd=8, n_layer=1, n_head=1, n_positions=8)))
    model = classifier(tiny_config("distilbert"))
    with pytest.raises(ValueError, match=r"among pooler in DistilBert.*; it has distilbert.embeddings.word_embeddings"):
        decompose(model, matrices="pooler")
    with pytest.raises(ValueError, match=r"no matrix has a name like '\*.layer.9.\*'; there are distilbert"):
        decompose(model, matrices="attention, *.layer.9.*")
    known = ", ".join((*PARTS, *KINDS))
    with pytest.raises(ValueError, match=f"matrices are named by all, {known}, or by a pattern such .*, got 'querry'"):
        decompose(model, matrices="querry")
    assert not mpo_layers(model)
    with pytest.raises(ValueError, match="there is nothing to decompress"):
        decompress(model)


def test_a_matrix_is_chosen_by_its_whole_name_too(tiny_config):
    model = outline(tiny_config("bert"))
    name = "bert.encoder.layer.1.attention.self.key"
    assert [found for found, _ in dense_matrices(model, name)] == [name]
    with pytest.raises(ValueError, match=r"no matrix has a name like 'bert\.encoder\.layer\.7'; there are bert"):
        list(dense_matrices(model, "bert.encoder.layer.7"))


def test_attention_to_an_encoder_is_attention():
    assert place("bert.encoder.layer.0.crossattention.output.dense").part == "attention"
    assert place("bert.encoder.layer.0.crossattention.self.key").kind == "key"


def test_a_model_of_another_family_is_refused(tiny_config):
    config = AutoConfig.for_model("electra", vocab_size=97, hidden_size=24, num_attention_heads=2, intermediate_size=40)
    with pytest.raises(ValueError, match=r"families whose models can be saved and loaded are bert, .* got 'electra'"):
        decompose(AutoModel.from_config(config), 3)


def test_quantised_matrices_are_refused(tiny_config):
    model = classifier(tiny_config("bert"))
    query = model.bert.encoder.layer[0].attention.self.query
    query.weight = nn.Parameter(torch.ones(24, 24, dtype=torch.int8), requires_grad=False)  # as bitsandbytes keeps it
    with pytest.raises(
        ValueError, match=r"query is a torch.nn.*Linear of torch.int8; load the model without quantisation"
    ):
        decompose(model)
    assert not mpo_layers(model)
