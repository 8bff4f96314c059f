import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import matrices, shapes
from transformers import AlbertConfig, AlbertForSequenceClassification

from mpo_tutorial.maths.fitting import fit
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape
from mpo_tutorial.models.activations import Moments, input_moments
from mpo_tutorial.models.convert import decompose
from mpo_tutorial.models.layers import MPOLinear
from mpo_tutorial.models.loading import load


def metric_of(size: int, seed: int = 0) -> torch.Tensor:
    """Second moments of inputs that are far from alike in all directions."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(size, size))).Q
    rows = rng.normal(size=(4 * size, size)) * np.geomspace(1, 5, size) @ directions
    return torch.from_numpy(rows.T @ rows / len(rows))


def error(mpo: MPO, matrix: torch.Tensor, metric: torch.Tensor) -> float:
    """tr (M - M')^T C (M - M'), in NumPy."""
    difference = (matrix - mpo.to_matrix()).numpy()
    return float(np.trace(difference.T @ metric.numpy() @ difference))


def root_of(metric: torch.Tensor) -> np.ndarray:
    values, vectors = np.linalg.eigh(metric.numpy())
    return (vectors * np.sqrt(values)) @ vectors.T


@given(data=st.data(), shape=shapes())
def test_sweeps_never_raise_the_error_and_keep_the_bonds(data, shape):
    matrix = data.draw(matrices(shape)).double()
    caps = tuple(data.draw(st.integers(1, bond)) for bond in shape.full_bonds)
    start, metric = MPO.from_matrix(matrix, shape, caps), metric_of(shape.in_size)
    before = [core.clone() for core in start.cores]
    errors = [error(fit(start, matrix, metric, sweeps), matrix, metric) for sweeps in (0, 1, 2)]
    scale = float(np.trace(matrix.numpy().T @ metric.numpy() @ matrix.numpy()))
    assert errors[0] == pytest.approx(error(start, matrix, metric), rel=1e-6, abs=1e-12 * scale)
    assert errors[1] <= errors[0] + 1e-12 * scale
    assert errors[2] <= errors[1] + 1e-12 * scale
    fitted = fit(start, matrix, metric)
    assert fitted.shape == start.shape
    assert fitted.n_params <= start.n_params
    assert all(torch.equal(a, b) for a, b in zip(before, start.cores, strict=True))


@pytest.mark.parametrize("bond", [1, 3, 7])
def test_with_alike_inputs_the_plain_cut_of_two_cores_stays(bond):
    """By Eckart and Young nothing is better than the SVD, so there is nothing to gain."""
    shape, matrix = Shape((4, 3), (5, 2)), torch.randn(12, 10, dtype=torch.float64)
    plain = MPO.from_matrix(matrix, shape, bond)
    fitted = fit(plain, matrix, torch.eye(12, dtype=torch.float64), sweeps=5)
    torch.testing.assert_close(fitted.to_matrix(), plain.to_matrix())


@pytest.mark.parametrize("bond", [1, 2, 4])
def test_with_a_kronecker_metric_the_best_two_cores_are_found(bond):
    """A metric A x B folds into two cores: the least error is what the SVD of (A x B)^(1/2) M, its legs regrouped, discards."""
    rng = np.random.default_rng(bond)
    matrix = torch.from_numpy(rng.normal(size=(12, 10)))
    metric = torch.from_numpy(np.kron(metric_of(4, 1).numpy(), metric_of(3, 2).numpy()))
    folded = (root_of(metric) @ matrix.numpy()).reshape(4, 3, 5, 2).transpose(0, 2, 1, 3).reshape(20, 6)
    least = float((np.linalg.svd(folded, compute_uv=False)[bond:] ** 2).sum())
    start = MPO.from_matrix(matrix, ((4, 3), (5, 2)), bond)
    found = error(fit(start, matrix, metric, sweeps=100), matrix, metric)
    assert least * (1 - 1e-9) <= found <= least * 1.001
    assert error(start, matrix, metric) > 1.05 * least


def test_at_the_end_no_core_alone_can_do_better():
    """Each core's problem solved densely, by NumPy's least squares, with the others where the sweeps left them."""
    rng = np.random.default_rng(3)
    shape = Shape((2, 3, 2), (2, 2, 2), padding=(1, 0))
    matrix, metric = torch.from_numpy(rng.normal(size=(11, 8))), metric_of(11)
    fitted = fit(MPO.from_matrix(matrix, shape, 2), matrix, metric, sweeps=400)
    reached = error(fitted, matrix, metric)
    for k, core in enumerate(fitted.cores):
        units = torch.eye(core.numel(), dtype=torch.float64).reshape(-1, *core.shape)
        chains = (MPO((*fitted.cores[:k], unit, *fitted.cores[k + 1 :]), shape.padding) for unit in units)
        design = np.stack([(root_of(metric) @ chain.to_matrix().numpy()).ravel() for chain in chains], axis=1)
        target = (root_of(metric) @ matrix.numpy()).ravel()
        best = np.linalg.lstsq(design, target, rcond=None)[0]
        assert reached == pytest.approx(float(((design @ best - target) ** 2).sum()), rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_cores_keep_their_dtype(dtype):
    matrix = torch.randn(12, 10)
    start = MPO.from_matrix(matrix.to(dtype), ((4, 3), (5, 2)), 2)
    fitted = fit(start, matrix, metric_of(12).float())
    assert {core.dtype for core in fitted.cores} == {dtype}
    assert error(MPO(tuple(core.double() for core in fitted.cores)), matrix.double(), metric_of(12)) < error(
        MPO(tuple(core.double() for core in start.cores)), matrix.double(), metric_of(12)
    )


def test_moments_of_a_metric():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 3)) + np.array([1.0, 0.0, -2.0]))
    moments = Moments.of(50, rows.sum(0), rows.T @ rows)
    about_mean, about_zero = np.cov(rows.numpy().T, bias=True), rows.numpy().T @ rows.numpy() / 50
    for centred, expected in ((True, about_mean), (False, about_zero)):
        ridge = 0.1 * np.diag(expected).mean() * np.eye(3)
        np.testing.assert_allclose(moments.metric(centred), expected + ridge, rtol=1e-12)
    np.testing.assert_allclose(moments.covariance, about_mean)


def albert() -> AlbertForSequenceClassification:
    """Two layers of one set of weights."""
    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=30522,
        embedding_size=12,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=60,
    )
    return AlbertForSequenceClassification(config)


@pytest.mark.parametrize("family", ["bert", "albert"])
def test_moments_are_of_all_real_tokens_and_all_calls(tiny_model, family):
    """Compared with NumPy, over sentences that go through the model one by one, so that none is padded."""
    model, tokenizer = load(tiny_model, 2, seed=0)
    model = model if family == "bert" else albert()
    decompose(model)
    sentences = [
        "a good film",
        "dull",
        "this one is longer than what the model may see of it",
    ] * 14  # more than a batch
    moments = input_moments(model, tokenizer, sentences, max_length=9)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, MPOLinear)}
    *_, last = layers
    alone = input_moments(model, tokenizer, sentences, max_length=9, names=[last])
    assert alone.keys() == {last}
    assert torch.equal(alone[last].covariance, moments[last].covariance)
    rows = {name: [] for name in layers}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, inputs, name=name: rows[name].append(inputs[0].flatten(0, -2)))
    with torch.no_grad():
        for sentence in sentences:
            model(**tokenizer(sentence, truncation=True, max_length=9, return_tensors="pt"))
    assert moments.keys() == layers.keys()
    assert {len(found) for found in rows.values()} == ({42} if family == "bert" else {42, 84})
    for name, found in rows.items():
        x = torch.cat(found).double().numpy()
        np.testing.assert_allclose(moments[name].mean, x.mean(0), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(moments[name].covariance, np.cov(x.T, bias=True), rtol=1e-3, atol=1e-4)


def test_without_sentences_there_are_no_moments_and_after_a_failure_no_hooks(tiny_model):
    model, tokenizer = load(tiny_model, 2, seed=0)
    decompose(model)
    with pytest.raises(ValueError, match="at least one sentence, got none"):
        input_moments(model, tokenizer, [], max_length=9)
    with pytest.raises(RuntimeError, match=r"must match|expand"):
        input_moments(model, tokenizer, ["longer than this model's 64 positions " * 60], max_length=180)
    with pytest.raises(ValueError, match=r"MPOLinear layers, classifier is none; there are bert\.encoder"):
        input_moments(model, tokenizer, ["a good film"], max_length=9, names=["classifier"])
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_inputs_that_hardly_vary_give_moments_without_negative_variances_and_a_fit_that_is_no_worse(tiny_model):
    model, tokenizer = load(tiny_model, 2, seed=0)
    decompose(model)
    moments = input_moments(model, tokenizer, ["the same film again"] * 50, max_length=16)
    for name, found in moments.items():
        values = torch.linalg.eigvalsh(found.covariance.double())
        assert values.min() > -1e-5 * max(values.max(), (found.mean**2).mean()), name
        matrix, metric = model.get_submodule(name).mpo.to_matrix(), found.metric(centred=True)
        plain = model.get_submodule(name).mpo.truncate(3)

        def error(mpo, matrix=matrix, metric=metric):
            lost = (matrix - mpo.to_matrix()).double()
            return (lost * (metric.double() @ lost)).sum()

        assert error(fit(plain, matrix, metric)) <= error(plain) * (1 + 1e-4), name
