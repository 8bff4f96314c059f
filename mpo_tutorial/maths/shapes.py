"""Splitting the two sides of a matrix into legs, one pair of legs for each core."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from numbers import Integral
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

N_CORES = 5  # the paper's choice
MOST_CORES = 64  # a side below 2 ** 64 has no more prime factors

# Liu et al. 2021, appendix: the matrices of ALBERT and BERT, five cores each. What the appendix prints for BERT's own
# embedding does not multiply out; `balanced_shape(30522, 768)` is a shape that does.
_PAPER = {
    "albert_embedding": ((5, 10, 10, 10, 6), (2, 2, 4, 4, 2)),
    "feed_forward_in": ((3, 4, 4, 4, 4), (4, 4, 8, 6, 4)),
    "feed_forward_out": ((4, 4, 8, 6, 4), (3, 4, 4, 4, 4)),
    "attention": ((3, 4, 4, 4, 4), (4, 4, 4, 4, 3)),
}


@dataclass(frozen=True)
class Shape:
    """How an (in x out) matrix is cut into n cores: its in legs and its out legs.

    >>> shape = Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))
    >>> shape.in_size, shape.out_size
    (384, 384)
    >>> shape.full_bonds
    (6, 96, 96, 6)
    >>> Shape((8, 8, 10, 8, 6), (3, 4, 4, 4, 4), padding=(198, 0)).in_size
    30522

    Parameters
    ----------
    in_legs, out_legs : tuple of int
        The paper's i_1..i_n and j_1..j_n. Equally many of both, two at least, each one at least.
    padding : (int, int)
        Rows and columns of zeros that are added to the matrix at its end, where its sizes do not split well.

    Raises
    ------
    ValueError
        If the numbers of legs differ, or are below two, or a leg is no positive integer, or the padding leaves nothing.
    """

    in_legs: tuple[int, ...]
    out_legs: tuple[int, ...]
    padding: tuple[int, int] = (0, 0)

    def __post_init__(self):
        for name in ("in_legs", "out_legs", "padding"):
            try:
                object.__setattr__(self, name, tuple(getattr(self, name)))
            except TypeError as error:
                raise ValueError(f"{name} is a tuple of integers, got {getattr(self, name)!r}") from error
        if len(self.in_legs) != len(self.out_legs):
            raise ValueError(
                f"a shape needs equally many in legs and out legs, got {len(self.in_legs)} {self.in_legs} "
                f"and {len(self.out_legs)} {self.out_legs}"
            )
        if len(self.in_legs) < 2:
            raise ValueError(f"a shape needs at least 2 legs on each side, got {self.in_legs}")
        for leg in (*self.in_legs, *self.out_legs):
            if not is_integer(leg) or leg < 1:
                raise ValueError(f"a leg is a positive integer, got {leg!r} in {self.in_legs}, {self.out_legs}")
        object.__setattr__(self, "in_legs", tuple(map(int, self.in_legs)))  # NumPy's integers overflow
        object.__setattr__(self, "out_legs", tuple(map(int, self.out_legs)))
        if len(self.padding) != 2:
            raise ValueError(f"padding is a pair, rows and columns, got {self.padding!r}")
        for zeros, size in zip(self.padding, self.padded_size, strict=True):
            if not is_integer(zeros) or not 0 <= zeros < size:
                raise ValueError(f"padding is an integer from 0 to {size - 1} here, got {zeros!r} in {self.padding!r}")
        object.__setattr__(self, "padding", tuple(map(int, self.padding)))

    @classmethod
    def of(cls, shape: "Shape | tuple[Sequence[int], Sequence[int]]") -> "Shape":
        """A shape as it is, or made of a pair (in legs, out legs)."""
        if isinstance(shape, Shape):
            return shape
        try:
            in_legs, out_legs = (tuple(legs) for legs in shape)
        except (TypeError, ValueError) as error:
            raise ValueError(f"a shape is a Shape or a pair of tuples (in legs, out legs), got {shape!r}") from error
        return cls(in_legs, out_legs)

    @property
    def padded_size(self) -> tuple[int, int]:
        """The products of the legs."""
        return math.prod(self.in_legs), math.prod(self.out_legs)

    @property
    def in_size(self) -> int:
        """Rows of the matrix, without padding."""
        return self.padded_size[0] - self.padding[0]

    @property
    def out_size(self) -> int:
        """Columns of the matrix, without padding."""
        return self.padded_size[1] - self.padding[1]

    @property
    def n_cores(self) -> int:
        return len(self.in_legs)

    @property
    def central(self) -> int:
        """Number n // 2 of the central core, counted from 0, for even n too."""
        return self.n_cores // 2

    @property
    def pairs(self) -> tuple[int, ...]:
        """The product of in leg and out leg of each core."""
        return tuple(i * j for i, j in zip(self.in_legs, self.out_legs, strict=True))

    @property
    def full_bonds(self) -> tuple[int, ...]:
        """The n - 1 inner bond dimensions without truncation (Liu et al. 2021, Eq. 2)."""
        pairs = self.pairs
        return tuple(min(math.prod(pairs[:k]), math.prod(pairs[k:])) for k in range(1, len(pairs)))

    def n_params(self, bonds: Sequence[int]) -> int:
        """Parameters of n cores with these n - 1 inner bonds: the numerator of Liu et al. 2021, Eq. 5.

        >>> Shape((3, 4, 4, 4, 4), (4, 4, 4, 4, 3)).n_params((12, 192, 192, 12))
        663840
        """
        return sum(self.n_params_each(bonds))

    def n_params_each(self, bonds: Sequence[int]) -> tuple[int, ...]:
        """Parameters of each core with these n - 1 inner bonds."""
        ends = pairwise((1, *self.one_for_each(bonds), 1))
        return tuple(left * pair * right for (left, right), pair in zip(ends, self.pairs, strict=True))

    def one_for_each(self, bonds: Sequence[int]) -> tuple[int, ...]:
        """The inner bonds as a tuple; a ValueError if they are not n - 1 integers from 1 to the full bonds."""
        bonds, full = tuple(bonds), self.full_bonds
        if len(bonds) != len(full):
            raise ValueError(f"{self.n_cores} cores have {len(full)} inner bonds, got {len(bonds)}: {bonds}")
        for bond, most in zip(bonds, full, strict=True):
            if not is_integer(bond) or not 1 <= bond <= most:
                raise ValueError(f"a bond dimension here is an integer from 1 to {most}, got {bond!r} in {bonds}")
        return tuple(map(int, bonds))

    def usable(self, bonds: Sequence[int]) -> tuple[int, ...]:
        """What is left of some bonds by the fact that none exceeds what a neighbour can use, its bond times the pair between.

        >>> Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3)).usable((3, 96, 96, 3))
        (3, 48, 48, 3)
        """
        found = [1, *self.one_for_each(bonds), 1]
        for k, pair in enumerate(self.pairs):
            found[k + 1] = min(found[k + 1], found[k] * pair)
        for k, pair in reversed([*enumerate(self.pairs)]):
            found[k] = min(found[k], found[k + 1] * pair)
        return tuple(found[1:-1])

    def to_cut(self, bonds: Sequence[int]) -> tuple[int, ...]:
        """Caps that end at the usable part of some bonds, full where a bond's neighbours alone force it.

        A bond that is forced loses nothing of its own: to cut it first would throw away what the others then keep anyway.

        >>> Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3)).to_cut((3, 48, 48, 3))
        (3, 96, 96, 3)
        """
        found = list(self.usable(bonds))
        goal = tuple(found)
        for k, full in enumerate(self.full_bonds):
            wider = [*found[:k], full, *found[k + 1 :]]
            if self.usable(wider) == goal:
                found = wider
        return tuple(found)

    def require_size(self, matrix: "Tensor") -> None:
        """Refuse a matrix that is not of this shape, by a ValueError."""
        if tuple(matrix.shape) != (self.in_size, self.out_size):
            padding = f" less the padding {self.padding}" if any(self.padding) else ""
            raise ValueError(
                f"the legs must multiply out to the matrix: {self.in_legs} x {self.out_legs}{padding} is "
                f"{self.in_size} x {self.out_size}, the matrix {' x '.join(map(str, matrix.shape)) or 'a number'}"
            )

    def caps(self, max_bond: int | Sequence[int] | None) -> tuple[int, ...]:
        """The largest dimension that each inner bond may have, from one cap for all, one for each, or none."""
        if max_bond is None:
            return self.full_bonds
        if isinstance(max_bond, (Sequence, np.ndarray)) and not isinstance(max_bond, str):
            return self.one_for_each(max_bond)
        if not is_integer(max_bond) or max_bond < 1:
            raise ValueError(f"a bond dimension is a positive integer, got {max_bond!r}")
        return tuple(min(bond, int(max_bond)) for bond in self.full_bonds)


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is an integer, of Python or NumPy; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def paper_shape(name: str) -> Shape:
    """A shape of the appendix of Liu et al. 2021, by name.

    >>> paper_shape("attention").full_bonds
    (12, 192, 192, 12)

    Raises
    ------
    ValueError
        If the name is none of albert_embedding, feed_forward_in, feed_forward_out, attention.
    """
    if name not in _PAPER:
        raise ValueError(f"the paper's shapes are {', '.join(_PAPER)}, got {name!r}")
    return Shape(*_PAPER[name])


