import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sympy import factorint  # comes with torch

from mpo_tutorial.maths.shapes import (
    Shape,
    _primes,
    balanced_legs,
    balanced_shape,
    paper_shape,
    splittable_size,
    usual_shape,
)


@pytest.mark.parametrize(
    ("name", "in_legs", "out_legs", "sizes", "bonds"),
    [
        ("albert_embedding", (5, 10, 10, 10, 6), (2, 2, 4, 4, 2), (30000, 128), (10, 200, 480, 12)),
        ("feed_forward_in", (3, 4, 4, 4, 4), (4, 4, 8, 6, 4), (768, 3072), (12, 192, 384, 16)),
        ("feed_forward_out", (4, 4, 8, 6, 4), (3, 4, 4, 4, 4), (3072, 768), (12, 192, 384, 16)),
        ("attention", (3, 4, 4, 4, 4), (4, 4, 4, 4, 3), (768, 768), (12, 192, 192, 12)),
    ],
)
def test_the_papers_shapes_are_those_of_its_appendix(name, in_legs, out_legs, sizes, bonds):
    shape = paper_shape(name)
    assert (shape.in_legs, shape.out_legs) == (in_legs, out_legs)
    assert (shape.in_size, shape.out_size) == sizes
    assert shape.full_bonds == bonds


def test_alberts_matrices_have_the_papers_totals():
    """Embedding, four attention matrices, two of feed-forward; the pooler's auxiliary cores bring 1,010,164."""
    listed = [
        paper_shape("albert_embedding"),
        *[paper_shape("attention")] * 4,
        paper_shape("feed_forward_in"),
        paper_shape("feed_forward_out"),
    ]
    dense = sum(shape.in_size * shape.out_size for shape in listed)
    total = sum(shape.n_params(shape.full_bonds) for shape in listed)
    auxiliary = [sum(bond**2 for bond in shape.full_bonds) for shape in listed]
    assert [round(number / 1e6, 2) for number in (dense, total, sum(auxiliary))] == [10.92, 11.85, 0.94]
    assert sum(auxiliary) + auxiliary[1] == 1_010_164


def test_an_unknown_name_of_the_paper_is_refused():
    with pytest.raises(ValueError, match=r"albert_embedding, feed_forward_in, .*got 'bert_embedding'"):
        paper_shape("bert_embedding")


def test_embedded_model_gets_the_legs_of_the_reference():
    assert balanced_shape(384, 384) == Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))
    assert balanced_shape(384, 1536).out_legs == (4, 4, 6, 4, 4)


