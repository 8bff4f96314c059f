"""benchmarks/legwise.py, the trial that chapter 06 tells of."""

import importlib.util
import sys
from pathlib import Path

from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.cut_results import output_errors

spec = importlib.util.spec_from_file_location("legwise", Path(__file__).parents[2] / "benchmarks/legwise.py")
legwise = importlib.util.module_from_spec(spec)
spec.loader.exec_module(legwise)


def test_the_program_writes_a_record_of_all_matrices(tiny_light_runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(legwise, "RATIOS", (0.4,))
    monkeypatch.setattr(sys, "argv", ["legwise.py", *map(str, tiny_light_runs), "--out", str(tmp_path)])
    legwise.main()
    points = records.read_points(tmp_path / "record.jsonl")
    assert capsys.readouterr().out.count("mean error of the outputs") == 3
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
