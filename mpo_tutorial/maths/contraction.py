"""From the cores back to the matrix, in the cheaper of two orders; rows through the chain, by the cheapest route; their costs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor

from mpo_tutorial.maths.shapes import Shape

# Multiplications of a large product in the time in which a number is laid out anew for the next, and in that which it takes to
# begin the products of a chain, on a CPU. In 164 cases (shapes of VGG, FC2, BERT and others, bonds 1 to 32, 1 to 512 rows), with
# the matrix there and without, `worthwhile_route` chose the chain in none where it was slower by more than a twentieth; it missed
# 31 in which the chain would have saved a fifth or more.
MOVED, BEGUN = 128, 2_000_000


def contract(cores: Sequence[Tensor], padding: tuple[int, int] = (0, 0), *, by_columns: bool = False) -> Tensor:
    """The (in, out) matrix that a chain of cores stands for. Gradients flow through it.

    The cores left of the central one are merged, and those right of it. Then the central core meets first the side with
    which the work of light fine-tuning is least (`multiplications`). TensorLy's `tt_matrix_to_matrix` gives the same,
    going through the chain from left to right.

    Parameters
    ----------
    cores : sequence of Tensor, core k of shape (bond_left, in_k, out_k, bond_right)
    padding : (int, int)
        Rows and columns at the end to leave out.
    by_columns : bool
        Lay the matrix out in memory column after column, as `nn.Linear` lays out its own.
    """
    middle = len(cores) // 2
    left, centre = merge(cores[:middle]), cores[middle]
    right = merge(cores[middle + 1 :]) if len(cores) > 2 else centre.new_ones(1, 1, 1, 1)
    lefts, rights = math.prod(left.shape[:-1]), math.prod(right.shape[1:])
    left_first = _left_first(lefts, centre.shape, rights)
    parts = (_joined(left, centre), right) if left_first else (left, _joined(centre, right))
    # Reshaped, not indexed: the gradient of an index fills a tensor with zeros first.
    blocks = _joined(*parts).flatten(0, 1).flatten(-2)  # in, out of the left side, of the centre, of the right side
    if by_columns:
        matrix = blocks.permute(1, 3, 5, 0, 2, 4).flatten(3).flatten(0, 2).T
    else:
        matrix = blocks.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2)
    return matrix[: len(matrix) - padding[0], : matrix.shape[1] - padding[1]] if any(padding) else matrix


def multiplications(shape: Shape, bonds: Sequence[int], frozen_centre: bool = True) -> int:
    """What `contract` and its gradients multiply, in the order that it takes; merging the few cores of a side is left out.

    Two products join left side, central core and right side. Each is done once forward and once for the gradient of
    each of its factors, except that of a frozen central core.

    >>> from mpo_tutorial.maths.shapes import paper_shape
    >>> feed_forward = paper_shape("feed_forward_in")
    >>> multiplications(feed_forward, feed_forward.full_bonds) / 1e9
    3.170893824

    Raises
    ------
    ValueError
        If there are not n - 1 bonds from 1 to the full ones.
    """
    c, ends = shape.central, (1, *shape.one_for_each(bonds), 1)
    pairs = shape.pairs
    sizes = math.prod(pairs[:c]), (ends[c], pairs[c], ends[c + 1]), math.prod(pairs[c + 1 :])
    left_first, right_first = _orders(*sizes, frozen_centre)
    return left_first if _left_first(*sizes) else right_first


def chained_multiplications(shape: Shape, bonds: Sequence[int], moved: int = 0) -> int:
    """What a row multiplies that goes through the chain core by core, from the first to the last.

    A number that goes into one of the products, or comes out, counts as `moved` multiplications.

    >>> vgg = Shape((7, 8, 8, 8, 7), (4, 8, 8, 4, 4))
    >>> round(chained_multiplications(vgg, (4, 4, 4, 4)) / (vgg.in_size * vgg.out_size), 4)
    0.0497
    """
    chain = _Chain.of(shape, bonds)
    links = (chain.link(k, k + 1) for k in range(shape.n_cores))
    return sum(product + moved * numbers for product, numbers in links)


@dataclass(frozen=True)
class Route:
    """How rows go through a chain.

    Parameters
    ----------
    groups : tuple of int
        How many cores are merged before the rows meet them, group by group from the first core on.
    backwards : bool
        Whether the rows meet the last group first.
    cost : int
        Multiplications; a number that is laid out anew between two products counts as `MOVED` of them.
    """

    groups: tuple[int, ...]
    backwards: bool
    cost: int


def cheapest_route(shape: Shape, bonds: Sequence[int], rows: int = 1) -> Route:
    """The route of least cost for a batch of rows, of those that never form the whole matrix. Larger products of fewer cores
    multiply more and move less; to merge cores is done once for all rows.

    >>> vgg = Shape((7, 8, 8, 8, 7), (4, 8, 8, 4, 4))
    >>> route = cheapest_route(vgg, (4, 4, 4, 4), rows=64)
    >>> route.groups, route.backwards, round(route.cost / (64 * vgg.in_size * vgg.out_size), 2)
    ((3, 2), True, 0.2)
    """
    n, chain = shape.n_cores, _Chain.of(shape, bonds)
    forwards = chain.best(rows, chain.merging)
    backwards = chain.reversed().best(rows, lambda start, stop: chain.merging(n - stop, n - start))
    if backwards[0] < forwards[0]:
        return Route(backwards[1][::-1], True, backwards[0])
    return Route(forwards[1], False, forwards[0])


@lru_cache(maxsize=4096)
def worthwhile_route(shape: Shape, bonds: tuple[int, ...], rows: int = 1, is_rebuilt: bool = True) -> Route | None:
    """The cheapest route, if rows take less time on it than through the matrix, by counting (`rebuilding`); None if they do not.

    With the matrix there, they do where bonds are small and the matrix is large, as in VGG's 25,088 x 4,096 at bonds up to 16.
    More rows are more often worth the beginning. Where the matrix would have to be rebuilt first, fewer rows are.

    Parameters
    ----------
    shape : Shape
    bonds : tuple of n - 1 int
    rows : int
    is_rebuilt : bool
        Whether the matrix is there already.
    """
    dense = rows * shape.in_size * shape.out_size + (0 if is_rebuilt else rebuilding(shape, bonds))
    route = cheapest_route(shape, bonds, rows)
    return route if route.cost + BEGUN < dense else None


def rebuilding(shape: Shape, bonds: Sequence[int]) -> int:
    """What `contract` costs: its multiplications, and `MOVED` for each number that is laid out anew.

    >>> vgg = Shape((7, 8, 8, 8, 7), (4, 8, 8, 4, 4))
    >>> round(rebuilding(vgg, (4, 4, 4, 4)) / (vgg.in_size * vgg.out_size))
    132
    """
    c, chain = shape.central, _Chain.of(shape, bonds)
    lefts, pair, rights = math.prod(shape.pairs[:c]), shape.pairs[c], math.prod(shape.pairs[c + 1 :])
    left, right = chain.ends[c : c + 2]
    met, last = (lefts, right) if _left_first(lefts, (left, pair, right), rights) else (rights, left)
    products = met * left * pair * right + lefts * pair * rights * last
    merging = chain.merging(0, c) + chain.merging(c + 1, shape.n_cores)
    return merging + products + MOVED * lefts * pair * rights


@dataclass(frozen=True)
class _Chain:
    """In and out legs in the order in which rows meet them, and the bonds between them, 1 at the ends."""

    in_legs: tuple[int, ...]
    out_legs: tuple[int, ...]
    ends: tuple[int, ...]

    @classmethod
    def of(cls, shape: Shape, bonds: Sequence[int]) -> "_Chain":
        return cls(shape.in_legs, shape.out_legs, (1, *bonds, 1))

    def reversed(self) -> "_Chain":
        return _Chain(self.in_legs[::-1], self.out_legs[::-1], self.ends[::-1])

    def merging(self, start: int, stop: int) -> int:
        """Cost of the cores from `start` up to `stop` as one, which `merge` makes of them."""
        cost, numbers = 0, self.ends[start]  # of the first cores, without the bond on their right
        for k in range(start, stop):
            numbers *= self.in_legs[k] * self.out_legs[k]
            if k > start:
                cost += numbers * self.ends[k + 1] * (self.ends[k] + MOVED)
        return cost

    def link(self, start: int, stop: int) -> tuple[int, int]:
        """Of the cores from `start` up to `stop`, merged: what a row multiplies there, and how many numbers go in and come out."""
        before = math.prod(self.out_legs[:start]) * self.ends[start] * math.prod(self.in_legs[start:])
        after = math.prod(self.out_legs[:stop]) * self.ends[stop] * math.prod(self.in_legs[stop:])
        return before * math.prod(self.out_legs[start:stop]) * self.ends[stop], before + after

    def best(self, rows: int, merging: Callable[[int, int], int]) -> tuple[int, tuple[int, ...]]:
        """The least cost, and its groups."""
        n = len(self.in_legs)
        least: list[tuple[int, tuple[int, ...]]] = [(0, ())]
        for stop in range(1, n + 1):
            found = []
            for start in range(stop):
                if stop - start < n or n == 1:
                    product, moved = self.link(start, stop)
                    cost, groups = least[start]
                    here = rows * (product + MOVED * moved) + merging(start, stop)
                    found.append((cost + here, (*groups, stop - start)))
            least.append(min(found))
        return least[-1]


def _left_first(lefts: int, centre: Sequence[int], rights: int) -> bool:
    """Whether the central core meets the left side first: where that is cheaper in light fine-tuning."""
    left_first, right_first = _orders(lefts, centre, rights, frozen_centre=True)
    return left_first < right_first


def _orders(lefts: int, centre: Sequence[int], rights: int, frozen_centre: bool) -> tuple[int, int]:
    """Multiplications, gradients included, if the central core meets the left side first, and if the right side.

    `lefts` and `rights` are the products of the legs on each side.
    """
    pair = math.prod(centre[1:-1])
    first = 2 if frozen_centre else 3
    left_first = lefts * pair * (first * centre[0] * centre[-1] + 3 * centre[-1] * rights)
    right_first = pair * rights * (first * centre[0] * centre[-1] + 3 * centre[0] * lefts)
    return left_first, right_first


def merge(cores: Sequence[Tensor]) -> Tensor:
    """Neighbouring cores as one: (bond_left, in, out, bond_right)."""
    whole = cores[0]
    for core in cores[1:]:
        whole = _joined(whole, core).transpose(2, 3).flatten(3, 4).flatten(1, 2)
    return whole


def _joined(left: Tensor, right: Tensor) -> Tensor:
    """The sum over the bond between two tensors: `tensordot` as a matrix product, which autocast knows."""
    return (left.flatten(0, -2) @ right.flatten(1)).reshape(*left.shape[:-1], *right.shape[1:])
