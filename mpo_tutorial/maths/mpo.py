"""A matrix written as a matrix product operator (MPO), in numerics a tensor-train matrix.

The MPO stands for the matrix M of shape (in, out) in y = x M, the paper's orientation. (`torch.nn.Linear` keeps the
transpose.) Its n cores form a chain; core k has the axes (bond_left, in_k, out_k, bond_right)::

        out_1     out_2     out_3     out_4     out_5
          |         |         |         |         |
        core 0 -- core 1 -- core 2 -- core 3 -- core 4        core 2: central, the others: auxiliary
          |    d_1  |    d_2  |    d_3  |    d_4  |
         in_1      in_2      in_3      in_4      in_5

TensorLy decomposes; what is ours is the gauge (`gauge`), the signs (`linalg`), the algebra and the counts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from numbers import Real
from typing import TYPE_CHECKING, NoReturn

import tensorly as tl
import torch
from tensorly.tt_matrix import TTMatrix
from torch import Tensor
from torch.nn.functional import pad

from mpo_tutorial.maths.contraction import Route, cheapest_route, contract, merge
from mpo_tutorial.maths.gauge import cut_bonds, move_centre, tensor_train
from mpo_tutorial.maths.linalg import frobenius_norm, require_floating, scale_of
from mpo_tutorial.maths.shapes import Shape, is_integer


@dataclass(frozen=True, eq=False)
class MPO:
    """A matrix as a chain of cores.

    Liu et al. 2021 write it prod_k T(k)[d_{k-1}, i_k, j_k, d_k]: their T(k) is our `cores[k - 1]`, their d_k
    `bonds[k - 1]`. Every method leaves the MPO as it is. Gradients flow through `to_matrix`, `apply` and the algebra, not
    through what decomposes: `canonize`, `truncate`, `norm`, `inner`.

    >>> torch.manual_seed(0)  # doctest: +ELLIPSIS
    <torch._C.Generator ...>
    >>> mpo = MPO.from_matrix(torch.randn(384, 384), ((3, 4, 4, 4, 2), (2, 4, 4, 4, 3)))
    >>> mpo.bonds, mpo.n_params, round(mpo.ratio, 3)
    ((6, 96, 96, 6), 165960, 1.125)
    >>> mpo.truncate(32)
    MPO of a 384 x 384 matrix in 5 cores, bonds 6.32.32.6: 22,600 numbers, ratio 0.1533
      2    4    4    4    3
      |    |    |    |    |
      o-6--o-32-#-32-o-6--o
      |    |    |    |    |
      3    4    4    4    2

    Parameters
    ----------
    cores : tuple of Tensor, core k of shape (bond_left, in_k, out_k, bond_right)
        Two at least; the outer bonds are 1.
    padding : (int, int)
        As in `Shape`: rows and columns at the end that `to_matrix` leaves out.

    Raises
    ------
    ValueError
        If the cores do not chain, or their numbers are integers or complex.
    """

    cores: tuple[Tensor, ...]
    padding: tuple[int, int] = (0, 0)

    def __post_init__(self):
        cores = tuple(self.cores)
        object.__setattr__(self, "cores", cores)
        for core in cores:
            require_floating(core)
        sizes = [tuple(core.shape) for core in cores]
        four = len(sizes) >= 2 and all(len(size) == 4 and min(size) >= 1 for size in sizes)
        if not four or [size[0] for size in sizes] + [1] != [1] + [size[3] for size in sizes]:
            raise ValueError(
                "cores must chain: two or more of shape (bond_left, in, out, bond_right), the bonds between neighbours "
                f"equal, the outer ones 1; got {sizes}"
            )
        if len({(core.dtype, core.device) for core in cores}) > 1:
            kinds = ", ".join(f"{core.dtype} on {core.device}" for core in cores)
            raise ValueError(f"all cores need one dtype and one device, got {kinds}")
        object.__setattr__(self, "padding", self.shape.padding)

    @classmethod
    def from_matrix(
        cls,
        matrix: Tensor,
        shape: Shape | tuple[Sequence[int], Sequence[int]],
        max_bond: int | Sequence[int] | None = None,
        cutoff: float | None = None,
    ) -> "MPO":
        """Decompose a matrix by TT-SVD, with the orthogonality centre on the central core.

        Parameters
        ----------
        matrix : Tensor of shape (in, out), floating point
            Half precision is computed in float32, float32 with the help of float64 (`linalg.split`); the cores have the
            matrix's dtype and device, and no gradient flows back.
        shape : Shape, or a pair of tuples (in legs, out legs)
        max_bond : int or sequence of n - 1 ints, optional
            A cap on every bond dimension, or a cap for each: a bond that its neighbours cannot use comes out smaller, and one
            that they force is not cut for itself (`Shape.to_cut`).
            Without it, and without a cutoff, the bonds are full and nothing is lost but rounding.
        cutoff : float, optional
            As in `truncate`.

        Raises
        ------
        ValueError
            If the legs do not multiply out to the matrix, it is no floating point matrix, a number in it is not
            finite, its norm exceeds its dtype, or a bond or the cutoff is out of range.
        """
        shape = Shape.of(shape)
        require_floating(matrix)
        shape.require_size(matrix)
        caps = shape.to_cut(shape.caps(max_bond))
        _check_cutoff(cutoff)
        rows, columns = shape.padding
        scale = scale_of(matrix)
        legs = matrix.detach().to(_working(matrix.dtype))
        legs = pad(legs if scale == 1 else legs / scale, (0, columns, 0, rows))
        legs = legs.reshape(*shape.in_legs, *shape.out_legs)
        if cutoff is None:
            mpo = cls(tuple(tensor_train(legs, caps, shape.central)), shape.padding)._usable()
        else:
            whole = tensor_train(legs, shape.full_bonds, shape.central)
            mpo = cls(tuple(whole), shape.padding).truncate(caps, cutoff)
        mpo = (mpo if scale == 1 else scale * mpo)._to(matrix.dtype)
        if matrix.dtype == torch.float16 and not torch.isfinite(mpo.central).all():
            raise ValueError(f"the norm, which the central core carries, exceeds {matrix.dtype}; decompose in float32")
        return mpo

    @classmethod
    def from_blocks(cls, matrix: Tensor, shape: Shape | tuple[Sequence[int], Sequence[int]]) -> "MPO":
        """The matrix itself between two identities, "A M B": three cores, nothing decomposed, rebuilt to the last bit.

        The legs left of the central ones are one, and those right of them. The trained cores of light fine-tuning, A on the left
        legs and B on the right ones, reach the same matrices from here as from `from_matrix` at full bond.

        >>> MPO.from_blocks(torch.randn(384, 384), Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))).bonds
        (96, 96)

        Parameters
        ----------
        matrix : Tensor of shape (in, out), floating point
        shape : Shape, or a pair of tuples (in legs, out legs)

        Raises
        ------
        ValueError
            If the legs do not multiply out to the matrix, or those of one side are more than all others.
        """
        shape = Shape.of(shape)
        require_floating(matrix)
        shape.require_size(matrix)
        c = shape.central
        outer = [(math.prod(legs[:c]), legs[c], math.prod(legs[c + 1 :])) for legs in (shape.in_legs, shape.out_legs)]
        left, pair, right = (i * j for i, j in zip(*outer, strict=True))
        if left > pair * right or right > left * pair:
            raise ValueError(
                "between two blocks the legs of each side are at most as many as all others together, got "
                f"{left} x {pair} x {right}"
            )
        rows, columns = shape.padding
        legs = pad(matrix, (0, columns, 0, rows)).reshape(*outer[0], *outer[1])
        centre = legs.permute(0, 3, 1, 4, 2, 5).reshape(left, outer[0][1], outer[1][1], right)
        one = {"dtype": matrix.dtype, "device": matrix.device}
        a = torch.eye(left, **one).reshape(1, outer[0][0], outer[1][0], left)
        b = torch.eye(right, **one).reshape(right, outer[0][2], outer[1][2], 1)
        return cls((a, centre.contiguous(), b), shape.padding)

    @classmethod
    def identity(cls, legs: Sequence[int], dtype: torch.dtype | None = None) -> "MPO":
        """The identity on prod(legs) dimensions: every bond is 1."""
        legs = Shape.of((legs, legs)).in_legs
        return cls(tuple(torch.eye(leg, dtype=dtype)[None, :, :, None] for leg in legs))

    @classmethod
    def random(
        cls,
        shape: Shape | tuple[Sequence[int], Sequence[int]],
        max_bond: int | Sequence[int] | None = None,
        std: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> "MPO":
        """Independent normal cores, such that the numbers in the matrix have standard deviation `std`.

        Each is a sum over prod(bonds) paths of products of n core entries, whence the spread of an entry.
        """
        shape = Shape.of(shape)
        ends = (1, *shape.caps(max_bond), 1)
        spread = (std**2 / math.prod(ends)) ** (1 / (2 * shape.n_cores))
        legs = zip(ends, shape.in_legs, shape.out_legs, ends[1:], strict=False)
        return cls(tuple(spread * torch.randn(core, generator=generator) for core in legs), shape.padding)

    @classmethod
    def ising(cls, n_sites: int, field: float, coupling: float = 1.0) -> "MPO":
        """The transverse-field Ising Hamiltonian of an open chain, -J sum Z_i Z_{i+1} - h sum X_i, in float64.

        Its bonds are 3: so much has to be remembered between two sites, namely whether the sum's term is still to come,
        has begun with a Z here, or is complete.

        Raises
        ------
        ValueError
            If the number of sites is below 2, or field or coupling is not finite.
        """
        if not is_integer(n_sites) or n_sites < 2:
            raise ValueError(f"a chain has an integer number of sites from 2, got {n_sites!r}")
        if not (math.isfinite(field) and math.isfinite(coupling)):
            raise ValueError(f"field and coupling are finite numbers, got {field!r} and {coupling!r}")
        z, x, one = torch.tensor([[[1, 0], [0, -1]], [[0, 1], [1, 0]], [[1, 0], [0, 1]]], dtype=torch.float64)
        core = torch.zeros(3, 2, 2, 3, dtype=torch.float64)  # bond 0: to come, 1: begun, 2: complete
        core[0, :, :, 0] = core[2, :, :, 2] = one
        core[0, :, :, 1], core[1, :, :, 2], core[0, :, :, 2] = z, -coupling * z, -field * x
        return cls((core[:1].clone(), *[core.clone() for _ in range(n_sites - 2)], core[..., 2:].clone()))

    @classmethod
    def from_tensorly(cls, tt_matrix: TTMatrix) -> "MPO":
        """An MPO of the factors of TensorLy's TT-matrix, of its PyTorch or NumPy backend; it shares their memory."""
        return cls(tuple(torch.as_tensor(core) for core in tt_matrix.factors))

    def to_tensorly(self) -> TTMatrix:
        """TensorLy's TT-matrix, of the padded matrix; it shares the cores' memory."""
        with tl.backend_context("pytorch", local_threadsafe=True):  # pyright: ignore[reportAttributeAccessIssue]
            return TTMatrix(list(self.cores))

    @property
    def shape(self) -> Shape:
        return Shape(
            tuple(core.shape[1] for core in self.cores), tuple(core.shape[2] for core in self.cores), self.padding
        )

    @property
    def bonds(self) -> tuple[int, ...]:
        """The n - 1 inner bond dimensions."""
        return tuple(core.shape[3] for core in self.cores[:-1])

    @property
    def full_bonds(self) -> tuple[int, ...]:
        """The bonds without truncation (Liu et al. 2021, Eq. 2)."""
        return self.shape.full_bonds

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
        return contract(self.cores, self.padding)

    def apply(self, x: Tensor, route: Route | None = None) -> Tensor:
        """x M, sent through the chain; the matrix is never formed.

        Parameters
        ----------
        x : Tensor of shape (..., in)
        route : Route, optional
            None: the cheapest for so many rows (`contraction.cheapest_route`).

        Returns
        -------
        Tensor of shape (..., out)
        """
        shape = self.shape
        if x.shape[-1] != shape.in_size:
            raise ValueError(f"x must end in an axis of {shape.in_size}, got the shape {tuple(x.shape)}")
        batch = math.prod(x.shape[:-1])
        route = route or cheapest_route(shape, self.bonds, batch)
        starts = [0, *accumulate(route.groups)]
        cores = [merge(self.cores[start:stop]) for start, stop in pairwise(starts)]
        (to_do, _), done = shape.padded_size, 1
        state = pad(x, (0, self.padding[0]))
        for core in reversed(cores) if route.backwards else cores:
            left, i, j, right = core.shape
            to_do, before, done = to_do // i, done, done * j
            if route.backwards:
                state = torch.einsum("ztibo,aijb->ztajo", state.reshape(batch, to_do, i, right, before), core)
            else:
                state = torch.einsum("zobit,bijr->zojrt", state.reshape(batch, before, left, i, to_do), core)
        return state.reshape(*x.shape[:-1], shape.padded_size[1])[..., : shape.out_size]

    def canonize(self, centre: int) -> "MPO":
        """The same matrix with the orthogonality centre on core `centre`.

        Every core left of it becomes a left isometry, every core right of it a right isometry. A bond shrinks to what
        the cores on its side away from the centre can use.

        Raises
        ------
        ValueError
            If `centre` is no core's number, or a core is not finite.
        """
        n = len(self.cores)
        if not is_integer(centre) or not 0 <= centre < n:
            raise ValueError(f"the centre is a core's number, 0 to {n - 1}, got {centre!r}")
        for core in self.cores:
            scale_of(core)
        cores = list(self._to(_working(self.cores[0].dtype)).cores)
        move_centre(cores, centre)
        return MPO(tuple(cores), self.padding)._to(self.cores[0].dtype)

    def truncate(self, max_bond: int | Sequence[int] | None = None, cutoff: float | None = None) -> "MPO":
        """Cut the bonds, each at its best; the centre ends on the central core.

        The gauge that it starts from does not matter: the orthogonality centre is brought to the first core, then
        travels right, and each bond is cut where the centre is. There the discarded singular values are the error
        (Liu et al. 2021, Eq. 3, with squares), and the errors of all bonds together obey their Eq. 4.

        Parameters
        ----------
        max_bond : int or sequence of n - 1 ints, optional
            A cap on every bond dimension, or one for each. A bond that its neighbours force is not cut for itself
            (`Shape.to_cut`).
        cutoff : float in [0, 1), optional
            Relative discarded weight: at each bond as many of the smallest singular values go as together have at
            most this share of the squared norm. Without a `max_bond` the relative error is at most
            sqrt((n - 1) cutoff), up to rounding.

        Raises
        ------
        ValueError
            If neither is given, or one is out of range, or a core is not finite.
        """
        if max_bond is None and cutoff is None:
            raise ValueError("truncate needs a max_bond or a cutoff, got neither")
        _check_cutoff(cutoff)
        dtype = self.cores[0].dtype
        caps = self.shape.to_cut(self.shape.caps(max_bond))
        cores = list(self._to(_working(dtype)).canonize(0).cores)
        scale = cut_bonds(cores, caps, cutoff)
        return (scale * MPO(tuple(cores), self.padding).canonize(self.shape.central)._usable())._to(dtype)

    def norm(self) -> float:
        """Frobenius norm of the (padded) matrix, without forming it."""
        return frobenius_norm(self._to(torch.float64).canonize(0).cores[0])

    def inner(self, other: "MPO") -> float:
        """Sum of the products of both (padded) matrices' entries, tr(A^T B), without forming them."""
        self._require_like(other)
        meeting = torch.ones(1, 1, dtype=torch.float64, device=self.cores[0].device)
        for mine, its in zip(self.cores, other.cores, strict=True):
            half = torch.tensordot(meeting.T, mine.detach().double(), dims=1)
            meeting = torch.einsum("bijc,bijd->cd", half, its.detach().double())
        return meeting.item()

    def __add__(self, other: "MPO") -> "MPO":
        """The sum: bonds add up. `truncate` brings them down again."""
        if not isinstance(other, MPO):
            return NotImplemented
        self._require_like(other)
        last = len(self.cores) - 1
        cores = []
        for k, (mine, its) in enumerate(zip(self.cores, other.cores, strict=True)):
            if k == 0:
                cores.append(torch.cat([mine, its], dim=3))
            elif k == last:
                cores.append(torch.cat([mine, its], dim=0))
            else:
                above, below = pad(mine, (0, its.shape[3])), pad(its, (mine.shape[3], 0))
                cores.append(torch.cat([above, below], dim=0))
        return MPO(tuple(cores), self.padding)

    def __mul__(self, factor: float) -> "MPO":
        """The matrix times a number, which goes into the central core."""
        if not isinstance(factor, Real):
            return NotImplemented
        centre = self.shape.central
        cores = (factor * core if k == centre else core.clone() for k, core in enumerate(self.cores))
        return MPO(tuple(cores), self.padding)

    __rmul__ = __mul__

    def __matmul__(self, other: "MPO") -> "MPO":
        """The matrix product: bonds multiply."""
        if not isinstance(other, MPO):
            return NotImplemented
        if self.shape.out_legs != other.shape.in_legs or self.padding[1] or other.padding[0]:
            raise ValueError(
                "a product needs the out legs of the left to be the in legs of the right, without padding; got "
                f"{self.shape} and {other.shape}"
            )
        cores = []
        dtype = torch.promote_types(self.cores[0].dtype, other.cores[0].dtype)
        for mine, its in zip(self.cores, other.cores, strict=True):
            mine, its = mine.to(dtype), its.to(dtype)
            core = torch.einsum("aijb,cjkd->acikbd", mine, its)
            cores.append(core.flatten(4, 5).flatten(0, 1))
        return MPO(tuple(cores), (self.padding[0], other.padding[1]))

    def draw(self) -> str:
        """The chain as text: out legs above, in legs below, bonds between, the central core as #."""
        bonds = [str(bond) for bond in self.bonds]
        width = max(len(label) for label in (*bonds, *map(str, (*self.shape.in_legs, *self.shape.out_legs)))) + 2
        nodes = ["#" if k == self.shape.central else "o" for k in range(len(self.cores))]
        chain = nodes[0] + "".join(b.center(width, "-") + node for b, node in zip(bonds, nodes[1:], strict=True))

        def above_nodes(labels: Sequence[object]) -> str:
            return "".join(str(label).center(width + 1) for label in labels).rstrip()

        start = " " * (width // 2)
        sticks = above_nodes(["|"] * len(nodes))
        legs = self.shape
        return "\n".join([above_nodes(legs.out_legs), sticks, (start + chain), sticks, above_nodes(legs.in_legs)])

    def __repr__(self) -> str:
        """What it is of and how large, and its drawing; no number in it is looked at."""
        shape, bonds = self.shape, ".".join(map(str, self.bonds))
        return (
            f"MPO of a {shape.in_size} x {shape.out_size} matrix in {shape.n_cores} cores, bonds {bonds}: "
            f"{self.n_params:,} numbers, ratio {self.ratio:.4g}\n{self.draw()}"
        )

    if not TYPE_CHECKING:  # a checker would take every name for an attribute

        def __getattr__(self, name: str) -> NoReturn:
            text = "MPO.compress is now MPO.truncate" if name == "compress" else f"an MPO has no attribute {name!r}"
            raise AttributeError(text, name=name, obj=self)

    def _to(self, dtype: torch.dtype) -> "MPO":
        """Cut off from autograd, in another dtype."""
        return MPO(tuple(core.detach().to(dtype).contiguous() for core in self.cores), self.padding)

    def _usable(self) -> "MPO":
        """The same with no bond wider than the cores on either side can use; the centre is on the central core before and after."""
        return self if self.bonds == self.shape.usable(self.bonds) else self.canonize(0).canonize(self.shape.central)

    def _require_like(self, other: "MPO") -> None:
        if self.shape != other.shape:
            raise ValueError(f"both MPOs need the same legs and padding, got {self.shape} and {other.shape}")


def _check_cutoff(cutoff: float | None) -> None:
    if cutoff is not None and not (isinstance(cutoff, Real) and not isinstance(cutoff, bool) and 0 <= cutoff < 1):
        raise ValueError(f"a cutoff lies in [0, 1), got {cutoff!r}")


def _working(dtype: torch.dtype) -> torch.dtype:
    """What is precise enough to orthogonalise in."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
