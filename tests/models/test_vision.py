import importlib
import itertools
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mpo_tutorial.models.convert import count
from mpo_tutorial.models.layers import mpo_layers
from mpo_tutorial.models.loading import load
from mpo_tutorial.models.networks import PAPERS_LAYERS, is_network, network, resnets_layer

FOLDER = Path(sys.prefix) / "torchvision"  # Makefile's test-installed puts it there
# A build for CUDA beside a torch that has none lacks these two operators on boxes, and stops at its import. No network calls them.
OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


def of_torchvision() -> list[str]:
    """Its modules that are imported."""
    return [name for name in sys.modules if name.partition(".")[0] == "torchvision"]


@pytest.fixture(scope="module", autouse=True)
def torchvision():
    """The real one, from a folder of its own."""
    if not (FOLDER / "torchvision").is_dir():
        pytest.fail(
            f"torchvision is missing; type: {sys.executable} -m pip install --no-deps --target {FOLDER} torchvision"
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            assert "operator torchvision::" in str(error)
            for name in of_torchvision():
                del sys.modules[name]
            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in OPERATORS:
                library.define(operator)
            importlib.import_module("torchvision")
        yield
        for name in of_torchvision():
            del sys.modules[name]  # or it would be there for the tests of other modules, and not for their processes


def conv(wide: int, wanted: int, window: int = 3, bias: bool = False) -> int:
    return wide * wanted * window**2 + bias * wanted


def by_hand(name: str) -> int:
    """Numbers of a dense network, from the papers' tables of layers."""
    family, _, size = name.partition("-")
    if family in ("vgg16", "vgg19"):
        widths = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}[family]
        channels = [3, *(c for c, n in zip((64, 128, 256, 512, 512), widths, strict=True) for _ in range(n))]
        convolutions = sum(conv(a, b, bias=True) + 2 * b for a, b in itertools.pairwise(channels))
        return convolutions + (512 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 10
    if family == "resnet":
        total, before = conv(3, 16) + 2 * 16, 16
        for now in (16 * int(size), 32 * int(size), 64 * int(size)):
            total += conv(before, now) + conv(now, now) + 4 * now + 2 * 2 * (conv(now, now) + 2 * now)
            total += 0 if before == now else conv(before, now, 1) + 2 * now
            before = now
        return total + (before + 1) * 10
    total, channels = conv(3, 16), 16
    for block in range(3):
        if block:
            total += 2 * channels + conv(channels, channels, 1)
        for _ in range(12):
            total += 2 * channels + conv(channels, int(size))
            channels += int(size)
    return total + 2 * channels + (channels + 1) * 10


@pytest.mark.parametrize(
    "name", ["vgg16", "vgg19", "resnet-1", "resnet-4", "densenet-12", "densenet-24", "densenet-40"]
)
def test_dense_networks_count_as_by_hand(name):
    with torch.device("meta"):
        assert count(network(name)) == by_hand(name)


def test_published_sizes():
    """VGG-16 without batch normalisation has 138,357,544 numbers for 224 x 224 pixels and 1,000 classes; DenseNet of 40 layers and
    growth 12 has 1.0 million (Huang et al. 2017, Table 2).
    """
    normalised = 2 * 4224  # channels of all thirteen convolutions
    others = 7 * 7 * 512 * 4096 + 4096 * 1000 + 1000 - 512 * 4096 - 4096 * 10 - 10
    assert by_hand("vgg16") - normalised + others == 138_357_544
    assert round(by_hand("densenet-12") / 1e6, 1) == 1.0


@pytest.mark.parametrize(
    "name, layers",
    [("resnet-4", "ResNet, width 4")] + [(f"densenet-{k}", f"DenseNet, growth {k}") for k in (12, 24, 40)],
)
def test_of_resnet_and_densenet_the_last_layer_alone_is_an_mpo(name, layers):
    (chain,) = PAPERS_LAYERS[layers]
    with torch.device("meta"):
        assert count(network(name)) - count(network(f"{name}-mpo")) == chain.n_dense - chain.n_params
        (layer,) = mpo_layers(network(f"{name}-mpo"))
    assert (layer.mpo.shape, layer.mpo.ratio) == (chain.shape, chain.n_params / chain.n_dense)


@pytest.mark.parametrize("depth, last", [(16, (10, 11)), (19, (14, 15))])
def test_of_vgg_two_convolutions_and_three_layers_are_mpos(depth, last):
    chains = PAPERS_LAYERS[f"VGG-{depth}"]
    with torch.device("meta"):
        dense, chained = network(f"vgg{depth}"), network(f"vgg{depth}-mpo")
    maps, layers = chains[:2], chains[2:]
    saved = sum(conv(512, 512, bias=True) - chain.n_params - 4 * 512 for chain in maps)
    saved += sum(chain.n_dense - chain.n_params for chain in layers)
    assert count(dense) - count(chained) == saved
    assert [layer.mpo.shape for layer in mpo_layers(chained)] == [chain.shape for chain in chains]
    kinds = [type(layer) for layer in chained.head[0] if isinstance(layer, nn.Conv2d | nn.Sequential)]
    assert [k for k, kind in enumerate(kinds) if kind is nn.Sequential] == [*last]


def test_a_wider_resnet_has_a_longer_leg():
    assert resnets_layer(10).in_legs == (4, 4, 4, 10)
    with torch.device("meta"):
        (layer,) = mpo_layers(network("resnet-10-mpo"))
    assert layer.mpo.shape.in_size == 640


@pytest.mark.parametrize("name", ["vgg16-mpo", "vgg19", "resnet-1-mpo", "densenet-12-mpo", "densenet-12"])
def test_images_in_colours_go_through_and_all_of_it_learns(name):
    torch.manual_seed(0)
    model = network(name)
    found = model(torch.randn(4, 3, 32, 32), torch.tensor([0, 9, 3, 3]))
    assert found.logits.shape == (4, 10)
    found.loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_an_mpo_sees_the_whole_map_channel_by_channel():
    """Its input is the map laid out as PyTorch lays it out."""
    torch.manual_seed(0)
    place = network("vgg16-mpo").head[0][34]
    chain = place[1]
    image = torch.randn(3, 512, 2, 2)
    wanted = image.reshape(3, 2048) @ chain.matrix() + chain.bias
    assert torch.allclose(place(image), wanted.reshape(3, 512, 2, 2), atol=1e-5)


def test_names_in_colours():
    assert all(map(is_network, ("vgg16", "vgg19-mpo", "resnet-4", "resnet-10-mpo", "densenet-40-mpo")))
    assert not any(map(is_network, ("vgg11", "resnet", "resnet-0", "densenet-13", "resnet-4-mpo-2", "vgg16-")))
    _, pixels = load("densenet-12", n_labels=10)
    row = bytes(range(256)) * 12
    assert pixels.batch([{"pixels": row, "labels": 1}])["pixels"].shape == (1, 3, 32, 32)


def test_without_torchvision_what_to_type_is_said(monkeypatch):
    for name in of_torchvision():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    for name in ("vgg16-mpo", "resnet-4"):
        with pytest.raises(
            ImportError, match=rf"^{name} is made of torchvision's parts; type: pip install \"mpo_tutorial\[vision\]\""
        ):
            network(name)
    assert count(network("densenet-12")) == by_hand("densenet-12")


def test_a_torchvision_of_another_build_is_told_from_none(monkeypatch, tmp_path):
    (tmp_path / "torchvision").mkdir()
    raising = 'raise RuntimeError("operator torchvision::nms does not exist")'
    (tmp_path / "torchvision/__init__.py").write_text(raising)
    for name in of_torchvision():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="was not built for this torch; install both from one place"):
        network("vgg16")
