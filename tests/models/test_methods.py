"""What each way of fine-tuning leaves trainable, by name; legs and gauges as options."""

import copy
import re
import shutil

import pytest
import torch
from conftest import TINY
from safetensors.torch import load_file, save_file
from test_rivals import ADDED
from transformers import AutoModelForSequenceClassification

from mpo_tutorial.experiments.checkpoint import fingerprint, load_task_file, save_task
from mpo_tutorial.models.architectures import read_by
from mpo_tutorial.models.convert import biases, decompose, freeze, norms, outline, shapes_of
from mpo_tutorial.models.layers import mpo_layers
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.methods import METHODS
from mpo_tutorial.models.ways import Way

HEADS = {"bert": r"classifier\.", "roberta": r"classifier\.", "albert": r"classifier\.", "mobilebert": r"classifier\."}
HEADS["distilbert"] = r"(pre_)?classifier\."
NORMS = r".*(LayerNorm|layer_norm|layer_layer_norm)\.(weight|bias)"


@pytest.fixture
def make(tiny_config):
    def make(model_type: str = "bert", pooling: str | None = None, **options):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(tiny_config(model_type, **options))
        if pooling:
            read_by(model, pooling)
        return model

    return make


def trained(model) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


def named(model, *patterns: str) -> set[str]:
    """The parameters whose names fit one of some patterns, from their beginning."""
    return {name for name, _ in model.named_parameters() if any(re.match(pattern, name) for pattern in patterns)}


@pytest.mark.parametrize("blocks", ["both", "left", "right"])
@pytest.mark.parametrize("rest", ["head", "norms", "all"])
@pytest.mark.parametrize("n_cores", [3, 4, 5])
def test_what_light_fine_tuning_trains(make, n_cores, rest, blocks):
    model = make()
    decompose(model, n_cores)
    freeze(model, rest, blocks)
    centre = n_cores // 2
    cores = {"left": range(centre), "right": range(centre + 1, n_cores)}
    numbers = {*cores["left"], *cores["right"]} if blocks == "both" else {*cores[blocks]}
    expected = named(model, r"classifier\.", *(rf".*\.cores\.{k}$" for k in numbers))
    if rest == "norms":
        expected |= named(model, r".*bias$", NORMS)
    elif rest == "all":
        expected |= {name for name, _ in model.named_parameters() if ".cores." not in name}
    assert trained(model) == expected


@pytest.mark.parametrize("model_type", TINY)
def test_biases_and_normalisations_of_every_family(make, model_type):
    model = make(model_type)
    decompose(model, 3)
    freeze(model, "norms")
    of = {id(p): name for name, p in model.named_parameters()}
    of_norms = {of[id(p)] for p in norms(model)}
    assert of_norms == named(model, NORMS)
    assert of_norms
    assert {of[id(p)] for p in biases(model)} == named(model, r".*bias$")
    assert trained(model) == named(model, HEADS[model_type], r".*bias$", NORMS, r".*\.cores\.[02]$")


@pytest.mark.parametrize("rest", ["head", "norms", "all"])
@pytest.mark.parametrize("blocks", ["both", "left"])
def test_a_pooler_that_begins_anew_is_trained_whole(tiny_model, tmp_path, rest, blocks):
    """It is no part of the fingerprint of its base, so a task file has to hold all of it."""
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler.")}
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    models = []
    for seed in (0, 1):
        model, _ = load(str(folder), seed=seed)
        assert model.new_pooler
        base = fingerprint(model)
        decompose(model)
        freeze(model, rest, blocks)
        assert named(model, r"bert\.pooler\.") <= trained(model)
        assert not trained(model) & named(model, r"bert\.encoder\..*\.cores\.2$")
        models.append((model.eval(), base))
    (first, base), (second, same_base) = models
    assert base == same_base
    save_task(first, base, tmp_path / "task.safetensors")
    load_task_file(second, base, tmp_path / "task.safetensors")
    ids = torch.tensor([[101, 2023, 102]])
    with torch.no_grad():
        assert torch.equal(second(ids).logits, first(ids).logits)


