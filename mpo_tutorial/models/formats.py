"""A model whose matrices are kept in other formats than the MPO, its rivals in compressing."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpo_tutorial.maths.formats import Network
from mpo_tutorial.models.layers import MPOLinear

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Contracted(nn.Module):
    """A weight of `nn.Linear`, rebuilt from the factors of a network, for torch's `parametrize`.

    Parameters
    ----------
    network : Network
        Of the matrix of shape (in, out); its factors are where training starts.
    """

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, *factors: Tensor) -> Tensor:
        """The weight of shape (out, in)."""
        return self.network.with_factors(factors).to_matrix().T

    def right_inverse(self, _weight: Tensor) -> tuple[Tensor, ...]:
        return self.network.factors


def put_networks(model: "PreTrainedModel", networks: Mapping[str, Network]) -> None:
    """Put linear layers whose weights are networks in the place of MPO layers, in place; biases stay, the factors are trainable.

    Parameters
    ----------
    networks : mapping of layers' names to Network

    Raises
    ------
    ValueError
        If a name is not that of an `MPOLinear`, or a network's matrix has another size.
    """
    from mpo_tutorial.models.architectures import put_layers

    put = {}
    for name, network in networks.items():
        layer = model.get_submodule(name)
        if not isinstance(layer, MPOLinear):
            raise ValueError(f"networks take the place of MPOLinear layers, {name} is a {type(layer).__name__}")
        linear = layer.to_dense()
        if network.to_matrix().T.shape != linear.weight.shape:
            raise ValueError(
                f"{name} has the size {tuple(linear.weight.T.shape)}, the network {tuple(network.to_matrix().shape)}"
            )
        if linear.bias is not None:
            linear.bias.requires_grad_(layer.bias.requires_grad)
        parametrize.register_parametrization(linear, "weight", Contracted(network))
        put[layer] = linear
    put_layers(model, put)


def share_layers(model: "PreTrainedModel", groups: int) -> None:
    """ALBERT's second idea (Lan et al. 2020): groups of neighbouring layers have one set of weights, here that of the first of each
    group; in place. Its first idea, a word table of two factors, is an MPO of two cores.

    Raises
    ------
    ValueError
        If the encoder has no list of layers of its own, or the groups do not divide their number.
    """
    layers = next((m for m in model.base_model.modules() if isinstance(m, nn.ModuleList) and len(m) > 1), None)
    if layers is None:
        raise ValueError(f"{type(model).__name__} has no list of layers that could share their weights")
    if groups < 1 or len(layers) % groups:
        raise ValueError(f"groups divide the {len(layers)} layers, got {groups}")
    size = len(layers) // groups
    first = {number: number - number % size for number in range(len(layers))}
    for number, same in first.items():
        layers[number] = layers[same]
    # What transformers asks for before it saves numbers that are there twice.
    layers._tied_weights_keys = {rf"{number}\.": rf"{same}\." for number, same in first.items() if number != same}
