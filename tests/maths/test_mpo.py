import copy
import itertools
import math
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorly as tl
import torch
from hypothesis import given
from hypothesis import strategies as st
from quimb import tensor as qtn
from strategies import DTYPES, SEEDS, bonds, matrices, shapes
from tensorly.decomposition import tensor_train_matrix
from tensorly.tt_matrix import tt_matrix_to_matrix

from mpo_tutorial.maths import gauge
from mpo_tutorial.maths import mpo as mpo_module
from mpo_tutorial.maths.entropy import Spectra, entropy
from mpo_tutorial.maths.linalg import relative_error
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape, balanced_shape, paper_shape

SHAPES = [
    Shape((2, 3), (4, 2)),
    Shape((3, 4, 2), (2, 2, 5)),
    Shape((2, 3, 2, 2), (3, 2, 1, 2)),
    Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3)),
    Shape((2, 2, 2, 2, 2, 2, 2), (1, 3, 2, 2, 2, 2, 1)),
    Shape((3, 4, 2), (2, 2, 5), (5, 1)),
]
TALL_SHAPES = [
    Shape((8, 1, 2), (8, 1, 2)),
    Shape((4, 2, 1, 1, 2), (4, 1, 2, 2, 1)),
    Shape((6, 2), (5, 1)),
    Shape((9, 1, 1), (2, 1, 2)),
    Shape((2, 1, 2), (9, 1, 1)),
    Shape((2, 3, 1, 3), (1, 3, 1, 1)),  # the second unfolding is the first that is tall
]


def random_matrix(shape: Shape, dtype=torch.float64) -> torch.Tensor:
    return torch.randn(shape.in_size, shape.out_size, dtype=dtype, generator=torch.Generator().manual_seed(1))


def padded_matrix(matrix: torch.Tensor, shape: Shape) -> np.ndarray:
    return np.pad(matrix.numpy(), [(0, zeros) for zeros in shape.padding])


def unfolding(matrix: torch.Tensor, shape: Shape, cut: int) -> np.ndarray:
    """The padded matrix with the legs left of the cut as rows, element by element."""
    tensor = padded_matrix(matrix, shape).reshape(*shape.in_legs, *shape.out_legs)
    n = shape.n_cores
    order = [axis for side in (range(cut), range(cut, n)) for k in side for axis in (k, n + k)]
    rows = math.prod(i * j for i, j in zip(shape.in_legs[:cut], shape.out_legs[:cut], strict=True))
    return tensor.transpose(order).reshape(rows, -1)


def discarded_squares(matrix: torch.Tensor, shape: Shape, bonds) -> float:
    return sum(
        (np.linalg.svd(unfolding(matrix, shape, cut), compute_uv=False)[bond:] ** 2).sum()
        for cut, bond in enumerate(bonds, start=1)
    )


def with_random_gauge(mpo: MPO, seed: int) -> MPO:
    """The same matrix from other cores: a random invertible matrix and its inverse between each two of them."""
    generator, cores = torch.Generator().manual_seed(seed), list(mpo.cores)
    for k, bond in enumerate(mpo.bonds):
        gauge = torch.linalg.qr(torch.randn(bond, bond, dtype=torch.float64, generator=generator))[0]
        gauge = gauge * torch.linspace(0.3, 3, bond, dtype=torch.float64)
        cores[k] = torch.tensordot(cores[k], gauge, dims=1)
        cores[k + 1] = torch.tensordot(torch.linalg.inv(gauge), cores[k + 1], dims=1)
    return MPO(tuple(cores), mpo.padding)


@given(data=st.data(), shape=shapes(), dtype=st.sampled_from(DTYPES))
def test_full_bond_loses_nothing(data, shape, dtype):
    matrix = data.draw(matrices(shape, dtype))
    before = matrix.clone()
    mpo = MPO.from_matrix(matrix, shape)
    assert mpo.bonds == mpo.full_bonds == shape.full_bonds
    assert mpo.shape == shape
    assert all(core.dtype == dtype for core in mpo.cores)
    assert torch.equal(matrix, before)
    # Half precision rounds each of the n cores to its own digits; the others have room for any order of summation.
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 8 * torch.finfo(dtype).eps)
    error = torch.linalg.matrix_norm(mpo.to_matrix().double() - matrix.double())
    # float16 has no numbers below 6e-8, whatever the norm.
    assert error <= tolerance * torch.linalg.matrix_norm(matrix.double()) + 1e-5 * (dtype == torch.float16)


@given(data=st.data(), shape=shapes(), seed=SEEDS)
def test_truncation_obeys_the_bound_from_any_gauge(data, shape, seed):
    """Eq. 4, its local errors from dense unfoldings of the matrix."""
    matrix, cut = data.draw(matrices(shape)), data.draw(bonds(shape))
    bound = math.sqrt(discarded_squares(matrix, shape, cut))
    padded = torch.from_numpy(padded_matrix(matrix, shape))
    full = with_random_gauge(MPO.from_matrix(matrix, shape), seed)
    for mpo in (full.truncate(cut), MPO.from_matrix(matrix, shape, cut)):
        assert all(bond <= most for bond, most in zip(mpo.bonds, cut, strict=True))
        rebuilt = MPO(mpo.cores).to_matrix()  # without the padding's clip
        assert torch.linalg.matrix_norm(rebuilt - padded) <= bound + 1e-7 * torch.linalg.matrix_norm(padded)