def balanced_legs(size: int, n: int, larger_side: str = "left") -> tuple[int, ...]:
    """Split `size` into n factors as even as its primes allow, the largest in the middle.

    Each prime, largest first, goes to the leg that is smallest so far. `larger_side` says on which side of the middle
    the larger of two legs goes; in legs and out legs take opposite sides, which evens out their products.

    >>> balanced_legs(384, 5)
    (3, 4, 4, 4, 2)
    >>> balanced_legs(384, 5, "right")
    (2, 4, 4, 4, 3)

    Raises
    ------
    ValueError
        If `size` is below 1, n below 2 or above 64, or `larger_side` neither "left" nor "right".
    """
    _check_split(size, n)
    if larger_side not in ("left", "right"):
        raise ValueError(f"larger_side is 'left' or 'right', got {larger_side!r}")
    legs = [1] * n
    for prime in reversed(_primes(size)):
        legs[legs.index(min(legs))] *= prime
    middle, *rest = sorted(legs, reverse=True)
    larger, smaller = rest[0::2], rest[1::2]
    left, right = (larger, smaller) if larger_side == "left" else (smaller, larger)
    if len(left) < n // 2:  # n is even: one leg more stands left of the middle than right of it
        left.append(right.pop())
    return (*reversed(left), middle, *right)


