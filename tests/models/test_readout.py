"""How classifiers read their encoders, against means by hand; what is saved is read so again."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    ElectraConfig,
    ElectraForSequenceClassification,
    pipeline,
)

from mpo_tutorial.experiments.checkpoint import fingerprint, load_task_file, save_task
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare
from mpo_tutorial.models.architectures import read_by
from mpo_tutorial.models.convert import decompose, decompress, freeze
from mpo_tutorial.models.layers import mpo_layers
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.readout import POOLINGS, own_pooling, pooled, pooling_of
from mpo_tutorial.models.sources import model_path

IDS = torch.tensor([[5, 9, 96, 7, 12], [7, 8, 3, 0, 0], [11, 0, 0, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]])
WAYS = [(model_type, pooling) for model_type, ways in POOLINGS.items() for pooling in ways]


@pytest.fixture
def make(tiny_config):
    """A classifier of a family, in evaluation, read in some way; always the same numbers."""

    def make(model_type: str, pooling: str, attention: str = "sdpa"):
        torch.manual_seed(0)
        config = tiny_config(model_type, num_labels=3, pad_token_id=0)
        model = AutoModelForSequenceClassification.from_config(config, attn_implementation=attention)
        with torch.no_grad():  # new biases are 0, and hide whether they are used
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
            model.get_input_embeddings().weight[0] = 0  # MobileBERT shows each token its neighbours, padding included
        read_by(model, pooling)
        return model.eval()

    return make


def logits(model, ids=IDS, mask=MASK) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def head_by_hand(model, vectors: np.ndarray) -> np.ndarray:
    """The logits that each family's head makes of a vector for each sentence."""

    def linear(layer, x):
        return x @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()

    if model.config.model_type.endswith("roberta"):
        return linear(model.classifier.out_proj, np.tanh(linear(model.classifier.dense, vectors)))
    if model.config.model_type.endswith("distilbert"):
        return linear(model.classifier, np.maximum(linear(model.pre_classifier, vectors), 0))
    return linear(model.classifier, vectors)


@pytest.mark.parametrize(("model_type", "pooling"), WAYS)
def test_logits_are_those_of_a_vector_by_hand(make, model_type, pooling):
    model, plain = make(model_type, pooling), make(model_type, POOLINGS[model_type][0])
    with torch.no_grad():
        states = plain.base_model(input_ids=IDS, attention_mask=MASK).last_hidden_state.numpy()
    vectors = states[:, 0]
    if pooling == "mean":
        vectors = np.stack([sum(row[:n]) / n for row, n in zip(states, (5, 3, 1), strict=True)])
    elif pooling == "pooler":
        dense = getattr(plain.base_model.pooler, "dense", plain.base_model.pooler)
        vectors = np.tanh(vectors @ dense.weight.detach().numpy().T + dense.bias.detach().numpy())
    np.testing.assert_allclose(logits(model).numpy(), head_by_hand(plain, vectors), atol=2e-5)
    assert pooling_of(model) == pooling


@pytest.mark.parametrize(("model_type", "pooling"), WAYS)
def test_padding_changes_no_logits(make, model_type, pooling):
    model = make(model_type, pooling)
    together = logits(model)
    for row, n in enumerate((5, 3, 1)):
        alone = logits(model, IDS[row : row + 1, :n], MASK[row : row + 1, :n])
        torch.testing.assert_close(alone, together[row : row + 1], atol=2e-5, rtol=1e-4)
        no_mask = logits(model, IDS[row : row + 1, :n], None)
        torch.testing.assert_close(no_mask, alone, atol=1e-6, rtol=1e-5)