@given(data=st.data(), shape=shapes(padded=False))
def test_one_cut_bond_loses_the_discarded_weight(data, shape):
    matrix = data.draw(matrices(shape))
    k = data.draw(st.integers(0, shape.n_cores - 2))
    cut = list(shape.full_bonds)
    cut[k] = data.draw(st.integers(1, cut[k]))
    weight = discarded_squares(matrix, shape, cut)
    for mpo in (MPO.from_matrix(matrix, shape, cut), MPO.from_matrix(matrix, shape).truncate(cut)):
        lost = torch.linalg.matrix_norm(mpo.to_matrix() - matrix).item() ** 2
        assert lost == pytest.approx(weight, abs=1e-6 * torch.linalg.matrix_norm(matrix).item() ** 2)


@given(data=st.data(), shape=shapes(), cutoff=st.floats(0, 0.9))
def test_a_cutoff_keeps_its_promise_with_the_fewest_bonds(data, shape, cutoff):
    matrix = data.draw(matrices(shape))
    norm = torch.linalg.matrix_norm(matrix).item()
    mpo = MPO.from_matrix(matrix, shape, cutoff=cutoff)
    error = torch.linalg.matrix_norm(mpo.to_matrix() - matrix).item()
    assert error <= (math.sqrt((shape.n_cores - 1) * cutoff) + 1e-7) * norm
    squares = np.linalg.svd(unfolding(matrix, shape, 1), compute_uv=False) ** 2
    allowed = cutoff * squares.sum()
    close = [b for b in range(len(squares)) if abs(squares[b:].sum() - allowed) < 1e-9 * squares.sum()]
    fewest = next(b for b in range(1, len(squares) + 1) if squares[b:].sum() <= allowed)
    assert mpo.bonds[0] <= fewest or close


