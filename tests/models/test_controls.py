"""The random controls: as many numbers as two blocks have, in places or directions drawn by the seed."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from mpo_tutorial.experiments.checkpoint import load_task_file, save_task
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare
from mpo_tutorial.models.controls import KINDS, RandomUpdate, add_updates
from mpo_tutorial.models.convert import count
from mpo_tutorial.models.layers import matrix_parameters
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.methods import METHODS
from mpo_tutorial.models.ways import Way

IDS = torch.tensor([[5, 9, 96, 7, 12], [7, 8, 3, 1, 1]])


@pytest.fixture
def make(tiny_config):
    def make(**options):
        torch.manual_seed(0)
        return AutoModelForSequenceClassification.from_config(tiny_config("bert", **options)).eval()

    return make


def weights(model) -> dict[str, torch.Tensor]:
    return {name: m.weight.detach().clone() for name, m in model.named_modules() if isinstance(m, nn.Linear)}


@pytest.mark.parametrize("rest", ["head", "norms"])
@pytest.mark.parametrize("kind", KINDS)
def test_as_many_numbers_are_trained_as_light_fine_tuning_trains_in_two_blocks(make, kind, rest):
    light, control = make(), make()
    METHODS["light"].apply(light, Way(5, rest=rest, gauge="amb"))
    METHODS[kind].apply(control, Way(5, rest=rest))
    assert count(control, trained_only=True) == count(light, trained_only=True)
    updates = [p for name, p in control.named_parameters() if name.endswith(".update")]
    assert sum(p.numel() for p in updates) == sum(
        layer_core.numel()
        for name, layer_core in light.named_parameters()
        if ".cores." in name and layer_core.requires_grad
    )
    assert {id(p) for p in updates} <= matrix_parameters(control)


@pytest.mark.parametrize("kind", KINDS)
def test_at_the_start_nothing_has_changed_and_the_seed_says_which_places(make, kind):
    plain = make()
    with torch.no_grad():
        expected = plain(IDS).logits
    models = []
    for seed in (0, 0, 1):
        model = make()
        METHODS[kind].apply(model, Way(5, seed=seed))
        with torch.no_grad():
            assert torch.equal(model(IDS).logits, expected)
        models.append([m for m in model.modules() if isinstance(m, RandomUpdate)])
    first, same, other = models
    assert len(first) == 2 * 6 + 1
    assert all(torch.equal(a.places, b.places) for a, b in zip(first, same, strict=True))
    assert not any(torch.equal(a.places, b.places) for a, b in zip(first, other, strict=True))
    assert not torch.equal(first[0].places, first[1].places)
    if kind == "subspace":
        assert all(torch.equal(a.signs, b.signs) for a, b in zip(first, same, strict=True))


def test_a_mask_leaves_all_other_entries_as_they_are_to_the_last_bit(make):
    model = make()
    before = weights(model)
    METHODS["mask"].apply(model, Way(5))
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.1)
    for _ in range(3):
        model(IDS, labels=torch.tensor([0, 1])).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    after = weights(model)
    for name, module in model.named_modules():
        if name in before and hasattr(module, "parametrizations"):
            places = module.parametrizations.weight[0].places
            changed = (after[name] != before[name]).flatten()
            assert len(places.unique()) == len(places)
            assert 0 < changed.sum() <= len(places)
            assert set(changed.nonzero().flatten().tolist()) <= set(places.tolist())
            assert torch.equal(module.parametrizations.weight.original, before[name])


@pytest.mark.parametrize(("rows", "columns", "size"), [(6, 8, 12), (5, 7, 4), (9, 5, 13), (4, 4, 16), (3, 5, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_an_isometry(kind, rows, columns, size):
    """Its matrix, a column for each number that is trained, has orthonormal columns."""
    weight = torch.randn(rows, columns, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    update = RandomUpdate(weight, size, kind, torch.Generator().manual_seed(1))
    assert torch.equal(update(weight), weight)
    columns_of = []
    for k in range(size):
        with torch.no_grad():
            update.update.copy_(torch.eye(size)[k])
            columns_of.append((update(weight) - weight).flatten().numpy())
    found = np.stack(columns_of, axis=1)
    np.testing.assert_allclose(found.T @ found, np.eye(size), atol=1e-12)
    assert ((found != 0).sum() == size) == (kind == "mask" or size == weight.numel())
    numbers = torch.randn(size, dtype=torch.float64)
    with torch.no_grad():
        update.update.copy_(numbers)
    np.testing.assert_allclose(
        (update(weight) - weight).detach().flatten().numpy(), found @ numbers.numpy(), atol=1e-12
    )


def test_what_the_controls_do_not_do_is_refused(make):
    for kind in KINDS:
        with pytest.raises(
            ValueError, match="rest is one of head, norms for random numbers of the matrices, got 'all'"
        ):
            METHODS[kind].apply(make(), Way(5, rest="all"))
        for matrices in ("attention, embedding", "all"):
            message = f"those of linear layers, among the matrices '{matrices}' is bert.embeddings.word_embeddings"
            with pytest.raises(ValueError, match=message):
                METHODS[kind].apply(make(), Way(5, matrices=matrices))


@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_a_folder_of_weights_and_updates_apart_is_refused(tiny_model, tmp_path, pooling):
    model, tokenizer = load(tiny_model, pooling=pooling)
    METHODS["mask"].apply(model, Way(5))
    for saved in (model, tokenizer):
        saved.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"tensors (have no place|are missing or of another shape)"):
        load(str(tmp_path))


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_file_belongs_to_one_kind_and_seed(tiny_model, tiny_task, tmp_path, kind):
    options = {"model": tiny_model, "task": tiny_task, "train_size": 32, "epochs": 1, "rest": "head"}
    first = prepare(RunConfig(**options, method=kind, seed=3))
    with torch.no_grad():
        for p in first.model.parameters():
            if p.requires_grad:
                p.normal_()
    path = tmp_path / "task.safetensors"
    save_task(first.model, first.base, path)
    same = prepare(RunConfig(**options, method=kind, seed=3))
    load_task_file(same.model, same.base, path)
    ids = torch.tensor([[101, 2023, 102]])
    with torch.no_grad():
        assert torch.equal(same.model.eval()(ids).logits, first.model.eval()(ids).logits)
    other_kind = next(other for other in KINDS if other != kind)
    for method, seed in ((kind, 4), (other_kind, 3)):
        other = prepare(RunConfig(**options, method=method, seed=seed))
        with pytest.raises(ValueError, match="belongs to the base"):
            load_task_file(other.model, other.base, path)


def test_a_copy_has_updates_of_its_own(make):
    model = make()
    add_updates(model, {"bert.pooler.dense": 30}, "subspace", 0)
    other = copy.deepcopy(model)
    with torch.no_grad():
        other.bert.pooler.dense.parametrizations.weight[0].update.fill_(1)
    assert not torch.equal(other.bert.pooler.dense.weight, model.bert.pooler.dense.weight)
    assert torch.equal(model.bert.pooler.dense.weight, make().bert.pooler.dense.weight)