LAYER = r"bert\.encoder\.layer\."


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_what_each_method_trains(make, pooling):
    """Of a BERT with 4 layers; a pooler comes after the last one."""
    after = [r"bert\.pooler\."] if pooling == "pooler" else []
    norms_too = [r".*bias$", NORMS]
    expected = {
        "light": [r"classifier\.", r".*\.cores\.[0134]$"],
        "full": [r".*"],
        "head": [r"classifier\."],
        "bitfit": [r"classifier\.", r".*bias$"],
        "last-1": [r"classifier\.", rf"{LAYER}3\.", *after],
        "last-2": [r"classifier\.", rf"{LAYER}[23]\.", *after],
        "last-3": [r"classifier\.", rf"{LAYER}[123]\.", *after],
        "mask": [r"classifier\.", r".*\.update$"],
        "subspace": [r"classifier\.", r".*\.update$"],
    }
    assert METHODS.keys() - expected.keys() == {*ADDED, "child-f", "child-d"}
    for rest, besides in (("head", []), ("norms", norms_too)):
        for name, patterns in expected.items():
            model = make(pooling=pooling, num_hidden_layers=4)
            METHODS[name].apply(model, Way(5, rest=rest))
            reads_rest = name in ("light", "mask", "subspace")
            assert trained(model) == named(model, *patterns, *(besides if reads_rest else [])), name


def test_more_layers_than_there_are_of_their_own_are_refused(make):
    METHODS["last-1"].apply(make("albert"), Way(5))
    with pytest.raises(
        ValueError, match="the last 2 layers are to be trained, AlbertForSequenceClassification has 1 of"
    ):
        METHODS["last-2"].apply(make("albert"), Way(5))
    with pytest.raises(ValueError, match="the last 3 layers are to be trained, BertForSequenceClassification has 2"):
        METHODS["last-3"].apply(make(), Way(5))


def test_a_compressed_model_is_for_light_fine_tuning_and_keeps_its_legs_and_gauge(make):
    model = make()
    decompose(model, 3)
    for name in ("full", "last-1", "mask", "subspace"):
        with pytest.raises(ValueError, match=r"the model is compressed; .* take --method light"):
            METHODS[name].apply(model, Way(3))
    for options in ({"gauge": "amb"}, {"legs": "2.3.4 x 2.3.4"}):
        with pytest.raises(
            ValueError, match="is compressed and keeps its legs and its gauge; leave --legs and --gauge out"
        ):
            METHODS["light"].apply(model, Way(3, **options))
    METHODS["light"].apply(model, Way(3))
    METHODS["head"].apply(model, Way(3))
    assert trained(model) == named(model, r"classifier\.")


# Gauges and legs of a whole model.

IDS = torch.tensor([[5, 9, 96, 7, 12], [7, 8, 3, 1, 1]])


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


@pytest.mark.parametrize("matrices", ["attention, feed-forward, pooler", "all"])
def test_every_gauge_computes_the_same(make, matrices):
    expected = logits(make())
    for gauge in ("centred", "tt-svd", "amb"):
        model = make()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        ledger = decompose(model, matrices=matrices, gauge=gauge)
        assert (ledger.largest_error == 0) == (gauge == "amb")
        torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-4)
        for name, p in model.named_parameters():
            assert name not in before or torch.equal(p, before[name])
        for layer in mpo_layers(model):
            cores = [core.detach().flatten(0, 2) for core in layer.cores[:-1]]  # but for the last, each an isometry
            isometries = [torch.allclose(core.T @ core, torch.eye(core.shape[1]), atol=1e-5) for core in cores]
            centre = len(layer.cores) // 2
            assert len(layer.cores) == (3 if gauge == "amb" else 5)
            assert all(isometries[:centre])
            assert isometries[centre] == (gauge == "tt-svd")


