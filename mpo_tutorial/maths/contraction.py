"""From the cores back to the matrix, in the cheaper of two orders, and what that costs."""

import math
from collections.abc import Sequence

from torch import Tensor

from mpo_tutorial.maths.shapes import Shape

# Multiplications of a large product in the time in which a number is laid out anew for the next, on a CPU. With it
# `is_chain_cheaper` chose the chain in no case where it was slower, of VGG's and FC2's shapes, bonds 1 to 8, 1 to 256 rows.
MOVED = 128


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


def chained_multiplications(shape: Shape, bonds: Sequence[int]) -> int:
    """What `MPO.apply` multiplies for one row of x.

    >>> vgg = Shape((7, 8, 8, 8, 7), (4, 8, 8, 4, 4))
    >>> round(chained_multiplications(vgg, (4, 4, 4, 4)) / (vgg.in_size * vgg.out_size), 4)
    0.0497
    """
    return sum(product for product, _ in _links(shape, bonds))


def is_chain_cheaper(shape: Shape, bonds: Sequence[int]) -> bool:
    """Whether a row goes through the chain in less time than through the matrix, were that there: by counted multiplications, and
    by the numbers that the chain lays out anew between its products.

    It is where bonds are small and the matrix is large, as in VGG's 25,088 x 4,096 at bonds up to 4; in a BERT at a bond of 1
    at most.
    """
    through = sum(product + MOVED * moved for product, moved in _links(shape, bonds))
    return through < shape.in_size * shape.out_size


def _links(shape: Shape, bonds: Sequence[int]) -> list[tuple[int, int]]:
    """Of each core what it multiplies for one row, and how many numbers go in and come out."""
    ends, links = (1, *bonds, 1), []
    done, (to_do, _) = 1, shape.padded_size
    for k, (i, o) in enumerate(zip(shape.in_legs, shape.out_legs, strict=True)):
        before, to_do = done * ends[k] * to_do, to_do // i
        after = done * o * ends[k + 1] * to_do
        links.append((before * o * ends[k + 1], before + after))
        done *= o
    return links


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
