"""Who takes part in the bench: a step of each library, on equal matrices, layers and models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape, balanced_shape
from mpo_tutorial.models.convert import decompose, freeze
from mpo_tutorial.models.layers import MPOLinear
from mpo_tutorial.models.networks import network

if TYPE_CHECKING:
    from transformers import BertForSequenceClassification


@dataclass(frozen=True)
class Sizes:
    """What is measured: by default BERT-base, one of its feed-forward layers, and the numbers of tokens of its pre-training."""

    hidden: int = 768
    feed_forward: int = 3072
    vocabulary: int = 30522
    layers: int = 12
    tokens: tuple[int, ...] = (1024, 4096)
    model_tokens: tuple[int, ...] = (256, 1024)
    bonds: tuple[int | None, ...] = (None, 64)

    def matrices(self) -> dict[str, tuple[int, int, int]]:
        """Of every kind: how many, rows, columns."""
        return {
            "attention and pooler": (4 * self.layers + 1, self.hidden, self.hidden),
            "feed-forward, in": (self.layers, self.hidden, self.feed_forward),
            "feed-forward, out": (self.layers, self.feed_forward, self.hidden),
            "embedding": (1, self.vocabulary, self.hidden),
        }


@dataclass(frozen=True)
class Networks:
    """What is measured of networks for images: the first fully connected layer of VGG for 224 x 224 pixels, evaluated at these
    bonds and for so many images at once, and a training step of networks, as MPOs and dense.
    """

    in_legs: tuple[int, ...] = (7, 8, 8, 8, 7)
    out_legs: tuple[int, ...] = (4, 8, 8, 4, 4)
    bonds: tuple[int, ...] = (2, 4, 16)
    images: tuple[int, ...] = (1, 64)
    names: tuple[str, ...] = ("lenet5", "vgg16", "vgg19", "resnet-4", "densenet-12", "densenet-24", "densenet-40")
    batch: int = 16


def bert_like(rows: int, columns: int, seed: int = 0) -> Tensor:
    """Random, with singular values that fall like those of BERT's matrices: to a tenth over the first half, then to 0."""
    generator = torch.Generator().manual_seed(seed)
    rank = min(rows, columns)
    place = torch.linspace(0, 1, rank)
    spectrum = torch.exp(-4.6 * place) * (1 - place**4)
    tall = torch.randn(max(rows, columns), rank, generator=generator) * spectrum
    turned = tall @ torch.linalg.qr(torch.randn(rank, rank, generator=generator))[0]
    return (turned if rows >= columns else turned.T).contiguous()


def decomposer(library: str, rows: int, columns: int, device: str) -> Callable[[], Callable[[], Tensor]] | None:
    """A step that decomposes one matrix at full bond and returns what rebuilds it; None if the library is missing."""
    matrix, shape = bert_like(rows, columns).to(device), balanced_shape(rows, columns)
    padding = (0, shape.padding[1], 0, shape.padding[0])
    legs = (*shape.in_legs, *shape.out_legs)
    n = shape.n_cores

    def clipped(padded: Tensor) -> Tensor:
        return padded.reshape(shape.padded_size)[:rows, :columns]

    try:
        if library == "mpo_tutorial":
            return lambda: MPO.from_matrix(matrix, shape).to_matrix
        if library == "tensorly":
            import tensorly as tl
            from tensorly.decomposition import tensor_train_matrix
            from tensorly.tt_matrix import tt_matrix_to_matrix

            def with_tensorly():
                with tl.backend_context("pytorch", local_threadsafe=True):
                    cores = tensor_train_matrix(
                        nn.functional.pad(matrix, padding).reshape(legs), (1, *shape.full_bonds, 1)
                    )

                def rebuilt():
                    with tl.backend_context("pytorch", local_threadsafe=True):
                        return clipped(tt_matrix_to_matrix(cores))

                return rebuilt

            return with_tensorly
        if library == "quimb":
            from quimb.tensor import MatrixProductState

            pairs = [axis for k in range(n) for axis in (k, n + k)]
            dims = shape.pairs
            back = [pairs.index(axis) for axis in range(2 * n)]
            paired = [leg for pair in zip(shape.in_legs, shape.out_legs, strict=True) for leg in pair]

            def with_quimb():
                vector = nn.functional.pad(matrix, padding).reshape(legs).permute(pairs).reshape(-1)
                state = MatrixProductState.from_dense(vector.cpu().numpy(), dims=dims, cutoff=0.0)
                return lambda: clipped(torch.from_numpy(state.to_dense()).reshape(paired).permute(back).reshape(-1))

            return with_quimb
        from torchtt import TT

        sites = list(zip(shape.in_legs, shape.out_legs, strict=True))

        def with_torchtt():
            train = TT(nn.functional.pad(matrix, padding).reshape(legs), shape=sites, eps=1e-12)
            return lambda: clipped(train.full())

        return with_torchtt
    except ImportError:
        return None


