import math
from itertools import combinations, pairwise

import pytest
import tensorly as tl
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import bonds, shapes
from tensorly.tt_matrix import tt_matrix_to_matrix

from mpo_tutorial.maths.contraction import (
    MOVED,
    chained_multiplications,
    cheapest_route,
    contract,
    merge,
    multiplications,
    rebuilding,
    worthwhile_route,
)
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape, paper_shape


@given(data=st.data(), shape=shapes())
def test_contraction_is_tensorlys(data, shape):
    mpo = MPO.random(shape, data.draw(bonds(shape)), generator=torch.Generator().manual_seed(0))
    with tl.backend_context("pytorch", local_threadsafe=True):
        expected = tt_matrix_to_matrix(list(mpo.cores))[: shape.in_size, : shape.out_size]
    torch.testing.assert_close(contract(mpo.cores, shape.padding), expected)
    torch.testing.assert_close(contract(mpo.cores, shape.padding, by_columns=True), expected)


@pytest.mark.parametrize(
    "shape", [Shape((2, 3), (3, 2)), Shape((2, 3, 2), (3, 1, 2)), Shape((2, 1, 2, 2), (1, 2, 2, 1))]
)
@pytest.mark.parametrize("padding", [(0, 0), (1, 2)])
def test_gradients_reach_every_core(shape, padding):
    mpo = MPO.random(shape, 3, generator=torch.Generator().manual_seed(0))
    cores = [core.double().requires_grad_() for core in mpo.cores]
    assert torch.autograd.gradcheck(lambda *cores: contract(cores, padding), cores)


@pytest.mark.parametrize("frozen_centre", [True, False])
def test_multiplications_are_those_of_the_products_that_are_done(frozen_centre):
    """Counted by torch itself, a forward and a backward pass."""
    from torch.utils.flop_counter import FlopCounterMode

    for shape, bond in (
        (paper_shape("feed_forward_in"), None),
        (paper_shape("attention"), 20),
        (Shape((4, 6), (5, 3)), None),
        (Shape((2, 3, 6), (2, 2, 1)), 3),  # the right side is the larger one by its in leg alone
    ):
        mpo = MPO.random(shape, bond)
        cores = [
            core.clone().requires_grad_(k != shape.central or not frozen_centre) for k, core in enumerate(mpo.cores)
        ]
        with FlopCounterMode(display=False) as counter:
            contract(cores).sum().backward()
        merges = 0
        ends = (1, *mpo.bonds, 1)
        if shape.n_cores == 5:  # two cores a side, each merge with the gradients of both
            for k in (0, 3):
                pairs = math.prod(shape.in_legs[k : k + 2]) * math.prod(shape.out_legs[k : k + 2])
                merges += 3 * ends[k] * pairs * ends[k + 1] * ends[k + 2]
        elif shape.n_cores == 2:  # of the block of ones that stands for the missing right side torch needs no gradient
            merges -= shape.in_size * shape.out_size
        assert counter.get_total_flops() // 2 == multiplications(shape, mpo.bonds, frozen_centre) + merges
        assert multiplications(shape, mpo.bonds) == multiplications(shape, mpo.bonds, True)


@given(data=st.data(), shape=shapes())
def test_a_rows_multiplications_are_those_of_the_products_through_the_chain(data, shape):
    """Counted with einsum's own count of each product that `MPO.apply` makes."""
    found = data.draw(bonds(shape))
    mpo = MPO.random(shape, found)
    legs, counted = list(shape.in_legs), 0
    done, to_do = 1, math.prod(legs)
    for core in mpo.cores:
        left, i, o, right = core.shape
        to_do //= i
        counted += (
            done * to_do * left * i * o * right
        )  # each number that comes out, times the pairs that are summed for it
        done *= o
    assert chained_multiplications(shape, mpo.bonds) == counted
    assert chained_multiplications(shape, mpo.bonds, MOVED) == cost_of([core.shape for core in mpo.cores])


