"""The networks of Gao et al. 2020 for images of 32 x 32 pixels in three colours: VGG, ResNet and DenseNet, dense and with MPOs.

The layers that are MPOs, and their legs, are the authors'. VGG-16 is torchvision's, whose third convolutions of a block have
windows of 3 x 3, where the authors' are of 1 x 1; the ResNet is made of torchvision's blocks, which normalise after a convolution
and not before it. DenseNet is that of Huang et al. 2017 without bottlenecks and compression, which torchvision does not have.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpo_tutorial.models.layers import Chained

CLASSES = 10
BLOCKS = 3  # of a stage of the ResNet
STEM, LAYERS = 16, 12  # channels of DenseNet's first convolution, and layers of each of its three blocks
GROWTHS = (12, 24, 40)


def vgg(depth: int, chains: Sequence[Chained] | None = None) -> nn.Sequential:
    """VGG (Simonyan and Zisserman 2015) with batch normalisation, for images of shape (n, 3, 32, 32).

    Parameters
    ----------
    depth : {16, 19}
    chains : sequence of five Chained, optional
        The MPOs in place of two convolutions on maps of 2 x 2 places, the fifth block's first two or, at depth 19, last two, and in
        place of the three fully connected layers. Those two see the whole map, laid out as one vector, channel by channel.
    """
    from torchvision.models import vgg16_bn, vgg19_bn

    made = {16: vgg16_bn, 19: vgg19_bn}[depth](num_classes=CLASSES)
    features, classifier = made.features, made.classifier
    classifier[0] = nn.Linear(512, 4096)  # the map that is left has one place, not 7 x 7
    if chains is not None:
        places = [k for k, layer in enumerate(features) if isinstance(layer, nn.Conv2d)]
        for place, chain in zip({16: places[10:12], 19: places[14:16]}[depth], chains[:2], strict=True):
            features[place] = nn.Sequential(nn.Flatten(), chain.layer(), nn.Unflatten(1, (512, 2, 2)))
        places = [k for k, layer in enumerate(classifier) if isinstance(layer, nn.Linear)]
        for place, chain in zip(places, chains[2:], strict=True):
            classifier[place] = chain.layer()
    return nn.Sequential(features, nn.Flatten(), classifier)


def resnet(width: int, chain: Chained | None = None) -> nn.Sequential:
    """A wide ResNet (He et al. 2016; Zagoruyko and Komodakis 2016) with three stages of three blocks.

    Parameters
    ----------
    width : int
        The stages have 16, 32 and 64 channels times this.
    chain : Chained, optional
        The MPO in place of the last layer.
    """
    from torchvision.models.resnet import BasicBlock

    channels, layers = 16, [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for stage in range(3):
        wanted = 16 * width * 2**stage
        for block in range(BLOCKS):
            stride = 2 if stage and not block else 1
            shortcut = None
            if stride > 1 or channels != wanted:
                shortcut = nn.Sequential(nn.Conv2d(channels, wanted, 1, stride, bias=False), nn.BatchNorm2d(wanted))
            layers.append(BasicBlock(channels, wanted, stride, shortcut))
            channels = wanted
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), _last(channels, chain))


def densenet(growth: int, chain: Chained | None = None) -> nn.Sequential:
    """A DenseNet (Huang et al. 2017) of 40 layers: three blocks of twelve, each layer of which adds channels to those there are.

    Parameters
    ----------
    growth : int
        How many a layer adds.
    chain : Chained, optional
        The MPO in place of the last layer.
    """
    channels, layers = STEM, [nn.Conv2d(3, STEM, 3, padding=1, bias=False)]
    for block in range(3):
        if block:
            layers += [_after_norm(channels, channels, 1), nn.AvgPool2d(2)]
        for _ in range(LAYERS):
            layers.append(_Grown(channels, growth))
            channels += growth
    layers += [nn.BatchNorm2d(channels), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, _last(channels, chain))


class _Grown(nn.Module):
    """The channels that come in, and behind them some new ones."""

    def __init__(self, channels: int, growth: int):
        super().__init__()
        self.new = _after_norm(channels, growth, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.new(x)], 1)


def _after_norm(channels: int, wanted: int, window: int) -> nn.Sequential:
    conv = nn.Conv2d(channels, wanted, window, padding=window // 2, bias=False)
    return nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU(), conv)


def _last(channels: int, chain: Chained | None) -> nn.Module:
    return nn.Linear(channels, CLASSES) if chain is None else chain.layer()
