"""The error of a layer's output, told in advance: discarded weights measured by the layer's inputs instead of one by one alike.

Eq. 4 of Liu et al. 2021 bounds ||M - M'||_F, in which every input counts the same. What a model notices is the output,
whose mean squared error is tr (M - M')^T C (M - M') with the second moments C of the inputs. C does not go into a chain: it ties
all legs to each other. But a product of one small matrix for each leg, K = K_1 x ... x K_n, does, and it can be laid above C.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from mpo_tutorial.maths.entropy import Spectra
from mpo_tutorial.maths.linalg import scale_of, svd
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape

DRAWN = 128  # inputs for an estimate
AT_ONCE = 16
FLOOR = 1e-6  # of a leg's largest eigenvalue: below it a direction counts as if it were there


@dataclass(frozen=True, eq=False)
class LegMetric:
    """A product K of one metric for each in leg, by which a matrix is cut and its errors are estimated.

    In the coordinates K^(1/2) M the legs stay apart, so the bonds of the chain are what they were, and the weights s that are
    discarded there bound the output's error. Let c be the least number with C <= c K, that is, with c K - C positive semidefinite
    (`excess`). For D = M - M' then

        tr D^T C D  <=  c tr D^T K D  =  c ||K^(1/2) M - K^(1/2) M'||_F^2  <=  c sum_k eps_k^2,

    the first because each column d of D has d^T C d <= c d^T K d; the last is Eq. 4 in the coordinates, where K^(1/2) M' is what
    K^(1/2) M is cut to (`truncate`). Where the inputs' legs are independent, C = K, c is 1, and with one bond cut it is the error.

    Parameters
    ----------
    shape : Shape
    roots : tuple of n Tensor, the k-th of shape (in_k, in_k), symmetric and positive definite, float64
        K_k^(1/2).
    """

    shape: Shape
    roots: tuple[Tensor, ...]

    @classmethod
    def near(cls, metric: Tensor, shape: Shape) -> "LegMetric":
        """The product of what each leg alone sees of a metric, its partial traces, with the metric's trace.

        Parameters
        ----------
        metric : Tensor of shape (in, in), symmetric and positive semidefinite
            C. Its numbers are not squared.
        shape : Shape
            Of the matrix.

        Raises
        ------
        ValueError
            If the metric is zero or of another size, or a number in it is not finite.
        """
        if tuple(metric.shape) != (shape.in_size, shape.in_size):
            raise ValueError(f"the metric is of {shape.in_size} inputs, got the shape {tuple(metric.shape)}")
        scale = scale_of(metric)
        whole = _padded(metric.detach() / scale, shape)
        trace = whole.trace().item()
        if not trace > 0:
            raise ValueError(f"a metric has a positive trace, got {trace * scale}")
        legs = whole.reshape(*shape.in_legs, *shape.in_legs)
        n, roots = shape.n_cores, []
        for k in range(n):
            places = [*range(n), *(k + n if other == k else other for other in range(n))]
            values, vectors = torch.linalg.eigh(torch.einsum(legs, places, [k, k + n]) / trace)
            values = values.clamp(min=FLOOR * values[-1].item()) * (trace * scale) ** (1 / n)
            roots.append((vectors * values.sqrt()) @ vectors.T)
        return cls(shape, tuple(roots))

    def excess(self, metric: Tensor) -> float:
        """The least c with C <= c K: the largest eigenvalue of K^(-1/2) C K^(-1/2), computed in float64."""
        apart = _padded(metric.detach(), self.shape)
        for _ in range(2):  # from the right and, transposed, from the left
            apart = self._on_legs(apart, [torch.linalg.inv(root) for root in self.roots]).T
        return torch.linalg.eigvalsh(apart)[-1].item()

    def to_coordinates(self, matrix: Tensor) -> Tensor:
        """K^(1/2) M, of the padded size and in float64, of a matrix of shape (in, out)."""
        rows, columns = self.shape.padding
        return self._on_legs(pad(matrix.detach().double(), (0, columns, 0, rows)), self.roots)

    def from_coordinates(self, mpo: MPO) -> MPO:
        """The chain of M from one of K^(1/2) M: a small matrix goes into each core. The centre ends on the central core."""
        back = [torch.linalg.inv(root) for root in self.roots]
        cores = (torch.einsum("xi,aiob->axob", root, core) for root, core in zip(back, mpo.cores, strict=True))
        return MPO(tuple(cores), self.shape.padding).canonize(self.shape.central)

    def spectra(self, matrix: Tensor) -> Spectra:
        """The Schmidt values of K^(1/2) M: from them `Spectra.bound`, times the root of the excess, bounds the output's error."""
        return Spectra.of(self.to_coordinates(matrix), _without_padding(self.shape))

    def truncate(self, matrix: Tensor, bonds: tuple[int, ...]) -> MPO:
        """A matrix of shape (in, out) cut to n - 1 bonds where in the coordinates it loses least; cores in its dtype."""
        cut = MPO.from_matrix(self.to_coordinates(matrix), _without_padding(self.shape), bonds)
        mpo = self.from_coordinates(cut)
        return MPO(tuple(core.to(matrix.dtype) for core in mpo.cores), mpo.padding)

    def _on_legs(self, matrix: Tensor, factors) -> Tensor:
        columns = matrix.shape[1]
        legs = matrix.reshape(*self.shape.in_legs, columns)
        for (
            factor
        ) in factors:  # each moves its axis to the end, where it stays: after all of them the order is as before
            legs = torch.tensordot(legs, factor.T.to(legs.device), dims=([0], [0]))  # pyright: ignore[reportArgumentType]
        return legs.reshape(columns, -1).T


