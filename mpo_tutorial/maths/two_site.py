"""Two-site sweeps: two neighbouring cores at once, so that the bond between them is chosen anew where it is used.

The way of DMRG (White 1992; Schollwoeck 2011, section 6). One core alone cannot change a bond. Two merged cores hold what the
rest of the chain lets through of the matrix; an SVD parts them again, and the bond between them gets the values that count now.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from mpo_tutorial.maths.contraction import merge
from mpo_tutorial.maths.fitting import Environment
from mpo_tutorial.maths.linalg import relative_error, scale_of, svd
from mpo_tutorial.maths.mpo import MPO


def two_site(mpo: MPO, matrix: Tensor, max_bond: int | Sequence[int], sweeps: int = 1) -> MPO:
    """Bring an MPO closer to a matrix under caps on its bonds, whatever bonds it has now; a local optimum, not the best there is.

    Where the MPO keeps to the caps from the start, its error ||M - M'||_F does not grow: for each pair what is put in is the best
    of its bond, the rest being orthonormal.

    Parameters
    ----------
    mpo : MPO
        Where to start; it is cut to the caps first.
    matrix : Tensor of shape (in, out)
        M.
    max_bond : int or sequence of n - 1 ints
        As in `MPO.truncate`.
    sweeps : int
        How often to go from the first pair of cores to the last and back.

    Returns
    -------
    MPO : in the dtype of the cores, with the centre on the central core

    Raises
    ------
    ValueError
        If a cap is out of range, or a number in the cores or the matrix is not finite.
    """
    dtype, scale = mpo.cores[0].dtype, scale_of(matrix)
    target = matrix.detach().double() / scale
    shape = mpo.shape
    caps, n = shape.usable(shape.caps(max_bond)), shape.n_cores
    start = mpo.truncate(caps)
    found = 1 / scale * MPO(tuple(core.double() for core in start.cores), mpo.padding)
    before = relative_error(found.to_matrix(), target)
    for k in (*range(n - 1), *range(n - 3, -1, -1)) * sweeps:
        # Now all cores but these two are isometries: what they let through of the matrix is the best that the pair can be.
        cores = list(found.canonize(k).cores)
        rest = Environment([*cores[:k], merge(cores[k : k + 2]), *cores[k + 2 :]], k, mpo.padding)
        pair = rest.core(target)
        left, *_, right = pair.shape
        legs = [core.shape[1:3] for core in cores[k : k + 2]]
        pair = pair.reshape(left, legs[0][0], legs[1][0], legs[0][1], legs[1][1], right).permute(0, 1, 3, 2, 4, 5)
        u, s, vh = svd(pair.reshape(left * legs[0].numel(), -1))
        cap = min(caps[k], max(1, int((s > torch.finfo(s.dtype).eps * s[0]).sum())))
        cores[k] = u[:, :cap].reshape(left, *legs[0], cap)
        cores[k + 1] = (s[:cap, None] * vh[:cap]).reshape(cap, *legs[1], right)
        found = MPO(tuple(cores), mpo.padding)
    if relative_error(found.to_matrix(), target) > before:  # by rounding, where there was nothing to gain
        return start
    found = scale * found.canonize(shape.central)
    return MPO(tuple(core.to(dtype) for core in found.cores), mpo.padding)
