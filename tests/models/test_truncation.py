import copy

import numpy as np
import pytest
import torch

from mpo_tutorial.maths.budget import allocate
from mpo_tutorial.maths.entropy import Spectra
from mpo_tutorial.maths.shapes import balanced_shape
from mpo_tutorial.models.activations import Inputs, input_moments
from mpo_tutorial.models.convert import decompose, freeze
from mpo_tutorial.models.layers import MPOEmbedding, MPOLayer
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.truncation import factorise, fitted_to, spectra_of, truncate, two_factors

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


def test_shown_the_inputs_each_encoder_layer_is_fitted_to_what_reaches_it_in_the_model_as_it_is_cut(tiny):
    """By hand: one encoder layer after the other, the pooler last, moments taken between. Those of the uncut model differ."""
    model, tokenizer = tiny
    inputs = Inputs(tokenizer, SENTENCES, 16)
    by_hand, at_once, found = copy.deepcopy(model), copy.deepcopy(model), copy.deepcopy(model)
    truncate(found, ratio=0.2, moments=inputs)
    truncate(at_once, ratio=0.2, moments=input_moments(model, tokenizer, SENTENCES, max_length=16))
    for part in ("encoder.layer.0", "encoder.layer.1", "pooler"):
        names = [name for name in mpos(by_hand) if part in name]
        moments = input_moments(by_hand, tokenizer, SENTENCES, max_length=16, names=names)
        for name in names:
            layer = by_hand.get_submodule(name)
            layer.set_mpo(fitted_to(layer, layer.mpo.truncate(mpos(found)[name].bonds), moments[name]))
    expected, first_look = mpos(by_hand), mpos(at_once)
    for name, mpo in mpos(found).items():
        torch.testing.assert_close(mpo.to_matrix(), expected[name].to_matrix())
        if "layer.0" not in name:
            assert not torch.allclose(mpo.to_matrix(), first_look[name].to_matrix(), rtol=1e-3, atol=1e-4), name


def test_bonds_are_allotted_by_the_outputs_errors_if_asked(tiny):
    model, tokenizer = tiny
    inputs = Inputs(tokenizer, SENTENCES, 16)
    moments = input_moments(model, tokenizer, SENTENCES, max_length=16)
    total = sum(mpo.n_params for mpo in mpos(model).values()) // 3
    spectra = {name: spectra_of(model.get_submodule(name), moments[name]) for name in mpos(model)}
    expected = allocate(spectra, n_params=total).bonds
    found = {}
    for given in (inputs, moments):
        cut = copy.deepcopy(model)
        truncate(cut, n_params=total, moments=given, sweeps=0, allot_by="outputs")
        assert {name: mpo.bonds for name, mpo in mpos(cut).items()} == expected
    truncate(model, n_params=total)
    found = {name: mpo.bonds for name, mpo in mpos(model).items()}
    assert found != expected
    with pytest.raises(ValueError, match=r"errors of the outputs need moments of every layer, there are none of bert"):
        truncate(model, n_params=total, allot_by="outputs")
    with pytest.raises(ValueError, match="bonds are allotted by one of weights, outputs, got 'size'"):
        truncate(model, n_params=total, allot_by="size")


@pytest.mark.parametrize(("n_in", "n_out"), [(6, 9), (9, 6)])
def test_two_factors_are_the_best_of_their_rank_for_the_outputs(n_in, n_out):
    """The outputs of that rank that are nearest, by NumPy's SVD of the outputs themselves."""
    rng = np.random.default_rng(n_in)
    matrix, inputs = rng.standard_normal((n_in, n_out)), rng.standard_normal((50, n_in)) * 3.0 ** -np.arange(n_in)
    rank = 3
    u, s, vh = np.linalg.svd(inputs @ matrix, full_matrices=False)
    metric = torch.from_numpy(inputs.T @ inputs / 50)
    left, right = two_factors(torch.from_numpy(matrix), metric, rank * (n_in + n_out) + n_in)
    assert (left.shape, right.shape) == ((n_in, rank), (rank, n_out))
    np.testing.assert_allclose(inputs @ (left @ right).numpy(), (u[:, :rank] * s[:rank]) @ vh[:rank], atol=1e-9)
    plain = torch.matmul(*two_factors(torch.from_numpy(matrix), None, rank * (n_in + n_out)))
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(plain, (u[:, :rank] * s[:rank]) @ vh[:rank], atol=1e-12)
    with pytest.raises(ValueError, match="two factors of rank 1 have 15 parameters, got room for 14"):
        two_factors(torch.from_numpy(matrix), metric, 14)


def test_layers_become_two_factors_within_their_room_and_right_on_average(tiny):
    model, tokenizer = tiny
    inputs = Inputs(tokenizer, SENTENCES, 16)
    names = [name for name in mpos(model) if "layer.1" in name]
    room = {name: mpos(model)[name].n_params // 3 for name in names}
    before = copy.deepcopy(model)
    factorise(model, room, inputs)
    moments = input_moments(before, tokenizer, SENTENCES, max_length=16, names=names)
    for name, mpo in mpos(model).items():
        layer, old = model.get_submodule(name), before.get_submodule(name)
        if name not in names:
            assert torch.equal(mpo.to_matrix(), old.mpo.to_matrix())
            continue
        rank = room[name] // sum(old.mpo.to_matrix().shape)
        assert (len(mpo.cores), mpo.bonds, mpo.n_params <= room[name]) == (2, (rank,), True)
        assert all(core.requires_grad for core in layer.cores)
        mean = moments[name].mean
        torch.testing.assert_close(mean @ mpo.to_matrix() + layer.bias, mean @ old.mpo.to_matrix() + old.bias)
    with pytest.raises(ValueError, match=f"two factors are fitted to inputs, there are no moments of {names[0]}"):
        factorise(before, room, {})