def output_spectra(matrix: Tensor, shape: Shape, metric: Tensor, seed: int = 0) -> Spectra:
    """Spectra whose discarded weights are what the plain cut of one bond loses of the output, mean square: an estimate for chains.

    At a bond M is a sum of s_j u_j x v_j over its Schmidt vectors. Cut there to d it loses of an input x the vector
    sum_{j > d} s_j x (u_j x v_j), for every d at once by sums from the end. Inputs are drawn with the second moments C, `DRAWN` of
    them, so the squares are right to a few per cent. Where a wider bond loses more, since what a Schmidt vector adds may be undone
    by the next, the narrower one's loss stands for both: weights do not rise.

    Parameters
    ----------
    matrix : Tensor of shape (in, out)
    shape : Shape
    metric : Tensor of shape (in, in), symmetric and positive semidefinite
        C.
    seed : int
        Of the inputs that are drawn.
    """
    shape.require_size(matrix)
    rows, columns = shape.padding
    metric = metric.detach().double().to(matrix.device)
    values, vectors = torch.linalg.eigh(metric)
    drawn = torch.randn(DRAWN, len(metric), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    inputs = pad((drawn.to(matrix.device) * values.clamp(min=0).sqrt()) @ vectors.T / DRAWN**0.5, (0, rows)).float()
    legs = pad(matrix.detach().double(), (0, columns, 0, rows))
    found = []
    for bond in range(1, shape.n_cores):
        left, right = (
            (math.prod(i), math.prod(o))
            for i, o in ((shape.in_legs[:bond], shape.out_legs[:bond]), (shape.in_legs[bond:], shape.out_legs[bond:]))
        )
        unfolded = legs.reshape(left[0], right[0], left[1], right[1]).transpose(1, 2).reshape(math.prod(left), -1)
        u, s, vh = (part.to(matrix.device) for part in svd(unfolded.cpu()))  # a GPU takes far longer
        u, vh = (u * s).float().reshape(*left, -1), vh.float().reshape(-1, *right)
        lost = torch.zeros(len(s), dtype=torch.float64, device=matrix.device)
        for x in inputs.reshape(DRAWN, left[0], right[0]).split(AT_ONCE):
            halves = torch.einsum("nab,acj->jncb", x, u).flatten(1, 2)
            whole = torch.bmm(halves, vh).flatten(1)
            lost += whole.flip(0).cumsum(0).flip(0).square().sum(1, dtype=torch.float64)
        lost = lost.flip(0).cummax(0).values.flip(0)
        weights = lost - torch.cat([lost[1:], lost.new_zeros(1)])
        found.append(weights.clamp(min=0).sqrt().cpu().numpy())
    return Spectra(shape, tuple(found))


def output_error(matrix: Tensor, approximation: Tensor, metric: Tensor) -> float:
    """Root of tr (M - M')^T C (M - M'), computed in float64: of the output's mean squared error, summed over its numbers.

    Parameters
    ----------
    matrix, approximation : Tensor of shape (in, out)
    metric : Tensor of shape (in, in)
    """
    difference = matrix.detach().double() - approximation.detach().double()
    return max(0.0, (difference * (metric.detach().double() @ difference)).sum().item()) ** 0.5


def _padded(metric: Tensor, shape: Shape) -> Tensor:
    """In float64; to rows that padding adds there is no input."""
    rows = shape.padding[0]
    return pad(metric.double(), (0, rows, 0, rows))


def _without_padding(shape: Shape) -> Shape:
    return Shape(shape.in_legs, shape.out_legs)
