"""A convolution whose kernel is an MPO: from the numbers under the window to the channels that come out."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape
from mpo_tutorial.models.layers import MPOLayer, own_bias


class MPOConv2d(MPOLayer):
    """`nn.Conv2d` with its kernel kept as the cores of an MPO.

    The MPO stands for the matrix of shape (in_channels kh kw, out_channels) that maps what lies under the window to what comes
    out (Gao et al. 2020): rows in the order of `nn.Conv2d`'s kernel, channel by channel, in each row by row. The forward pass
    rebuilds it and convolves once. There is one group of channels, and what lies beside the image is zero.

    >>> layer = MPOConv2d.random(Shape((8, 9, 8), (4, 4, 8)), (3, 3), max_bond=4, padding=1)
    >>> layer(torch.randn(2, 64, 10, 10)).shape, sum(core.numel() for core in layer.cores)
    (torch.Size([2, 128, 10, 10]), 960)

    Parameters
    ----------
    mpo : MPO
        Of shape (in_channels kh kw, out_channels).
    kernel_size : (int, int)
        kh and kw.
    bias : Tensor of shape (out_channels,), optional
    stride, padding, dilation : int or (int, int); of padding also "same" and "valid"
        As in `nn.Conv2d`.

    Raises
    ------
    ValueError
        If the window does not divide the MPO's rows, or the bias has another size.
    """

    def __init__(
        self,
        mpo: MPO,
        kernel_size: tuple[int, int],
        bias: Tensor | None = None,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
    ):
        super().__init__(mpo)
        places = math.prod(kernel_size)
        if len(kernel_size) != 2 or places < 1 or mpo.shape.in_size % places:
            raise ValueError(
                f"a kernel has its channels times two sides of a window as rows, {mpo.shape.in_size} rows are no multiple of "
                f"{' x '.join(map(str, kernel_size))}"
            )
        self.kernel_size = tuple(kernel_size)
        self.how = {"stride": stride, "padding": padding, "dilation": dilation}
        self.bias = own_bias(bias, mpo.shape)

    @property
    def in_channels(self) -> int:
        return self.mpo.shape.in_size // math.prod(self.kernel_size)

    @classmethod
    def from_dense(
        cls, conv: nn.Conv2d, shape: Shape, max_bond: int | None = None, cutoff: float | None = None
    ) -> "MPOConv2d":
        """Decompose a dense layer. Parameters and errors as in `MPO.from_matrix`; errors of `in_place_of` as well."""
        return cls.in_place_of(conv, MPO.from_matrix(conv.weight.flatten(1).T, shape, max_bond, cutoff))

    @classmethod
    def in_place_of(cls, conv: nn.Conv2d, mpo: MPO) -> "MPOConv2d":
        """A layer with another kernel and a dense layer's bias and steps. Several groups, or a border that is not zero, are refused
        by a ValueError.
        """
        if conv.groups != 1 or conv.padding_mode != "zeros":
            raise ValueError(
                f"an MPOConv2d has one group and zeros beside the image, got {conv.groups} groups and {conv.padding_mode}"
            )
        return cls(mpo, conv.kernel_size, conv.bias, conv.stride, conv.padding, conv.dilation)

    @classmethod
    def random(
        cls,
        shape: Shape | tuple,
        kernel_size: tuple[int, int],
        max_bond: int | None = None,
        bias: bool = True,
        generator: torch.Generator | None = None,
        **how,
    ) -> "MPOConv2d":
        """A new layer whose kernel has the mean square 2 / in_size, with which a ReLU after it keeps the variance (He et al. 2015);
        the bias is 0.

        The numbers of a chain with small bonds are not independent, and their mean square differs much from draw to draw: here it
        is made exact, for else a deep network would blow up or fade.
        """
        mpo = MPO.random(shape, max_bond, generator=generator)
        spread = (2 / mpo.shape.in_size) ** 0.5
        mpo = (spread * math.sqrt(mpo.shape.in_size * mpo.shape.out_size) / mpo.norm()) * mpo
        return cls(mpo, kernel_size, torch.zeros(mpo.shape.out_size) if bias else None, **how)

    def kernel(self) -> Tensor:
        """As `nn.Conv2d` has it: of shape (out_channels, in_channels, kh, kw)."""
        matrix = self.matrix()
        return matrix.T.reshape(matrix.shape[1], -1, *self.kernel_size)

    def to_dense(self) -> nn.Conv2d:
        """The `nn.Conv2d` that computes the same, with weights of its own."""
        kernel = self.kernel().detach()
        options = {**self.how, "bias": self.bias is not None, "device": kernel.device, "dtype": kernel.dtype}
        conv = nn.Conv2d(kernel.shape[1], kernel.shape[0], self.kernel_size, **options)
        with torch.no_grad():
            conv.weight.copy_(kernel)
            if conv.bias is not None and self.bias is not None:
                conv.bias.copy_(self.bias)
        return conv

    def forward(self, x: Tensor) -> Tensor:
        """Map images of shape (..., in_channels, height, width) to (..., out_channels, height', width').

        Raises
        ------
        ValueError
            If they have another number of channels.
        """
        if x.shape[-3] != self.in_channels:
            raise ValueError(
                f"images have {self.in_channels} channels here, got {x.shape[-3]} in the shape {tuple(x.shape)}"
            )
        return F.conv2d(x, self.kernel(), self.bias, **self.how)

    def extra_repr(self) -> str:
        how = ", ".join(f"{name} {value}" for name, value in self.how.items())
        return f"{super().extra_repr()}, window {' x '.join(map(str, self.kernel_size))}, {how}"
