"""Methods that others invented: what each trains and adds, equal to an independent calculation where there is one."""

import copy

import numpy as np
import pytest
import torch
from conftest import TINY
from transformers import AutoModelForSequenceClassification

from mpo_tutorial.models.convert import count, decompose, norms
from mpo_tutorial.models.families import dense_matrices
from mpo_tutorial.models.methods import METHODS, size_for
from mpo_tutorial.models.ways import Way

pytest.importorskip("peft")

BY_PEFT = ("mpo", "lora", "dora", "adalora", "ia3", "oft", "vera")
ADDED = (*BY_PEFT, "adapter", "loretta", "prefix")
SMALL = {"oft": 4, "adapter": 3, "prefix": 5, "mpo": 0.1, "ia3": None}


@pytest.fixture
def make(tiny_config):
    def make(model_type: str = "bert", **options):
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(tiny_config(model_type, **options))
        return model.eval()

    return make


def way(name: str, **options) -> Way:
    return Way(3, size=SMALL.get(name, 2), **options)


def sentences(model) -> dict[str, torch.Tensor]:
    """Two, the second with padding."""
    ids = torch.randint(5, model.config.vocab_size, (2, 6), generator=torch.Generator().manual_seed(1))
    return {"input_ids": ids, "attention_mask": torch.tensor([[1] * 6, [1] * 4 + [0] * 2])}


def trained(model) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def head_of(model) -> set[str]:
    return {name for name, _ in model.named_parameters() if not name.startswith(f"{model.base_model_prefix}.")}


@pytest.mark.parametrize("name", ADDED)
def test_what_came_with_the_model_stays_and_the_head_and_what_was_added_are_trained(make, name):
    model = make()
    before, own = {k: v.clone() for k, v in model.state_dict().items()}, {k for k, _ in model.named_parameters()}
    METHODS[name].apply(model, way(name))
    added = {k for k, _ in model.named_parameters()} - own
    kept_names = {k for k in own if k in dict(model.named_parameters())}
    expected = head_of(model) & kept_names | (
        added if name in ("adapter", "loretta", "prefix") else set(trained(model)) - own
    )
    if name in ("adapter", "loretta"):
        of = {id(p): k for k, p in model.named_parameters()}
        expected |= {of[id(p)] for p in norms(model)}
    assert trained(model).keys() == expected
    assert added
    model.train()
    optimiser = torch.optim.AdamW(trained(model).values(), 0.1, weight_decay=0)
    for _ in range(3):
        optimiser.zero_grad()
        model(**sentences(model), labels=torch.tensor([0, 1])).loss.backward()
        assert all(p.grad is not None for p in trained(model).values())
        optimiser.step()
    after = {k.replace(".base_layer", ""): v for k, v in model.state_dict().items()}
    moved = {k for k, v in before.items() if not torch.equal(v, after[k])}
    assert moved <= {k.replace(".base_layer", "") for k in trained(model)}
    assert moved >= head_of(model) & set(before)


@pytest.mark.parametrize("name", [name for name in ADDED if name != "prefix"])
def test_at_the_start_nothing_is_changed(make, name):
    model = make()
    x = sentences(model)
    with torch.no_grad():
        before = model(**x).logits
        METHODS[name].apply(model, way(name))
        torch.testing.assert_close(model(**x).logits, before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ADDED)
def test_what_is_drawn_follows_the_seed_and_no_other_draw(make, name):
    found = []
    for seed, before in ((0, 1), (0, 2), (1, 1)):
        model = make()
        torch.manual_seed(before)
        METHODS[name].apply(model, way(name, seed=seed))
        found.append(model.state_dict())
        assert torch.initial_seed() == before
    assert all(torch.equal(found[0][k], found[1][k]) for k in found[0])
    if name in ("lora", "dora", "adalora", "adapter", "loretta", "prefix"):
        assert any(not torch.equal(found[0][k], found[2][k]) for k in found[0])


BLOCKS = {
    "bert": 4,
    "roberta": 4,
    "albert": 2,
    "distilbert": 4,
    "mobilebert": 6,
}  # ALBERT's are shared, MobileBERT has stacks


@pytest.mark.parametrize("model_type", TINY)
def test_adapters_of_every_family_are_computed_by_hand(make, model_type):
    """One behind each attention and feed-forward block: 2 m d + d + m numbers each, as Houlsby et al. count."""
    model = make(model_type)
    own = count(model)
    METHODS["adapter"].apply(model, Way(3, size=4))
    ends = [module for module in model.modules() if hasattr(module, "adapter")]
    assert len(ends) == BLOCKS[model_type]
    assert count(model) - own == sum(2 * 4 * layer.out_features + layer.out_features + 4 for layer in ends)
    dense = copy.deepcopy(ends[0])
    dense._forward_hooks.clear()
    x = torch.randn(5, dense.in_features, generator=torch.Generator().manual_seed(0))
    adapter = ends[0].adapter
    with torch.no_grad():
        for p in adapter.parameters():
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
        h = dense(x).double().numpy()
        down = h @ adapter.down.weight.double().numpy().T + adapter.down.bias.double().numpy()
        erf = torch.erf(torch.from_numpy(down) / np.sqrt(2)).numpy()
        up = (down * (1 + erf) / 2) @ adapter.up.weight.double().numpy().T + adapter.up.bias.double().numpy()
        np.testing.assert_allclose(ends[0](x).numpy(), h + up, rtol=1e-4, atol=1e-4)


