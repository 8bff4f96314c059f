import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import AdaLoraConfig, get_peft_model
from strategies import least_discarded, matrices, shapes

from mpo_tutorial.maths import budget as module
from mpo_tutorial.maths.budget import allocate, cubic_schedule
from mpo_tutorial.maths.entropy import Spectra
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape


def every_choice(spectra: dict[str, Spectra], relative: bool) -> list[tuple[int, float]]:
    """Parameters and squared bound of all usable bonds of all matrices together."""
    together = [(0, 0.0)]
    for spectrum in spectra.values():
        pairs = [i * j for i, j in zip(spectrum.shape.in_legs, spectrum.shape.out_legs, strict=True)]
        choices = []
        for bonds in itertools.product(*(range(1, len(values) + 1) for values in spectrum.values)):
            ends = (1, *bonds, 1)
            if all(a <= b * pair and b <= a * pair for a, b, pair in zip(ends, ends[1:], pairs, strict=False)):
                tails = [(values[bond:] ** 2).sum() for bond, values in zip(bonds, spectrum.values, strict=True)]
                error = least_discarded(spectrum.shape, bonds, tails)
                unit = (spectrum.values[0] ** 2).sum() if relative else 1
                size = sum(a * pair * b for a, b, pair in zip(ends, ends[1:], pairs, strict=False))
                choices.append((size, error / (unit or 1)))
        together = [(p + q, e + f) for (p, e), (q, f) in itertools.product(together, choices)]
    return together


@st.composite
def few_small_matrices(draw) -> dict[str, Spectra]:
    spectra = {}
    for name in draw(st.sampled_from(["a", "ab"])):
        legs = st.lists(st.integers(1, 2), min_size=3, max_size=3).map(tuple)
        shape = Shape(draw(legs), draw(legs))
        spectra[name] = Spectra.of(draw(matrices(shape)) * draw(st.sampled_from([1.0, 10.0])), shape)
    return spectra


@given(data=st.data(), spectra=few_small_matrices(), relative=st.booleans())
def test_no_bonds_within_the_budget_lose_less(data, spectra, relative):
    choices = every_choice(spectra, relative)
    least, most = min(choices)[0], max(choices)[0]
    budget = data.draw(st.integers(least, most + 1))
    found = allocate(spectra, n_params=budget, relative=relative, tolerance=0)
    best = min(error for params, error in choices if params <= budget)
    assert found.squared_error == pytest.approx(best, abs=1e-9)
    assert found.at_best == pytest.approx(best, abs=1e-9)
    assert found.n_params <= budget
    assert found.n_params == sum(spectra[name].shape.n_params(bonds) for name, bonds in found.bonds.items())


@given(data=st.data(), spectra=few_small_matrices())
def test_no_bonds_within_the_error_are_fewer(data, spectra):
    choices = every_choice(spectra, relative=True)
    allowed = data.draw(st.sampled_from(sorted({error for _, error in choices}))) * 1.0001 + 1e-12
    found = allocate(spectra, squared_error=allowed, tolerance=0)
    assert found.squared_error <= allowed
    assert found.n_params == min(params for params, error in choices if error <= allowed)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_the_search_finds_the_best_where_the_price_alone_does_not(seed, relative):
    """Every budget and every error there is, for two matrices, one with bonds of 3 cores and one of 4."""
    rng, spectra = np.random.default_rng(seed), {}
    for name, shape in (("a", Shape((2, 2, 2), (2, 1, 2))), ("b", Shape((2, 1, 2, 1), (1, 2, 1, 3)))):
        matrix = rng.normal(size=(shape.in_size, shape.out_size)) * rng.uniform(0.1, 5)
        spectra[name] = Spectra.of(torch.from_numpy(matrix * np.geomspace(1, 0.05, shape.out_size)), shape)
    choices = every_choice(spectra, relative)
    for allowed in sorted({params for params, _ in choices})[::2]:
        found = allocate(spectra, n_params=allowed, relative=relative, tolerance=0)
        best = min(error for params, error in choices if params <= allowed)
        assert found.n_params <= allowed
        assert found.squared_error == pytest.approx(best, abs=1e-9)
        assert found.at_best == pytest.approx(best, abs=1e-9)
    for allowed in np.quantile([error for _, error in choices], np.linspace(0.01, 0.99, 12)) * 1.000001:
        found = allocate(spectra, squared_error=allowed, relative=relative, tolerance=0)
        assert found.squared_error <= allowed
        assert found.n_params == found.at_best == min(params for params, error in choices if error <= allowed)


