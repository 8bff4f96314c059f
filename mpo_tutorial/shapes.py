"""Splitting the two sides of a matrix into legs, one pair of legs for each core."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """How an (in x out) matrix is cut into n cores: its in legs and its out legs.

    >>> shape = Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))
    >>> shape.in_size, shape.out_size
    (384, 384)
    >>> shape.full_bonds
    (6, 96, 96, 6)

    Parameters
    ----------
    in_legs, out_legs : tuple of int
        The paper's i_1..i_n and j_1..j_n. Equally many of both, two at least, each one at least.

    Raises
    ------
    ValueError
        If the numbers of legs differ, or are below two, or a leg is no positive integer.
    """

    in_legs: tuple[int, ...]
    out_legs: tuple[int, ...]

    def __post_init__(self):
        if len(self.in_legs) != len(self.out_legs):
            raise ValueError(
                f"a shape needs equally many in legs and out legs, got {len(self.in_legs)} {self.in_legs} "
                f"and {len(self.out_legs)} {self.out_legs}"
            )
        if len(self.in_legs) < 2:
            raise ValueError(f"a shape needs at least 2 legs on each side, got {self.in_legs}")
        for leg in self.in_legs + self.out_legs:
            if not isinstance(leg, int) or isinstance(leg, bool) or leg < 1:
                raise ValueError(f"a leg is a positive integer, got {leg!r} in {self.in_legs}, {self.out_legs}")

    @property
    def in_size(self) -> int:
        return math.prod(self.in_legs)

    @property
    def out_size(self) -> int:
        return math.prod(self.out_legs)

    @property
    def n_cores(self) -> int:
        return len(self.in_legs)

    @property
    def central(self) -> int:
        """Number of the central core, counted from 0: n // 2, for even n too."""
        return self.n_cores // 2

    @property
    def full_bonds(self) -> tuple[int, ...]:
        """The n - 1 inner bond dimensions without truncation (Liu et al. 2021, Eq. 2)."""
        pairs = [i * j for i, j in zip(self.in_legs, self.out_legs, strict=True)]
        return tuple(min(math.prod(pairs[:k]), math.prod(pairs[k:])) for k in range(1, len(pairs)))


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
        If `size` is below 1, n below 2 or `larger_side` neither "left" nor "right".
    """
    if size < 1 or n < 2:
        raise ValueError(f"a side of at least 1 is split into at least 2 legs, got size {size} and {n} legs")
    if larger_side not in ("left", "right"):
        raise ValueError(f"larger_side is 'left' or 'right', got {larger_side!r}")
    from sympy import factorint  # comes with torch, and takes half a second to import

    legs = [1] * n
    for prime in reversed(factorint(size, multiple=True)):
        legs[legs.index(min(legs))] *= prime
    middle, *rest = sorted(legs, reverse=True)
    larger, smaller = rest[0::2], rest[1::2]
    left, right = (larger, smaller) if larger_side == "left" else (smaller, larger)
    if len(left) < n // 2:  # n is even: one leg more stands left of the middle than right of it
        left.append(right.pop())
    return (*reversed(left), middle, *right)


def balanced_shape(in_size: int, out_size: int, n: int = 5) -> Shape:
    """Shape of an (in_size x out_size) matrix in n cores whose full bonds peak beside the central core.

    >>> balanced_shape(384, 1536)
    Shape(in_legs=(3, 4, 4, 4, 2), out_legs=(4, 4, 6, 4, 4))
    >>> balanced_shape(384, 1536).full_bonds
    (12, 192, 128, 8)
    """
    return Shape(balanced_legs(in_size, n, "left"), balanced_legs(out_size, n, "right"))
