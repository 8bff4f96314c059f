import copy

import numpy as np
import pytest
from conftest import LAYER_RATIO, RATIOS

from mpo_tutorial.experiments import cuts, records, statistics, study
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.cut_results import output_errors, part_of, summarise, table
from mpo_tutorial.experiments.cuts import ALLOTTED, PARTS, TWO_FACTORS, WAYS_ALONE, WAYS_OF_PARTS
from mpo_tutorial.experiments.evaluation import predict
from mpo_tutorial.experiments.tasks import tokenise
from mpo_tutorial.experiments.tuned import Tuned, config_of_run
from mpo_tutorial.maths import entropy
from mpo_tutorial.models.activations import hidden_states, state_errors
from mpo_tutorial.models.families import KINDS, mpo_matrices
from mpo_tutorial.models.layers import MPOLayer, mpo_layers
from mpo_tutorial.models.truncation import bonds_of_ratio, factorise, truncate


@pytest.fixture(scope="module")
def record(tiny_cuts) -> dict:
    return summarise(tiny_cuts)


def test_there_is_a_point_for_every_setting_and_seed(record):
    expected = {("uncut", None, "none")}
    expected |= {(way, ratio, part) for way in WAYS_OF_PARTS for ratio in RATIOS for part in PARTS}
    expected |= {(way, ratio, "all") for way in ALLOTTED for ratio in RATIOS}
    expected |= {("plain", ratio, "embedding") for ratio in RATIOS}
    expected |= {(way, LAYER_RATIO, part) for way in WAYS_ALONE for part in ("layer 0", "layer 1", *KINDS)}
    found = [(p["seed"], p["way"], p["ratio"], p["part"]) for p in record["ratios"]]
    assert len(found) == len(set(found))
    assert record["seeds"] == [0, 1]
    assert set(found) == {(seed, *setting) for seed in record["seeds"] for setting in expected}
    assert {(row["way"], row["ratio"], row["part"]) for row in record["summary"]} == expected
    assert record["layer_ratio"] == LAYER_RATIO


def test_points_are_those_of_models_cut_part_by_part_on_unused_sentences(record, tiny_light_runs):
    prepared = Tuned.of_run(tiny_light_runs[0]).prepared
    task = prepared.task
    trained = task.train(prepared.config.train_size)
    assert record["sentences"] == len(task.splits["train"]) - len(trained) > 0
    unused = [row for row in task.splits["train"] if row not in trained]
    point = next(p for p in record["ratios"] if (p["way"], p["ratio"], p["part"]) == ("plain", 0.2, "feed-forward"))
    truncate(prepared.model, ratio=0.2, matrices="feed-forward")
    mpos = [m.mpo for name, m in prepared.model.named_modules() if isinstance(m, MPOLayer) and "attention" not in name]
    mpos = mpos[:-1]  # the pooler
    assert point["parameters"] == sum(mpo.n_params for mpo in mpos)
    assert point["dense"] == sum(mpo.to_matrix().numel() for mpo in mpos)
    task.splits["validation"] = unused
    predicted = predict(prepared.model, prepared.dataset("validation"), prepared.tokenizer)
    right = predicted == [label for _, label in unused]
    np.testing.assert_array_equal(statistics.correct_sentences(point["unused"]), right)


