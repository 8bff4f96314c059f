"""benchmarks/legwise.py, the trial that chapter 06 tells of."""

import functools
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.cut_results import output_errors
from mpo_tutorial.maths.mpo import MPO
from mpo_tutorial.maths.shapes import Shape

spec = importlib.util.spec_from_file_location("legwise", Path(__file__).parents[2] / "benchmarks/legwise.py")
legwise = importlib.util.module_from_spec(spec)
spec.loader.exec_module(legwise)


def positive(size: int, seed: int) -> torch.Tensor:
    rows = np.random.default_rng(seed).normal(size=(3 * size, size))
    return torch.from_numpy(rows.T @ rows / (3 * size))


def test_leg_moments_of_a_kronecker_product_make_it_again():
    parts = [positive(leg, leg) for leg in (3, 2, 4)]
    metric = functools.reduce(torch.kron, parts)
    found = legwise.leg_moments(metric, (3, 2, 4))
    assert [len(moments) for moments in found] == [3, 2, 4]
    torch.testing.assert_close(functools.reduce(torch.kron, found) * metric.trace(), metric, rtol=1e-10, atol=1e-10)


def test_where_the_metric_is_such_a_product_no_cut_of_two_cores_is_better():
    shape, bond = Shape((4, 3), (2, 5)), 3
    matrix = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 10)))
    first, second = positive(4, 1), positive(3, 2)
    metric = torch.kron(first, second)
    cut = legwise.legwise_cut(MPO.from_matrix(matrix, shape), (bond,), metric)
    lost = matrix - cut.to_matrix()
    roots = [torch.from_numpy(np.linalg.cholesky(part.numpy()).T) for part in (first, second)]
    weighted = (torch.kron(*roots) @ matrix).reshape(4, 3, 2, 5).movedim(2, 1).reshape(8, 15)
    least = torch.linalg.svdvals(weighted)[bond:].square().sum()
    torch.testing.assert_close((lost * (metric @ lost)).sum(), least, rtol=1e-9, atol=0)
    assert cut.bonds == (bond,)
    with pytest.raises(ValueError, match="legs without padding"):
        legwise.legwise_cut(MPO.from_matrix(matrix[:11], Shape((4, 3), (2, 5), (1, 0))), (bond,), metric)


def test_the_program_writes_a_record_of_all_matrices(tiny_light_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["legwise.py", *map(str, tiny_light_runs), "--out", str(tmp_path)])
    legwise.main()
    points = records.read_points(tmp_path / "record.jsonl")
    assert capsys.readouterr().out.count("mean error of the outputs") == 6
    assert {len(point["result"]["errors"]) for point in points} == {13}
    ways = {row["way"]: row["error"] for row in output_errors(points) if row["ratio"] == 0.4}
    assert ways["fitted"] < ways["plain"] < 1


def test_the_shipped_record_is_of_the_runs_of_the_other_one():
    shipped, other = records.shipped_points("legwise"), records.shipped_points("cuts")
    seeds = {point["setting"]["seed"] for point in other if point["stage"] == "uncut"}
    assert {point["setting"]["seed"] for point in shipped} == seeds
    assert {(p["setting"]["ratio"], p["setting"]["way"]) for p in shipped} == {
        (ratio, way) for ratio in legwise.RATIOS for way in legwise.WAYS
    }
