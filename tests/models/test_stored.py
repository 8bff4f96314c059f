import copy
import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AlbertConfig, AutoModelForSequenceClassification, BertConfig

from mpo_tutorial.models.convert import decompose, outline
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.stored import WEIGHTS, sha256_of, shapes_in, weight_files


@pytest.fixture
def changed(tiny_model, tmp_path):
    """The tiny model's folder, other words in its config."""

    def make(**words) -> str:
        shutil.copytree(tiny_model, tmp_path / "changed")
        path = tmp_path / "changed/config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **words}))
        return str(path.parent)

    return make


def test_shapes_are_those_of_the_tensors_in_one_file_or_several(tiny_config, tmp_path):
    model = AutoModelForSequenceClassification.from_config(tiny_config("bert"))
    for size, n_files in (("1GB", 1), ("20KB", 3)):
        model.save_pretrained(tmp_path / size, max_shard_size=size)
        files = weight_files(str(tmp_path / size))
        assert len(files) >= n_files
        assert shapes_in(files) == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=f"safetensors files only, .* has no {WEIGHTS}"):
        weight_files(str(tmp_path))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"vocab_size": 10**9}, "asks for vocab_size 1,000,000,000, which is too much for files with 39 tensors"),
        ({"num_hidden_layers": 3000}, "asks for num_hidden_layers 3,000"),
        (
            {"num_hidden_layers": 1},
            "must describe all layers in its files; 16 tensors have no place, such as encoder.layer.1",
        ),
        ({"num_hidden_layers": 3}, "16 tensors are missing or of another shape"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "can load: it is quantised"),
        ({"quantization_config": {"quant_method": "unheard-of"}}, "can load: it is quantised"),
        ({"quantization_config": "x"}, "can load: "),
    ],
)
def test_a_dense_model_that_is_not_what_its_config_says_is_refused(changed, words, message):
    with pytest.raises(ValueError, match=message):
        load(changed(**words), 2, seed=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (BertConfig(num_hidden_layers=10**6), "asks for num_hidden_layers 1,000,000, which is too much for any model"),
        (BertConfig(hidden_size=-24), "the config of a bert describes no model"),
        (BertConfig(vocab_size=10**8), "asks for vocab_size 100,000,000"),
    ],
)
def test_a_config_that_describes_no_model_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        outline(config)


def test_shared_layers_may_be_more_than_the_tensors(tiny_config, tmp_path):
    config = tiny_config("albert", num_hidden_layers=100)
    model = AutoModelForSequenceClassification.from_config(config)
    decompose(model, 3)
    model.save_pretrained(tmp_path)
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path).config.num_hidden_layers == 100
    assert isinstance(config, AlbertConfig)


def alter(file: Path) -> bytes:
    """Change one byte of a file; its content before comes back."""
    content = file.read_bytes()
    changed = bytearray(content)
    changed[-7] ^= 1
    file.write_bytes(changed)
    return content


@pytest.fixture
def compressed(tiny_model):
    model, _ = load(tiny_model, 2, seed=0)
    decompose(model)
    return model


def test_a_byte_altered_after_saving_is_noticed(compressed, tmp_path):
    compressed.save_pretrained(tmp_path)
    file = tmp_path / WEIGHTS
    assert compressed.config.mpo_sha256 == sha256_of({WEIGHTS: file})
    alter(file)
    with pytest.raises(ValueError, match=f"was altered after it was saved: {WEIGHTS} is another file"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    compressed.save_pretrained(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(Path(tmp_path))


@pytest.mark.parametrize(
    ("order", "size"),
    [
        ((None, "fp16"), "5GB"),
        (("fp16", None), "5GB"),
        ((None, "fp16"), "50KB"),  # in the other order transformers removes the variant's files
    ],
)
def test_variants_are_loaded_and_each_is_guarded(compressed, tmp_path, order, size):
    models = {None: compressed, "fp16": copy.deepcopy(compressed).half()}
    for variant in order:
        models[variant].save_pretrained(tmp_path, variant=variant, max_shard_size=size)
    for variant, model in models.items():
        loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path, variant=variant, dtype=model.dtype)
        found, expected = loaded.state_dict(), model.state_dict()
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in found)
    written = list(tmp_path.glob("*.safetensors"))
    assert (len(written) > 2) == (size == "50KB")
    assert json.loads((tmp_path / "config.json").read_text())["mpo_sha256"].keys() == {file.name for file in written}
    for file in written:
        content = alter(file)
        variant, other = ("fp16", None) if "fp16" in file.name else (None, "fp16")
        with pytest.raises(ValueError, match=f"was altered after it was saved: {file.name} is another file"):
            AutoModelForSequenceClassification.from_pretrained(tmp_path, variant=variant)
        AutoModelForSequenceClassification.from_pretrained(tmp_path, variant=other)
        file.write_bytes(content)
    with pytest.raises(ValueError, match=r"safetensors files only, .* has no model.bf16.safetensors"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, variant="bf16")


def test_an_altered_file_stays_refused_when_a_variant_is_saved_beside_it(compressed, tmp_path):
    compressed.save_pretrained(tmp_path)
    alter(tmp_path / WEIGHTS)
    compressed.save_pretrained(tmp_path, variant="fp16")
    with pytest.raises(ValueError, match=f"was altered after it was saved: {WEIGHTS} is another file"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


def test_fewer_files_than_before_leave_no_hashes_of_those_that_are_gone(compressed, tmp_path):
    for size in ("20KB", "100KB"):
        compressed.save_pretrained(tmp_path, max_shard_size=size)
        assert compressed.config.mpo_sha256.keys() == {file.name for file in tmp_path.glob("*.safetensors")}


def test_a_folder_is_held_to_its_own_hashes_not_to_those_of_the_config_that_is_given(compressed, tmp_path):
    compressed.save_pretrained(tmp_path / "first")
    with torch.no_grad():
        compressed.classifier.bias += 1
    compressed.save_pretrained(tmp_path / "second")
    loaded = type(compressed).from_pretrained(tmp_path / "first", config=compressed.config)
    torch.testing.assert_close(loaded.classifier.bias + 1, compressed.classifier.bias)


def test_a_model_from_a_state_dict_is_checked_like_one_from_files(compressed, tmp_path):
    tensors = compressed.state_dict()
    loaded = type(compressed).from_pretrained(None, config=compressed.config, state_dict=tensors)
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in loaded.state_dict().items())
    some = {name: tensor for name, tensor in tensors.items() if not name.endswith("1.output.dense.cores.0")}
    with pytest.raises(ValueError, match=r"the state_dict must hold .*; 1 tensors are missing .*cores.0: missing"):
        type(compressed).from_pretrained(None, config=compressed.config, state_dict=some)
    with pytest.raises(ValueError, match="from a folder, the hub or a state_dict, none of them is given"):
        type(compressed).from_pretrained(None, config=compressed.config)
