"""What others put into a model, or beside it, to fine-tune it by few numbers: PEFT's methods, bottleneck adapters, prefixes.

Each changes a model in place, freezes what it came with, and leaves trainable what it added and the head.
"""

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mpo_tutorial.maths.shapes import Shape, balanced_shape
from mpo_tutorial.models.convert import norms, train_head
from mpo_tutorial.models.families import USUAL, dense_matrices, matches, place
from mpo_tutorial.models.layers import MPOLinear
from mpo_tutorial.models.ways import Way

if TYPE_CHECKING:
    from peft import PeftConfig
    from transformers import PreTrainedModel

PREFIXED = "mpo_tutorial_prefixed"  # the name by which transformers finds our attention
LORETTA_WIDTH = 64
PEFT_NAME = "default"  # by which PEFT knows what was added


def add_by_peft(model: "PreTrainedModel", way: Way, config_of: "Callable[..., PeftConfig]") -> None:
    """One of PEFT's methods on the matrices that light fine-tuning changes, or on others.

    Parameters
    ----------
    config_of : callable
        From the names of the matrices and `way.size` to PEFT's config.

    Raises
    ------
    ImportError
        If PEFT is not installed.
    ValueError
        As in `dense_matrices`; or if PEFT refuses the model or the config.
    """
    try:
        from peft import get_peft_model
    except ImportError as error:
        raise ImportError('this method is PEFT\'s, which is not installed; pip install "mpo_tutorial[peft]"') from error
    before = {name for name, _ in model.named_parameters()}
    names = [name for name, _ in dense_matrices(model, way.matrices or USUAL)]
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "`is_gradient_checkpointing` is deprecated"
        )  # what PEFT asks transformers for
        get_peft_model(model, config_of(names, way.size), PEFT_NAME)
    added = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if not added or {name for name, _ in added} & before:
        raise ValueError(f"PEFT has added nothing to {type(model).__name__}")
    train_head(model, [p for _, p in added])


def mpo(names: list[str], size: float) -> "PeftConfig":
    """Our own: the blocks of an MPO around each matrix, with a share `size` of its numbers."""
    from mpo_tutorial.models.peft import MPOConfig

    return MPOConfig(target_modules=names, share=size)


def lora(names: list[str], size: int, **options: Any) -> "PeftConfig":
    """Two factors of rank `size` beside each matrix (Hu et al. 2021), scaled by 2; DoRA (Liu et al. 2024) by `use_dora`."""
    from peft import LoraConfig

    return LoraConfig(r=size, lora_alpha=2 * size, target_modules=names, **options)


def adalora(names: list[str], size: int) -> "PeftConfig":
    """LoRA that begins with half as much rank again and gives `size` on average to each matrix in the end (Zhang et al. 2023).

    How its ranks sink is set where it is trained: `companions.AdaLoRA`.
    """
    from peft import AdaLoraConfig

    return AdaLoraConfig(
        init_r=-(-3 * size // 2), target_r=size, lora_alpha=2 * size, total_step=1, target_modules=names
    )


def ia3(names: list[str], size: None) -> "PeftConfig":
    """A factor for each output, or for each input of the matrix that ends a feed-forward block (Liu et al. 2022)."""
    from peft import IA3Config

    ends = [name for name in names if matches(name, "feed-forward out")]
    return IA3Config(target_modules=names, feedforward_modules=ends)


def oft(names: list[str], size: int) -> "PeftConfig":
    """Orthogonal blocks of `size` x `size` before each matrix (Qiu et al. 2023)."""
    from peft import OFTConfig

    return OFTConfig(target_modules=names, oft_block_size=size, bias="none")


def vera(names: list[str], size: int) -> "PeftConfig":
    """Random factors of rank `size`, shared by all matrices and frozen, with trained scales (Kopiczko et al. 2024)."""
    from peft import VeraConfig

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Specified to not save vera_A")  # they are drawn anew, by a seed of their own
        return VeraConfig(r=size, target_modules=names, save_projection=False)


class Adapter(nn.Module):
    """x + up(act(down(x))), a bottleneck; the identity where `up` gives 0.

    Parameters
    ----------
    down, up : nn.Module
        From the hidden size to the bottleneck's, and back.
    act : callable
    """

    def __init__(self, down: nn.Module, up: nn.Module, act: Callable[[Tensor], Tensor]):
        super().__init__()
        self.down, self.up, self.act = down, up, act

    @classmethod
    def dense(cls, hidden: int, width: int) -> "Adapter":
        """Of Houlsby et al. 2019; at the start the identity."""
        down, up = nn.Linear(hidden, width), nn.Linear(width, hidden)
        nn.init.normal_(down.weight, std=0.01)
        for new in (down.bias, up.weight, up.bias):
            nn.init.zeros_(new)
        return cls(down, up, nn.functional.gelu)

    @classmethod
    def tensor_train(cls, hidden: int, rank: int) -> "Adapter":
        """LoRETTA's, of width 64 (Yang et al. 2024): each matrix a tensor train of that rank, its input's legs before its
        output's; at the start the identity.
        """
        inner, outer = (balanced_shape(size, 1, cores).in_legs for size, cores in ((LORETTA_WIDTH, 2), (hidden, 3)))
        padding = math.prod(outer) - hidden
        down = Shape((*outer, 1, 1), (1, 1, 1, *inner), (padding, 0))
        up = Shape((*inner, 1, 1, 1), (1, 1, *outer), (0, padding))
        layers = MPOLinear.random(down, rank), MPOLinear.random(up, rank)
        for new in (layers[0].bias, layers[1].bias, layers[1].cores[-1]):
            nn.init.zeros_(new)
        return cls(*layers, torch.tanh)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.act(self.down(x)))


