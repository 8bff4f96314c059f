import numpy as np
import pytest
import torch

from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.evaluation import logits
from mpo_tutorial.experiments.statistics import correct_sentences
from mpo_tutorial.experiments.threshold import judge
from mpo_tutorial.experiments.tuned import Tuned, config_of_run
from mpo_tutorial.models.families import mpo_matrices, place
from mpo_tutorial.models.layers import mpo_layers
from mpo_tutorial.models.truncation import Cut


def test_a_part_is_cut_and_the_others_and_the_tuned_model_stay(tiny_tuned):
    before = [core.clone() for layer in mpo_layers(tiny_tuned.model) for core in layer.cores]
    model = tiny_tuned.truncated(Cut(max_bond=2, matrices="attention"))
    for name, layer in model.named_modules():
        if layer in mpo_layers(model):
            assert (max(layer.mpo.bonds) == 2) == ("attention" in name), name
    after = [core for layer in mpo_layers(tiny_tuned.model) for core in layer.cores]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_first_sentences_are_the_first_of_all_and_progress_reaches_the_end(tiny_tuned):
    told, model = [], tiny_tuned.truncated(Cut(max_bond=3))
    everything = tiny_tuned.judge(model)
    some = tiny_tuned.judge(model, n=10, advance=told.append)
    np.testing.assert_array_equal(correct_sentences(some), correct_sentences(everything)[:10])
    assert tiny_tuned.judge(model, n=10**6) == everything
    dataset = tiny_tuned.prepared.dataset("validation")
    assert everything == judge(dataset["labels"], logits(model, dataset, tiny_tuned.prepared.tokenizer))
    assert told == sorted(told)
    assert told[-1] == 1


def test_the_shipped_record_and_weights_belong_together():
    """A point near the cliff, measured again with the weights in the package."""
    cut = {"max_bond": 80, "matrices": "all"}
    point = next(p for p in records.shipped_points("cuts") if p["setting"].get("cut") == cut)
    tuned = Tuned.shipped()
    found = correct_sentences(tuned.judge(tuned.truncated(Cut(**cut)), n=100))
    # Other machines round differently, and a sentence or two on the edge may fall to the other side.
    assert (found == correct_sentences(point["result"]["validation"])[:100]).mean() >= 0.96


def test_what_is_no_finished_light_run_is_refused(tmp_path, tiny_light_run):
    with pytest.raises(FileNotFoundError, match="holds no finished run; make one"):
        config_of_run(tmp_path)
    record = records.read_record(tiny_light_run / "record.json")
    (tmp_path / "task.safetensors").touch()
    for change in ({"method": "full"}, {"cores": 2}):
        records.write_record({**record, "config": {**record["config"], **change}}, tmp_path / "record.json")
        with pytest.raises(ValueError, match="a light run with three or more cores is needed"):
            config_of_run(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cores": None}, "cores is an integer of at least 2, got None"),
        ({"method": ["light"]}, r"method is one of light, full, .*, got \['light'\]"),
        ({"matrices": 3}, "matrices is a text, got 3"),
        ({"learning_rate": "fast"}, "learning_rate lies between 0 and 1, got 'fast'"),
        ({"seed": 10**12}, "seed is at most 4294967295, because NumPy takes no larger one, got 1000000000000"),
        ({"rank": 3}, "the options of a run and no others, these differ: rank"),
    ],
)
def test_a_config_that_no_run_has_is_named(tmp_path, tiny_light_run, change, message):
    record = records.read_record(tiny_light_run / "record.json")
    (tmp_path / "task.safetensors").touch()
    records.write_record({**record, "config": {**record["config"], **change}}, tmp_path / "record.json")
    with pytest.raises(
        ValueError, match=rf"the config in .*record\.json must .*{message}.*give the folder of a light run"
    ):
        config_of_run(tmp_path)


def test_a_config_that_lacks_an_option_is_named(tmp_path, tiny_light_run):
    record = records.read_record(tiny_light_run / "record.json")
    (tmp_path / "task.safetensors").touch()
    for name in set(record["config"]) - {"model", "task"}:
        config = {key: value for key, value in record["config"].items() if key != name}
        records.write_record({**record, "config": config}, tmp_path / "record.json")
        with pytest.raises(ValueError, match=f"and no others, these differ: {name}; give"):
            config_of_run(tmp_path)


def test_an_unknown_part_is_refused(tiny_tuned):
    with pytest.raises(
        ValueError, match=r"named by all, embedding, .* projection, .*, feed-forward out, or .* got 'head'"
    ):
        mpo_matrices(tiny_tuned.model, "head")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("bert.encoder.layer.11.attention.output.dense", (11, "attention output")),
        ("bert.encoder.layer.0.output.dense", (0, "feed-forward out")),
        ("distilbert.transformer.layer.2.ffn.lin1", (2, "feed-forward in")),
        ("bert.pooler.dense", (None, "pooler")),
    ],
)
def test_names_tell_layer_and_kind(name, found):
    assert place(name)[:2] == found
