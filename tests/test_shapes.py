import math

import pytest

from mpo_tutorial.shapes import Shape, balanced_legs, balanced_shape


@pytest.mark.parametrize(
    ("in_legs", "out_legs", "bonds"),
    [
        ((5, 10, 10, 10, 6), (2, 2, 4, 4, 2), (10, 200, 480, 12)),
        ((3, 4, 4, 4, 4), (4, 4, 8, 6, 4), (12, 192, 384, 16)),
        ((3, 4, 4, 4, 4), (4, 4, 4, 4, 3), (12, 192, 192, 12)),
    ],
)
def test_full_bonds_are_those_of_the_papers_appendix(in_legs, out_legs, bonds):
    assert Shape(in_legs, out_legs).full_bonds == bonds


def test_embedded_model_gets_the_legs_of_the_reference():
    assert balanced_shape(384, 384) == Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))
    assert balanced_shape(384, 1536).out_legs == (4, 4, 6, 4, 4)


@pytest.mark.parametrize("size", [1, 2, 7, 60, 97, 384, 768, 1024, 3072, 30720])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 7])
def test_legs_multiply_out_with_the_largest_in_the_middle(size, n):
    for side in ("left", "right"):
        legs = balanced_legs(size, n, side)
        assert math.prod(legs) == size
        assert len(legs) == n
        assert legs[n // 2] == max(legs)


@pytest.mark.parametrize("sizes", [(384, 384), (384, 1536), (768, 3072), (3072, 768), (1024, 4096), (30720, 768)])
def test_full_bonds_peak_beside_the_central_core(sizes):
    shape = balanced_shape(*sizes)
    assert max(shape.full_bonds) in shape.full_bonds[shape.central - 1 : shape.central + 1]


@pytest.mark.parametrize(
    ("in_legs", "out_legs", "message"),
    [
        ((2, 2), (2, 2, 2), "equally many"),
        ((4,), (4,), "at least 2 legs"),
        ((2, 0), (2, 2), "positive integer, got 0"),
        ((2, 2.0), (2, 2), "positive integer, got 2.0"),
    ],
)
def test_bad_legs_are_refused(in_legs, out_legs, message):
    with pytest.raises(ValueError, match=message):
        Shape(in_legs, out_legs)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="got size 0 and 5 legs"):
        balanced_legs(0, 5)
    with pytest.raises(ValueError, match="got 'up'"):
        balanced_legs(4, 2, "up")
