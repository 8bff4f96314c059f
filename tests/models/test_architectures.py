import json
import pickle
from pathlib import Path

import pytest
import torch
import warm
from conftest import TINY
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForNextSentencePrediction,
    AutoModelForPreTraining,
    AutoModelForSequenceClassification,
    BertForSequenceClassification,
)

from mpo_tutorial.models import architectures
from mpo_tutorial.models.convert import decompose, decompress
from mpo_tutorial.models.layers import MPOEmbedding, mpo_layers
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.truncation import truncate

IDS = torch.tensor([[5, 9, 96, 1, 1], [7, 0, 3, 4, 8]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.fixture
def make(tiny_config):
    def make(model_type="bert", auto=AutoModelForSequenceClassification, matrices="all", n_cores=3, **options):
        torch.manual_seed(0)
        model = auto.from_config(tiny_config(model_type, **options))
        decompose(model, n_cores, max_bond=6, matrices=matrices)
        return model

    return make


@pytest.mark.parametrize("auto", [AutoModelForSequenceClassification, AutoModelForMaskedLM])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model_type", TINY)
def test_saved_and_loaded_the_logits_are_the_same_to_the_last_bit(make, tmp_path, model_type, dtype, auto):
    model = make(model_type, auto).to(dtype)
    expected = logits(model)
    model.save_pretrained(tmp_path, max_shard_size="20KB" if dtype == torch.float32 else "5GB")
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (dtype == torch.float32)
    loaded, info = auto.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not any(info.values())
    assert type(loaded) is type(model)
    assert loaded.config.model_type == f"mpo_{model_type}"
    assert {p.dtype for p in loaded.parameters()} == {dtype}
    assert torch.equal(logits(loaded), expected)
    assert torch.equal(logits(auto.from_pretrained(tmp_path, dtype="auto")), expected)
    with torch.no_grad():
        encoder = AutoModel.from_pretrained(tmp_path, dtype=dtype)
        assert torch.equal(encoder(IDS)[0], model.base_model(IDS)[0])


def test_hidden_states_are_returned_as_before(tiny_model):
    (dense, tokenizer), (model, _) = (load(tiny_model, 2, seed=0) for _ in range(2))
    decompose(model)
    batch = tokenizer("a good film", return_tensors="pt")
    with torch.no_grad():
        before, after = (m.eval()(**batch, output_hidden_states=True).hidden_states for m in (dense, model))
    assert len(after) == 3
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-3)


def test_the_embedded_model_round_trips(tmp_path):
    model, tokenizer = load("minilm", 2, seed=0)
    decompose(model, matrices="attention, embedding", max_bond=16)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, again = load(str(tmp_path), 2, seed=1)
    batch = again(["a film to remember"], return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, model.eval()(**batch).logits)


def test_a_truncation_after_loading_is_saved_as_well(make, tmp_path):
    make().save_pretrained(tmp_path / "first")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "first")
    truncate(model, max_bond=2)
    model.save_pretrained(tmp_path / "second")
    model.base_model.save_pretrained(tmp_path / "encoder")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "second")
    assert max(max(layer.mpo.bonds) for layer in mpo_layers(loaded)) == 2
    assert torch.equal(logits(loaded), logits(model))
    encoder = AutoModel.from_pretrained(tmp_path / "encoder")
    assert torch.equal(encoder.eval()(IDS)[0], model.base_model(IDS)[0])


def test_an_encoder_gets_a_new_head_and_a_tied_output_layer(make, tmp_path):
    model = make(auto=AutoModelForMaskedLM)
    model.save_pretrained(tmp_path)
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path, num_labels=5)
    assert classifier.classifier.out_features == 5
    make(matrices="embedding").save_pretrained(tmp_path / "classifier")
    masked = AutoModelForMaskedLM.from_pretrained(tmp_path / "classifier")
    assert isinstance(masked.get_input_embeddings(), MPOEmbedding)
    torch.testing.assert_close(masked.get_output_embeddings().weight, masked.get_input_embeddings().matrix())