def test_the_chain_is_taken_where_bonds_are_small_and_the_matrix_is_large():
    vgg, fc2 = Shape((7, 8, 8, 8, 7), (4, 8, 8, 4, 4)), Shape((4, 7, 7, 4), (4, 4, 4, 4))
    for bond, cheaper in ((1, True), (4, True), (16, True), (32, False)):
        assert bool(worthwhile_route(vgg, MPO.random(vgg, bond).bonds)) is cheaper
    assert not worthwhile_route(fc2, (1, 1, 1))
    for name in ("attention", "feed_forward_in", "feed_forward_out"):
        assert not worthwhile_route(paper_shape(name), (1,) * 4)


def test_more_rows_are_worth_the_beginning_and_fewer_the_rebuilding():
    shape = paper_shape("feed_forward_in")
    found = {
        (rows, there): bool(worthwhile_route(shape, shape.caps(4), rows, there))
        for rows in (1, 8, 4096)
        for there in (True, False)
    }
    assert found == {
        (1, True): False,
        (8, True): False,
        (4096, True): True,
        (1, False): True,
        (8, False): True,
        (4096, False): True,
    }
    wide = shape.caps(16)
    assert worthwhile_route(shape, wide, 1, is_rebuilt=False)
    assert not worthwhile_route(shape, wide, 4096, is_rebuilt=False)


@given(data=st.data(), shape=shapes(), rows=st.integers(1, 600))
def test_the_cheapest_route_is_the_least_of_all_there_are(data, shape, rows):
    """Every way to cut the chain into groups, from either end, costed by what its products are."""
    found = data.draw(bonds(shape))
    mpo = MPO.random(shape, found)
    n, route = shape.n_cores, cheapest_route(shape, mpo.bonds, rows)
    costs = {}
    for size in range(n):
        for cuts in combinations(range(1, n), size):
            if size or n == 1:
                places = [0, *cuts, n]
                groups = [mpo.cores[start:stop] for start, stop in pairwise(places)]
                merged, sizes = [merge(cores) for cores in groups], tuple(map(len, groups))
                once = sum(cost_of_merging(cores) for cores in groups)
                costs[sizes, False] = once + rows * cost_of([core.shape for core in merged])
                back = [tuple(core.shape[k] for k in (3, 1, 2, 0)) for core in merged[::-1]]
                costs[sizes, True] = once + rows * cost_of(back)
    assert route.cost == min(costs.values()) == costs[route.groups, route.backwards]


def cost_of_merging(cores) -> int:
    """Each number that comes out is a sum over the bond, and is laid out anew."""
    cost, whole = 0, cores[0]
    for core in cores[1:]:
        bond, whole = core.shape[0], merge([whole, core])
        cost += whole.numel() * (bond + MOVED)
    return cost


@given(data=st.data(), shape=shapes())
def test_rebuilding_is_costed_by_its_products(data, shape):
    mpo = MPO.random(shape, data.draw(bonds(shape)))
    middle = shape.n_cores // 2
    sides = [cores for cores in (mpo.cores[:middle], mpo.cores[middle + 1 :]) if cores]
    left = merge(mpo.cores[:middle])
    right = merge(mpo.cores[middle + 1 :]) if len(sides) == 2 else torch.ones(1, 1, 1, 1)
    (a, i, j, b), numbers = mpo.cores[middle].shape, math.prod(shape.padded_size)
    lefts, rights = left[..., 0].numel(), right[0].numel()
    both = {
        "left": lefts * a * i * j * b + numbers * b,
        "right": rights * a * i * j * b + numbers * a,
    }
    merging = sum(map(cost_of_merging, sides))
    trained = {  # what `contract` decides by: the gradients, too, without that of the central core
        "left": 2 * lefts * a * i * j * b + 3 * numbers * b,
        "right": 2 * rights * a * i * j * b + 3 * numbers * a,
    }
    order = "left" if trained["left"] < trained["right"] else "right"
    assert rebuilding(shape, mpo.bonds) == merging + both[order] + MOVED * numbers


def cost_of(cores: list[tuple[int, ...]]) -> int:
    """Of a row that meets cores of these sizes (left, in, out, right) in turn."""
    numbers, cost = math.prod(i for _, i, _, _ in cores), 0
    for left, i, o, right in cores:
        after = numbers // (left * i) * o * right
        cost += numbers * o * right + MOVED * (numbers + after)
        numbers = after
    return cost