def test_on_the_device_meta_a_gauge_has_its_own_sizes(make, tiny_config):
    for gauge in ("centred", "tt-svd", "amb"):
        real = decompose(make(), gauge=gauge)
        planned = decompose(outline(tiny_config("bert")), gauge=gauge)
        assert [(row.bonds, row.central, row.auxiliary) for row in planned.rows] == [
            (row.bonds, row.central, row.auxiliary) for row in real.rows
        ]


def test_gauges_that_are_unknown_or_cannot_be_cut_are_refused(make):
    with pytest.raises(ValueError, match="gauge is one of centred, tt-svd, amb, got 'left'"):
        decompose(make(), gauge="left")
    with pytest.raises(ValueError, match="nothing is decomposed that could be cut, got a bond of 4; take centred"):
        decompose(make(), gauge="amb", max_bond=4)


def test_legs_are_those_that_are_asked_for_and_the_others_usual(make):
    model, usual = make(), make()
    expected = logits(model)
    decompose(model, 3, legs="4.2.3 x 2.6.2, 5.2.4 x 3.4.2")
    decompose(usual, 3)
    torch.testing.assert_close(logits(model), expected, atol=1e-5, rtol=1e-4)
    for layer, other in zip(mpo_layers(model), mpo_layers(usual), strict=True):
        shape = layer.mpo.shape
        if (shape.in_size, shape.out_size) == (24, 24):
            assert (shape.in_legs, shape.out_legs) == ((4, 2, 3), (2, 6, 2))
        elif shape.in_size == 40:
            assert (shape.in_legs, shape.out_legs) == ((5, 2, 4), (3, 4, 2))
        else:
            assert shape == other.mpo.shape


@pytest.mark.parametrize(
    ("legs", "message"),
    [
        ("4.6", r"legs are written as in 3.4.4.4.2 x 4.4.6.4.4, with commas between several, got '4.6'"),
        ("", "with commas between several, got ''"),
        ("4.6 x 4.6,", "with commas between several, got ''"),
        ("24 x 24", "with commas between several, got '24 x 24'"),
        ("4.6 y 4.6", "with commas between several, got '4.6 y 4.6'"),
        ("4.-6 x 4.6", "with commas between several, got '4.-6 x 4.6'"),
        ("4.6 x 4.3.2", "equally many in legs and out legs"),
        ("0.4 x 2.2", r"a leg is a positive integer, got 0 in"),
        ("4.6 x 6.4, 2.3.4 x 3.2.4", "matrices of one size have one shape, got several for 24 x 24"),
    ],
)
def test_legs_that_are_none_are_refused(make, legs, message):
    with pytest.raises(ValueError, match=message):
        shapes_of(legs)
    model = make()
    with pytest.raises(ValueError, match=message):
        decompose(model, legs=legs)
    assert not mpo_layers(model)


@pytest.mark.parametrize("legs", ["4.6 x 4.7", "97.1 x 4.6", "4.6 x 6.4, 5.5 x 5.5"])
def test_legs_that_fit_no_matrix_are_refused_with_the_sizes_that_there_are(make, legs):
    model = make()
    wrong = legs.rpartition(", ")[2]
    rows, columns = (torch.tensor([int(leg) for leg in side.split(".")]).prod().item() for side in wrong.split(" x "))
    message = f"decomposed; {rows} x {columns} are none, there are 24 x 24, 24 x 40, 40 x 24"
    with pytest.raises(ValueError, match=message):
        decompose(model, legs=legs)
    assert not mpo_layers(model)


def test_an_embedding_has_words_as_rows(make):
    model = make(vocab_size=96)
    decompose(model, matrices="embedding", legs="8.12 x 4.6")
    assert mpo_layers(copy.deepcopy(model))[0].mpo.shape.in_legs == (8, 12)
