"""Network layers whose weight matrix is an MPO."""

import math
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpo_tutorial.maths.contraction import Route, contract, merge, worthwhile_route
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape


class Cores(nn.ParameterList):
    """The cores of a layer, which takes them by a call: what accelerate has offloaded is there in a call and not before."""

    def forward(self) -> tuple[nn.Parameter, ...]:
        return tuple(self)

    __call__ = nn.Module.__call__  # a ParameterList refuses to be called


class MPOLayer(nn.Module):
    """What the layers share: a matrix kept as cores, each core a parameter of its own.

    Parameters
    ----------
    mpo : MPO
    """

    def __init__(self, mpo: MPO):
        super().__init__()
        self.set_mpo(mpo)
        self._cached_matrix: Tensor | None = None

    @property
    def mpo(self) -> MPO:
        """The weight as an MPO, sharing the cores' memory and cut off from autograd."""
        return MPO(tuple(core.detach() for core in self.cores()), self.padding)

    @property
    def central(self) -> nn.Parameter:
        """The central core, the one that light fine-tuning leaves alone; without numbers where it is offloaded, `mpo` has them."""
        return self.cores[len(self.cores) // 2]

    def set_mpo(self, mpo: MPO) -> None:
        """Replace all cores, as after a truncation. The new parameters are trainable.

        Raises
        ------
        ValueError
            If the matrix would have another size.
        """
        if hasattr(self, "cores"):
            old, new = self.mpo.shape, mpo.shape
            if (old.in_size, old.out_size) != (new.in_size, new.out_size):
                raise ValueError(f"the layer's size stays, got {new} for {old}")
        self.cores = Cores(nn.Parameter(core.detach().clone()) for core in mpo.cores)
        self.padding = mpo.padding

    def route_of_all(self) -> Route | None:
        """Through the chain, if even one row takes less time so than through a matrix that is there; then many rows do."""
        return None

    def matrix(self) -> Tensor:
        """The matrix of shape (in, out), rebuilt from the cores, in their precision, unless `cached` keeps it."""
        if self._cached_matrix is not None:
            return self._cached_matrix
        cores = self.cores()
        with own_precision(cores[0].device):
            return contract(cores, self.padding)

    def extra_repr(self) -> str:
        mpo = MPO(tuple(self.cores), self.padding)  # sizes alone: nothing that is offloaded is read
        legs = " x ".join(".".join(map(str, side)) for side in (mpo.shape.in_legs, mpo.shape.out_legs))
        padding = f", padding {mpo.padding}" if any(mpo.padding) else ""
        bonds = ".".join(map(str, mpo.bonds))
        sizes = f"{mpo.shape.in_size} -> {mpo.shape.out_size}"
        return f"{sizes}, legs {legs}{padding}, bonds {bonds}, ratio {mpo.ratio:.3f}"


class MPOLinear(MPOLayer):
    """`nn.Linear` with its weight kept as the cores of an MPO.

    The forward pass rebuilds the matrix from the cores and multiplies once, or sends the input through the chain, whichever costs
    less for the batch at hand (`route`). At the bond dimensions of a BERT it is the matrix.

    >>> layer = MPOLinear.from_dense(nn.Linear(384, 1536), Shape((3, 4, 4, 4, 2), (4, 4, 6, 4, 4)))
    >>> layer(torch.randn(8, 20, 384)).shape
    torch.Size([8, 20, 1536])
    >>> layer.extra_repr()
    '384 -> 1536, legs 3.4.4.4.2 x 4.4.6.4.4, bonds 12.192.128.8, ratio 1.091'

    Parameters
    ----------
    mpo : MPO
        Of shape (in_features, out_features).
    bias : Tensor of shape (out_features,), optional
    """

    def __init__(self, mpo: MPO, bias: Tensor | None = None):
        super().__init__(mpo)
        self.bias = own_bias(bias, mpo.shape)

    @classmethod
    def from_dense(
        cls, linear: nn.Linear, shape: Shape, max_bond: int | None = None, cutoff: float | None = None
    ) -> "MPOLinear":
        """Decompose a dense layer. Parameters and errors as in `MPO.from_matrix`."""
        return cls.in_place_of(linear, MPO.from_matrix(linear.weight.T, shape, max_bond, cutoff))

    @classmethod
    def in_place_of(cls, linear: nn.Linear, mpo: MPO) -> "MPOLinear":
        """A layer with another matrix and a dense layer's bias."""
        return cls(mpo, linear.bias)

    @classmethod
    def random(cls, shape: Shape, max_bond: int | None = None, bias: bool = True) -> "MPOLinear":
        """A new layer whose matrix and bias spread as those of a new `nn.Linear` do: variance 1 / (3 in_features)."""
        shape = Shape.of(shape)
        std = (3 * shape.in_size) ** -0.5
        limit = shape.in_size**-0.5
        new_bias = torch.empty(shape.out_size).uniform_(-limit, limit) if bias else None
        return cls(MPO.random(shape, max_bond, std), new_bias)

    def to_dense(self) -> nn.Linear:
        """The `nn.Linear` that computes the same, with weights of its own."""
        matrix = self.matrix().detach()
        linear = nn.Linear(*matrix.shape, bias=self.bias is not None, device=matrix.device, dtype=matrix.dtype)
        with torch.no_grad():
            linear.weight.copy_(matrix.T)
            if self.bias is not None:
                linear.bias.copy_(self.bias)
        return linear

    def set_mpo(self, mpo: MPO) -> None:
        super().set_mpo(mpo)
        self._sizes = mpo.shape, mpo.bonds

    def route(self, rows: int) -> Route | None:
        """By which so many rows would now go through the chain, if they would; in `cached` the matrix is there."""
        return worthwhile_route(*self._sizes, rows, self._cached_matrix is not None)

    @torch.compiler.assume_constant_result
    def route_of_all(self) -> Route | None:
        return worthwhile_route(*self._sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (..., in_features) to (..., out_features)."""
        # A compiled layer is for batches of any size.
        route = self.route_of_all() if torch.compiler.is_compiling() else self.route(math.prod(x.shape[:-1]))
        if route:
            y = MPO(self.cores(), self.padding).apply(x, route)
            return y if self.bias is None else y + self.bias
        return F.linear(x, self.matrix().T, self.bias)


@dataclass(frozen=True)
class Chained:
    """What a new `MPOLinear` is made of; the paper writes it M^{out legs}_{in legs}(bond).

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

    def layer(self) -> MPOLinear:
        """One with random cores."""
        return MPOLinear.random(self.shape, self.bond)


def own_bias(bias: Tensor | None, shape: Shape) -> nn.Parameter | None:
    """A layer's own copy of a bias, if there is one; another shape than (out,) is refused by a ValueError."""
    if bias is not None and tuple(bias.shape) != (shape.out_size,):
        raise ValueError(f"the bias has the shape ({shape.out_size},), got {tuple(bias.shape)}")
    return None if bias is None else nn.Parameter(bias.detach().clone())


class MPOEmbedding(MPOLayer):
    """`nn.Embedding` with its table kept as the cores of an MPO; rows are looked up from the cores.

    A row's number is written in digits, one for each in leg. Digit i_k picks the slice [:, i_k] of core k, and the row is
    the product of the slices. Numbers that occur twice are looked up once.

    >>> embedding = MPOEmbedding.from_dense(nn.Embedding(100, 24), Shape((4, 5, 5), (2, 4, 3)))
    >>> embedding(torch.tensor([[3, 99], [0, 3]])).shape
    torch.Size([2, 2, 24])

    Parameters
    ----------
    mpo : MPO
        Of shape (num_embeddings, embedding_dim).
    padding_idx : int, optional
        A row that gets no gradient of its own; negative ones count from the end.

    Raises
    ------
    ValueError
        If `padding_idx` is no row's number.
    """

    def __init__(self, mpo: MPO, padding_idx: int | None = None):
        super().__init__(mpo)
        rows = mpo.shape.in_size
        if padding_idx is not None and not -rows <= padding_idx < rows:
            raise ValueError(f"padding_idx is a row's number, {-rows} to {rows - 1}, got {padding_idx}")
        self.padding_idx = None if padding_idx is None else padding_idx % rows

    @classmethod
    def from_dense(
        cls, embedding: nn.Embedding, shape: Shape, max_bond: int | None = None, cutoff: float | None = None
    ) -> "MPOEmbedding":
        """Decompose a table. Parameters and errors as in `MPO.from_matrix`; errors of `in_place_of` as well."""
        return cls.in_place_of(embedding, MPO.from_matrix(embedding.weight, shape, max_bond, cutoff))

    @classmethod
    def in_place_of(cls, embedding: nn.Embedding, mpo: MPO) -> "MPOEmbedding":
        """A layer with another table and a dense table's padding row; max_norm and its like are refused by a ValueError."""
        for option in ("max_norm", "scale_grad_by_freq", "sparse"):
            if getattr(embedding, option):
                raise ValueError(f"an MPOEmbedding has no {option}, the given nn.Embedding sets it")
        return cls(mpo, embedding.padding_idx)

    @classmethod
    def random(cls, shape: Shape, max_bond: int | None = None, padding_idx: int | None = None) -> "MPOEmbedding":
        """A new table that spreads as that of a new `nn.Embedding` does: variance 1, the row `padding_idx` like any other."""
        return cls(MPO.random(shape, max_bond), padding_idx)

    def to_dense(self) -> nn.Embedding:
        """The `nn.Embedding` with the same rows, with weights of its own."""
        return nn.Embedding.from_pretrained(self.matrix().detach().clone(), freeze=False, padding_idx=self.padding_idx)

    def forward(self, ids: Tensor) -> Tensor:
        """Map ids of shape (...) to rows of shape (..., embedding_dim).

        Raises
        ------
        IndexError
            If an id is no row's number.
        ValueError
            If the ids are no int32 or int64.
        NotImplementedError
            If the model is being exported.
        """
        if ids.dtype not in (torch.int32, torch.int64):
            raise ValueError(f"ids are int32 or int64, got {ids.dtype}")
        if self._cached_matrix is not None:
            return F.embedding(ids, self._cached_matrix)
        if torch.compiler.is_exporting() or torch.jit.is_tracing():
            raise NotImplementedError(
                "an MPO embedding's lookup cannot be exported, for its steps depend on the ids; export what decompress returns"
            )
        return self._looked_up(ids)

    @torch.compiler.disable  # what there is to do depends on which ids there are
    def _looked_up(self, ids: Tensor) -> Tensor:
        different, places = ids.unique(return_inverse=True)
        with own_precision(ids.device):  # a dense lookup is no product to autocast, either
            rows = self._rows(different)
        if self.padding_idx is not None:
            rows = torch.where((different == self.padding_idx)[:, None], rows.detach(), rows)
        return F.embedding(places, rows)

    def _rows(self, ids: Tensor) -> Tensor:
        cores = self.cores()
        shape = MPO(cores, self.padding).shape
        if len(ids) and not 0 <= ids[0] <= ids[-1] < shape.in_size:  # `unique` has sorted them
            raise IndexError(f"ids are 0 to {shape.in_size - 1}, got {ids[0].item()} to {ids[-1].item()}")
        digits = torch.unravel_index(ids, shape.in_legs)
        rows = cores[0][0, digits[0]]  # (ids, out legs so far, bond)
        for core, digit in zip(cores[1:], digits[1:], strict=True):
            # All rows with one digit meet one slice of the core, in one product.
            order = digit.argsort()
            groups = rows[order].split(digit.bincount(minlength=core.shape[1]).tolist())
            products = [torch.tensordot(group, core[:, k], dims=1) for k, group in enumerate(groups)]
            rows = torch.cat(products)[order.argsort()].flatten(1, 2)
        return rows[:, : shape.out_size, 0]


class TiedLinear(nn.Module):
    """The output layer of a language model whose weight is an MPO embedding's table: it has a bias, and no cores of its own.

    Parameters
    ----------
    embedding : MPOEmbedding
    bias : nn.Parameter of shape (num_embeddings,), optional
        Used as it is, because models tie it as well.
    """

    def __init__(self, embedding: MPOEmbedding, bias: nn.Parameter | None):
        super().__init__()
        self._tied_to = (embedding,)  # in a tuple nn.Module does not see it: its cores are counted where they belong
        self.bias = bias

    @property
    def weight(self) -> Tensor:
        """The table of shape (num_embeddings, embedding_dim)."""
        return self._tied_to[0].matrix()

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (..., embedding_dim) to (..., num_embeddings)."""
        return F.linear(x, self.weight, self.bias)


def own_precision(device: torch.device):
    """Keep autocast from what rebuilds a matrix: a dense layer's is there in the precision of the parameters, too."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def mpo_layers(model: nn.Module) -> list[MPOLayer]:
    """The MPO layers of a model, shared ones once."""
    return [module for module in model.modules() if isinstance(module, MPOLayer)]


@contextmanager
def cached(model: nn.Module):
    """Rebuild each MPO matrix once and keep it while the block runs: for an evaluation, not for training.

    Inside, a layer costs what a dense one costs at most, in time and in memory, and changes to its cores go unseen. A matrix that
    no batch would use is not rebuilt.
    """
    layers = [
        layer
        for layer in mpo_layers(model)
        if layer._cached_matrix is None  # the others are an outer block's
        and layer.route_of_all() is None
    ]
    try:
        with torch.no_grad():
            for layer in layers:
                layer._cached_matrix = contract(layer.cores(), layer.padding)
        yield model
    finally:
        for layer in layers:
            layer._cached_matrix = None


class Rebuilt:
    """The matrices of a model's MPO layers, rebuilt once for all micro-batches of an optimiser step.

    Layers use them until `backward`, which takes the gradients that have come together on the matrices back to the cores, through
    each contraction once. The small cores of layers of one shape are merged side by side. Each central core, nearly as large as
    its matrix, is used where it lies, for to stack them takes longer than it saves. Embeddings are left out: they look up rows.

    Parameters
    ----------
    model : nn.Module
        On one device, nothing of it offloaded.
    """

    def __init__(self, model: nn.Module):
        groups: dict[tuple, list[MPOLinear]] = {}
        for layer in mpo_layers(model):
            if isinstance(layer, MPOLinear) and layer.route_of_all() is None:
                sizes = tuple((tuple(core.shape), core.requires_grad) for core in layer.cores)
                groups.setdefault((sizes, layer.padding), []).append(layer)
        self.layers = [layer for layers in groups.values() for layer in layers]
        with torch.enable_grad():
            self.matrices = [matrix for layers in groups.values() for matrix in _rebuilt(layers)]
        self.leaves = [matrix.detach().requires_grad_(matrix.requires_grad) for matrix in self.matrices]
        for layer, leaf in zip(self.layers, self.leaves, strict=True):
            layer._cached_matrix = leaf

    @property
    def gradients(self) -> list[Tensor]:
        """Of the matrices, each of shape (in, out), as far as backward passes have come."""
        return [leaf.grad for leaf in self.leaves if leaf.grad is not None]

    def backward(self) -> None:
        """Give the cores their gradients, and let the layers rebuild for themselves again."""
        self.forget()
        reached = [matrix for matrix, leaf in zip(self.matrices, self.leaves, strict=True) if leaf.grad is not None]
        if reached:
            torch.autograd.backward(reached, self.gradients)

    def forget(self) -> None:
        """Let the layers rebuild for themselves again, without gradients."""
        for layer in self.layers:
            layer._cached_matrix = None


def _rebuilt(layers: list[MPOLinear]) -> list[Tensor]:
    """The matrices of layers of one shape, laid out as `F.linear` lays out their gradients, so that these are never copied."""
    chains = [layer.cores() for layer in layers]
    centre = len(chains[0]) // 2

    def merged(side: slice) -> tuple[Tensor, ...]:
        stacks = [torch.stack(cores) for cores in zip(*(chain[side] for chain in chains), strict=True)]
        return torch.vmap(merge)(stacks).unbind()

    sides = [merged(side) for side in (slice(centre), slice(centre + 1, None)) if chains[0][side]]
    shorter = zip(sides[0], [chain[centre] for chain in chains], *sides[1:], strict=True)
    return [contract(chain, layers[0].padding, by_columns=True) for chain in shorter]


def matrix_parameters(model: nn.Module) -> set[int]:
    """Which parameters, by `id`, are numbers of matrices: cores, and updates of weights; others are the rest."""
    cores = {id(core) for layer in mpo_layers(model) for core in layer.cores}
    return cores | {id(p) for name, p in model.named_parameters() if ".parametrizations." in name}
