"""The matrix between two identities, and that the trained cores reach the same matrices from there as from a chain."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape, balanced_shape

# Three to seven cores, even numbers too, odd and unequal legs; the sides of each block are equal or not.
SHAPES = [
    Shape((2, 3, 2), (2, 3, 2)),
    Shape((3, 2, 2), (2, 5, 3)),
    Shape((2, 3), (3, 4)),
    Shape((2, 2, 3, 2), (1, 3, 2, 2)),
    Shape((2, 3, 2, 2, 2), (3, 2, 4, 1, 3)),
    Shape((2, 1, 2, 3, 2, 1), (1, 2, 2, 2, 1, 2)),
    Shape((2, 1, 2, 3, 1, 2, 1), (1, 2, 1, 2, 2, 1, 2)),
    Shape((3, 2, 2), (2, 5, 3), padding=(1, 2)),
]


def drawn(*size: int, seed: int = 0, dtype=torch.float64) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def block(cores: tuple[Tensor, ...]) -> np.ndarray:
    """The product of cores on one side of the centre, its axes (bond, in legs, out legs, bond)."""
    product = cores[0].numpy()
    for core in cores[1:]:
        product = np.einsum("aijb,bklc->aikjlc", product, core.numpy())
        a, i, k, j, m, c = product.shape
        product = product.reshape(a, i * k, j * m, c)
    return product


def with_auxiliary(mpo: MPO, drawn_from: int) -> MPO:
    """The same central core between others, at random."""
    c = mpo.shape.central
    return MPO(
        tuple(core if k == c else drawn(*core.shape, seed=drawn_from + k) for k, core in enumerate(mpo.cores)),
        mpo.padding,
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_between_identities_the_matrix_is_the_same_to_the_last_bit(shape, dtype):
    matrix = drawn(shape.in_size, shape.out_size, dtype=torch.float64).to(dtype)
    before = matrix.clone()
    mpo = MPO.from_blocks(matrix, shape)
    assert torch.equal(mpo.to_matrix(), matrix)
    assert len(mpo.cores) == 3
    assert mpo.padding == shape.padding
    c, (left, right) = shape.central, mpo.bonds
    assert left == math.prod(shape.in_legs[:c]) * math.prod(shape.out_legs[:c])
    assert right == math.prod(shape.in_legs[c + 1 :]) * math.prod(shape.out_legs[c + 1 :])
    a, centre, b = mpo.cores
    assert torch.equal(a.reshape(left, left), torch.eye(left, dtype=dtype))
    assert torch.equal(b.reshape(right, right), torch.eye(right, dtype=dtype))
    centre.zero_()
    assert torch.equal(matrix, before)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gauges_are_chains_of_one_matrix(shape):
    matrix = drawn(shape.in_size, shape.out_size)
    centred = MPO.from_matrix(matrix, shape)
    for mpo in (centred, centred.canonize(shape.n_cores - 1), MPO.from_blocks(matrix, shape)):
        np.testing.assert_allclose(mpo.to_matrix().numpy(), matrix.numpy(), atol=1e-12)


def solved(target: np.ndarray, basis: np.ndarray) -> np.ndarray:
    """X in X basis = target; the basis must reach it."""
    x = np.linalg.lstsq(basis.T, target.T, rcond=None)[0].T
    np.testing.assert_allclose(x @ basis, target, atol=1e-9)
    return x


@pytest.mark.parametrize("gauge", ["centred", "tt-svd"])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if not any(shape.padding)], ids=str)
def test_whatever_cores_a_chain_is_given_two_blocks_give_too_and_the_other_way_round(shape, gauge):
    """At full bond the blocks of the untrained chain are square matrices that can be inverted: L left, R right, M = L C R."""
    matrix, c = drawn(shape.in_size, shape.out_size), shape.central
    chain = MPO.from_matrix(matrix, shape)
    chain = chain if gauge == "centred" else chain.canonize(shape.n_cores - 1)
    blocks = MPO.from_blocks(matrix, shape)

    def sides(mpo: MPO) -> tuple[np.ndarray, np.ndarray]:
        one = np.ones((1, 1, 1, 1))
        before, after = mpo.cores[: mpo.shape.central], mpo.cores[mpo.shape.central + 1 :]
        a = block(before) if before else one
        b = block(after) if after else one
        return a.reshape(-1, a.shape[-1]), b.reshape(b.shape[0], -1)

    untrained_left, untrained_right = sides(chain)
    assert chain.bonds[c - 1] == blocks.bonds[0]
    # From the chain to the blocks: A = L' L^-1, B = R^-1 R'.
    trained = with_auxiliary(chain, 10)
    trained_left, trained_right = sides(trained)
    a, b = solved(trained_left, untrained_left), solved(trained_right.T, untrained_right.T).T
    a_core, centre, b_core = blocks.cores
    same = MPO((torch.from_numpy(a).reshape(a_core.shape), centre, torch.from_numpy(b).reshape(b_core.shape)))
    np.testing.assert_allclose(same.to_matrix(), trained.to_matrix(), atol=1e-7 * trained.to_matrix().abs().max())
    # And back: L' = A L and R' = R B, as whole blocks in the cores next to the centre, the others being identities.
    trained = with_auxiliary(blocks, 20)
    a, b = sides(trained)
    paired = {c - 1: _pair_by_pair(a @ untrained_left, shape, slice(c), -1)}
    if c + 1 == shape.n_cores:  # nothing on the right, where the other chain's block is a single number
        paired[c - 1] *= b.item()
    else:
        paired[c + 1] = _pair_by_pair(untrained_right @ b, shape, slice(c + 1, None), 0)
    cores = []
    for k, core in enumerate(chain.cores):
        new = paired.get(k, np.eye(max(core.shape[0], core.shape[3])))
        cores.append(chain.central if k == c else torch.from_numpy(np.ascontiguousarray(new)).reshape(core.shape))
    np.testing.assert_allclose(
        MPO(tuple(cores)).to_matrix(), trained.to_matrix(), atol=1e-7 * trained.to_matrix().abs().max()
    )


def _pair_by_pair(side: np.ndarray, shape: Shape, legs: slice, bond: int) -> np.ndarray:
    """A block whose rows are all in legs and then all out legs (columns, if the bond comes first), by pairs of legs instead."""
    ins, outs = shape.in_legs[legs], shape.out_legs[legs]
    rows = np.moveaxis(side, bond, -1).reshape(*ins, *outs, -1)
    order = [axis for k in range(len(ins)) for axis in (k, len(ins) + k)]
    rows = rows.transpose(*order, 2 * len(ins)).reshape(-1, side.shape[bond])
    return np.moveaxis(rows, -1, bond)


def test_a_block_larger_than_all_else_is_refused():
    with pytest.raises(ValueError, match=r"at most as many as all others together, got 16 x 4 x 1"):
        MPO.from_blocks(drawn(8, 8), ((4, 2, 1), (4, 2, 1)))
    with pytest.raises(ValueError, match=r"at most as many as all others together, got 1 x 4 x 16"):
        MPO.from_blocks(drawn(8, 8), ((1, 2, 4), (1, 2, 4)))
    with pytest.raises(ValueError, match="the legs must multiply out"):
        MPO.from_blocks(drawn(8, 9), ((2, 2, 2), (2, 2, 2)))
    with pytest.raises(ValueError, match=r"got torch\.int64"):
        MPO.from_blocks(torch.ones(8, 8, dtype=torch.int64), ((2, 2, 2), (2, 2, 2)))


@pytest.mark.parametrize("n_cores", [3, 5, 7])
def test_the_shapes_of_minilm_have_square_blocks(n_cores):
    for sizes in ((384, 384), (384, 1536), (1536, 384)):
        shape = balanced_shape(*sizes, n_cores)
        a, _, b = MPO.from_blocks(torch.ones(sizes), shape).cores
        full, c = shape.full_bonds, shape.central
        assert (a.shape[3], b.shape[0]) == (full[c - 1], full[c])