def splittable_size(size: int, n: int) -> int:
    """The size itself if it splits well into n legs, else the next one that has only the primes 2, 3 and 5.

    It splits well if its largest prime is at most 7 or at most twice an even leg, size ** (1 / n).

    >>> splittable_size(768, 5), splittable_size(784, 4), splittable_size(30522, 5), splittable_size(97, 3)
    (768, 784, 30720, 100)

    Raises
    ------
    ValueError
        If `size` is below 1, or n below 2 or above 64.
    """
    _check_split(size, n)
    if max(_primes(size), default=1) <= max(7, 2 * size ** (1 / n)):
        return size
    while max(_primes(size)) > 5:
        size += 1
    return size


def balanced_shape(in_size: int, out_size: int, n: int = N_CORES) -> Shape:
    """Shape of an (in_size x out_size) matrix in n cores whose full bonds peak beside the central core.

    A side that does not split well is padded with zeros; the shape says with how many.

    >>> balanced_shape(384, 1536)
    Shape(in_legs=(3, 4, 4, 4, 2), out_legs=(4, 4, 6, 4, 4), padding=(0, 0))
    >>> balanced_shape(384, 1536).full_bonds
    (12, 192, 128, 8)
    >>> balanced_shape(30522, 768).padding
    (198, 0)

    Raises
    ------
    ValueError
        If a size is below 1, or n below 2 or above 64.
    """
    in_padded, out_padded = splittable_size(in_size, n), splittable_size(out_size, n)
    return Shape(
        balanced_legs(in_padded, n, "left"),
        balanced_legs(out_padded, n, "right"),
        (in_padded - in_size, out_padded - out_size),
    )


