"""Networks for images that are chains from the start: those of Gao et al. 2020, dense and with MPOs, and their counts."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpo_tutorial.maths.formats import in_format
from mpo_tutorial.maths.shapes import Shape
from mpo_tutorial.models.formats import Contracted
from mpo_tutorial.models.images import SIDE
from mpo_tutorial.models.layers import MPOLinear

if TYPE_CHECKING:
    from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput

CLASSES = 10


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

    >>> round(ratio(fc2_layers(16)), 4), sum(layer.n_params for layer in fc2_layers(16))
    (0.0767, 15584)
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


FORMATS_OF_LAYERS = ("mpo", "svd", "cp", "tucker")
KNOWN = "fc2, fc2-mpo-D, fc2-svd-D, fc2-cp-D, fc2-tucker-D, lenet5, lenet5-mpo"
_NAME = re.compile(
    rf"(?:(?P<fc2>fc2)(?:-(?P<format>{'|'.join(FORMATS_OF_LAYERS)})-(?P<bond>[1-9]\d*))?|lenet5(?P<chained>-mpo)?)"
)


def fc2(bond: int | None = 16, kept_as: str = "mpo") -> nn.Sequential:
    """Two fully connected layers for images of 28 x 28 pixels and 10 classes.

    Parameters
    ----------
    bond : int, optional
        Of the first layer's MPO; None: the dense network.
    kept_as : {"mpo", "svd", "cp", "tucker"}
        The first layer's format. The others have as many numbers as the MPO of this bond, at most; the second layer is an MPO with
        all of them.
    """
    if kept_as not in FORMATS_OF_LAYERS:
        raise ValueError(f"a layer is kept as one of {', '.join(FORMATS_OF_LAYERS)}, got {kept_as!r}")
    if bond is None:
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10))
    first, second = fc2_layers(bond)
    made = (
        _chain(first)
        if kept_as == "mpo"
        else _in_format(first, {"svd": "SVD", "cp": "CP", "tucker": "Tucker"}[kept_as])
    )
    return nn.Sequential(nn.Flatten(), made, nn.ReLU(), _chain(second))


def lenet5(chained: bool = True) -> nn.Sequential:
    """Two convolutions, each with a pooling, and three fully connected layers, for images of 28 x 28 pixels (LeCun et al. 1998, but
    with ReLU). The last three are MPOs if `chained`.
    """
    first, second, third = (
        _chain(layer) if chained else nn.Linear(layer.shape.in_size, layer.shape.out_size)
        for layer in PAPERS_LAYERS["LeNet-5"]
    )
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


def decomposed(trained: nn.Sequential, bond: int) -> nn.Sequential:
    """A dense FC2 with its layers decomposed and cut to the bonds of `fc2`; the given one stays."""
    dense = [layer for layer in trained if isinstance(layer, nn.Linear)]
    chains = zip(dense, fc2_layers(bond), strict=True)
    first, second = (MPOLinear.from_dense(linear, chain.shape, chain.bond) for linear, chain in chains)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)


def is_network(name: str) -> bool:
    """Whether it is the name of one of these networks, rather than that of a model with weights in files."""
    return _NAME.fullmatch(name) is not None


def network(name: str) -> "ImageClassifier":
    """A new network by its name, "fc2-mpo-16" or another of `KNOWN`, D being the bond dimension.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise ValueError(f"networks for images are {KNOWN}, with a bond dimension for D; got {name!r}")
    if found["fc2"]:
        made = fc2(int(found["bond"]), found["format"]) if found["bond"] else fc2(None)
    else:
        made = lenet5(chained=found["chained"] is not None)
    return ImageClassifier(made, name)


class ImageClassifier(nn.Module):
    """A network for images in the form in which runs expect a model: it gives a loss, and what its head reads are the pixels.

    Parameters
    ----------
    head : nn.Module
        From images of shape (n, 1, 28, 28) to logits of shape (n, classes).
    name : str
    """

    def __init__(self, head: nn.Module, name: str = "a network for images"):
        from transformers import PreTrainedConfig

        super().__init__()
        self.base_model, self.head = _AsTheyAre(), head
        self.config, self.name_or_path = PreTrainedConfig(num_labels=CLASSES), name

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> "ImageClassifierOutput":
        from transformers.modeling_outputs import ImageClassifierOutput

        if pixels.shape[1:] != (1, SIDE, SIDE):
            raise ValueError(f"images have the shape (n, 1, {SIDE}, {SIDE}), got {tuple(pixels.shape)}")
        logits = self.head(pixels)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class _AsTheyAre(nn.Module):
    """In the place of an encoder: nothing is done to the pixels before the head reads them."""

    def forward(self, pixels: Tensor) -> "BaseModelOutputWithPooling":
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(pooler_output=pixels.flatten(1))


class Pixels:
    """In the place of a tokenizer: makes batches of images out of their bytes, each number from -1 to 1."""

    def batch(self, images: Sequence[Mapping]) -> dict[str, Tensor]:
        """Rows with "pixels", as bytes, and "labels" as what `ImageClassifier` takes."""
        bytes_of = np.stack([np.frombuffer(image["pixels"], dtype=np.uint8) for image in images])
        pixels = torch.from_numpy(bytes_of.astype(np.float32) / 127.5 - 1).reshape(-1, 1, SIDE, SIDE)
        return {"pixels": pixels, "labels": torch.tensor([image["labels"] for image in images])}


def _chain(layer: Chained) -> MPOLinear:
    return MPOLinear.random(layer.shape, layer.bond)


def _in_format(layer: Chained, name: str) -> nn.Linear:
    """A new dense layer, its weight taken into another format and scaled to the norm that it had."""
    linear = nn.Linear(layer.shape.in_size, layer.shape.out_size)
    matrix = linear.weight.detach().T
    found = in_format(name, matrix, layer.n_params, seed=int(torch.randint(2**31, ())))
    scale = (matrix.norm() / found.to_matrix().norm()) ** (1 / len(found.factors))
    parametrize.register_parametrization(
        linear, "weight", Contracted(found.with_factors(scale * f for f in found.factors))
    )
    return linear
