import copy

import numpy as np
import pytest
import torch

from mpo_tutorial.maths.budget import allocate
from mpo_tutorial.maths.entropy import Spectra
from mpo_tutorial.maths.shapes import balanced_shape
from mpo_tutorial.models.activations import input_moments
from mpo_tutorial.models.convert import decompose, freeze
from mpo_tutorial.models.layers import MPOEmbedding, MPOLayer
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.truncation import truncate

SENTENCES = [f"number {k} is a {word} film" for k in range(5) for word in ("good", "great", "bad", "awful", "dull")]


@pytest.fixture
def tiny(tiny_model):
    """A compressed random BERT, its central cores frozen, and its tokenizer."""
    model, tokenizer = load(tiny_model, 2, seed=0)
    decompose(model)
    freeze(model)
    return model, tokenizer


def mpos(model) -> dict:
    return {name: layer.mpo for name, layer in model.named_modules() if isinstance(layer, MPOLayer)}


@pytest.mark.parametrize("limit", [{"max_bond": 5}, {"cutoff": 0.1}])
def test_bond_and_cutoff_are_those_of_each_mpo(tiny, limit):
    model, _ = tiny
    before = mpos(model)
    truncate(model, **limit)
    assert sum(mpo.n_params for mpo in mpos(model).values()) < sum(mpo.n_params for mpo in before.values())
    for name, mpo in mpos(model).items():
        expected = before[name].truncate(**limit)
        assert mpo.bonds == expected.bonds
        torch.testing.assert_close(mpo.to_matrix(), expected.to_matrix())


@pytest.mark.parametrize("ratio", [0.1, 0.37, 0.8])
def test_a_ratio_is_kept_by_each_matrix_with_the_largest_cap(tiny, ratio):
    model, _ = tiny
    truncate(model, ratio=ratio)
    for mpo in mpos(model).values():
        assert mpo.ratio <= ratio
        cap = max(mpo.bonds)
        wider = [min(cap + 1, bond) for bond in mpo.full_bonds]
        assert mpo.shape.n_params(wider) > ratio * mpo.shape.in_size * mpo.shape.out_size


def test_a_total_is_shared_out_as_the_budget_says_and_a_ratio_above_one_cuts_nothing(tiny):
    model, _ = tiny
    before = mpos(model)
    truncate(model, ratio=2.0)
    assert [mpo.bonds for mpo in mpos(model).values()] == [mpo.bonds for mpo in before.values()]
    spectra = {name: Spectra.of(mpo.to_matrix(), mpo.shape) for name, mpo in before.items() if "attention" in name}
    total = sum(mpo.n_params for name, mpo in before.items() if name in spectra) // 2
    truncate(model, n_params=total, matrices="attention")
    after = mpos(model)
    assert sum(after[name].n_params for name in spectra) <= total
    assert {name: after[name].bonds for name in spectra} == allocate(spectra, n_params=total).bonds
    assert all(after[name].bonds == mpo.bonds for name, mpo in before.items() if name not in spectra)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("limit", [{"max_bond": 6}, {"cutoff": 0.1}, {"ratio": 0.4}, {"n_params": 6000}])
def test_fitted_to_their_inputs_the_outputs_err_less_with_the_same_bonds(tiny, limit, bias):
    """The outputs of every layer on the inputs that it had in the model before, in NumPy."""
    model, tokenizer = tiny
    if not bias:
        for name in mpos(model):
            model.get_submodule(name).bias = None
    moments = input_moments(model, tokenizer, SENTENCES, max_length=16)
    seen = {}
    for name in mpos(model):
        model.get_submodule(name).register_forward_hook(lambda _, x, y, name=name: seen.__setitem__(name, (x[0], y)))
    batch = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    with torch.no_grad():
        model(**batch)
    real = batch["attention_mask"].bool()
    ways = {"plain": {}, "bias": {"moments": moments, "sweeps": 0}, "fitted": {"moments": moments}}
    errors, bonds = {way: [] for way in ways}, {}
    for way, options in ways.items():
        cut = copy.deepcopy(model)
        truncate(cut, **limit, **options)
        bonds[way] = [mpo.bonds for mpo in mpos(cut).values()]
        for name, (x, y) in seen.items():
            rows = real if x.ndim == 3 else slice(None)
            layer = cut.get_submodule(name)
            output = x[rows].numpy() @ layer.mpo.to_matrix().numpy() + (layer.bias.detach().numpy() if bias else 0)
            errors[way].append(((output - y[rows].numpy()) ** 2).sum())
    assert bonds["plain"] == bonds["bias"] == bonds["fitted"]
    plain, corrected, fitted = (np.array(errors[way]) for way in ways)
    assert (fitted <= corrected * 1.0001 + 1e-9).all()
    assert (corrected <= plain * 1.0001 + 1e-9).all()
    assert fitted.sum() < 0.8 * corrected.sum()
    assert not bias or corrected.sum() < 0.99 * plain.sum()