def test_a_mean_counts_tokens_in_the_precision_of_the_states_and_needs_a_mask_of_two_axes():
    states = torch.arange(24.0).reshape(2, 3, 4)
    torch.testing.assert_close(
        pooled(states, torch.tensor([[1, 0, 1], [0, 1, 0]]), "mean")[0], states[0, [0, 2]].mean(0)
    )
    assert torch.equal(pooled(states, torch.zeros(2, 3), "mean"), torch.zeros(2, 4))
    assert pooled(states.bfloat16(), torch.ones(2, 3, dtype=torch.bool), "mean").dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"has the shape \(sentences, tokens\), got \(2, 1, 3, 3\)"):
        pooled(states, torch.ones(2, 1, 3, 3), "mean")


def test_outputs_come_as_they_are_asked_for(make):
    model, plain = (make("bert", pooling, "eager") for pooling in ("mean", "pooler"))  # eager: has attentions
    with torch.no_grad():
        named = model(IDS, MASK, output_hidden_states=True, output_attentions=True)
        assert torch.equal(model(IDS, MASK, return_dict=False)[0], named.logits)
        expected = plain(IDS, MASK, output_hidden_states=True, output_attentions=True)
        encoder = model.bert(IDS, MASK, return_dict=False)
        assert torch.equal(encoder[0], plain.bert(IDS, MASK)[0])
    assert torch.equal(torch.stack(named.hidden_states), torch.stack(expected.hidden_states))
    assert torch.equal(torch.stack(named.attentions), torch.stack(expected.attentions))
    torch.testing.assert_close(encoder[1], pooled(encoder[0], MASK, "mean"))


@pytest.mark.parametrize("model_type", TINY)
def test_what_a_family_cannot_have_is_refused_with_what_it_can(make, model_type):
    possible = POOLINGS[model_type]
    for wrong in {"max", "pooler"} - {*possible}:
        message = f"pooling of a {model_type} is one of {', '.join(possible)}, got '{wrong}'"
        with pytest.raises(ValueError, match=message):
            make(model_type, wrong)
    with pytest.raises(ValueError, match=r"was saved without its pooler, to be read by mean|got 'pooler'"):
        read_by(make(model_type, "mean"), "pooler")


# From the model's own files.


def folder_with(tmp_path: Path, config: dict | str, pooling: dict | str | None = None) -> str:
    (tmp_path / "1_Pooling").mkdir()
    for name, content in (("config.json", config), ("1_Pooling/config.json", pooling)):
        if content is not None:
            (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    return str(tmp_path)


OLD = {"word_embedding_dimension": 24, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False}


@pytest.mark.parametrize(
    ("config", "pooling", "expected"),
    [
        ({"model_type": "bert"}, None, "pooler"),
        ({"model_type": "distilbert"}, None, "first"),
        ({"model_type": "mpo_roberta"}, None, "first"),
        ({"model_type": "bert"}, {**OLD, "pooling_mode_mean_tokens": True}, "mean"),
        ({"model_type": "bert"}, {**OLD, "pooling_mode_cls_token": True}, "first"),
        ({"model_type": "roberta"}, {"embedding_dimension": 24, "pooling_mode": "mean"}, "mean"),
        ({"model_type": "albert"}, {"pooling_mode": "cls", "include_prompt": True}, "first"),
        ({"model_type": "mpo_bert", "pooling": "first"}, {"pooling_mode": "mean"}, "first"),
        ({"model_type": "bert", "pooling": "first"}, {"pooling_mode": "mean"}, "mean"),  # a word of someone else's
        ({"model_type": "bert"}, {"pooling_mode": ""}, "pooler"),
        ({"model_type": "electra"}, {"pooling_mode": "mean"}, None),
        ({"model_type": 3}, None, None),
        ({}, None, None),
    ],
)
def test_a_models_own_files_say_how_it_is_read(tmp_path, config, pooling, expected):
    assert own_pooling(folder_with(tmp_path, config, pooling)) == expected


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        (
            {**OLD, "pooling_mode_max_tokens": True},
            "was trained to be read by pooling_mode_max_tokens, .* give --pooling mean",
        ),
        (
            {**OLD, "pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
            "read by pooling_mode_cls_token, pooling_mode_mean_tokens, which is not known here",
        ),
        ({"pooling_mode": "lasttoken"}, "was trained to be read by lasttoken, which is not known here"),
        ({"pooling_mode": ["cls", "mean"]}, "read by .'cls', 'mean'., which is not known here"),
        ("{", "1_Pooling/config.json of .* must be JSON, it is not"),
        ("[1]", "1_Pooling/config.json of .* must be a JSON object, got list"),
    ],
)
def test_what_is_not_known_or_damaged_is_refused(tmp_path, pooling, message):
    with pytest.raises(ValueError, match=message):
        own_pooling(folder_with(tmp_path, {"model_type": "bert"}, pooling))


