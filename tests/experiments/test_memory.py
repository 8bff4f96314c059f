import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, DistilBertConfig

from mpo_tutorial.experiments.memory import need
from mpo_tutorial.models.convert import count, decompose, freeze
from mpo_tutorial.models.layers import mpo_layers

LAYERS, HIDDEN, HEADS, BATCH = 4, 128, 4, 8
CONFIG = BertConfig(
    vocab_size=200, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, intermediate_size=512
)


def saved(model, length: int) -> int:
    """Bytes of what a forward pass keeps for the backward pass, besides the model's own tensors."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(torch.zeros(BATCH, length, dtype=torch.long), labels=torch.zeros(BATCH, dtype=torch.long))
    return sum(storage.nbytes() for storage in kept.values())


@pytest.fixture
def bert():
    torch.manual_seed(0)
    return BertForSequenceClassification(CONFIG).train()


@pytest.mark.parametrize("length", [32, 128])
def test_activations_are_what_autograd_keeps(bert, length):
    total = count(bert)
    counted = need(CONFIG, BATCH, length, total=total, trained=total, fused=False).activations
    # On a CPU a dropout mask is of floats, three bytes more than was counted.
    masks = 3 * LAYERS * BATCH * length * (2 * HIDDEN + HEADS * length)
    assert saved(bert, length) == pytest.approx(counted + masks, rel=0.05)
    fused = need(CONFIG, BATCH, length, total=total, trained=total)
    assert counted - fused.activations == LAYERS * BATCH * length * HEADS * length * 9


def test_matrices_out_of_cores_are_kept_twice_and_have_a_gradient(bert):
    dense = saved(bert, 32)
    decompose(bert)
    freeze(bert)
    rebuilt = sum(layer.mpo.shape.in_size * layer.mpo.shape.out_size for layer in mpo_layers(bert))
    found = need(CONFIG, BATCH, 32, total=count(bert), trained=count(bert, trained_only=True), rebuilt=rebuilt)
    assert saved(bert, 32) - dense + 4 * rebuilt == pytest.approx(found.matrices, rel=0.05)


def test_what_is_trained_has_a_gradient_and_two_averages():
    found = need(CONFIG, 1, 16, total=1000, trained=100)
    assert (found.weights, found.gradients, found.optimiser, found.matrices) == (4000, 400, 800, 0)
    assert found.total == 5200 + found.activations
    half = need(CONFIG, 1, 16, total=1000, trained=100, precision="bfloat16")
    assert (half.weights, half.gradients, half.optimiser, half.matrices) == (4000, 400, 800, 2000)
    masks = LAYERS * 16 * 2 * HIDDEN
    assert found.activations - masks == 2 * (half.activations - masks)


def test_the_width_of_the_feed_forward_layer_has_another_name_in_distilbert():
    like = DistilBertConfig(dim=HIDDEN, n_layers=LAYERS, n_heads=HEADS, hidden_dim=512)
    assert need(like, 2, 16, total=1, trained=1) == need(CONFIG, 2, 16, total=1, trained=1)
