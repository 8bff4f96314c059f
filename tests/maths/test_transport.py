import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import SEEDS, bonds, shapes
from test_mpo import with_random_gauge

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.transport import carried, turns


def gradients(cores, weights):
    """Of the sum of a matrix's entries times some weights, with respect to its cores, by autograd."""
    leaves = [core.detach().clone().requires_grad_() for core in cores]
    (MPO(tuple(leaves)).to_matrix() * weights).sum().backward()
    return [leaf.grad for leaf in leaves]


@given(data=st.data(), shape=shapes(least_cores=3, padded=False), seed=SEEDS)
def test_in_another_gauge_carried_gradients_are_the_gradients_there(data, shape, seed):
    matrix = torch.randn(
        shape.in_size, shape.out_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    old = MPO.from_matrix(matrix, shape).canonize(shape.central)
    new = with_random_gauge(old, data.draw(SEEDS))
    weights = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    found = carried(gradients(old.cores, weights), turns(old, new))
    for mine, right in zip(found, gradients(new.cores, weights), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-5, atol=1e-6 * max(1, right.abs().max().item()))


@given(data=st.data(), shape=shapes(least_cores=3, padded=False), seed=SEEDS)
def test_the_turns_of_a_cut_make_the_new_cores_of_the_old(data, shape, seed):
    """Of a matrix of full rank: of directions that hold nothing a chain has any."""
    matrix = torch.randn(
        shape.in_size, shape.out_size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    old = MPO.from_matrix(matrix, shape)
    new = old.truncate(data.draw(bonds(shape)))
    found = turns(old, new)
    for k, core in enumerate(new.cores):
        for turn in found:
            torch.testing.assert_close(
                turn.into @ turn.back, torch.eye(len(turn.into), dtype=torch.float64), atol=1e-8, rtol=0
            )
        if k != shape.central:
            made = torch.einsum("xa,aijb,by->xijy", found[k].into, old.cores[k], found[k + 1].back)
            scale = 1e-6 * (1 + torch.linalg.vector_norm(core).item())
            torch.testing.assert_close(made, core, atol=scale, rtol=0)


def test_squares_are_those_of_uncorrelated_gradients():
    """The mean square of what is carried, over many independent gradients, is what the squares are carried to."""
    generator = torch.Generator().manual_seed(0)
    old = MPO.from_matrix(torch.randn(24, 24, generator=generator, dtype=torch.float64), ((2, 4, 3), (3, 4, 2)))
    found = turns(old, old.truncate((3, 2)))
    spread = [torch.rand(core.shape, generator=generator, dtype=torch.float64) for core in old.cores]
    squares = [torch.zeros_like(moment) for moment in carried(spread, found)]
    n = 4000
    for _ in range(n):
        drawn = [s * torch.randn(s.shape, generator=generator, dtype=torch.float64) for s in spread]
        for total, moment in zip(squares, carried(drawn, found), strict=True):
            total += moment**2 / n
    for total, right in zip(squares, carried([s**2 for s in spread], found, power=2), strict=True):
        torch.testing.assert_close(total, right, rtol=0.2, atol=0)


def test_what_cannot_be_carried_is_refused():
    old = MPO.identity((2, 3, 2))
    with pytest.raises(ValueError, match=r"^a chain is cut at the same legs, got"):
        turns(old, MPO.identity((2, 2, 3)))
    with pytest.raises(ValueError, match=r"power 1 or 2, got 3$"):
        carried(old.cores, turns(old, old), power=3)
