"""What the property-based tests draw from."""

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
