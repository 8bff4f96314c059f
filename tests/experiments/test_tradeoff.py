import numpy as np
import pytest
import torch

from mpo_tutorial.experiments import records, statistics, tradeoff
from mpo_tutorial.experiments.tradeoff import PARTS, Tuned
from mpo_tutorial.maths import entropy
from mpo_tutorial.models.convert import layers_of_part
from mpo_tutorial.models.families import place
from mpo_tutorial.models.layers import mpo_layers


def test_the_record_holds_every_setting_and_counts_what_is_left(tiny_light_run, tiny_tuned):
    record = tradeoff.tradeoff(tiny_light_run, progress=False)
    assert [(p["part"], p["max_bond"]) for p in record["points"]] == [(q, b) for q in PARTS for b in tiny_tuned.bonds]
    for point in record["points"]:
        assert point["parameters"] == point["central"] + point["auxiliary"]
        assert point["ratio"] == point["parameters"] / record["dense"]
    whole = [point for point in record["points"] if point["max_bond"] == tiny_tuned.bonds[0]]
    assert {point["parameters"] for point in whole} == {tiny_tuned.prepared.ledger.total}
    first = records.read_record(tiny_light_run / "record.json")["validation"]
    assert all(point["validation"]["right"] == first["right"] for point in whole)


def test_a_part_is_cut_and_the_others_and_the_tuned_model_stay(tiny_tuned):
    before = [core.clone() for layer in mpo_layers(tiny_tuned.prepared.model) for core in layer.cores]
    point = tiny_tuned.point("attention", 2)
    model = tiny_tuned._cut("attention", 2)
    for name, layer in model.named_modules():
        if layer in mpo_layers(model):
            assert (max(layer.mpo.bonds) == 2) == ("attention" in name), name
    assert point["parameters"] == sum(layer.mpo.n_params for layer in mpo_layers(model))
    after = [core for layer in mpo_layers(tiny_tuned.prepared.model) for core in layer.cores]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_first_sentences_are_the_first_of_all_and_progress_reaches_the_end(tiny_tuned):
    told = []
    everything = tiny_tuned.right("all", 3)
    some = tiny_tuned.right("all", 3, n=10, advance=told.append)
    np.testing.assert_array_equal(some, everything[:10])
    assert len(tiny_tuned.right("all", 3, n=10**6)) == len(everything)
    assert told == sorted(told)
    assert told[-1] == 1


def test_the_entropy_is_that_of_the_central_bonds(tiny_tuned):
    layer = mpo_layers(tiny_tuned.prepared.model)[0]
    spectra = entropy.Spectra.of(layer.mpo.to_matrix(), layer.mpo.shape)
    assert tradeoff.central_entropy(layer) == pytest.approx(np.mean(spectra.entropies()[1:3]), rel=1e-6)
    assert tiny_tuned.point("all", 1)["entropy"] == pytest.approx(0, abs=1e-6)


def test_the_shipped_record_and_weights_belong_together():
    """A point near the cliff, measured again with the weights in the package."""
    record = records.shipped("tradeoff")
    point = next(p for p in record["points"] if (p["part"], p["max_bond"]) == ("all", 80))
    found = Tuned.shipped().right("all", 80, n=100)
    # Other machines round differently, and a sentence or two on the edge may fall to the other side.
    assert (found == statistics.correct_sentences(point["validation"])[:100]).mean() >= 0.96


def test_what_is_no_finished_light_run_is_refused(tmp_path, tiny_light_run):
    with pytest.raises(FileNotFoundError, match="holds no finished run; make one"):
        tradeoff.tradeoff(tmp_path)
    record = records.read_record(tiny_light_run / "record.json")
    (tmp_path / "task.safetensors").touch()
    for change in ({"method": "full"}, {"cores": 2}):
        records.write_record({**record, "config": {**record["config"], **change}}, tmp_path / "record.json")
        with pytest.raises(ValueError, match="a light run with three or more cores is needed"):
            tradeoff.tradeoff(tmp_path)


def test_an_unknown_part_is_refused(tiny_tuned):
    with pytest.raises(
        ValueError, match=r"part is one of all, embedding, .* projection, .*, feed-forward out, got 'head'"
    ):
        layers_of_part(tiny_tuned.prepared.model, "head")


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
