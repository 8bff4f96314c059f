"""What the property-based tests draw from."""

import itertools
import math

import torch
from hypothesis import strategies as st

from mpo_tutorial.maths.shapes import Shape

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def shapes(draw, least_cores: int = 2, most_cores: int = 5, padded: bool = True, square: bool = False) -> Shape:
    """Unequal legs from 1 to 5, at most some thousand entries, some with padding."""
    n = draw(st.integers(least_cores, most_cores))
    most = {2: 5, 3: 4, 4: 3}.get(n, 2)
    legs = st.lists(st.integers(1, most), min_size=n, max_size=n).map(tuple)
    in_legs = draw(legs)
    out_legs = in_legs if square else draw(legs)
    padding = [draw(st.integers(0, min(2, math.prod(side) - 1))) if padded else 0 for side in (in_legs, out_legs)]
    return Shape(in_legs, out_legs, tuple(padding))


@st.composite
def matrices(draw, shape: Shape, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Of full rank, of low rank, with repeated singular values, with a steep spectrum, or zero."""
    size = (shape.in_size, shape.out_size)
    generator = torch.Generator().manual_seed(draw(SEEDS))
    matrix = torch.randn(size, generator=generator, dtype=torch.float64)
    kind = draw(st.sampled_from(["random", "random", "low rank", "repeated", "steep", "zero"]))
    if kind == "low rank":
        matrix = matrix[:, :1] @ matrix[:1]
    elif kind == "repeated":
        matrix = torch.eye(*size, dtype=torch.float64) * 3
    elif kind == "steep":
        matrix = matrix * torch.logspace(0, -6, size[1], dtype=torch.float64)
    elif kind == "zero":
        matrix = matrix * 0
    return matrix.to(dtype)


@st.composite
def bonds(draw, shape: Shape) -> tuple[int, ...]:
    return tuple(draw(st.integers(1, full)) for full in shape.full_bonds)


def usable(shape: Shape, bonds: tuple[int, ...]) -> tuple[int, ...]:
    """The bonds that are left if none exceeds its neighbours': lowered one by one until nothing changes."""
    pairs = [i * j for i, j in zip(shape.in_legs, shape.out_legs, strict=True)]
    now, before = [1, *bonds, 1], None
    while now != before:
        before = list(now)
        for k, pair in enumerate(pairs):
            now[k], now[k + 1] = min(now[k], now[k + 1] * pair), min(now[k + 1], now[k] * pair)
    return tuple(now[1:-1])


def least_discarded(shape: Shape, bonds: tuple[int, ...], discarded: list[float]) -> float:
    """The least sum of discarded weights over all choices of bonds that, when they alone are cut, end at the usable bonds."""
    full = [min(math.prod(pairs[:k]), math.prod(pairs[k:])) for pairs in [shape.pairs] for k in range(1, len(pairs))]
    goal, sums = usable(shape, bonds), []
    for chosen in itertools.product((False, True), repeat=len(full)):
        caps = tuple(bond if cut else most for bond, most, cut in zip(goal, full, chosen, strict=True))
        if usable(shape, caps) == goal:
            sums.append(sum(weight for weight, cut in zip(discarded, chosen, strict=True) if cut))
    return min(sums)
