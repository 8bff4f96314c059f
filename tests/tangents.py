"""What moves with the auxiliary cores of an MPO, by autograd and dense solvers: what `maths.reach` is compared with."""

import numpy as np
import torch
from torch import Tensor

from mpo_tutorial.maths.mpo import MPO


def tangent(mpo: MPO) -> np.ndarray:
    """All directions in which the matrix moves with its auxiliary cores, as columns."""
    centre = mpo.shape.central
    auxiliary = [k for k in range(len(mpo.cores)) if k != centre]

    def matrix_of(*cores: Tensor) -> Tensor:
        placed = dict(zip(auxiliary, cores, strict=True))
        return MPO(tuple(placed.get(k, core) for k, core in enumerate(mpo.cores))).to_matrix().flatten()

    jacobians = torch.autograd.functional.jacobian(matrix_of, tuple(mpo.cores[k] for k in auxiliary))
    return torch.cat([jacobian.flatten(1) for jacobian in jacobians], dim=1).numpy()


def projected(columns: np.ndarray, change: Tensor) -> np.ndarray:
    """The part of a change that the columns span."""
    target = change.flatten().numpy()
    return (columns @ np.linalg.lstsq(columns, target, rcond=1e-10)[0]).reshape(change.shape)
