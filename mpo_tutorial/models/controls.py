"""Controls for what light fine-tuning trains: as many numbers of the same matrices, chosen at random."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KINDS = ("mask", "subspace")


class RandomUpdate(nn.Module):
    """A weight plus an update of fewer numbers than the weight has; at the start the update is 0.

    "mask": each trained number is added to one entry of the weight, drawn at random; the other entries stay (Xu et al. 2021,
    Child-Tuning with a fixed mask). "subspace": each is added to many entries, with random signs, so that the weight moves in a
    random subspace of so many dimensions, with axes of equal length (Aghajanyan et al. 2021, intrinsic dimension).

    Parameters
    ----------
    weight : Tensor
    size : int
        Numbers to train, at most those of the weight.
    kind : {"mask", "subspace"}
    generator : torch.Generator
    """

    def __init__(self, weight: Tensor, size: int, kind: str, generator: torch.Generator):
        super().__init__()
        n = weight.numel()
        order = torch.randperm(n, generator=generator)
        self.update = nn.Parameter(torch.zeros(size, dtype=weight.dtype, device=weight.device))
        if kind == "mask":
            self.register_buffer("places", order[:size].to(weight.device), persistent=False)
            self.register_buffer("signs", None, persistent=False)
        else:
            places = order % size
            signs = torch.randint(0, 2, (n,), generator=generator).to(weight.dtype) * 2 - 1
            lengths = places.bincount().to(weight.dtype).sqrt()
            self.register_buffer("places", places.to(weight.device, torch.int32), persistent=False)
            self.register_buffer("signs", (signs / lengths[places]).to(weight.device), persistent=False)

    def forward(self, weight: Tensor) -> Tensor:
        if self.signs is None:
            return weight.flatten().index_add(0, self.places, self.update).view_as(weight)
        return weight + (self.signs * self.update.index_select(0, self.places)).view_as(weight)


def add_updates(model: "PreTrainedModel", sizes: dict[str, int], kind: str, seed: int) -> None:
    """Give linear layers, by name, a `RandomUpdate` of some size each, and freeze their weights.

    A task file keeps what was trained of it. Saved in a folder it would hold weights and updates apart, which `load` refuses.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, size in sizes.items():
        layer = model.get_submodule(name)
        parametrize.register_parametrization(layer, "weight", RandomUpdate(layer.weight, size, kind, generator))
        layer.parametrizations.weight.original.requires_grad_(False)