@given(data=st.data(), shape=shapes())
def test_counts_are_those_by_hand(data, shape):
    mpo = MPO.random(shape, data.draw(bonds(shape)))
    ends = (1, *mpo.bonds, 1)
    by_hand = [ends[k] * shape.in_legs[k] * shape.out_legs[k] * ends[k + 1] for k in range(shape.n_cores)]
    assert mpo.n_params == sum(by_hand) == shape.n_params(mpo.bonds)
    assert mpo.central.numel() == by_hand[shape.n_cores // 2]
    assert sum(core.numel() for core in mpo.auxiliary) == sum(by_hand) - mpo.central.numel()
    assert mpo.ratio == sum(by_hand) / (shape.in_size * shape.out_size)


@given(sizes=st.tuples(st.integers(2, 3000), st.integers(2, 3000)), n=st.sampled_from([3, 5, 7]))
def test_auxiliary_parameters_are_the_squared_full_bonds_for_odd_n(sizes, n):
    shape = balanced_shape(*sizes, n)
    ends, c = (1, *shape.full_bonds, 1), shape.central
    central = ends[c] * shape.in_legs[c] * shape.out_legs[c] * ends[c + 1]
    assert shape.n_params(shape.full_bonds) - central == sum(bond**2 for bond in shape.full_bonds)


def test_counts_and_ratio_are_those_of_the_paper():
    """Appendix: attention 768 x 768 has ratio 1.13, feed-forward 768 x 3072 has 1.08, the embedding 1.07 at full bond."""
    attention = MPO.random(paper_shape("attention"))
    assert attention.n_params == 12 * 12 + 12 * 16 * 192 + 192 * 16 * 192 + 192 * 16 * 12 + 12 * 12
    ratios = [MPO.random(paper_shape(name)).ratio for name in ("attention", "feed_forward_in", "albert_embedding")]
    assert [round(ratio, 2) for ratio in ratios] == [1.13, 1.08, 1.07]


@given(data=st.data(), shape=shapes(), seed=SEEDS)
def test_the_centre_goes_anywhere_and_leaves_the_matrix_alone(data, shape, seed):
    matrix = data.draw(matrices(shape))
    mpo = with_random_gauge(MPO.from_matrix(matrix, shape, data.draw(bonds(shape))), seed)
    centre = data.draw(st.integers(0, shape.n_cores - 1))
    moved = mpo.canonize(centre)
    torch.testing.assert_close(moved.to_matrix(), mpo.to_matrix())
    for k, core in enumerate(moved.cores):
        unfolded = core.reshape(-1, core.shape[3]).T if k < centre else core.reshape(core.shape[0], -1)
        if k != centre:
            torch.testing.assert_close(unfolded @ unfolded.T, torch.eye(len(unfolded), dtype=torch.float64))
    norm = torch.linalg.matrix_norm(MPO(mpo.cores).to_matrix())
    torch.testing.assert_close(torch.linalg.vector_norm(moved.cores[centre]), norm)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_decomposition_has_its_centre_on_the_central_core(shape, dtype):
    mpo = MPO.from_matrix(random_matrix(shape).to(dtype), shape)
    tolerance = {"atol": {torch.float64: 1e-12, torch.float32: 1e-5}.get(dtype, 20 * torch.finfo(dtype).eps), "rtol": 0}
    for k, core in enumerate(mpo.cores):
        unfolded = (
            core.reshape(-1, core.shape[3]).T if k < shape.central else core.reshape(core.shape[0], -1)
        ).double()
        if k != shape.central:
            torch.testing.assert_close(unfolded @ unfolded.T, torch.eye(len(unfolded)).double(), **tolerance)


@given(data=st.data(), shape=shapes())
def test_sum_multiple_norm_and_inner_product_are_those_of_the_matrices(data, shape):
    one, other = (MPO.from_matrix(data.draw(matrices(shape)), shape, data.draw(bonds(shape))) for _ in range(2))
    a, b = one.to_matrix(), other.to_matrix()
    total = one + other
    torch.testing.assert_close(total.to_matrix(), a + b)
    assert total.bonds == tuple(np.add(one.bonds, other.bonds))
    torch.testing.assert_close((2.5 * one).to_matrix(), 2.5 * a)
    torch.testing.assert_close((one * -1).to_matrix(), -a)
    a, b = MPO(one.cores).to_matrix(), MPO(other.cores).to_matrix()
    scale = 1 + torch.linalg.matrix_norm(a).item() * torch.linalg.matrix_norm(b).item()
    assert one.inner(other) == pytest.approx((a * b).sum().item(), abs=1e-12 * scale)
    assert one.norm() == pytest.approx(torch.linalg.matrix_norm(a).item())


def test_the_inner_product_is_taken_where_the_cores_are():
    """A default device that holds no numbers stands for one that holds others."""
    mpo = MPO.ising(3, 1.0)
    with torch.device("meta"):
        assert mpo.inner(mpo) == pytest.approx(mpo.norm() ** 2)


def test_a_small_difference_keeps_its_norm():
    """The root of an inner product would lose half the digits."""
    shape = SHAPES[3]
    mpo = MPO.from_matrix(random_matrix(shape), shape)
    assert (mpo + (-1 + 1e-12) * mpo).norm() == pytest.approx(1e-12 * mpo.norm(), rel=1e-3)


@given(data=st.data(), n=st.integers(2, 4))
def test_product_is_that_of_the_matrices(data, n):
    a_legs, b_legs, c_legs = (
        data.draw(st.lists(st.integers(1, 3), min_size=n, max_size=n).map(tuple)) for _ in range(3)
    )
    one, other = Shape(a_legs, b_legs), Shape(b_legs, c_legs)
    a, b = data.draw(matrices(one)), data.draw(matrices(other))
    product = MPO.from_matrix(a, one) @ MPO.from_matrix(b, other)
    torch.testing.assert_close(product.to_matrix(), a @ b)
    assert (product.shape.in_legs, product.shape.out_legs) == (a_legs, c_legs)


@given(data=st.data(), shape=shapes(), leading=st.lists(st.integers(0, 3), max_size=3))
def test_apply_is_the_product_with_the_matrix(data, shape, leading):
    mpo = MPO.from_matrix(data.draw(matrices(shape)), shape, data.draw(bonds(shape)))
    x = torch.randn(*leading, shape.in_size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(mpo.apply(x), x @ mpo.to_matrix())


@given(data=st.data(), shape=shapes(padded=False))
def test_tensorly_and_we_read_each_others_cores(data, shape):
    matrix = data.draw(matrices(shape))
    cut = data.draw(bonds(shape))
    ours = MPO.from_matrix(matrix, shape, cut)
    with tl.backend_context("pytorch", local_threadsafe=True):
        torch.testing.assert_close(tt_matrix_to_matrix(ours.to_tensorly()), ours.to_matrix())
        legs = matrix.reshape(*shape.in_legs, *shape.out_legs)
        theirs = MPO.from_tensorly(tensor_train_matrix(legs, rank=(1, *cut, 1)))
    error, their_error = (torch.linalg.matrix_norm(mpo.to_matrix() - matrix) for mpo in (ours, theirs))
    assert error <= their_error + 1e-7 * torch.linalg.matrix_norm(matrix)
    assert theirs.bonds == ours.bonds or any(b < c for b, c in zip(ours.bonds, cut, strict=True))


def test_numpy_cores_of_tensorly_are_taken():
    with tl.backend_context("numpy", local_threadsafe=True):
        factors = tensor_train_matrix(np.arange(36.0).reshape(2, 3, 3, 2), rank=(1, 6, 1))
    torch.testing.assert_close(
        MPO.from_tensorly(factors).to_matrix(), torch.arange(36.0, dtype=torch.float64).view(6, 6)
    )


def test_a_second_decomposition_has_the_same_cores():
    shape = balanced_shape(96, 60)
    first, second = (MPO.from_matrix(random_matrix(shape), shape) for _ in range(2))
    for core, other in zip(first.cores, second.cores, strict=True):
        torch.testing.assert_close(core, other, atol=1e-10, rtol=0)


@pytest.mark.parametrize("sizes", [(96, 60), (60, 400), (384, 384)])
def test_rounding_and_memory_layout_change_no_sign(sizes):
    shape = balanced_shape(*sizes)
    matrix = random_matrix(shape) * torch.linspace(1, 2, sizes[1], dtype=torch.float64)
    shaken = matrix.T.contiguous().T * (1 + 1e-14 * torch.sign(random_matrix(shape)))
    for core, other in zip(MPO.from_matrix(matrix, shape).cores, MPO.from_matrix(shaken, shape).cores, strict=True):
        torch.testing.assert_close(core, other, atol=1e-6, rtol=0)


def test_methods_leave_the_mpo_alone():
    shape = Shape((3, 4, 2), (2, 2, 5))
    mpo = MPO.from_matrix(random_matrix(shape), shape)
    before = [core.clone() for core in mpo.cores]
    x = torch.ones(24, dtype=torch.float64)
    for result in (mpo.truncate(2), mpo.canonize(0), mpo + mpo, 2 * mpo, mpo.apply(x), mpo.inner(mpo), mpo.norm()):
        if isinstance(result, MPO):
            result.cores[0].fill_(7)
    assert all(torch.equal(a, b) for a, b in zip(mpo.cores, before, strict=True))


def test_compression_of_half_precision_is_no_worse_than_its_digits():
    shape = SHAPES[3]
    matrix = random_matrix(shape)
    exact = relative_error(MPO.from_matrix(matrix, shape, 20).to_matrix(), matrix)
    half = MPO.from_matrix(matrix.bfloat16(), shape).truncate(20)
    assert half.central.dtype == torch.bfloat16
    assert relative_error(half.to_matrix(), matrix) < exact + 8 * torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize(
    "matrix",
    [torch.zeros(24, 20), torch.outer(torch.arange(24.0), torch.ones(20)), torch.eye(24)[:, :20], torch.ones(24, 20)],
)
def test_degenerate_matrices_survive(matrix):
    shape = Shape((3, 4, 2), (2, 2, 5))
    for mpo in (MPO.from_matrix(matrix, shape), MPO.from_matrix(matrix, shape).truncate(20)):
        torch.testing.assert_close(mpo.to_matrix(), matrix, atol=2e-6 * max(1, matrix.abs().max().item()), rtol=0)
        assert all(torch.isfinite(core).all() for core in mpo.cores)
    assert MPO.from_matrix(matrix, shape, cutoff=1e-10).to_matrix().allclose(matrix, atol=1e-4)


def test_a_cap_and_a_cutoff_together_discard_no_more_than_either():
    shape = Shape((2, 2), (2, 2))
    u, v = (torch.linalg.qr(random_matrix(shape) + k)[0] for k in (0, 1))
    unfolded = u * torch.tensor([1.0, 0.5, 0.5, 0.4], dtype=torch.float64) @ v
    matrix = unfolded.reshape(2, 2, 2, 2).permute(0, 2, 1, 3).reshape(4, 4)
    assert MPO.from_matrix(matrix, shape, cutoff=0.2).bonds == (3,)
    assert MPO.from_matrix(matrix, shape, 3, 0.2).bonds == MPO.from_matrix(matrix, shape).truncate(3, 0.2).bonds == (3,)
    assert MPO.from_matrix(matrix, shape, 2, 0.2).bonds == (2,)


@pytest.mark.parametrize(("dtype", "factor"), [(torch.float32, 1e-25), (torch.float32, 1e20), (torch.float64, 1e200)])
def test_numbers_that_cannot_be_squared_are_decomposed(dtype, factor):
    shape = Shape((2, 4, 2), (4, 2, 4))
    matrix = random_matrix(shape).to(dtype) * factor
    mpo = MPO.from_matrix(matrix, shape)
    for whole in (mpo, mpo.truncate(cutoff=0.0), MPO.from_matrix(matrix, shape, cutoff=1e-12)):
        assert whole.bonds == shape.full_bonds
        assert relative_error(whole.to_matrix(), matrix) < 1e-5
    assert mpo.norm() == pytest.approx(factor * torch.linalg.matrix_norm(random_matrix(shape)).item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once_after_the_cut(dtype):
    shape = SHAPES[2]
    half = MPO.from_matrix(random_matrix(shape).to(dtype), shape)
    cut, exact = half.truncate(2), MPO(tuple(core.float() for core in half.cores)).truncate(2)
    for core, unrounded in zip(cut.cores, exact.cores, strict=True):
        torch.testing.assert_close(core, unrounded.to(dtype), rtol=torch.finfo(dtype).eps / 2, atol=0)


def test_a_norm_that_half_precision_cannot_hold_is_refused():
    with pytest.raises(ValueError, match=r"exceeds torch\.float16; decompose in float32"):
        MPO.from_matrix(torch.full((64, 64), 1100.0, dtype=torch.float16), ((64, 1), (64, 1)), 1)


def test_numpys_integers_and_lists_are_integers_and_tuples():
    legs = np.array([100, 100], dtype=np.int8)
    assert Shape(legs, legs).in_size == 10_000
    assert Shape([2, 2], [2, 2]) == Shape((2, 2), (2, 2))
    assert hash(Shape([2, 2], [2, 2], np.array([1, 0]))) == hash(Shape((2, 2), (2, 2), (1, 0)))
    matrix = random_matrix(SHAPES[1])
    assert MPO.from_matrix(matrix, SHAPES[1], np.array([2, 3])).bonds == (2, 3)
    assert MPO.from_matrix(matrix, SHAPES[1], np.int64(2)).bonds == (2, 2)


def test_cores_of_the_ising_chain_are_its_own():
    mpo = MPO.ising(3, 1.0)
    mpo.cores[0].fill_(99)
    assert mpo.cores[1].abs().max() == mpo.cores[2].abs().max() == 1


def test_the_smallest_matrix():
    mpo = MPO.from_matrix(torch.tensor([[-3.0]]), ((1, 1), (1, 1)))
    assert mpo.to_matrix().item() == pytest.approx(-3.0)
    assert mpo.bonds == (1,)


def test_rank_one_needs_bonds_of_one():
    shape = SHAPES[3]
    in_vector = torch.ones(1, dtype=torch.float64)
    for leg in shape.in_legs:
        in_vector = torch.kron(in_vector, torch.arange(1.0, leg + 1, dtype=torch.float64))
    mpo = MPO.from_matrix(in_vector[:, None] * torch.ones(1, 384, dtype=torch.float64), shape, cutoff=1e-12)
    assert mpo.bonds == (1, 1, 1, 1)


@pytest.mark.parametrize("shape", TALL_SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_tall_unfoldings_of_low_rank_leave_isometries_too(shape, dtype):
    matrix = random_matrix(shape, dtype)
    mpo = MPO.from_matrix(matrix[:, :1] @ matrix[:1], shape)
    torch.testing.assert_close(mpo.to_matrix(), matrix[:, :1] @ matrix[:1])
    for core in mpo.cores[: shape.central]:
        unfolded = core.reshape(-1, core.shape[3])
        torch.testing.assert_close(unfolded.T @ unfolded, torch.eye(core.shape[3], dtype=dtype))


@pytest.mark.parametrize("shape", [*SHAPES, *TALL_SHAPES, Shape((2, 2, 2), (2, 2, 1))])
def test_what_tt_svd_left_isometric_is_not_orthogonalised_again(shape, monkeypatch):
    """A QR for each core between the first tall unfolding and the centre, and for each right of the centre."""
    done, positive_qr = [], gauge.positive_qr
    monkeypatch.setattr(gauge, "positive_qr", lambda matrix: done.append(matrix) or positive_qr(matrix))
    matrix = random_matrix(shape)
    MPO.from_matrix(matrix, shape)
    ends, pairs = (1, *shape.full_bonds), [i * j for i, j in zip(shape.in_legs, shape.out_legs, strict=True)]
    sizes = [(ends[k] * pairs[k], math.prod(pairs[k + 1 :])) for k in range(shape.n_cores)]
    first = next(k for k, (rows, columns) in enumerate(sizes) if rows > columns or k == shape.n_cores - 1)
    assert len(done) == max(0, shape.central - first) + shape.n_cores - 1 - shape.central


def test_other_threads_keep_their_tensorly(monkeypatch):
    seen = []

    def spied(name):
        wrapped = getattr(gauge if name == "split" else mpo_module, name)

        def call(*args, **kwargs):
            with ThreadPoolExecutor(1) as pool:
                seen.append(pool.submit(tl.get_backend).result())
            return wrapped(*args, **kwargs)

        return call

    monkeypatch.setattr(gauge, "split", spied("split"))
    monkeypatch.setattr(mpo_module, "TTMatrix", spied("TTMatrix"))
    with tl.backend_context("numpy"):  # other libraries may have set another for all threads
        MPO.from_matrix(torch.eye(4), ((2, 2), (2, 2))).to_tensorly()
    assert seen == ["numpy"] * 2


def test_cores_and_padding_become_tuples():
    mpo = MPO(list(MPO.identity((2, 2)).cores), [1, 0])
    assert isinstance(mpo.cores, tuple)
    assert mpo.padding == (1, 0)
    assert mpo.to_matrix().shape == (3, 4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_the_centre_moves_and_the_norm_is_taken_with_more_digits_than_half_precision(dtype):
    shape = SHAPES[1]
    mpo = MPO.from_matrix(random_matrix(shape).to(dtype), shape)
    moved = mpo.canonize(0)
    assert {core.dtype for core in moved.cores} == {dtype}
    assert relative_error(moved.to_matrix(), mpo.to_matrix()) < 10 * torch.finfo(dtype).eps
    exact = MPO(tuple(core.double() for core in mpo.cores)).to_matrix()
    assert mpo.norm() == pytest.approx(torch.linalg.matrix_norm(exact).item(), rel=1e-10)


def test_a_product_of_padded_matrices_and_two_dtypes():
    one, other = Shape((2, 3), (3, 2), (1, 0)), Shape((3, 2), (2, 2), (0, 2))
    a, b = random_matrix(one, torch.float32), random_matrix(other)
    for left, right in ((a, b), (a.double(), b.float())):
        product = MPO.from_matrix(left, one) @ MPO.from_matrix(right, other)
        assert product.padding == (1, 2)
        assert product.central.dtype == torch.float64
        torch.testing.assert_close(product.to_matrix(), a.double() @ b, atol=1e-5, rtol=0)
    for left, right in (((0, 1), (0, 0)), ((0, 0), (1, 0))):
        with pytest.raises(ValueError, match="without padding"):
            MPO(MPO.identity((2, 2)).cores, left) @ MPO(MPO.identity((2, 2)).cores, right)


def test_identity_has_bonds_of_one():
    mpo = MPO.identity((2, 3, 4))
    assert mpo.bonds == (1, 1)
    assert torch.equal(mpo.to_matrix(), torch.eye(24))
    assert mpo.central.dtype == torch.float32
    torch.testing.assert_close(MPO.identity((2, 3), torch.float64).to_matrix(), torch.eye(6, dtype=torch.float64))


def test_random_cores_are_those_of_their_bonds_and_generator():
    shape = SHAPES[3]
    one, other = (MPO.random(shape, 5, generator=torch.Generator().manual_seed(4)) for _ in range(2))
    assert one.bonds == (5, 5, 5, 5)
    assert all(torch.equal(a, b) for a, b in zip(one.cores, other.cores, strict=True))
    default = MPO.random(shape, 5, generator=torch.Generator().manual_seed(4))
    usual = MPO.random(shape, 5, 1.0, torch.Generator().manual_seed(4))
    assert torch.equal(default.central, usual.central)


def test_random_cores_give_the_spread_that_is_asked_for():
    shape = Shape((3, 4, 2), (2, 2, 5), (1, 0))
    squares = [
        MPO.random(shape, 3, std=0.5, generator=torch.Generator().manual_seed(seed)).to_matrix().square().mean()
        for seed in range(400)
    ]
    mean, error = np.mean(squares), np.std(squares) / 20
    assert abs(mean - 0.25) < 4 * error
    assert error < 0.03


@pytest.mark.parametrize("n", [2, 3, 6])
@pytest.mark.parametrize(("field", "coupling"), [(0.7, 1.0), (-1.0, 0.5), (0.0, 2.0), (0.3, 0.1)])
def test_ising_hamiltonian_is_the_sum_of_kronecker_products(n, field, coupling):
    z, x, one = np.diag([1.0, -1.0]), np.array([[0.0, 1.0], [1.0, 0.0]]), np.eye(2)

    def term(*operators):
        product = np.eye(1)
        for operator in operators:
            product = np.kron(product, operator)
        return product

    expected = np.zeros((2**n, 2**n))
    for k in range(n):
        expected -= field * term(*[x if site == k else one for site in range(n)])
        if k + 1 < n:
            expected -= coupling * term(*[z if site in (k, k + 1) else one for site in range(n)])
    mpo = MPO.ising(n, field, coupling)
    np.testing.assert_allclose(mpo.to_matrix().numpy(), expected, rtol=1e-12, atol=1e-12)
    assert mpo.central.dtype == torch.float64
    assert mpo.bonds == (3,) * (n - 1)
    if n == 6 and field:
        assert mpo.truncate(cutoff=1e-12).bonds == (3,) * 5


@pytest.mark.parametrize(("bond", "chain"), [(3, "o-3-#-3-o"), (16, "o-16-#-16-o"), (256, "o-256-#-256-o")])
def test_the_drawing_has_legs_bonds_and_the_central_core(bond, chain):
    sizes = [(1, 2, 2, bond), (bond, 2, 2, bond), (bond, 2, 2, 1)]
    lines = MPO(tuple(torch.empty(size) for size in sizes)).draw().splitlines()
    assert lines[0].split() == lines[4].split() == ["2", "2", "2"]
    assert lines[2].strip() == chain
    stick_columns = [column for column, letter in enumerate(lines[1]) if letter == "|"]
    assert [lines[2][column] for column in stick_columns] == ["o", "#", "o"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_mpo_shows_its_drawing_and_counts_and_looks_at_no_number(dtype, device):
    sizes = [(1, 3, 2, 3), (3, 4, 2, 7), (7, 2, 5, 1)]
    mpo = MPO(tuple(torch.empty(size, dtype=dtype, device=device, requires_grad=True) for size in sizes), (1, 2))
    first, *rest = repr(mpo).splitlines()
    assert first == "MPO of a 23 x 18 matrix in 3 cores, bonds 3.7: 256 numbers, ratio 0.6184"
    assert "\n".join(rest) == mpo.draw()
    assert first in str([mpo])


def test_a_large_mpo_counts_in_thousands():
    assert "768 x 768 matrix in 5 cores, bonds 12.192.192.12: 663,840 numbers, ratio 1.125" in repr(
        MPO.random(paper_shape("attention"))
    )


def test_the_old_name_of_truncate_leads_to_the_new_one():
    mpo = MPO.identity((2, 2))
    with pytest.raises(AttributeError, match=r"^MPO\.compress is now MPO\.truncate$"):
        mpo.compress(1)
    with pytest.raises(AttributeError, match="no attribute 'cutt'"):
        _ = mpo.cutt
    assert not hasattr(mpo, "compress")
    for twin in (copy.deepcopy(mpo), pickle.loads(pickle.dumps(mpo))):  # noqa: S301
        assert torch.equal(twin.to_matrix(), mpo.to_matrix())


def test_an_mpo_of_another_library_has_the_same_schmidt_values():
    shape = Shape((2, 3, 2, 2), (2, 3, 2, 2))
    matrix = random_matrix(shape)
    theirs = qtn.MatrixProductOperator.from_dense(matrix.numpy(), dims=shape.in_legs)
    np.testing.assert_allclose(theirs.to_dense(), matrix.numpy(), atol=1e-12)
    pairs = [i * j for i, j in zip(shape.in_legs, shape.out_legs, strict=True)]
    vector = unfolding(matrix, shape, 2).reshape(pairs)
    state = qtn.MatrixProductState.from_dense(vector / np.linalg.norm(vector), dims=pairs)
    spectra = Spectra.of(matrix, shape)
    for cut, values in enumerate(spectra.values, start=1):
        np.testing.assert_allclose(state.schmidt_values(cut), (values / spectra.norm) ** 2, atol=1e-12)
        assert state.entropy(cut) * math.log(2) == pytest.approx(entropy(values))
    state.compress(max_bond=3, form="left")
    kept = MPO.from_matrix(matrix, shape, 3)
    their_error = np.linalg.norm(state.to_dense().ravel() * np.linalg.norm(vector) - vector.ravel())
    our_error = torch.linalg.matrix_norm(kept.to_matrix() - matrix).item()
    assert our_error == pytest.approx(their_error, rel=0.05)  # they sweep the other way


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused_and_found(value):
    broken = torch.zeros(4, 4)
    broken[1, 2] = value
    with pytest.raises(ValueError, match=f"got {value} in row 1, column 2"):
        MPO.from_matrix(broken, ((2, 2), (2, 2)))


@pytest.mark.parametrize(
    ("matrix", "shape", "options", "message"),
    [
        (torch.zeros(4, 5), ((2, 2), (2, 2)), {}, r": \(2, 2\) x \(2, 2\) is 4 x 4, the matrix 4 x 5"),
        (torch.zeros(4), ((2, 2), (2, 2)), {}, "the matrix 4"),
        (torch.tensor(1.0), ((2, 2), (2, 2)), {}, "the matrix a number"),
        (torch.zeros(0, 4), ((2, 2), (2, 2)), {}, "the matrix 0 x 4"),
        (torch.zeros(4, 4), Shape((2, 2), (2, 2), (1, 0)), {}, r"padding \(1, 0\) is 3 x 4, the matrix 4 x 4"),
        (torch.zeros(4, 4), ((2, 2), (2, 2, 1)), {}, "equally many"),
        (
            torch.zeros(4, 4, dtype=torch.int64),
            ((2, 2), (2, 2)),
            {},
            "floating point tensors of torch, got torch.int64",
        ),
        (torch.zeros(4, 4, dtype=torch.complex64), ((2, 2), (2, 2)), {}, "got torch.complex64"),
        (np.zeros((4, 4)), ((2, 2), (2, 2)), {}, "got float64"),
        (torch.eye(4), ((2, 2), (2, 2)), {"max_bond": 0}, "positive integer, got 0"),
        (torch.eye(4), ((2, 2), (2, 2)), {"max_bond": 1.5}, "positive integer, got 1.5"),
        (torch.eye(4), ((2, 2), (2, 2)), {"max_bond": True}, "positive integer, got True"),
        (torch.eye(4), ((2, 2), (2, 2)), {"max_bond": "8"}, "positive integer, got '8'"),
        (torch.eye(4), ((2, 2), (2, 2)), {"max_bond": (2, 2)}, "2 cores have 1 inner bonds, got 2"),
        (torch.eye(4), ((2, 2), (2, 2)), {"max_bond": (5,)}, "from 1 to 4, got 5"),
        (torch.eye(4), ((2, 2), (2, 2)), {"max_bond": (0,)}, "from 1 to 4, got 0"),
        (torch.eye(4), ((2, 2), (2, 2)), {"cutoff": 1.0}, "lies in \\[0, 1\\), got 1.0"),
        (torch.eye(4), ((2, 2), (2, 2)), {"cutoff": -0.1}, "got -0.1"),
        (torch.eye(4), ((2, 2), (2, 2)), {"cutoff": math.nan}, "got nan"),
        (torch.eye(4), ((2, 2), (2, 2)), {"cutoff": "0.1"}, "got '0.1'"),
        (torch.eye(4), ((2, 2), (2, 2)), {"cutoff": False}, "got False"),
    ],
)
def test_bad_input_is_refused(matrix, shape, options, message):
    with pytest.raises(ValueError, match=message):
        MPO.from_matrix(matrix, shape, **options)


@pytest.mark.parametrize(
    "sizes",
    [
        [],
        [(1, 0, 2, 1), (1, 2, 2, 1)],
        [(1, 2, 2, 0), (0, 2, 2, 1)],
        [(1, 2, 2, 1)],
        [(1, 2, 2, 3), (2, 2, 2, 1)],
        [(2, 2, 2, 1), (1, 2, 2, 1)],
        [(1, 2, 2, 2), (2, 2, 2, 2)],
        [(1, 2, 2), (2, 2, 2, 1)],
        [(), (1, 2, 2, 1)],
    ],
)
def test_cores_that_do_not_chain_are_refused(sizes):
    with pytest.raises(
        ValueError, match=r"^cores must chain: two or more of shape .* the bonds between neighbours equal, the outer"
    ):
        MPO(tuple(torch.zeros(size) for size in sizes))


def test_bad_operations_are_refused():
    mpo, other = MPO.identity((2, 2)), MPO.identity((4, 1))
    for centre in (-1, 2, 1.0, True):
        with pytest.raises(ValueError, match="0 to 1, got"):
            mpo.canonize(centre)
    with pytest.raises(ValueError, match=r"^truncate needs a max_bond or a cutoff, got neither$"):
        mpo.truncate()
    with pytest.raises(ValueError, match=r"lies in \[0, 1\), got 1\.0"):
        mpo.truncate(cutoff=1.0)
    for operation in (lambda: mpo + other, lambda: mpo.inner(other)):
        with pytest.raises(ValueError, match="the same legs"):
            operation()
    with pytest.raises(ValueError, match=r"^a product needs the out legs of the left .*, without padding; got Shape"):
        mpo @ other
    with pytest.raises(ValueError, match="an axis of 4, got the shape \\(2, 3\\)"):
        mpo.apply(torch.zeros(2, 3))
    broken = MPO((mpo.cores[0] * math.nan, mpo.cores[1]))
    for operation in (lambda: broken.truncate(1), lambda: broken.canonize(0), broken.norm):
        with pytest.raises(ValueError, match="must be finite, got nan"):
            operation()
    with pytest.raises(ValueError, match=r"one dtype and one device, got torch\.float32 on cpu, torch\.float64"):
        MPO((mpo.cores[0], mpo.cores[1].double()))
    with pytest.raises(ValueError, match=r"from 0 to 3 here, got 5 in \(5, 0\)"):
        MPO(mpo.cores, (5, 0))
    with pytest.raises(ValueError, match="finite numbers, got nan"):
        MPO.ising(3, math.nan)
    for operation in (lambda: mpo + 1, lambda: mpo * "a", lambda: mpo @ 2):
        with pytest.raises(TypeError):
            operation()
    for n in (1, 2.0):
        with pytest.raises(ValueError, match="integer number of sites from 2"):
            MPO.ising(n, 1.0)


def test_tensorlys_backend_is_left_as_it_was():
    before = tl.get_backend()
    MPO.from_matrix(torch.eye(4), Shape((2, 2), (2, 2))).to_tensorly()
    assert tl.get_backend() == before


def test_the_eq_1_of_the_paper_is_the_contraction():
    shape = Shape((2, 3, 2), (3, 1, 2))
    cores = MPO.from_matrix(random_matrix(shape), shape).cores
    entries = np.zeros((shape.in_size, shape.out_size))
    for i, j in itertools.product(np.ndindex(shape.in_legs), np.ndindex(shape.out_legs)):
        slices = [core[:, a, b].numpy() for core, a, b in zip(cores, i, j, strict=True)]
        row, column = np.ravel_multi_index(i, shape.in_legs), np.ravel_multi_index(j, shape.out_legs)
        entries[row, column] = np.linalg.multi_dot(slices)[0, 0]
    np.testing.assert_allclose(MPO(cores).to_matrix().numpy(), entries, atol=1e-12)
