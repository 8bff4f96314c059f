"""Fitting cut cores to what a layer is given: the output's error made small, not the weight's.

A layer's inputs x do not fill all directions alike. With their second moments C = E[x^T x] the mean squared error of the
output, summed over its numbers, is tr (M - M')^T C (M - M'). In one core, with the others held, that is a linear
least-squares problem; a sweep improves one after the other, each by a few steps of conjugate gradients. One could multiply
C^(1/2) into the matrix, cut, and divide it out again, but its inverse is no small MPO, and the bonds would grow back.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad

from mpo_tutorial.maths.contraction import contract, merge
from mpo_tutorial.maths.gauge import move_centre
from mpo_tutorial.maths.linalg import scale_of
from mpo_tutorial.maths.mpo import MPO

SETTLED = 3e-3  # share of the squared error below which a sweep is the last
MOST_SWEEPS = 50
STEPS = 4  # of conjugate gradients at each core: its neighbours change afterwards, so more would be wasted


def fit(mpo: MPO, matrix: Tensor, metric: Tensor, sweeps: int | None = None) -> MPO:
    """Improve the cores of an MPO at the same bonds: the error tr (M - M')^T C (M - M') does not grow.

    Where it ends is a local optimum: no core alone can do better, several together might, and another start may end elsewhere.
    A core's neighbours are orthogonalised before its turn: the problem is then as well conditioned as C is. The centre ends on
    the central core.

    Parameters
    ----------
    mpo : MPO
        Where to start.
    matrix : Tensor of shape (in, out)
        M.
    metric : Tensor of shape (in, in), symmetric and positive definite
        C.
    sweeps : int, optional
        How often to go from the first core to the last and back, with `STEPS` steps at each. With 0 only the centre moves. None:
        until a sweep takes less than the share `SETTLED` off the squared error, `MOST_SWEEPS` at most.

    Raises
    ------
    ValueError
        If a number in the cores, the matrix or the metric is not finite.
    """
    start, n = mpo.cores[0].dtype, len(mpo.cores)
    dtype, scale = torch.promote_types(start, torch.float32), scale_of(matrix)
    matrix, metric = (matrix.detach() / scale).to(dtype), (metric.detach() / scale_of(metric)).to(dtype)
    mpo, target = 1 / scale * MPO(tuple(core.detach().to(dtype) for core in mpo.cores), mpo.padding), metric @ matrix
    plain, cores, centre = mpo, list(mpo.canonize(0).cores), 0
    before = last = after = _squared_error(matrix - mpo.to_matrix(), metric)
    for _ in range(MOST_SWEEPS if sweeps is None else sweeps):
        for k in (*range(n), *range(n - 2, 0, -1)):
            move_centre(cores, k, first=min(centre, k), last=max(centre, k))
            centre, rest = k, Environment(cores, k, mpo.padding)
            operator = partial(rest.normal, metric)
            cores[k] = _conjugate_gradients(operator, rest.core(target), cores[k])
        mpo = MPO(tuple(cores), mpo.padding)
        after = _squared_error(matrix - mpo.to_matrix(), metric)
        if sweeps is None and not last - after > SETTLED * last:
            break
        last = after
    mpo = mpo if after.abs() < before else plain  # not in exact arithmetic, but by rounding a step may lead away
    return MPO(tuple(core.to(start) for core in (scale * mpo.canonize(n // 2)).cores), mpo.padding)


def _squared_error(error: Tensor, metric: Tensor) -> Tensor:
    return (error * (metric @ error)).sum()


class Environment:
    """All cores but number k: the linear map from that core to the matrix, and its transpose.

    Parameters
    ----------
    cores : sequence of n Tensor
    k : int, 0 to n - 1
    padding : (int, int)
        As in `Shape`.
    """

    def __init__(self, cores: Sequence[Tensor], k: int, padding: tuple[int, int]):
        one = cores[k].new_ones(1, 1, 1, 1)
        self.left, self.right = merge([one, *cores[:k]]), merge([*cores[k + 1 :], one])
        self.legs = [[core.shape[axis] for core in (self.left, cores[k], self.right)] for axis in (1, 2)]
        self.padding = padding

    def matrix(self, core: Tensor) -> Tensor:
        return contract((self.left, core, self.right), self.padding)

    def core(self, matrix: Tensor) -> Tensor:
        rows, columns = self.padding
        legs = pad(matrix, (0, columns, 0, rows)).reshape(*self.legs[0], *self.legs[1])
        half = torch.einsum("ijb,icxjdy->bcxdy", self.left[0], legs)
        return torch.einsum("bcxdy,exy->bcde", half, self.right[..., 0])

    def normal(self, metric: Tensor, core: Tensor) -> Tensor:
        """The operator of the normal equations."""
        return self.core(metric @ self.matrix(core))


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], target: Tensor, start: Tensor) -> Tensor:
    """A better solution x of apply(x) = target, `apply` being linear, symmetric, positive semidefinite, target in its range.

    Along a direction in which `apply` is zero the curvature is what rounding makes of it, of either sign or nothing at all:
    there is nothing to be gained there, and no step is taken.
    """
    x, residual = start, target - apply(start)
    direction, squared = residual, residual.square().sum()
    eps = torch.finfo(target.dtype).eps
    rounding = eps * target.square().sum()
    for _ in range(STEPS):
        if squared <= rounding:
            break
        image = apply(direction)
        curvature = (direction * image).sum()
        length = squared / curvature
        step = length * direction
        if not (curvature > eps * direction.norm() * image.norm() and torch.isfinite(step).all()):
            break
        x, residual = x + step, residual - length * image
        before, squared = squared, residual.square().sum()
        direction = residual + squared / before * direction
    return x