def test_lorettas_shapes_are_those_of_its_authors_code(make):
    """Tensor trains of 8.8.12.8.8 between a width of 768 and one of 64, of rank 5; normalisations are trained besides."""
    model = make(hidden_size=768, intermediate_size=60, num_hidden_layers=12, num_attention_heads=2)
    METHODS["loretta"].apply(model, Way(5, size=5))
    cores = 8 * 5 + 5 * 8 * 5 + 5 * 12 * 5 + 5 * 8 * 5 + 5 * 8
    adapters = sum(p.numel() for name, p in model.named_parameters() if ".adapter." in name)
    assert adapters == 24 * (2 * cores + 64 + 768)
    inside = sum(p.numel() for name, p in trained(model).items() if name not in head_of(model))
    assert inside == adapters + 25 * 2 * 768


def test_a_prefix_is_seen_by_every_word_whatever_is_masked(make):
    """One layer's attention in NumPy, with keys and values before those of the sentence, and padding left out."""
    model = make()
    METHODS["prefix"].apply(model, Way(3, size=5))
    site = model.bert.encoder.layer[0].attention.self
    heads, width = site.num_attention_heads, site.attention_head_size
    seen = {}
    site.register_forward_hook(lambda module, inputs, output: seen.update(x=inputs[0], y=output[0]))
    x = sentences(model)
    with torch.no_grad():
        site.prefix_keys.normal_(generator=torch.Generator().manual_seed(3))
        site.prefix_values.normal_(generator=torch.Generator().manual_seed(4))
        model(**x)

        def split(layer):
            return layer(seen["x"]).unflatten(-1, (heads, width)).transpose(1, 2).double().numpy()

        q, k, v = split(site.query), split(site.key), split(site.value)
        k = np.concatenate([np.broadcast_to(site.prefix_keys.numpy(), (2, heads, 5, width)), k], 2)
        v = np.concatenate([np.broadcast_to(site.prefix_values.numpy(), (2, heads, 5, width)), v], 2)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(width)
    scores[1, :, :, 5 + 4 :] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = (weights @ v).swapaxes(1, 2).reshape(2, 6, heads * width)
    np.testing.assert_allclose(seen["y"].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_lora_is_two_factors_scaled_by_two_on_the_matrices_that_become_mpos(make):
    model = make()
    names = [name for name, _ in dense_matrices(model)]
    METHODS["lora"].apply(model, Way(3, size=2))
    layers = {name: model.get_submodule(name) for name in names}
    assert len([m for m in model.modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")]) == len(names)
    for layer in layers.values():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        torch.nn.init.normal_(b, generator=torch.Generator().manual_seed(0))
        x = torch.randn(3, a.shape[1])
        torch.testing.assert_close(layer(x), layer.base_layer(x) + 2 * x @ a.T @ b.T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("matrices", ["query, value", "*.layer.0.*"])
def test_other_matrices_can_be_chosen(make, matrices):
    model = make()
    names = [name for name, _ in dense_matrices(model, matrices)]
    METHODS["lora"].apply(model, Way(3, size=2, matrices=matrices))
    assert [name for name, m in model.named_modules() if hasattr(m, "lora_A") and hasattr(m, "base_layer")] == names


@pytest.mark.parametrize("name", ["mpo", "lora", "dora", "adalora", "adapter", "prefix"])
def test_a_budget_is_kept_to_within_a_tenth_and_the_model_stays(make, name):
    model = make(hidden_size=48, intermediate_size=120)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for n_params in (5000, 9000):
        size = size_for(name, model, Way(3), n_params)
        tried = copy.deepcopy(model)
        METHODS[name].apply(tried, Way(3, size=size))
        assert abs(METHODS[name].n_trained(tried, Way(3, size=size)) - n_params) <= n_params / 10
        neighbours = [s for s in METHODS[name].knob.sizes if s != size]
        for other in sorted(neighbours, key=lambda s: abs(s - size))[:2]:
            tried = copy.deepcopy(model)
            METHODS[name].apply(tried, Way(3, size=other))
            off = abs(METHODS[name].n_trained(tried, Way(3)) - n_params)
            assert off >= abs(METHODS[name].n_trained(_applied(model, name, size), Way(3)) - n_params)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def _applied(model, name, size):
    tried = copy.deepcopy(model)
    METHODS[name].apply(tried, Way(3, size=size))
    return tried


def test_a_budget_that_no_size_reaches_is_refused_with_the_nearest(make):
    model = make()
    least = METHODS["lora"].n_trained(_applied(model, "lora", 1), Way(3))
    with pytest.raises(ValueError, match=rf"no rank makes lora train 10 numbers .* the nearest is 1, with {least:,}$"):
        size_for("lora", model, Way(3), 10)
    with pytest.raises(ValueError, match=r"ia3 has no size to choose: it trains [\d,]+ numbers; leave the budget out"):
        size_for("ia3", model, Way(3), 1000)


@pytest.mark.parametrize("name", ADDED)
def test_a_compressed_model_is_refused(make, name):
    model = make()
    decompose(model, 3)
    with pytest.raises(ValueError, match=r"the model is compressed"):
        METHODS[name].apply(model, way(name))