def test_load_reads_a_model_as_its_files_say_unless_told_otherwise(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    model, _ = load(str(folder))
    assert pooling_of(model) == "pooler"
    assert type(model).__name__ == "BertForSequenceClassification"
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    read, _ = load(str(folder))
    assert pooling_of(read) == "mean"
    assert read.bert.pooler is None
    told, _ = load(str(folder), pooling="pooler")
    assert torch.equal(told.bert.pooler.dense.weight, model.bert.pooler.dense.weight)
    assert torch.equal(logits(told.eval()), logits(model.eval()))
    with pytest.raises(ValueError, match="pooling of a bert is one of pooler, first, mean, got 'max'"):
        load(str(folder), pooling="max")


def test_another_familys_head_is_its_own_affair(tiny_model, tmp_path):
    sizes = {"embedding_size": 12, "hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    ElectraForSequenceClassification(ElectraConfig(vocab_size=30522, intermediate_size=40, **sizes)).save_pretrained(
        tmp_path
    )
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    model, _ = load(str(tmp_path))
    assert type(model) is ElectraForSequenceClassification
    assert pooling_of(model) is None
    with pytest.raises(ValueError, match="pooling of a electra is that of its own head, got 'mean'"):
        load(str(tmp_path), pooling="mean")


# Saved and loaded.


@pytest.mark.parametrize("matrices", [None, "all", "attention"])
@pytest.mark.parametrize(("model_type", "pooling"), WAYS)
def test_saved_and_loaded_it_is_read_the_same(make, tmp_path, model_type, pooling, matrices):
    model = make(model_type, pooling)
    if matrices:
        decompose(model, 3, matrices=matrices)
    model.save_pretrained(tmp_path)
    loaded, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    assert type(loaded) is type(model)
    assert pooling_of(loaded) == own_pooling(str(tmp_path)) == pooling
    assert torch.equal(logits(loaded.eval()), logits(model))
    encoder = AutoModel.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        states = encoder(IDS, MASK)
        plain = make(model_type, POOLINGS[model_type][0]).base_model(IDS, MASK).last_hidden_state
        torch.testing.assert_close(states.last_hidden_state, plain, atol=1e-4, rtol=1e-4)
        if matrices is None and pooling != POOLINGS[model_type][0] and "pooler_output" in states:
            torch.testing.assert_close(states.pooler_output, pooled(plain, MASK, pooling))
    words = AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    assert logits(words).shape == (3, 5, 97)


def test_a_pipeline_reads_the_folder(tiny_model, tmp_path):
    sentences = ["a film", "two hours of my life , gone , and none of it to remember"]
    for name, pooling, cut in (("dense", "mean", False), ("cores", "mean", True), ("pooler", "pooler", True)):
        model, tokenizer = load(tiny_model, 3, pooling=pooling)
        if cut:
            decompose(model, max_bond=8)
        for saved in (model, tokenizer):
            saved.save_pretrained(tmp_path / name)
        batch = tokenizer(sentences, padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = model.eval()(**batch).logits.softmax(-1)
        classify = pipeline("text-classification", str(tmp_path / name), top_k=None, device="cpu")
        for found, row in zip(classify(sentences, batch_size=2), expected, strict=True):
            scores = {one["label"]: one["score"] for one in found}
            np.testing.assert_allclose([scores[f"LABEL_{k}"] for k in range(3)], row.numpy(), atol=1e-6)
        again, _ = load(str(tmp_path / name), 3)
        assert pooling_of(again) == pooling
        with torch.no_grad():
            assert torch.equal(again.eval()(**batch).logits.softmax(-1), expected)


def test_dense_again_it_is_read_as_before(make):
    for pooling, name in (("mean", "MPOBert"), ("pooler", "Bert")):
        model = make("bert", pooling)
        expected = logits(model)
        decompose(model)
        plain = decompress(model)
        assert not mpo_layers(plain)
        assert pooling_of(plain) == pooling
        assert type(plain).__name__ == f"{name}ForSequenceClassification"
        torch.testing.assert_close(logits(plain), expected, atol=1e-4, rtol=1e-4)


def test_a_pooling_that_a_saved_config_cannot_have_is_refused(make, tmp_path):
    make("bert", "mean").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for pooling, message in (
        ("max", "pooling of a bert is one of pooler, first, mean, got 'max'"),
        ("pooler", "got 'pooler'"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, "pooling": pooling}))
        for auto in (AutoModel, AutoModelForSequenceClassification):
            with pytest.raises(ValueError, match=message):
                auto.from_pretrained(tmp_path)


def test_a_word_of_that_name_in_a_foreign_config_changes_nothing(tiny_config):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(tiny_config("bert", pooling="mean")).eval()
    expected = logits(model)
    assert pooling_of(model) == "pooler"
    decompose(model)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    assert pooling_of(model) == "pooler"


def test_a_task_file_belongs_to_one_way_of_reading(tiny_model, tiny_task, tmp_path):
    options = {"model": tiny_model, "task": tiny_task, "train_size": 32, "epochs": 1}
    first = prepare(RunConfig(**options, pooling="mean"))
    path = tmp_path / "task.safetensors"
    save_task(first.model, first.base, path)
    same = prepare(RunConfig(**options, pooling="mean", seed=1))
    load_task_file(same.model, same.base, path)
    ids = torch.tensor([[101, 2023, 102]])
    assert torch.equal(logits(same.model.eval(), ids, None), logits(first.model.eval(), ids, None))
    for pooling in ("first", "pooler", None):
        other = prepare(RunConfig(**options, pooling=pooling))
        with pytest.raises(ValueError, match="belongs to the base"):
            load_task_file(other.model, other.base, path)


def test_a_pooler_that_is_not_read_is_not_trained_or_missed(tiny_config):
    model = AutoModelForSequenceClassification.from_config(tiny_config("bert"))
    model.new_pooler = True
    read_by(model, "mean")
    decompose(model)
    freeze(model, "head")
    assert not any("pooler" in name for name, _ in model.named_parameters())
    assert fingerprint(model)


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_a_model_read_by_the_mean_is_exported_dense_or_not(make, model_type):
    dense, cores = make(model_type, "mean"), make(model_type, "mean")
    decompose(cores)
    for model in (dense, cores, decompress(cores)):
        exported = torch.export.export(model, (IDS, MASK)).module()
        with torch.no_grad():
            assert torch.equal(exported(IDS, MASK).logits, logits(model))


def test_the_embedded_model_is_read_by_the_mean():
    model, tokenizer = load("minilm")
    batch = tokenizer(["a film to remember", "two hours of my life , gone"], padding=True, return_tensors="pt")
    with torch.no_grad():
        states = AutoModel.from_pretrained(model_path("minilm")).eval()(**batch).last_hidden_state.numpy()
        found = model.eval()(**batch).logits
    mask = batch["attention_mask"].numpy()
    assert 0 < mask.mean() < 1
    vectors = np.einsum("st,stw->sw", mask, states) / mask.sum(1, keepdims=True)
    np.testing.assert_allclose(found.numpy(), head_by_hand(model, vectors), atol=1e-5)