def test_only_cores_and_biases_of_the_part_change_and_what_is_frozen_stays_so(tiny):
    model, tokenizer = tiny
    moments = input_moments(model, tokenizer, SENTENCES, max_length=16)
    before = {name: (p.detach().clone(), p.requires_grad) for name, p in model.named_parameters()}
    truncate(model, max_bond=4, matrices="attention", moments=moments)
    changed = set()
    for name, p in model.named_parameters():
        assert p.requires_grad == before[name][1]
        if not torch.equal(p, before[name][0]):
            changed.add(name)
    layers = [name for name in mpos(model) if "attention" in name]
    assert changed == {name for name in before if name.startswith(tuple(layers)) and "LayerNorm" not in name}
    assert not any(p.requires_grad for name, p in model.named_parameters() if name.endswith(".cores.2"))


def test_embeddings_are_cut_the_plain_way_and_half_precision_is_fitted(tiny):
    model, tokenizer = tiny
    embeddings = model.bert.embeddings
    shape = balanced_shape(*embeddings.word_embeddings.weight.shape, 3)
    embeddings.word_embeddings = MPOEmbedding.from_dense(embeddings.word_embeddings, shape, max_bond=12)
    model.bfloat16()
    moments = input_moments(model, tokenizer, SENTENCES, max_length=16)
    assert moments.keys() == mpos(model).keys() - {"bert.embeddings.word_embeddings"}
    plain = embeddings.word_embeddings.mpo.truncate(4)
    truncate(model, max_bond=4, moments=moments)
    assert torch.equal(embeddings.word_embeddings.mpo.to_matrix(), plain.to_matrix())
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "give exactly one of max_bond, cutoff, ratio, n_params, got none"),
        ({"max_bond": 3, "ratio": 0.5}, r"give exactly one of .*, got \{'max_bond': 3, 'ratio': 0.5\}"),
        ({"ratio": 0.01}, r"the ratio cannot be below 0\.\d+ for bert\.encoder.*, with all bonds at 1, got 0\.01"),
        ({"ratio": float("inf")}, "a ratio is a finite number above 0, got inf"),
        ({"cutoff": 1.0}, r"a cutoff lies in \[0, 1\), got 1\.0"),
        ({"n_params": 2.5}, r"n_params is an integer of at least 1, got 2\.5"),
        ({"ratio": float("nan")}, r"a ratio is a finite number above 0, got nan"),
        ({"n_params": 100}, r"n_params cannot be below \d+ for these matrices, got 100"),
        ({"max_bond": 0}, "max_bond is an integer of at least 1, got 0"),
        ({"cutoff": 1.0}, r"a cutoff lies in \[0, 1\), got 1\.0"),
        ({"max_bond": 3, "matrices": "tail"}, "matrices are named by all, .*, got 'tail'"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_cut(tiny, options, message):
    model, _ = tiny
    before = [mpo.bonds for mpo in mpos(model).values()]
    with pytest.raises(ValueError, match=message):
        truncate(model, **options)
    assert [mpo.bonds for mpo in mpos(model).values()] == before


def test_a_dense_model_and_moments_of_another_are_refused(tiny, tiny_model):
    model, tokenizer = tiny
    moments = input_moments(model, tokenizer, SENTENCES[:1], max_length=16)
    with pytest.raises(ValueError, match="the model has no MPO layer among 'all'"):
        truncate(load(tiny_model, 2, seed=0)[0], max_bond=3)
    name, other = next(iter(moments)), moments["bert.encoder.layer.0.output.dense"]
    for wrong, message in (({"head": other}, "no such MPOLinear"), ({name: other}, "with 60 inputs, the model 24")):
        with pytest.raises(ValueError, match=message):
            truncate(model, max_bond=3, moments=wrong)