def test_a_gap_within_the_tolerance_is_not_searched(monkeypatch):
    spectra = {"a": Spectra.of(torch.diag(torch.linspace(1, 2, 16) ** 6), Shape((4, 4), (4, 4)))}
    searched = []
    monkeypatch.setattr(module, "_search", lambda chain, limit, path, price: searched.append(price) or (path, False))
    found = allocate(spectra, n_params=32 * 7, tolerance=0)  # on the path of prices: nothing is left open
    assert not searched
    assert found.at_best == pytest.approx(found.squared_error)
    loose, open_ = (allocate(spectra, n_params=32 * 7 + 20, tolerance=tolerance) for tolerance in (0.9, 0.0))
    assert len(searched) == 1
    assert loose.at_best == open_.at_best < open_.squared_error


def test_no_bond_is_wider_than_its_neighbours_can_use():
    chain = module._Chain({"a": Spectra.of(torch.eye(8), Shape((2, 2, 2), (2, 2, 2)))}, relative=True, by_error=False)
    assert chain.params(1, np.array([1]), np.array([4])) == 16
    assert chain.params(1, np.array([1]), np.array([5])) == chain.params(1, np.array([5]), np.array([1])) == np.inf


def test_what_is_promised_holds_for_the_matrices_themselves():
    shapes_of = {"a": Shape((3, 4, 2), (2, 4, 3)), "b": Shape((2, 4, 4), (4, 4, 2))}
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: torch.randn(shape.in_size, shape.out_size, generator=generator, dtype=torch.float64)
        * torch.linspace(0, 1, shape.out_size, dtype=torch.float64) ** 4
        for name, shape in shapes_of.items()
    }
    spectra = {name: Spectra.of(matrix, shapes_of[name]) for name, matrix in weights.items()}
    full = sum(shape.n_params(shape.full_bonds) for shape in shapes_of.values())
    found = allocate(spectra, n_params=full // 2)
    error = 0.0
    for name, matrix in weights.items():
        mpo = MPO.from_matrix(matrix, shapes_of[name], found.bonds[name])
        assert mpo.bonds == found.bonds[name]
        error += (torch.linalg.matrix_norm(mpo.to_matrix() - matrix) / torch.linalg.matrix_norm(matrix)).item() ** 2
    assert error <= found.squared_error * (1 + 1e-9)
    # One cap for all, the largest within the same budget, loses more.
    caps = (
        {name: tuple(min(cap, full) for full in s.full_bonds) for name, s in shapes_of.items()}
        for cap in range(96, 0, -1)
    )
    uniform = next(b for b in caps if sum(s.n_params(b[name]) for name, s in shapes_of.items()) <= full // 2)
    assert found.squared_error < sum(spectra[name].bound(uniform[name], relative=True) ** 2 for name in shapes_of)


@pytest.mark.parametrize("allowed", [1e-12, 3e-13, 1e-13, 1e-14])
def test_small_errors_are_kept_to_as_well(allowed):
    spectra = {}
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        matrix = torch.randn(16, 16, generator=generator, dtype=torch.float64)
        scale = torch.logspace(0, -9, 16, dtype=torch.float64)
        spectra[str(seed)] = Spectra.of(scale[:, None] * matrix * scale, Shape((2, 4, 2), (2, 4, 2)))
    found = allocate(spectra, squared_error=allowed)
    assert found.squared_error <= allowed
    assert found.at_best <= found.n_params


def test_many_matrices_come_with_a_small_gap(monkeypatch):
    """As many labels as it takes prove the best; with too few, `at_best` says what is left open."""
    shape = Shape((2, 4, 4, 2), (2, 3, 4, 2))
    spectra = {}
    for k in range(12):
        generator = torch.Generator().manual_seed(k)
        matrix = torch.randn(shape.in_size, shape.out_size, generator=generator)
        spectra[str(k)] = Spectra.of(matrix * torch.linspace(0, 1, shape.out_size) ** (k % 4), shape)
    budget = 12 * shape.n_params(shape.full_bonds) // 3
    # 37 are needed; 136 if those stay that another one beats in both, or equals.
    monkeypatch.setattr("mpo_tutorial.maths.budget.MOST_LABELS", 70)
    exact = allocate(spectra, n_params=budget, tolerance=0)
    assert exact.at_best == exact.squared_error
    monkeypatch.setattr("mpo_tutorial.maths.budget.MOST_LABELS", 3)
    hasty = allocate(spectra, n_params=budget, tolerance=0)
    assert hasty.n_params <= budget
    assert hasty.at_best <= exact.squared_error <= hasty.squared_error
    assert hasty.squared_error - hasty.at_best < 0.05 * hasty.squared_error
    monkeypatch.setattr("mpo_tutorial.maths.budget.MOST_LABELS", 1)
    hastier = allocate(spectra, n_params=budget, tolerance=0)
    assert hastier.at_best < hastier.squared_error


def test_as_many_labels_as_are_allowed_still_prove_the_best(monkeypatch):
    """Of one bond between the prices' paths a single label is promising."""
    monkeypatch.setattr("mpo_tutorial.maths.budget.MOST_LABELS", 1)
    matrix = torch.randn(16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = allocate({"a": Spectra.of(matrix, Shape((4, 4), (4, 4)))}, n_params=32 * 7 + 1, tolerance=0)
    assert found.bonds == {"a": (7,)}
    assert found.at_best == found.squared_error


def test_limits_that_cannot_be_met_are_refused():
    shape = Shape((2, 2), (2, 2))
    spectra = {"a": Spectra.of(torch.eye(4) + torch.ones(4, 4), shape)}
    cases = [
        ({"n_params": 7}, "n_params cannot be below 8 for these matrices, got 7"),
        ({"squared_error": -0.1}, r"squared_error cannot be below 0.* for these matrices, got -0\.1"),
        ({"squared_error": math.nan}, "got nan"),
        ({}, "either n_params or squared_error, got None and None"),
        ({"n_params": 9, "squared_error": 0.1}, r"got 9 and 0\.1"),
        ({"n_params": 9, "tolerance": 1.0}, r"a tolerance lies in \[0, 1\), got 1\.0"),
        ({"n_params": 9, "tolerance": math.nan}, r"a tolerance lies in \[0, 1\), got nan"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            allocate(spectra, **options)
    with pytest.raises(ValueError, match=r"^there is no matrix to share the budget among$"):
        allocate({}, n_params=8)
    assert allocate(spectra, n_params=8).bonds == {"a": (1,)}
    assert np.isclose(allocate(spectra, squared_error=0).squared_error, 0)


@given(data=st.data(), shape=shapes(most_cores=4))
def test_one_matrix_with_room_keeps_all_that_counts(data, shape):
    spectra = {"only": Spectra.of(data.draw(matrices(shape)), shape)}
    found = allocate(spectra, n_params=shape.n_params(shape.full_bonds))
    assert found.squared_error == pytest.approx(0, abs=1e-12)


def test_the_cubic_schedule_is_adaloras():
    """The budget of PEFT's own allocator after each step, which it rounds down to whole ranks."""
    model = torch.nn.Sequential(torch.nn.Linear(40, 50), torch.nn.Linear(50, 60))
    config = AdaLoraConfig(init_r=37, target_r=5, tinit=0, tfinal=0, total_step=9, deltaT=1, target_modules=["0", "1"])
    allocator = get_peft_model(model, config).base_model.rankallocator
    found = cubic_schedule(2 * 37, 2 * 5, 9)
    assert [int(left) for left in found] == [allocator.budget_schedule(step)[0] for step in range(1, 10)]
    assert found[-1] == 10


@pytest.mark.parametrize(("start", "end", "steps"), [(5, 6, 3), (6, 5, 0)])
def test_a_schedule_that_leads_up_or_nowhere_is_refused(start, end, steps):
    with pytest.raises(ValueError, match=f"a schedule leads down in one step or more, got {start} to {end} in {steps}"):
        cubic_schedule(start, end, steps)
