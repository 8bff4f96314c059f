"""Lists of cores: decomposing, moving the orthogonality centre, cutting the bonds.

Between two cores any invertible matrix and its inverse may stand: the same matrix has many chains, and to choose one is to
choose a gauge. In the gauge of a centre the cores left of it are isometries from the left, those right of it from the right,
so that the centre carries the norm. All cores here have the axes (bond_left, in, out, bond_right), and no gradient.
"""

import math
from collections.abc import Sequence

import tensorly as tl
import torch
from tensorly.decomposition import tensor_train_matrix
from torch import Tensor

from mpo_tutorial.maths.linalg import positive_qr, scale_of, split, svd


def tensor_train(legs: Tensor, bonds: Sequence[int], centre: int) -> list[Tensor]:
    """TT-SVD by TensorLy, with the orthogonality centre on a core.

    Parameters
    ----------
    legs : Tensor of shape (*in_legs, *out_legs)
        A matrix. Its numbers are squared.
    bonds : sequence of n - 1 ints
        A cap for each: a bond that its neighbours cannot use comes out smaller.
    centre : int, 0 to n - 1
    """
    with tl.backend_context("pytorch", local_threadsafe=True):  # pyright: ignore[reportAttributeAccessIssue]
        cores = tensor_train_matrix(legs, rank=(1, *bonds, 1), svd=split).factors  # pyright: ignore[reportArgumentType]
    # TT-SVD leaves isometries, exact ones as long as an unfolding is no taller than it is wide.
    pairs = [core.shape[1] * core.shape[2] for core in cores]
    heights = (len(core) * pair for core, pair in zip(cores, pairs, strict=True))
    tall = (k for k, height in enumerate(heights) if height > math.prod(pairs[k + 1 :]))
    move_centre(cores, centre, next(tall, centre))
    return cores


def move_centre(cores: list[Tensor], centre: int, first: int = 0, last: int | None = None) -> None:
    """The cores of the same matrix with the centre on number `centre`, put into the list.

    Those before `first` and after `last` (None: the last core) are isometries from their sides already.

    A bond shrinks to what the cores on its side away from the centre can use.
    """
    for k in range(first, centre):
        left, *legs, right = cores[k].shape
        q, r = positive_qr(cores[k].reshape(-1, right))
        cores[k] = q.reshape(left, *legs, -1)
        cores[k + 1] = torch.tensordot(r, cores[k + 1], dims=1)
    for k in range(len(cores) - 1 if last is None else last, centre, -1):
        left, *legs, right = cores[k].shape
        q, r = positive_qr(cores[k].reshape(left, -1).T)
        cores[k] = q.T.reshape(-1, *legs, right)
        cores[k - 1] = torch.tensordot(cores[k - 1], r.T, dims=1)


def cut_bonds(cores: list[Tensor], caps: Sequence[int], cutoff: float | None) -> float:
    """Cut every bond where the centre is, from the first core, where it must be, to the last.

    There the discarded singular values are the error (Liu et al. 2021, Eq. 3, with squares).

    Parameters
    ----------
    cores : list of n Tensor
        Changed in place.
    caps : sequence of n - 1 ints
    cutoff : float in [0, 1), optional
        The share of the squared norm that each bond may discard.

    Returns
    -------
    float : what the matrix of the cores is to be multiplied by; 1 unless its numbers could not be squared
    """
    scale = scale_of(cores[0])
    cores[0] = cores[0] / scale
    allowed = (cutoff or 0) * torch.linalg.vector_norm(cores[0].double()) ** 2
    for k, cap in enumerate(caps):
        left, *legs, right = cores[k].shape
        u, s, vh = svd(cores[k].reshape(-1, right))
        if cutoff is not None:
            discarded = s.double().square().flip(0).cumsum(0).flip(0)  # [j]: weight of all from j on
            cap = min(cap, max(1, int((discarded > allowed).sum())))
        cores[k] = u[:, :cap].reshape(left, *legs, -1)
        cores[k + 1] = torch.tensordot(s[:cap, None] * vh[:cap], cores[k + 1], dims=1)
    return scale
