import math

import pytest
import torch

from mpo_tutorial.mpo import MPO, contract, relative_error
from mpo_tutorial.shapes import Shape, balanced_shape

SHAPES = [
    Shape((2, 3), (4, 2)),
    Shape((3, 4, 2), (2, 2, 5)),
    Shape((2, 3, 2, 2), (3, 2, 1, 2)),
    Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3)),
    Shape((2, 2, 2, 2, 2, 2, 2), (1, 3, 2, 2, 2, 2, 1)),
]


def random_matrix(shape: Shape, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape.in_size, shape.out_size, dtype=dtype, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES)
def test_full_bond_loses_nothing(shape):
    matrix = random_matrix(shape)
    before = matrix.clone()
    mpo = MPO.from_matrix(matrix, shape)
    assert mpo.bonds == shape.full_bonds
    assert mpo.shape == shape
    assert relative_error(mpo.to_matrix(), matrix) < 1e-6
    assert torch.equal(matrix, before)


def test_contraction_is_the_papers_sum_over_bonds():
    """Eq. 1 written out for three cores, against the library."""
    shape = Shape((2, 3, 2), (3, 1, 2))
    cores = MPO.from_matrix(random_matrix(shape, torch.float64), shape).cores
    written_out = torch.einsum("aijb,bklc,cmnd->ikmjln", *cores).reshape(shape.in_size, shape.out_size)
    torch.testing.assert_close(contract(cores), written_out)


@pytest.mark.parametrize("shape", SHAPES)
def test_centre_is_on_the_central_core(shape):
    mpo = MPO.from_matrix(random_matrix(shape, torch.float64), shape)
    centre = shape.central
    for k, core in enumerate(mpo.cores):
        if k < centre:
            unfolded = core.reshape(-1, core.shape[3]).T
        elif k > centre:
            unfolded = core.reshape(core.shape[0], -1)
        else:
            continue
        torch.testing.assert_close(unfolded @ unfolded.T, torch.eye(len(unfolded), dtype=torch.float64))
    norm = torch.linalg.matrix_norm(mpo.to_matrix())
    torch.testing.assert_close(torch.linalg.vector_norm(mpo.central), norm)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.n_cores % 2])
def test_auxiliary_parameters_are_the_squared_full_bonds(shape):
    mpo = MPO.from_matrix(random_matrix(shape), shape)
    assert sum(core.numel() for core in mpo.auxiliary) == sum(bond**2 for bond in shape.full_bonds)


def test_counts_and_ratio_are_those_of_the_paper():
    """Appendix: attention 768 x 768 has ratio 1.13, feed-forward 768 x 3072 has 1.08 at full bond."""
    attention = Shape((3, 4, 4, 4, 4), (4, 4, 4, 4, 3))
    mpo = MPO.from_matrix(random_matrix(attention), attention)
    assert mpo.n_params == 12 * 12 + 12 * 16 * 192 + 192 * 16 * 192 + 192 * 16 * 12 + 12 * 12
    assert round(mpo.ratio, 2) == 1.13
    feed_forward = Shape((3, 4, 4, 4, 4), (4, 4, 8, 6, 4))
    assert round(MPO.from_matrix(random_matrix(feed_forward), feed_forward).ratio, 2) == 1.08


def test_second_decomposition_is_bit_identical():
    shape = balanced_shape(96, 60)
    first, second = (MPO.from_matrix(random_matrix(shape), shape) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.cores, second.cores, strict=True))


