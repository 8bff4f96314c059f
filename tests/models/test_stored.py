import json
import shutil
from pathlib import Path

import pytest
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


def test_a_byte_altered_after_saving_is_noticed(tiny_model, tmp_path):
    model, _ = load(tiny_model, 2, seed=0)
    decompose(model)
    model.save_pretrained(tmp_path)
    file = tmp_path / WEIGHTS
    assert model.config.mpo_sha256 == sha256_of({WEIGHTS: file})
    content = bytearray(file.read_bytes())
    content[-7] ^= 1
    file.write_bytes(content)
    with pytest.raises(ValueError, match=f"was altered after it was saved: {WEIGHTS} is another file"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)
    model.save_pretrained(tmp_path)
    AutoModelForSequenceClassification.from_pretrained(Path(tmp_path))