def layer_step(contender: str, shape: Shape, tokens: int, bond: int | None, device: str) -> Callable | None:
    """A forward and a backward pass of one layer; in the MPOs the central core is frozen. None if the library is missing."""
    layer = layer_of(contender, shape, bond)
    if layer is None:
        return None
    layer = layer.to(device)
    x = torch.randn(tokens, shape.in_size, generator=torch.Generator().manual_seed(1)).to(device).requires_grad_()
    upstream = torch.randn(tokens, shape.out_size, generator=torch.Generator().manual_seed(2)).to(device)

    def step():
        layer.zero_grad()
        x.grad = None
        layer(x).backward(upstream)

    return step


def layer_of(contender: str, shape: Shape, bond: int | None) -> nn.Module | None:
    """Every contender has the same weights, those of the decomposed matrix."""
    mpo = MPO.from_matrix(bert_like(shape.in_size, shape.out_size), shape, bond)
    layer = MPOLinear(mpo, torch.zeros(shape.out_size))
    if contender == "nn.Linear":
        return layer.to_dense()
    if contender == "MPOLinear":
        layer.central.requires_grad_(False)
        return layer
    return of_tensorly_torch(layer, contender.split(", ")[1])


def of_tensorly_torch(layer: MPOLinear, implementation: str) -> nn.Module | None:
    """The same layer of tensorly-torch; its cores have out before in."""
    try:
        import tltorch
    except ImportError:
        return None
    shape, bonds = layer.mpo.shape, layer.mpo.bonds
    same = tltorch.FactorizedLinear(
        shape.in_legs,
        shape.out_legs,
        factorization="blocktt",
        rank=(1, *bonds, 1),
        implementation=implementation,
    )
    for k, (core, factor) in enumerate(zip(layer.cores, same.weight.factors, strict=True)):
        factor.data = core.detach().transpose(1, 2).contiguous()
        factor.requires_grad_(k != shape.central)
    same.bias.data = layer.bias.detach().clone()
    return same


def image_step(name: str, images: int, device: str) -> Callable | None:
    """A step of the optimiser, AdamW, of a network for images. None if torchvision, which it is made of, is missing."""
    torch.manual_seed(0)
    try:
        model = network(name).to(device).train()
    except ImportError:
        return None
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    pixels = torch.randn(images, *model.shape).to(device)
    labels = torch.arange(images).to(device) % 10

    def step():
        optimiser.zero_grad()
        model(pixels, labels).loss.backward()
        optimiser.step()

    return step


def model_step(contender: str, sizes: Sizes, tokens: int, bond: int | None, device: str) -> Callable | None:
    """A forward and a backward pass of a new BERT; as MPOs, only auxiliary cores are trained. None if the library is missing."""
    model = new_bert(sizes)
    if contender != "nn.Linear":
        decompose(model, max_bond=bond)
        freeze(model)
    if contender.startswith("tensorly-torch"):
        for name, layer in [(name, module) for name, module in model.named_modules() if isinstance(module, MPOLinear)]:
            same = of_tensorly_torch(layer, "reconstructed")
            if same is None:
                return None
            same.bias.requires_grad_(False)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, same)
    model.to(device).train()
    length = min(128, tokens)
    ids = torch.randint(0, sizes.vocabulary, (tokens // length, length)).to(device)

    def step():
        model.zero_grad()
        model(ids).logits.sum().backward()

    return step


def new_bert(sizes: Sizes) -> "BertForSequenceClassification":
    """A classifier with random weights, the same ones each time."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.feed_forward,
        num_hidden_layers=sizes.layers,
    )
    return BertForSequenceClassification(config)