@pytest.mark.parametrize(
    "auto",
    [AutoModelForPreTraining, AutoModelForNextSentencePrediction, AutoModelForCausalLM, AutoModelForMultipleChoice],
)
def test_other_heads_are_known_to_their_auto_classes(make, tmp_path, auto):
    model = make("bert", auto).eval()
    model.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert all(torch.equal(tensor, loaded.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_class_of_its_own_takes_the_usual_arguments(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    for config in (None, str(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        loaded = type(model).from_pretrained(tmp_path, config=config)
        assert torch.equal(logits(loaded), logits(model))
    wider = type(model).from_pretrained(tmp_path, num_labels=5, output_hidden_states=True, ignore_mismatched_sizes=True)
    assert logits(wider).shape == (2, 5)
    assert wider.config.output_hidden_states


UNPICKLE = """
import pickle, sys
print(type(pickle.load(open(sys.argv[1], "rb"))).__name__)
"""


def test_a_pickled_model_comes_back_in_another_process(make, tmp_path):
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(make()))
    done = warm.python("-c", UNPICKLE, tmp_path / "model.pickle")
    assert done.stdout.strip() == "MPOBertForSequenceClassification", done.stderr
    again = pickle.loads(pickle.dumps(make("albert")))  # noqa: S301
    assert torch.equal(logits(again), logits(make("albert")))
    with pytest.raises(AttributeError, match="has no attribute 'MPONothing'"):
        architectures.MPONothing  # noqa: B018


def test_an_mpo_embedding_keeps_its_words(make):
    model = make()
    with pytest.raises(ValueError, match="an MPO embedding keeps its 97 words, got 99"):
        model.resize_token_embeddings(99)
    assert model.resize_token_embeddings(97) is model.get_input_embeddings()
    assert make(matrices="attention").resize_token_embeddings(99).num_embeddings == 99


def test_a_decompressed_model_is_read_without_this_package(make, tmp_path):
    model = make("albert")
    plain = decompress(model)
    plain.save_pretrained(tmp_path)
    torch.save(logits(plain), tmp_path / "logits.pt")
    code = f"""
import sys, torch
from transformers import AutoModelForSequenceClassification
model = AutoModelForSequenceClassification.from_pretrained({str(tmp_path)!r}).eval()
with torch.no_grad():
    assert torch.equal(model(torch.tensor({IDS.tolist()})).logits, torch.load({str(tmp_path / "logits.pt")!r}))
assert "mpo_tutorial" not in sys.modules
"""
    done = warm.python("-c", code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("imports", "known"),
    [
        ("import transformers", False),
        ("import transformers, mpo_tutorial", True),
        ("import mpo_tutorial, transformers", True),
        ("import mpo_tutorial; from transformers import Trainer; import transformers", True),
        ("from transformers import AutoConfig; import mpo_tutorial, transformers", True),
    ],
)
def test_auto_classes_know_the_model_after_the_import_and_refuse_it_without(make, tmp_path, imports, known):
    make().save_pretrained(tmp_path)
    code = f"{imports}; transformers.AutoModelForSequenceClassification.from_pretrained({str(tmp_path)!r})"
    done = warm.python("-c", code)
    if known:
        assert done.returncode == 0, done.stderr
    else:
        assert "has model type `mpo_bert` but Transformers does not recognize this architecture" in done.stderr


def altered(folder: Path, change) -> Path:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


QUERY = "bert.encoder.layer.0.attention.self.query"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["mpo"][QUERY].update(bonds=[600, 6]), "bonds of .*query make no MPO: .* from 1 to 6, got 600"),
        (lambda c: c["mpo"][QUERY].update(bonds=[6]), "query make no MPO: 3 cores have 2 inner bonds, got 1"),
        (
            lambda c: c["mpo"][QUERY].update(bonds=[5, 6]),
            r"2 tensors are .*query.cores.0: \(1, 3, 2, 6\), not \(1, 3, 2, 5\)",
        ),
        (lambda c: c["mpo"][QUERY].update(in_legs=[10**4] * 3), "query make a matrix of 1000000000000 x 24"),
        (lambda c: c["mpo"][QUERY].pop("in_legs"), "query make no MPO: 'in_legs'"),
        (lambda c: c["mpo"][QUERY].update(in_legs="many"), "query make no MPO: "),
        (
            lambda c: c["mpo"].update({"bert.other": c["mpo"][QUERY]}),
            "says that bert.other is an MPO, .* has no such matrix",
        ),
        (
            lambda c: c["mpo"].pop(QUERY),
            "1 tensors are missing or of another shape, the first is .*query.weight: missing",
        ),
        (lambda c: c.update(mpo={}), "says by `mpo` which matrices are MPOs, this one has {}"),
        (lambda c: c.update(vocab_size=10**12), "config asks for vocab_size 1,000,000,000,000"),
        (lambda c: c.update(hidden_size=10**9), "config asks for hidden_size 1,000,000,000"),
        (lambda c: c.update(num_hidden_layers=10**7), "config asks for num_hidden_layers 10,000,000"),
        (lambda c: c.update(vocab_size=98), "word_embeddings make a matrix of 97 x 24, the model's has 98 x 24"),
        (lambda c: c.update(max_position_embeddings=33), "the first is embeddings.position_embeddings.weight"),
    ],
)
def test_an_altered_config_is_refused_before_memory_is_taken(make, tmp_path, change, message):
    make().save_pretrained(tmp_path)
    altered(tmp_path, change)
    with pytest.raises(ValueError, match=message):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="is no model that AutoModelForSequenceClassification can load: "):
        load(str(tmp_path), 2, seed=0)


