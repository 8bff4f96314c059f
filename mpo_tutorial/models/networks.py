"""Networks for images that are chains from the start: those of Gao et al. 2020, dense and with MPOs, and their counts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from mpo_tutorial.maths.shapes import Shape
from mpo_tutorial.models.layers import MPOLinear


@dataclass(frozen=True)
class Chained:
    """A fully connected layer of the paper as an MPO: M^{out legs}_{in legs}(bond).

    Parameters
    ----------
    in_legs, out_legs : tuple of int
    bond : int
        Of every bond that can be as wide.
    """

    in_legs: tuple[int, ...]
    out_legs: tuple[int, ...]
    bond: int

    @property
    def shape(self) -> Shape:
        return Shape(self.in_legs, self.out_legs)

    @property
    def n_params(self) -> int:
        return self.shape.n_params(self.shape.caps(self.bond))

    @property
    def n_dense(self) -> int:
        return self.shape.in_size * self.shape.out_size


def ratio(layers: Sequence[Chained]) -> float:
    """Numbers of the MPOs over those of the matrices they stand for, biases left out: the paper's rho, where it counts these alone.

    >>> ratio(fc2_layers(16)), sum(layer.n_params for layer in fc2_layers(16))
    (0.07671..., 15584)
    """
    return sum(layer.n_params for layer in layers) / sum(layer.n_dense for layer in layers)


def fc2_layers(bond: int) -> tuple[Chained, Chained]:
    """784 pixels to 256 units to 10 classes; the bond is that of the first layer, the second has 4."""
    return Chained((4, 7, 7, 4), (4, 4, 4, 4), bond), Chained((4, 4, 4, 4), (1, 1, 10, 1), 4)


_TWO_BY_TWO = Chained(
    (2, 8, 8, 8, 2), (2, 8, 8, 8, 2), 4
)  # a map of 2 x 2 places and 512 channels, laid out as one vector
_VGG = (
    _TWO_BY_TWO,
    _TWO_BY_TWO,
    Chained((4, 4, 4, 4, 2), (4, 4, 8, 8, 4), 4),
    Chained((4, 4, 8, 8, 4), (4, 4, 8, 8, 4), 4),
    Chained((4, 4, 8, 8, 4), (1, 10, 1, 1, 1), 4),
)
# What of the paper's networks is an MPO, with its legs: by the paper, and for VGG, ResNet and DenseNet by the authors' code. That
# has DenseNet's legs for growth 12 alone. Those of 24 and 40, which it names, are inferred: of the same form, and with the paper's
# ratio. Its fourth DenseNet, with a ratio of .044, is not to be had this way.
PAPERS_LAYERS: Mapping[str, tuple[Chained, ...]] = {
    "FC2": fc2_layers(16),
    "LeNet-5": (
        Chained((2, 10, 10, 2), (2, 5, 6, 2), 4),
        Chained((2, 5, 6, 2), (2, 3, 7, 2), 4),
        Chained((2, 3, 7, 2), (1, 5, 2, 1), 2),
    ),
    "VGG-16": _VGG,
    "VGG-19": _VGG,
    "ResNet, width 4": (Chained((4, 4, 4, 4), (1, 5, 2, 1), 3),),
    "DenseNet, growth 12": (Chained((4, 4, 7, 4), (1, 5, 2, 1), 4),),
    "DenseNet, growth 24": (Chained((4, 5, 11, 4), (1, 5, 2, 1), 4),),
    "DenseNet, growth 40": (Chained((4, 7, 13, 4), (1, 5, 2, 1), 4),),
}


def fc2(bond: int | None = 16) -> nn.Sequential:
    """Two fully connected layers for images of 28 x 28 pixels and 10 classes.

    Parameters
    ----------
    bond : int, optional
        Of the first layer's MPO; None: the dense network.
    """
    first, second = _layers(None if bond is None else fc2_layers(bond), fc2_layers(1))
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)


def lenet5(chained: bool = True) -> nn.Sequential:
    """Two convolutions, each with a pooling, and three fully connected layers, for images of 28 x 28 pixels (LeCun et al. 1998, but
    with ReLU). The last three are MPOs if `chained`.
    """
    layers = PAPERS_LAYERS["LeNet-5"]
    first, second, third = _layers(layers if chained else None, layers)
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        first,
        nn.ReLU(),
        second,
        nn.ReLU(),
        third,
    )


def _layers(chained: Sequence[Chained] | None, sizes: Sequence[Chained]) -> list[nn.Module]:
    """New layers, MPOs or dense ones of the same sizes."""
    if chained is None:
        return [nn.Linear(layer.shape.in_size, layer.shape.out_size) for layer in sizes]
    return [MPOLinear.random(layer.shape, layer.bond) for layer in chained]