def test_two_cores_truncate_as_well_as_any_rank_can():
    """With one bond the MPO is the SVD of the reordered matrix (Eckart and Young)."""
    shape = Shape((4, 6), (5, 3))
    matrix = random_matrix(shape, torch.float64)
    reordered = matrix.reshape(4, 6, 5, 3).permute(0, 2, 1, 3).reshape(20, 18)
    singular = torch.linalg.svdvals(reordered)
    for bond in (1, 5, 17):
        error = torch.linalg.matrix_norm(MPO.from_matrix(matrix, shape, bond).to_matrix() - matrix)
        torch.testing.assert_close(error, torch.linalg.vector_norm(singular[bond:]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bond", [1, 2, 3, 7])
def test_truncation_obeys_the_bound(shape, bond):
    """Eq. 4, its local errors from dense unfoldings of the matrix."""
    matrix = random_matrix(shape, torch.float64)
    n = shape.n_cores
    pairs = [axis for k in range(n) for axis in (k, n + k)]
    tensor = matrix.reshape(*shape.in_legs, *shape.out_legs).permute(pairs)
    discarded = 0.0
    for k in range(1, n):
        rows = math.prod(i * j for i, j in zip(shape.in_legs[:k], shape.out_legs[:k], strict=True))
        discarded += (torch.linalg.svdvals(tensor.reshape(rows, -1))[bond:] ** 2).sum().item()
    full = MPO.from_matrix(matrix, shape)
    for mpo in (full.compress(bond), MPO.from_matrix(matrix, shape, bond)):
        assert max(mpo.bonds) <= bond
        assert torch.linalg.matrix_norm(mpo.to_matrix() - matrix) <= math.sqrt(discarded) + 1e-12


def test_compression_does_not_depend_on_the_gauge():
    shape = Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))
    mpo = MPO.from_matrix(random_matrix(shape, torch.float64), shape)
    gauge = torch.randn(96, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    cores = list(mpo.cores)
    cores[1] = torch.tensordot(cores[1], gauge, dims=1)
    cores[2] = torch.tensordot(torch.linalg.inv(gauge), cores[2], dims=1)
    torch.testing.assert_close(MPO(tuple(cores)).compress(20).to_matrix(), mpo.compress(20).to_matrix())


def test_compress_leaves_its_input_alone():
    shape = Shape((3, 4, 2), (2, 2, 5))
    mpo = MPO.from_matrix(random_matrix(shape), shape)
    before = [core.clone() for core in mpo.cores]
    mpo.compress(2)
    assert all(torch.equal(a, b) for a, b in zip(mpo.cores, before, strict=True))


@pytest.mark.parametrize(
    "matrix", [torch.zeros(24, 20), torch.outer(torch.arange(24.0), torch.ones(20)), torch.eye(24)[:, :20]]
)
def test_degenerate_matrices_survive(matrix):
    shape = Shape((3, 4, 2), (2, 2, 5))
    for mpo in (MPO.from_matrix(matrix, shape), MPO.from_matrix(matrix, shape).compress(20)):
        torch.testing.assert_close(mpo.to_matrix(), matrix, atol=1e-5, rtol=0)


def test_gradients_reach_every_core():
    shape = Shape((2, 3, 2), (3, 1, 2))
    cores = [core.requires_grad_() for core in MPO.from_matrix(random_matrix(shape, torch.float64), shape).cores]
    assert torch.autograd.gradcheck(lambda *cores: contract(cores), cores)


def test_bad_matrices_and_bonds_are_refused():
    shape = Shape((2, 2), (2, 2))
    with pytest.raises(ValueError, match="the matrix 4 x 5"):
        MPO.from_matrix(torch.zeros(4, 5), shape)
    broken = torch.zeros(4, 4)
    broken[1, 2] = math.nan
    with pytest.raises(ValueError, match="got nan in row 1, column 2"):
        MPO.from_matrix(broken, shape)
    for bond in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="positive integer, got"):
            MPO.from_matrix(torch.eye(4), shape, bond)


def test_relative_error_of_nothing():
    zero = torch.zeros(2, 2)
    assert relative_error(zero, zero) == 0
    assert relative_error(torch.eye(2), zero) == math.inf


def test_tensorlys_backend_is_left_as_it_was():
    import tensorly as tl

    before = tl.get_backend()
    MPO.from_matrix(torch.eye(4), Shape((2, 2), (2, 2))).to_matrix()
    assert tl.get_backend() == before
