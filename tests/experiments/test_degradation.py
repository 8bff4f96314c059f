import json

import numpy as np
import pytest
from conftest import LAYER_RATIO, RATIOS

from mpo_tutorial.experiments import records, statistics
from mpo_tutorial.experiments.degradation import WAYS, degradation
from mpo_tutorial.experiments.finetune import evaluate
from mpo_tutorial.experiments.tradeoff import PARTS, Tuned
from mpo_tutorial.models.families import KINDS
from mpo_tutorial.models.layers import MPOLayer
from mpo_tutorial.models.truncation import truncate


def test_there_is_a_point_for_every_setting_and_seed(tiny_degradation):
    record, _ = tiny_degradation
    expected = {("uncut", None, "none")}
    expected |= {(way, ratio, part) for way in WAYS for ratio in RATIOS for part in PARTS}
    expected |= {("allotted", ratio, part) for ratio in RATIOS for part in PARTS}
    expected |= {("plain", ratio, "embedding") for ratio in RATIOS}
    expected |= {(way, LAYER_RATIO, part) for way in WAYS for part in ("layer 0", "layer 1", *KINDS)}
    found = [(p["seed"], p["way"], p["ratio"], p["part"]) for p in record["points"]]
    assert len(found) == len(set(found))
    seeds = [config["seed"] for config in record["configs"]]
    assert set(found) == {(seed, *setting) for seed in seeds for setting in expected}
    assert {(row["way"], row["ratio"], row["part"]) for row in record["summary"]} == expected


def test_points_are_those_of_models_cut_part_by_part_on_unused_sentences(tiny_degradation, tiny_light_runs):
    record, _ = tiny_degradation
    prepared = Tuned.of_run(tiny_light_runs[0]).prepared
    task = prepared.task
    trained = task.train(prepared.config.train_size)
    assert record["sentences"] == len(task.splits["train"]) - len(trained) > 0
    unused = [row for row in task.splits["train"] if row not in trained]
    point = next(p for p in record["points"] if (p["way"], p["ratio"], p["part"]) == ("plain", 0.2, "feed-forward"))
    truncate(prepared.model, ratio=0.2, part="feed-forward")
    mpos = [m.mpo for name, m in prepared.model.named_modules() if isinstance(m, MPOLayer) and "attention" not in name]
    mpos = mpos[:-1]  # the pooler
    assert point["parameters"] == sum(mpo.n_params for mpo in mpos)
    assert point["dense"] == sum(mpo.to_matrix().numel() for mpo in mpos)
    task.splits["validation"] = unused
    right = evaluate(prepared.model, prepared.dataset("validation"), prepared.tokenizer)
    np.testing.assert_array_equal(statistics.correct_sentences(point["accuracy"]), right)


def test_states_err_from_the_first_cut_layer_on(tiny_degradation):
    for point in tiny_degradation[0]["points"]:
        assert len(point["states"]) == 2
        if point["way"] == "uncut":
            assert point["states"] == [0.0, 0.0]
        elif point["part"] == "layer 1":
            assert point["states"][0] == 0
            assert point["states"][1] > 0
        else:
            assert min(point["states"]) > 0


def test_ways_are_compared_at_equal_parameters_by_paired_differences(tiny_degradation):
    record, _ = tiny_degradation
    by_setting = {}
    for point in record["points"]:
        by_setting.setdefault((point["ratio"], point["part"]), []).append(point)
    for points in by_setting.values():
        (equal,) = {p["parameters"] for p in points if p["way"] != "allotted"}
        assert [p["parameters"] for p in points if not 0.5 * equal <= p["parameters"] <= equal] == [], equal
    for row in record["summary"]:
        points = by_setting[row["ratio"], row["part"]]
        accuracies = {
            way: np.mean([p["accuracy"]["accuracy"] for p in points if p["way"] == way])
            for way in {p["way"] for p in points}
        }
        assert row["accuracy"]["mean"] == pytest.approx(accuracies[row["way"]])
        if row["way"] not in ("uncut", "plain"):
            assert row["minus_plain"]["mean"] == pytest.approx(accuracies[row["way"]] - accuracies["plain"])
            low, high = row["minus_plain"]["interval"]
            assert low <= row["minus_plain"]["mean"] <= high
        assert ("minus_plain" in row) == (row["way"] not in ("uncut", "plain"))


def test_points_that_are_there_are_read_and_only_the_others_made(tiny_degradation, tiny_light_runs):
    record, out = tiny_degradation
    kept, lost = sorted((out / "points").iterdir())[:2]
    marked = {**json.loads(kept.read_text()), "parameters": -1}
    kept.write_text(json.dumps(marked))
    lost_before = json.loads(lost.read_text())
    lost.unlink()
    again = degradation(tiny_light_runs, out, ratios=RATIOS, layer_ratio=LAYER_RATIO, resume=True, progress=False)
    assert [p["parameters"] for p in again["points"]].count(-1) == 1
    assert json.loads(lost.read_text()) == lost_before
    with pytest.raises(ValueError, match="resumed with the options they were made with"):
        degradation(tiny_light_runs, out, ratios=(0.5,), layer_ratio=LAYER_RATIO, resume=True, progress=False)
    anew = degradation(tiny_light_runs[:1], out, ratios=(), layer_ratio=LAYER_RATIO, progress=False)
    assert len(anew["points"]) == len(list((out / "points").iterdir())) == 1 + (2 + len(KINDS)) * len(WAYS)
    assert all(point in record["points"] for point in anew["points"])


def test_runs_that_do_not_belong_together_are_refused(tiny_light_runs, tmp_path, tiny_light_run):
    with pytest.raises(ValueError, match="a finished light run is needed at least, got none"):
        degradation([], tmp_path)
    with pytest.raises(ValueError, match="runs differ in the seed and in nothing else, got seeds"):
        degradation([tiny_light_runs[0], tiny_light_runs[0]], tmp_path)
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        degradation([tmp_path], tmp_path / "out")
    record = records.read_record(tiny_light_run / "record.json")
    (tmp_path / "task.safetensors").write_bytes((tiny_light_run / "task.safetensors").read_bytes())
    for change, message in (
        ({"seed": 5, "epochs": 9}, r"differing \['epochs'\]"),
        ({"seed": 5, "train_size": 104}, r"differing \['train_size'\]"),
    ):
        records.write_record({**record, "config": {**record["config"], **change}}, tmp_path / "record.json")
        with pytest.raises(ValueError, match=message):
            degradation([tiny_light_runs[0], tmp_path], tmp_path / "out")
    with pytest.raises(ValueError, match=r"all 104 of .* are used; give a smaller --train-size"):
        degradation([tmp_path], tmp_path / "out", progress=False)