@given(size=st.integers(1, 40_000), n=st.integers(2, 7), side=st.sampled_from(["left", "right"]))
def test_legs_multiply_out_with_the_largest_in_the_middle(size, n, side):
    legs = balanced_legs(size, n, side)
    assert math.prod(legs) == size
    assert len(legs) == n
    assert legs[n // 2] == max(legs)


@given(in_size=st.integers(1, 40_000), out_size=st.integers(1, 40_000), n=st.integers(2, 7))
def test_full_bonds_peak_beside_the_central_core(in_size, out_size, n):
    shape = balanced_shape(in_size, out_size, n)
    assert (shape.in_size, shape.out_size) == (in_size, out_size)
    assert max(shape.full_bonds) in shape.full_bonds[max(0, shape.central - 1) : shape.central + 1]


@given(size=st.integers(1, 40_000), n=st.integers(2, 7))
def test_padding_is_the_least_that_leaves_no_large_prime(size, n):
    def largest_prime(number):
        largest = 1
        for divisor in range(2, number + 1):
            while number % divisor == 0:
                largest, number = divisor, number // divisor
            if divisor * divisor > number:
                break
        return max(largest, number)

    even_leg = size ** (1 / n)
    if largest_prime(size) <= max(7, 2 * even_leg):
        assert splittable_size(size, n) == size
    else:
        assert largest_prime(splittable_size(size, n)) <= 5
        assert all(largest_prime(smaller) > 5 for smaller in range(size, splittable_size(size, n)))


def test_a_prime_splits_well_up_to_seven_or_twice_an_even_leg():
    assert [splittable_size(size, 3) for size in (1, 7, 11)] == [1, 7, 12]
    assert [splittable_size(size, 2) for size in (22, 26)] == [24, 27]  # twice an even leg is 9.4 and 10.2
    assert splittable_size(121, 2) == 121


def test_the_larger_leg_goes_left_unless_told():
    assert balanced_legs(384, 5) == balanced_legs(384, 5, "left") == (3, 4, 4, 4, 2)


def test_the_usual_shape_is_the_papers_where_it_has_one():
    for name in ("albert_embedding", "feed_forward_in", "feed_forward_out", "attention"):
        shape = paper_shape(name)
        assert usual_shape(shape.in_size, shape.out_size) == shape
        assert usual_shape(shape.in_size, shape.out_size, 4) == balanced_shape(shape.in_size, shape.out_size, 4)
    assert usual_shape(384, 1536) == balanced_shape(384, 1536)
    assert usual_shape(97, 10, 3) == balanced_shape(97, 10, 3)


def test_numbers_in_a_shape_are_pythons():
    shape = Shape(*np.array([[2, 2], [2, 2], [1, 0]], dtype=np.int8))
    assert {type(number) for number in (*shape.in_legs, *shape.out_legs, *shape.padding)} == {int}


@given(size=st.one_of(st.integers(1, 300_000), st.sampled_from([2**19, 3**11, 541**2, 541 * 547, 299_993])))
def test_primes_are_those_of_sympy(size):
    assert _primes(size) == factorint(size, multiple=True)


def test_berts_vocabulary_is_padded_as_in_the_paper():
    shape = balanced_shape(30522, 768)
    assert shape.padded_size == (30720, 768)
    assert shape.padding == (198, 0)
    assert "padding=(198, 0)" in repr(shape)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((2, 2), (2, 2, 2)), "equally many"),
        (((4,), (4,)), "at least 2 legs"),
        (((), ()), "at least 2 legs"),
        (((2, 0), (2, 2)), "positive integer, got 0"),
        (((2, 2), (2, -1)), "positive integer, got -1"),
        (((2, 2.0), (2, 2)), "positive integer, got 2.0"),
        (((2, 2), (2, 2), (4, 0)), "from 0 to 3 here, got 4"),
        (((2, 2), (2, 2), (0, -1)), "from 0 to 3 here, got -1"),
        (((2, 2), (2, 2), (0,)), "a pair, rows and columns"),
        ((4, 4), "in_legs is a tuple of integers, got 4"),
        (((2, 2), (2, 2), 1), "padding is a tuple of integers, got 1"),
    ],
)
def test_bad_legs_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Shape(*arguments)


@pytest.mark.parametrize("shape", [7, (2, 2), ((2, 2),), "ab"])
def test_what_is_no_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"a shape|legs"):
        Shape.of(shape)


@pytest.mark.parametrize("bonds", [(2,), (2, 2, 2), (2.0, 2), (5, 2), (0, 2)])
def test_bad_bonds_are_not_counted(bonds):
    with pytest.raises(ValueError, match=r"3 cores have 2 inner bonds|from 1 to 4, got"):
        Shape((2, 2, 2), (2, 2, 2)).n_params(bonds)


def test_bad_sizes_are_refused():
    for size, n in ((0, 5), (2.0, 5), (8, 1), (8, True)):
        with pytest.raises(ValueError, match="at least 2 legs, got size"):
            balanced_legs(size, n)
        with pytest.raises(ValueError, match="at least 2 legs, got size"):
            balanced_shape(size, 8, n)
    assert math.prod(balanced_legs(2, 64)) == 2
    with pytest.raises(ValueError, match=r"^a matrix is split into at most 64 cores, because .*, got 65; take fewer$"):
        balanced_legs(2, 65)
    with pytest.raises(ValueError, match="got 'up'"):
        balanced_legs(4, 2, "up")