def add_adapters(model: "PreTrainedModel", way: Way, adapter: Callable[[int, int], Adapter] = Adapter.dense) -> None:
    """An adapter of size `way.size` after each attention and each feed-forward block, before what went around it is added.

    Normalisations are trained, too (Houlsby et al. 2019). Dropout comes after the adapter here, theirs before it.

    Parameters
    ----------
    adapter : callable
        From the hidden size and `way.size`.

    Raises
    ------
    ValueError
        If the model has no such block.
    """
    ends = [
        module
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear) and place(name) and matches(name, "attention output, feed-forward out")
    ]
    if not ends:
        raise ValueError(f"adapters go behind the blocks of a transformer, {type(model).__name__} has none")
    for layer in ends:
        layer.adapter = adapter(layer.out_features, way.size).to(layer.weight)
        layer.register_forward_hook(_through_adapter)
    train_head(model, [*norms(model), *(p for layer in ends for p in layer.adapter.parameters())])


def _through_adapter(layer: nn.Module, _inputs: tuple, output: Tensor) -> Tensor:
    return layer.adapter(output)


def add_prefixes(model: "PreTrainedModel", way: Way) -> None:
    """`way.size` trained keys and values before those of the sentence, in every attention (Li and Liang 2021).

    PEFT's own are for models that generate: since transformers 5 an encoder takes no keys and values from outside. Here they are
    added by an attention function of our own. At the start they are drawn with the spread of BERT's new weights, .02.

    Raises
    ------
    ValueError
        If the model's attention cannot be replaced.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    sites = [
        module for module in model.modules() if hasattr(module, "query") and hasattr(module, "num_attention_heads")
    ]
    if not sites or not getattr(model, "_supports_attention_backend", False):
        raise ValueError(f"prefixes need an attention that can be replaced, {type(model).__name__} has none")
    AttentionInterface.register(PREFIXED, _attend_to_prefix)
    AttentionMaskInterface.register(PREFIXED, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation(PREFIXED)
    added = []
    for site in sites:
        heads = site.num_attention_heads
        for name in ("prefix_keys", "prefix_values"):
            new = torch.empty(heads, way.size, site.query.out_features // heads).normal_(std=0.02)
            setattr(site, name, nn.Parameter(new.to(site.query.weight)))
            added.append(getattr(site, name))
    train_head(model, added)


def _attend_to_prefix(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
):
    """Transformers' scaled dot product, with keys and values of the module's own before the others; none is masked."""
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    rows, size = len(query), module.prefix_keys.shape[1]
    key = torch.cat([module.prefix_keys.expand(rows, -1, -1, -1).to(key), key], dim=2)
    value = torch.cat([module.prefix_values.expand(rows, -1, -1, -1).to(value), value], dim=2)
    if attention_mask is not None:
        seen = float(attention_mask.dtype == torch.bool)
        attention_mask = nn.functional.pad(attention_mask, (size, 0), value=seen)
    return ALL_ATTENTION_FUNCTIONS["sdpa"](module, query, key, value, attention_mask, **kwargs)


ADDITIONS: dict[str, Callable[["PreTrainedModel", Way], None]] = {
    "mpo": partial(add_by_peft, config_of=mpo),
    "lora": partial(add_by_peft, config_of=lora),
    "dora": partial(add_by_peft, config_of=partial(lora, use_dora=True)),
    "adalora": partial(add_by_peft, config_of=adalora),
    "ia3": partial(add_by_peft, config_of=ia3),
    "oft": partial(add_by_peft, config_of=oft),
    "vera": partial(add_by_peft, config_of=vera),
    "adapter": add_adapters,
    "loretta": partial(add_adapters, adapter=Adapter.tensor_train),
    "prefix": add_prefixes,
}