def test_each_way_is_what_truncate_or_the_two_factors_make_of_the_part_alone(record, tiny_light_runs):
    """Fitted layer after layer: what reaches a layer when the others are whole is not what reaches it when they are cut."""
    tuned = Tuned.of_run(tiny_light_runs[1])
    shapes = {name: layer.mpo.shape for name, layer in mpo_matrices(tuned.model, "feed-forward").items()}
    room = {name: shape.n_params(bonds_of_ratio(name, shape, 0.2)) for name, shape in shapes.items()}
    ways = {
        "fitted": lambda model: truncate(model, ratio=0.2, matrices="feed-forward", moments=tuned.inputs),
        "two factors": lambda model: factorise(model, room, tuned.inputs),
    }
    rows = tokenise(tuned.unused, tuned.prepared.tokenizer, tuned.prepared.config.max_length)
    for way, cut in ways.items():
        point = next(
            row
            for row in record["ratios"]
            if (row["seed"], row["way"], row["ratio"], row["part"]) == (1, way, 0.2, "feed-forward")
        )
        model = copy.deepcopy(tuned.model)
        cut(model)
        states = [hidden_states(found, rows, tuned.prepared.tokenizer) for found in (model, tuned.model)]
        assert point["states"] == pytest.approx(state_errors(*states), rel=1e-5), way
    ranks = {name: room[name] // (shape.in_size + shape.out_size) for name, shape in shapes.items()}
    assert point["parameters"] == sum(ranks[name] * (s.in_size + s.out_size) for name, s in shapes.items())


def test_states_err_from_the_first_cut_layer_on(record):
    for point in record["ratios"]:
        assert len(point["states"]) == 2
        if point["way"] == "uncut":
            assert point["states"] == [0.0, 0.0]
        elif point["part"] == "layer 1":
            assert point["states"][0] == 0
            assert point["states"][1] > 0
        else:
            assert min(point["states"]) > 0


def test_ways_are_compared_at_equal_parameters_by_paired_differences(record):
    by_setting = {}
    for point in record["ratios"]:
        by_setting.setdefault((point["ratio"], point["part"]), []).append(point)
    for (ratio, _), points in by_setting.items():
        if ratio is None:
            continue
        (equal,) = {p["parameters"] for p in points if p["way"] not in (*ALLOTTED, TWO_FACTORS)}
        assert [p["parameters"] for p in points if not 0.5 * equal <= p["parameters"] <= equal] == [], equal
    for row in record["summary"]:
        points = by_setting[row["ratio"], row["part"]]
        accuracies = {
            way: np.mean([p["unused"]["accuracy"] for p in points if p["way"] == way])
            for way in {p["way"] for p in points}
        }
        assert row["accuracy"]["mean"] == pytest.approx(accuracies[row["way"]])
        if row["way"] not in ("uncut", "plain"):
            assert row["minus_plain"]["accuracy"]["mean"] == pytest.approx(accuracies[row["way"]] - accuracies["plain"])
            low, high = row["minus_plain"]["accuracy"]["interval"]
            assert low <= row["minus_plain"]["accuracy"]["mean"] <= high
        assert ("minus_plain" in row) == (row["way"] not in ("uncut", "plain"))
        if "minus_fitted" in row:
            lost = accuracies[row["way"]] - accuracies["fitted"]
            assert row["minus_fitted"]["accuracy"]["mean"] == pytest.approx(lost)
        assert ("minus_fitted" in row) == (row["way"] not in ("uncut", "fitted") and "fitted" in accuracies)


def test_the_intervals_are_students_over_seeds_of_paired_differences(record):
    accuracy = {
        (row["way"], row["ratio"], row["part"], row["seed"]): row["unused"]["accuracy"] for row in record["ratios"]
    }
    for row in record["summary"]:
        setting = row["way"], row["ratio"], row["part"]
        if row["way"] == "uncut":
            continue
        pairs = [accuracy[(*setting, seed)] - accuracy["uncut", None, "none", seed] for seed in (0, 1)]
        assert row["minus_uncut"]["accuracy"] == statistics.over_seeds(pairs)


def test_caps_are_those_of_the_first_run_and_count_all_matrices(record, tiny_light_run, tiny_tuned):
    largest = tiny_tuned.largest_bond
    caps = sorted({max(1, round(largest * k / 12)) for k in range(1, 13)}, reverse=True)
    assert [(p["part"], p["max_bond"]) for p in record["bonds"]] == [(part, cap) for part in PARTS for cap in caps]
    for point in record["bonds"]:
        assert point["parameters"] == point["central"] + point["auxiliary"]
        assert point["ratio"] == point["parameters"] / record["dense"]
    whole = [point for point in record["bonds"] if point["max_bond"] == largest]
    assert {point["parameters"] for point in whole} == {tiny_tuned.prepared.ledger.total}
    first = records.read_record(tiny_light_run / "record.json")["validation"]
    assert all(point["validation"]["right"] == first["right"] for point in whole)


def test_the_entropy_is_that_of_the_central_bonds_of_what_was_cut(record, tiny_tuned):
    layer = mpo_layers(tiny_tuned.model)[0]
    spectra = entropy.Spectra.of(layer.mpo.to_matrix(), layer.mpo.shape)
    assert cuts.central_entropy(layer) == pytest.approx(np.mean(spectra.entropies()[1:3]), rel=1e-6)
    for point in record["bonds"]:
        assert (point["entropy"] == pytest.approx(0, abs=1e-6)) == (point["max_bond"] == 1)
    attention = next(p for p in record["bonds"] if (p["part"], p["max_bond"]) == ("attention", 2))
    model = copy.deepcopy(tiny_tuned.model)
    truncate(model, max_bond=2, matrices="attention")
    cut = [m for name, m in model.named_modules() if isinstance(m, MPOLayer) and "attention" in name]
    assert attention["entropy"] == pytest.approx(np.mean([cuts.central_entropy(m) for m in cut]), rel=1e-9)
    assert attention["parameters"] == sum(layer.mpo.n_params for layer in mpo_layers(model))


def test_chance_is_that_of_the_commonest_answer(record, tiny_tuned):
    labels = [label for _, label in tiny_tuned.prepared.task.splits["validation"]]
    assert record["chance"]["validation"] == max(labels.count(0), labels.count(1)) / len(labels)
    unused = [label for _, label in tiny_tuned.unused]
    assert record["chance"]["unused"] == max(unused.count(0), unused.count(1)) / len(unused)


def test_a_reader_sees_parts_by_their_names():
    assert [part_of(matrices) for matrices in ("all", "query", "*.layer.11.*")] == ["all", "query", "layer 11"]


def test_the_table_has_a_row_for_each_setting(tiny_cuts, record):
    head, rows = table(tiny_cuts)
    assert {len(row) for row in rows} == {len(head)}
    assert len(rows) == len(record["summary"])
    uncut = next(row for row in record["summary"] if row["way"] == "uncut")
    assert [cell.split()[0] for cell in rows[0][3:6]] == [
        f"{100 * uncut[name]['mean']:.1f}" for name in ("accuracy", "auc", "refitted")
    ]
    one_seed = [point for point in tiny_cuts if point["setting"]["seed"] == 0]
    assert not any("[" in cell for row in table(one_seed)[1] for cell in row)  # one seed has no interval


def test_other_ratios_are_another_grid(tiny_light_runs, tmp_path):
    small = {"ratios": (), "layer_ratio": LAYER_RATIO}
    first = study.run(cuts.study(tiny_light_runs[:1], **small), tmp_path, progress=False)
    assert len(first) == 1 + len([p for p in first if p["stage"] == "bonds"]) + (2 + len(KINDS)) * len(WAYS_ALONE)
    with pytest.raises(ValueError, match="points of the stage uncut that these options do not ask for"):
        study.run(cuts.study(tiny_light_runs[:1], **small, n_sentences=7), tmp_path, resume=True, progress=False)


def test_new_runs_get_the_seeds_and_are_kept(tiny_light_run, tmp_path):
    config = RunConfig(**{**config_of_run(tiny_light_run).as_dict(), "train_size": 80, "epochs": 1})
    folders = cuts.light_runs(config, 2, tmp_path)
    assert [config_of_run(folder).seed for folder in folders] == [0, 1]
    before = [(folder / "record.json").read_bytes() for folder in folders]
    assert cuts.light_runs(config, 2, tmp_path, resume=True) == folders
    assert [(folder / "record.json").read_bytes() for folder in folders] == before


def test_runs_that_do_not_belong_together_are_refused(tiny_light_runs, tmp_path, tiny_light_run):
    with pytest.raises(ValueError, match="a finished light run is needed at least, got none"):
        cuts.study([])
    with pytest.raises(ValueError, match="runs differ in the seed and in nothing else, got seeds"):
        cuts.study([tiny_light_runs[0], tiny_light_runs[0]])
    with pytest.raises(FileNotFoundError, match="holds no finished run"):
        cuts.study([tmp_path])
    record = records.read_record(tiny_light_run / "record.json")
    (tmp_path / "task.safetensors").write_bytes((tiny_light_run / "task.safetensors").read_bytes())
    for change, message in (
        ({"seed": 5, "epochs": 9}, r"differing \['epochs'\]"),
        ({"seed": 5, "train_size": 104}, r"differing \['train_size'\]"),
    ):
        records.write_record({**record, "config": {**record["config"], **change}}, tmp_path / "record.json")
        with pytest.raises(ValueError, match=message):
            cuts.study([tiny_light_runs[0], tmp_path])
    with pytest.raises(ValueError, match=r"all 104 of .* are used; give a smaller --train-size"):
        study.run(cuts.study([tmp_path]), tmp_path / "out", progress=False)


def test_the_mean_error_of_outputs_is_over_matrices_then_seeds():
    points = [
        {"setting": {"seed": seed, "ratio": 0.5, "way": "plain"}, "result": {"errors": {"a": error, "b": 0.2}}}
        for seed, error in enumerate((0.4, 0.6))
    ]
    (row,) = output_errors(points)
    assert (row["ratio"], row["way"]) == (0.5, "plain")
    assert row["error"] == pytest.approx(0.35)
    assert row["seeds"] == pytest.approx([0.3, 0.4])
