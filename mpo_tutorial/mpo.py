"""A matrix written as a matrix product operator (MPO), in numerics a tensor-train matrix.

The MPO stands for the matrix M of shape (in, out) in y = x M, the paper's orientation. (`torch.nn.Linear` keeps the
transpose.) Its n cores form a chain; core k has the axes (bond_left, in_k, out_k, bond_right):

        out_1     out_2     out_3     out_4     out_5
          |         |         |         |         |
        core 0 -- core 1 -- core 2 -- core 3 -- core 4        core 2: central, the others: auxiliary
          |    d_1  |    d_2  |    d_3  |    d_4  |
         in_1      in_2      in_3      in_4      in_5

TensorLy does the tensor-train mathematics; what is ours is the gauge, the signs and the counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import tensorly as tl
import torch
from tensorly.decomposition import tensor_train_matrix
from tensorly.tt_matrix import tt_matrix_to_matrix
from torch import Tensor

from mpo_tutorial.shapes import Shape


def contract(cores: Sequence[Tensor]) -> Tensor:
    """The (in, out) matrix that a chain of cores stands for. Gradients flow through it.

    Parameters
    ----------
    cores : sequence of Tensor, each of shape (bond_left, in_k, out_k, bond_right)

    Returns
    -------
    Tensor of shape (in_1 * .. * in_n, out_1 * .. * out_n)
    """
    with tl.backend_context("pytorch", local_threadsafe=True):
        return tt_matrix_to_matrix(list(cores))


@dataclass(frozen=True)
class MPO:
    """A matrix as a chain of cores.

    Liu et al. 2021 write it prod_k T(k)[d_{k-1}, i_k, j_k, d_k]: their T(k) is our `cores[k - 1]`, their d_k
    `bonds[k - 1]`. Every method leaves the MPO as it is and returns a new one.

    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch._C.Generator ...>
    >>> mpo = MPO.from_matrix(torch.randn(384, 384), Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3)))
    >>> mpo.bonds, mpo.n_params, round(mpo.ratio, 3)
    ((6, 96, 96, 6), 165960, 1.125)
    >>> mpo.compress(32).bonds
    (6, 32, 32, 6)
    """

    cores: tuple[Tensor, ...]

    @classmethod
    def from_matrix(cls, matrix: Tensor, shape: Shape, max_bond: int | None = None) -> "MPO":
        """Decompose a matrix by TT-SVD, with the orthogonality centre on the central core.

        Parameters
        ----------
        matrix : Tensor of shape (in, out), floating point
        shape : Shape
            Legs whose products are (in, out).
        max_bond : int, optional
            Cap on every bond dimension. Without it the bonds are full and nothing is lost but rounding.

        Raises
        ------
        ValueError
            If the legs do not multiply out to the matrix, a number in it is not finite, or `max_bond` is below 1.
        """
        if tuple(matrix.shape) != (shape.in_size, shape.out_size):
            raise ValueError(
                f"the legs must multiply out to the matrix: {shape.in_legs} x {shape.out_legs} is "
                f"{shape.in_size} x {shape.out_size}, the matrix {' x '.join(map(str, matrix.shape))}"
            )
        if not torch.isfinite(matrix).all():
            row, column = (~torch.isfinite(matrix)).nonzero()[0].tolist()
            raise ValueError(
                f"a matrix to decompose must be finite, got {matrix[row, column]} in row {row}, column {column}"
            )
        legs = matrix.detach().double().reshape(*shape.in_legs, *shape.out_legs)
        rank = (1, *_capped(shape.full_bonds, max_bond), 1)
        with tl.backend_context("pytorch", local_threadsafe=True):
            cores = tensor_train_matrix(legs, rank=rank, svd=_svd).factors
        mpo = cls(tuple(cores))._centre_moved_left(from_core=shape.n_cores - 1, to_core=shape.central)
        return cls(tuple(core.to(matrix.dtype).contiguous() for core in mpo.cores))

    @property
    def shape(self) -> Shape:
        return Shape(tuple(core.shape[1] for core in self.cores), tuple(core.shape[2] for core in self.cores))

    @property
    def bonds(self) -> tuple[int, ...]:
        """The n - 1 inner bond dimensions."""
        return tuple(core.shape[3] for core in self.cores[:-1])

    @property
    def central(self) -> Tensor:
        return self.cores[self.shape.central]

    @property
    def auxiliary(self) -> tuple[Tensor, ...]:
        return tuple(core for k, core in enumerate(self.cores) if k != self.shape.central)

    @property
    def n_params(self) -> int:
        return sum(core.numel() for core in self.cores)

    @property
    def ratio(self) -> float:
        """Parameters of the cores over those of the matrix (Liu et al. 2021, Eq. 5). Above 1 at full bond."""
        return self.n_params / (self.shape.in_size * self.shape.out_size)

    def to_matrix(self) -> Tensor:
        """The matrix of shape (in, out)."""
        return contract(self.cores)

    def compress(self, max_bond: int) -> "MPO":
        """Cut every bond to at most `max_bond`, each at its best; the centre ends on the central core.

        The gauge that it starts from does not matter: the orthogonality centre is brought to the first core, then
        travels right, and each bond is cut where the centre is. There the discarded singular values are the error
        (Liu et al. 2021, Eq. 3, with squares), and the errors of all bonds together obey their Eq. 4.

        Raises
        ------
        ValueError
            If `max_bond` is below 1.
        """
        n, dtype = len(self.cores), self.cores[0].dtype
        bonds = _capped(self.bonds, max_bond)
        double = MPO(tuple(core.detach().double() for core in self.cores))
        cores = list(double._centre_moved_left(from_core=n - 1, to_core=0).cores)
        for k, bond in enumerate(bonds):
            left, *legs, right = cores[k].shape
            u, s, vh = _svd(cores[k].reshape(-1, right))
            bond = min(bond, len(s))
            cores[k] = u[:, :bond].reshape(left, *legs, bond)
            cores[k + 1] = torch.tensordot(s[:bond, None] * vh[:bond], cores[k + 1], dims=1)
        mpo = MPO(tuple(cores))._centre_moved_left(from_core=n - 1, to_core=self.shape.central)
        return MPO(tuple(core.to(dtype).contiguous() for core in mpo.cores))

    def _centre_moved_left(self, from_core: int, to_core: int) -> "MPO":
        """Make every core right of `to_core`, up to `from_core`, a right isometry, and push the rest leftwards."""
        cores = list(self.cores)
        for k in range(from_core, to_core, -1):
            left, *legs, right = cores[k].shape
            q, r = torch.linalg.qr(cores[k].reshape(left, -1).T)
            signs = torch.where(r.diagonal() < 0, -1.0, 1.0).to(r)
            cores[k] = (q * signs).T.reshape(-1, *legs, right)
            cores[k - 1] = torch.tensordot(cores[k - 1], (signs[:, None] * r).T, dims=1)
        return MPO(tuple(cores))


def _capped(bonds: tuple[int, ...], max_bond: int | None) -> tuple[int, ...]:
    if max_bond is None:
        return bonds
    if not isinstance(max_bond, int) or isinstance(max_bond, bool) or max_bond < 1:
        raise ValueError(f"a bond dimension is a positive integer, got {max_bond!r}")
    return tuple(min(bond, max_bond) for bond in bonds)


def _svd(matrix: Tensor, n_eigenvecs: int | None = None, **_ignored) -> tuple[Tensor, Tensor, Tensor]:
    """SVD in the form that TensorLy's `svd=` asks for (it also hands over a `random_state`, of no use here).

    A wide matrix goes through its small Gram matrix. The squares in it halve the digits of the smallest singular
    values; in float64 that leaves eight, more than float32 cores can hold. U comes from a symmetric eigenproblem, so it
    is orthonormal to the last digit.
    """
    rows, columns = matrix.shape
    if columns < 2 * rows:
        u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    else:
        u = torch.linalg.eigh(matrix @ matrix.T).eigenvectors.flip(1)
        projected = u.T @ matrix
        s = torch.linalg.vector_norm(projected, dim=1)
        vh = projected / s.clamp(min=torch.finfo(s.dtype).tiny)[:, None]
    return u[:, :n_eigenvecs], s[:n_eigenvecs], vh[:n_eigenvecs]


def relative_error(approximation: Tensor, matrix: Tensor) -> float:
    """Frobenius norm of the difference over that of `matrix`; 0 if both are zero.

    >>> relative_error(torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    0.8
    """
    difference = torch.linalg.vector_norm((approximation - matrix).double()).item()
    norm = torch.linalg.vector_norm(matrix.double()).item()
    return difference / norm if norm else (math.inf if difference else 0.0)
