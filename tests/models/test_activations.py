import numpy as np
import pytest
import torch
from transformers import AlbertConfig, AlbertForSequenceClassification

from mpo_tutorial.maths.fitting import fit
from mpo_tutorial.models.activations import Moments, input_moments
from mpo_tutorial.models.convert import decompose
from mpo_tutorial.models.layers import MPOLinear
from mpo_tutorial.models.loading import load


def test_a_metric_is_about_the_mean_or_about_zero_with_a_ridge():
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 3)) + np.array([1.0, 0.0, -2.0]))
    about_mean, about_zero = np.cov(rows.numpy().T, bias=True), rows.numpy().T @ rows.numpy() / 50
    moments = Moments(rows.mean(0), torch.from_numpy(about_mean))
    for centred, expected in ((True, about_mean), (False, about_zero)):
        ridge = 0.1 * np.diag(expected).mean() * np.eye(3)
        np.testing.assert_allclose(moments.metric(centred), expected + ridge, rtol=1e-12)
    np.testing.assert_array_equal(moments.covariance, about_mean)


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
    torch.testing.assert_close(alone[last].covariance, moments[last].covariance)
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
        assert values.min() >= -1e-5 * values.max(), name
        matrix, metric = model.get_submodule(name).mpo.to_matrix(), found.metric(centred=True)
        plain = model.get_submodule(name).mpo.truncate(3)

        def error(mpo, matrix=matrix, metric=metric):
            lost = (matrix - mpo.to_matrix()).double()
            return (lost * (metric.double() @ lost)).sum()

        assert error(fit(plain, matrix, metric)) <= error(plain) * (1 + 1e-4), name
