"""Network layers whose weight matrix is an MPO."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpo_tutorial.mpo import MPO, contract
from mpo_tutorial.shapes import Shape


class MPOLinear(nn.Module):
    """`nn.Linear` with its weight kept as the cores of an MPO, each core a parameter of its own.

    The forward pass rebuilds the matrix from the cores and multiplies once. Sending the input through the chain, core
    by core, costs more multiplications at the bond dimensions of this course.

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
        super().__init__()
        self.set_mpo(mpo)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self._cached_matrix = None

    @classmethod
    def from_dense(cls, linear: nn.Linear, shape: Shape, max_bond: int | None = None) -> "MPOLinear":
        """Decompose a dense layer. Errors as in `MPO.from_matrix`."""
        return cls(MPO.from_matrix(linear.weight.T, shape, max_bond), linear.bias)

    @property
    def mpo(self) -> MPO:
        """The weight as an MPO, sharing the cores' memory and cut off from autograd."""
        return MPO(tuple(core.detach() for core in self.cores))

    @property
    def central(self) -> nn.Parameter:
        """The central core, the one that light fine-tuning leaves alone."""
        return self.cores[len(self.cores) // 2]

    def set_mpo(self, mpo: MPO) -> None:
        """Replace all cores, as after a truncation. The new parameters are trainable."""
        self.cores = nn.ParameterList(nn.Parameter(core.detach().clone()) for core in mpo.cores)

    def forward(self, x: Tensor) -> Tensor:
        """Map x of shape (..., in_features) to (..., out_features)."""
        matrix = contract(self.cores) if self._cached_matrix is None else self._cached_matrix
        return F.linear(x, matrix.T, self.bias)

    def extra_repr(self) -> str:
        mpo = self.mpo
        legs = " x ".join(".".join(map(str, side)) for side in (mpo.shape.in_legs, mpo.shape.out_legs))
        bonds = ".".join(map(str, mpo.bonds))
        return f"{mpo.shape.in_size} -> {mpo.shape.out_size}, legs {legs}, bonds {bonds}, ratio {mpo.ratio:.3f}"


def mpo_layers(model: nn.Module) -> list[MPOLinear]:
    """The MPO layers of a model, shared ones once."""
    return [module for module in model.modules() if isinstance(module, MPOLinear)]


@contextmanager
def cached(model: nn.Module):
    """Rebuild each MPO matrix once and keep it while the block runs: for an evaluation, not for training.

    Inside, a layer costs what a dense one costs, in time and in memory, and changes to its cores go unseen.
    """
    layers = mpo_layers(model)
    try:
        with torch.no_grad():
            for layer in layers:
                layer._cached_matrix = contract(layer.cores)
        yield model
    finally:
        for layer in layers:
            layer._cached_matrix = None