def test_damaged_or_foreign_files_are_refused(make, tmp_path):
    make().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:7], b"", b"{}" * 100):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"model.safetensors is no whole safetensors file"):
            AutoModelForSequenceClassification.from_pretrained(tmp_path)
    file.write_bytes(whole)
    tensors = load_file(file)
    save_file({name: t for name, t in tensors.items() if not name.endswith("query.cores.1")}, file, {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"2 tensors are missing or of another shape, the first is .*query.cores.1: missing"
    ):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_pickles_are_never_opened(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="from safetensors files only, not from pickles"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, use_safetensors=False)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"safetensors files only, .* has no model.safetensors"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_a_model_from_its_config_alone_is_new(make):
    model = make()
    new = AutoModelForSequenceClassification.from_config(model.config)
    assert [layer.mpo.bonds for layer in mpo_layers(new)] == [layer.mpo.bonds for layer in mpo_layers(model)]
    std = torch.stack([layer.mpo.to_matrix().std() for layer in mpo_layers(new) if min(layer.mpo.bonds) > 1]).mean()
    assert 0.5 * model.config.initializer_range < std < 2 * model.config.initializer_range


def test_plain_models_are_left_as_they_are(tiny_model):
    assert type(AutoModelForSequenceClassification.from_pretrained(tiny_model)) is BertForSequenceClassification
    assert AutoConfig.from_pretrained(tiny_model).model_type == "bert"


def test_cores_that_the_files_lack_are_never_made_up(make, tmp_path):
    make().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file({name: t for name, t in tensors.items() if "pooler.dense.cores" not in name}, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"the first is pooler.dense.cores.0: missing"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    save_file(tensors, file, {"format": "pt"})
    altered(tmp_path, lambda c: c["mpo"].update(classifier={**c["mpo"][QUERY], "out_legs": [1, 2, 1], "bonds": [3, 2]}))
    with pytest.raises(ValueError, match=r"the first is classifier.cores.0: missing"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_a_whole_file_counts_and_not_the_index_of_an_earlier_save(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForSequenceClassification.from_pretrained(tmp_path)), logits(model))


@pytest.mark.parametrize("content", ["no JSON", "[1]", "{}", '{"weight_map": ["a"]}'])
def test_a_strange_index_is_refused(make, tmp_path, content):
    make().save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "model.safetensors.index.json").write_text(content)
    with pytest.raises(ValueError, match="is no index of safetensors files"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
