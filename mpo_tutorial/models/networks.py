"""Networks for images that are chains from the start: those of Gao et al. 2020, dense and with MPOs, and their counts."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mpo_tutorial.maths.formats import in_format
from mpo_tutorial.models import vision
from mpo_tutorial.models.conv import MPOConv2d
from mpo_tutorial.models.formats import Contracted
from mpo_tutorial.models.images import COLOURS, GREY
from mpo_tutorial.models.layers import Chained, MPOLinear

if TYPE_CHECKING:
    from transformers.modeling_outputs import BaseModelOutputWithPooling, ImageClassifierOutput


def ratio(layers: Sequence[Chained]) -> float:
    """Numbers of the MPOs over those of the matrices they stand for, biases left out: the paper's rho, where it counts these alone.

    >>> round(ratio(fc2_layers(16)), 4), sum(layer.n_params for layer in fc2_layers(16))
    (0.0767, 15584)
    """
    return sum(layer.n_params for layer in layers) / sum(layer.n_dense for layer in layers)


def fc2_layers(bond: int) -> tuple[Chained, Chained]:
    """784 pixels to 256 units to 10 classes; the bond is that of the first layer, the second has 4."""
    return Chained((4, 7, 7, 4), (4, 4, 4, 4), bond), Chained((4, 4, 4, 4), (1, 1, 10, 1), 4)


def resnets_layer(width: int) -> Chained:
    """The last layer of the ResNet of a width."""
    return Chained((4, 4, 4, width), (1, 5, 2, 1), 3)


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
    "ResNet, width 4": (resnets_layer(4),),
    "DenseNet, growth 12": (Chained((4, 4, 7, 4), (1, 5, 2, 1), 4),),
    "DenseNet, growth 24": (Chained((4, 5, 11, 4), (1, 5, 2, 1), 4),),
    "DenseNet, growth 40": (Chained((4, 7, 13, 4), (1, 5, 2, 1), 4),),
}


FORMATS_OF_LAYERS = ("mpo", "svd", "cp", "tucker")
KNOWN = (
    "fc2, fc2-mpo-D, fc2-svd-D, fc2-cp-D, fc2-tucker-D; lenet5, lenet5-mpo, lenet5-mpo-first, lenet5-mpo-all; vgg16, vgg19, "
    "resnet-W of any width, densenet-12, -24 and -40, each of these with -mpo behind it, too"
)
_FC2 = re.compile(rf"fc2(?:-({'|'.join(FORMATS_OF_LAYERS)})-([1-9]\d*))?")
_LENET5 = re.compile(r"lenet5(-mpo(?:-(first|all))?)?")
_IN_COLOURS = re.compile(rf"(vgg(?:16|19)|resnet-[1-9]\d*|densenet-(?:{'|'.join(map(str, vision.GROWTHS))}))(-mpo)?")


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
        first.layer()
        if kept_as == "mpo"
        else _in_format(first, {"svd": "SVD", "cp": "CP", "tucker": "Tucker"}[kept_as])
    )
    return nn.Sequential(nn.Flatten(), made, nn.ReLU(), second.layer())


# Not the paper's: the two convolutions of LeNet-5 as MPOs, from the numbers under a window to the channels.
LENETS_KERNELS = (Chained((5, 5), (2, 3), 4), Chained((6, 5, 5), (4, 2, 2), 4))
LENETS_CHAINS = {None: (), "first": (2,), "layers": (2, 3, 4), "all": (0, 1, 2, 3, 4)}


def lenet5(which: str | None = "layers") -> nn.Sequential:
    """Two convolutions, each with a pooling, and three fully connected layers, for images of 28 x 28 pixels (LeCun et al. 1998, but
    with ReLU).

    Parameters
    ----------
    which : {None, "first", "layers", "all"}
        What is an MPO: nothing, the first fully connected layer, the three of them as in the paper, or the convolutions as well.
    """
    if which not in LENETS_CHAINS:
        raise ValueError(f"the MPOs of LeNet-5 are one of {', '.join(map(repr, LENETS_CHAINS))}, got {which!r}")
    chained = LENETS_CHAINS[which]

    def layer(k: int) -> nn.Module:
        chain = PAPERS_LAYERS["LeNet-5"][k - 2]
        return chain.layer() if k in chained else nn.Linear(chain.shape.in_size, chain.shape.out_size)

    def convolution(k: int, channels: int, wanted: int, padding: int) -> nn.Module:
        if k not in chained:
            return nn.Conv2d(channels, wanted, 5, padding=padding)
        chain = LENETS_KERNELS[k]
        return MPOConv2d.random(chain.shape, (5, 5), chain.bond, padding=padding)

    features = (
        convolution(0, 1, 6, 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        convolution(1, 6, 16, 0),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )
    return nn.Sequential(*features, nn.Flatten(), layer(2), nn.ReLU(), layer(3), nn.ReLU(), layer(4))


def decomposed(trained: nn.Sequential, bond: int) -> nn.Sequential:
    """A dense FC2 with its layers decomposed and cut to the bonds of `fc2`; the given one stays."""
    dense = [layer for layer in trained if isinstance(layer, nn.Linear)]
    chains = zip(dense, fc2_layers(bond), strict=True)
    first, second = (MPOLinear.from_dense(linear, chain.shape, chain.bond) for linear, chain in chains)
    return nn.Sequential(nn.Flatten(), first, nn.ReLU(), second)


def is_network(name: str) -> bool:
    """Whether it is the name of one of these networks, rather than that of a model with weights in files."""
    return any(names.fullmatch(name) for names in (_FC2, _LENET5, _IN_COLOURS))


def network(name: str) -> "ImageClassifier":
    """A new network by its name, "fc2-mpo-16" or another of `KNOWN`, D being the bond dimension.

    Raises
    ------
    ValueError
        If there is none of this name.
    ImportError
        If it is made of torchvision's parts, and that is not installed, or was not built for the torch that is.
    """
    if found := _FC2.fullmatch(name):
        kept_as, bond = found.groups()
        return ImageClassifier(fc2(int(bond), kept_as) if bond else fc2(None), name)
    if found := _LENET5.fullmatch(name):
        chained, which = found.groups()
        return ImageClassifier(lenet5(which or "layers") if chained else lenet5(None), name)
    found = _IN_COLOURS.fullmatch(name)
    if found is None:
        raise ValueError(f"networks for images are {KNOWN}; D is a bond dimension; got {name!r}")
    kind, chained = found.groups()
    try:
        return ImageClassifier(_in_colours(kind, chained is not None), name, COLOURS)
    except ImportError as error:
        raise ImportError(
            f'{name} is made of torchvision\'s parts; type: pip install "mpo_tutorial[vision]"'
        ) from error
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        raise ImportError(
            f"{name} is made of torchvision's parts, and the torchvision that is installed was not built for this torch; install "
            "both from one place"
        ) from error


def _in_colours(kind: str, chained: bool) -> nn.Sequential:
    if kind.startswith("vgg"):
        depth = int(kind.removeprefix("vgg"))
        return vision.vgg(depth, PAPERS_LAYERS[f"VGG-{depth}"] if chained else None)
    family, _, size = kind.partition("-")
    if family == "resnet":
        return vision.resnet(int(size), resnets_layer(int(size)) if chained else None)
    return vision.densenet(int(size), PAPERS_LAYERS[f"DenseNet, growth {size}"][0] if chained else None)


class ImageClassifier(nn.Module):
    """A network for images in the form in which runs expect a model: it gives a loss, and what its head reads are the pixels.

    Parameters
    ----------
    head : nn.Module
        From images to logits of shape (n, 10).
    name : str
    shape : tuple of three int
        Of an image: channels, height, width.
    """

    def __init__(self, head: nn.Module, name: str = "a network for images", shape: tuple[int, int, int] = GREY):
        from transformers import PreTrainedConfig

        super().__init__()
        self.base_model, self.head, self.shape = _AsTheyAre(), head, shape
        self.config, self.name_or_path = PreTrainedConfig(num_labels=vision.CLASSES), name

    def forward(self, pixels: Tensor, labels: Tensor | None = None) -> "ImageClassifierOutput":
        from transformers.modeling_outputs import ImageClassifierOutput

        if pixels.shape[1:] != self.shape:
            wanted = ", ".join(map(str, self.shape))
            raise ValueError(f"images have the shape (n, {wanted}), got {tuple(pixels.shape)}")
        if labels is not None and len(labels) and not 0 <= labels.min() <= labels.max() < vision.CLASSES:
            raise ValueError(
                f"labels are classes, 0 to {vision.CLASSES - 1}, got {labels.min().item()} to {labels.max().item()}"
            )
        logits = self.head(pixels)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss=loss, logits=logits)


class _AsTheyAre(nn.Module):
    """In the place of an encoder: nothing is done to the pixels before the head reads them."""

    def forward(self, pixels: Tensor) -> "BaseModelOutputWithPooling":
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(pooler_output=pixels.flatten(1))


class Pixels:
    """In the place of a tokenizer: makes batches of images out of their bytes, each number from -1 to 1.

    Parameters
    ----------
    shape : tuple of three int
        Of an image: channels, height, width.
    """

    def __init__(self, shape: tuple[int, int, int] = GREY):
        self.shape = shape

    def batch(self, images: Sequence[Mapping]) -> dict[str, Tensor]:
        """Rows with "pixels", as bytes, and "labels" as what `ImageClassifier` takes."""
        bytes_of = np.stack([np.frombuffer(image["pixels"], dtype=np.uint8) for image in images])
        pixels = torch.from_numpy(bytes_of.astype(np.float32) / 127.5 - 1).reshape(-1, *self.shape)
        return {"pixels": pixels, "labels": torch.tensor([image["labels"] for image in images])}


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