def usual_shape(in_size: int, out_size: int, n: int = N_CORES) -> Shape:
    """The paper's shape of a matrix of this size where its appendix lists one, with five cores; else `balanced_shape`.

    >>> usual_shape(30000, 128) == paper_shape("albert_embedding"), usual_shape(384, 384) == balanced_shape(384, 384)
    (True, True)
    """
    shapes = [Shape(*legs) for legs in _PAPER.values()] if n == N_CORES else []
    found = [shape for shape in shapes if (shape.in_size, shape.out_size) == (in_size, out_size)]
    return found[0] if found else balanced_shape(in_size, out_size, n)


def blocks_of(shape: Shape) -> tuple[int, int]:
    """Sides of the two square blocks that turn a matrix of this shape in the form "A M B" (`MPO.from_blocks`).

    >>> blocks_of(balanced_shape(384, 1536))
    (192, 128)
    """
    left, right = (math.prod(shape.pairs[part]) for part in (slice(shape.central), slice(shape.central + 1, None)))
    return left, right


def sized_blocks(in_size: int, out_size: int, n_params: float) -> Shape:
    """The shape in three cores whose two blocks hold about so many numbers together, and are as even as can be.

    Of all ways to split the sides, those within a twentieth of `n_params` count, or else the nearest one. A side that does not
    split well is padded, as in `balanced_shape`.

    >>> blocks_of(sized_blocks(384, 1536, n_params=55_000))
    (128, 192)

    Raises
    ------
    ValueError
        If a size is below 1.
    """
    padded, splits = _block_splits(in_size, out_size)
    fits = [(max(abs(numbers - n_params) / n_params, 0.05), uneven, legs) for numbers, uneven, legs in splits]
    (a, c), (b, d) = min(fits)[2]
    return Shape(
        (a, padded[0] // (a * c), c), (b, padded[1] // (b * d), d), (padded[0] - in_size, padded[1] - out_size)
    )


@cache
def _block_splits(in_size: int, out_size: int) -> tuple[tuple[int, int], list[tuple[int, float, tuple]]]:
    """The padded size, and of each way to split off two blocks: the numbers in them, how uneven it is, and the outer legs."""
    padded = splittable_size(in_size, 3), splittable_size(out_size, 3)
    ends = [[(a, c) for a in _divisors(size) for c in _divisors(size // a)] for size in padded]
    found = []
    for (a, c), (b, d) in product(*ends):
        left, right, pairs = a * b, c * d, math.prod(padded)
        if left**2 <= pairs and right**2 <= pairs and left * right <= pairs:  # neither block has more rows than columns
            uneven = math.prod(max(pair) / min(pair) for pair in ((left, right), (a, b), (c, d)))
            found.append((left**2 + right**2, uneven, ((a, c), (b, d))))
    return padded, found


def _check_split(size: int, n: int) -> None:
    if not is_integer(size) or not is_integer(n) or size < 1 or n < 2:
        raise ValueError(f"a side of at least 1 is split into at least 2 legs, got size {size!r} and {n!r} legs")
    if n > MOST_CORES:
        raise ValueError(
            f"a matrix is split into at most {MOST_CORES} cores, because more than a side has prime factors only add legs of 1, "
            f"got {n}; take fewer"
        )


def _primes(size: int) -> list[int]:
    """The prime factors in rising order, by trial division: a side of a matrix is small."""
    primes, divisor, left = [], 2, int(size)
    while divisor * divisor <= left:
        if left % divisor:
            divisor += 1
        else:
            primes.append(divisor)
            left //= divisor
    return [*primes, left] if left > 1 else primes


def _divisors(size: int) -> list[int]:
    return [k for k in range(1, size + 1) if size % k == 0]
