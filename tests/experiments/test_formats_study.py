from dataclasses import replace

import numpy as np
import pytest
import torch

from mpo_tutorial.course import format_results
from mpo_tutorial.experiments import changes, compare, format_costs, formats, forms, records
from mpo_tutorial.experiments import study as engine
from mpo_tutorial.experiments.changes import AWARE, CHANGES, FITTED, UNCUT
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.formats import COMPARISON
from mpo_tutorial.experiments.squeezes import start_of
from mpo_tutorial.experiments.statistics import correct_sentences
from mpo_tutorial.maths.formats import FORMATS
from mpo_tutorial.maths.shapes import usual_shape
from mpo_tutorial.models.families import dense_matrices
from mpo_tutorial.models.layers import mpo_layers
from mpo_tutorial.models.loading import load

TINY = [name for name in CHANGES if "16" not in name and "pairs" not in name]  # of 2 layers, width 24


@pytest.fixture(autouse=True)
def small_table(monkeypatch):
    """ALBERT's 128 numbers a word are more than the tiny model's width."""
    monkeypatch.setattr(changes, "EMBEDDING_SIZE", 8)


@pytest.fixture
def base(tiny_model, tiny_task):
    return RunConfig(model=tiny_model, task=tiny_task, train_size=32, epochs=1)


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    return tmp_path_factory.mktemp("starts")


def setting(name: str, base: RunConfig, starts) -> dict:
    made = formats.study(base, starts, [name])
    found = next(s for s in made.stages["tuning"]([]) if s["variant"] == name)
    return {**found, "splits": ["validation", "test"]}


@pytest.mark.parametrize("name", TINY)
def test_a_change_is_measured_before_and_after_it_is_tuned(name, base, starts):
    wanted = setting(name, base, starts)
    made = formats.study(base, starts, [name])
    result = made.measure(wanted)
    forms.require(result, name, formats.form(wanted), "")
    judged = result["judged"]
    assert judged["after"]["accuracy"] == result["test"]["accuracy"]
    numbers = result["matrices"]["parameters"] / result["matrices"]["dense"]
    if name in (*FORMATS, AWARE, "MPO", FITTED):
        assert 0.25 < numbers <= 0.5
        assert 0 < result["errors"]["weights"] < 1
    if name == UNCUT:
        assert result["errors"] == {"weights": pytest.approx(0, abs=1e-5), "outputs": pytest.approx(0, abs=1e-5)}
    elif CHANGES[name].matrices != "embedding":
        assert result["errors"]["outputs"] > 0
    total = result["parameters"]["total"]
    assert result["parameters"]["trained"] < total


def test_what_is_trained_is_every_matrix_its_biases_norms_and_head(base, starts):
    trained = {}
    for name in ("CP", "word table of two factors", "light on fitted MPOs"):
        trained[name] = formats.study(base, starts, [name]).measure(setting(name, base, starts))["parameters"]
    dense, _ = load(base.model)
    inside = sum(module.weight.numel() for _, module in dense_matrices(dense, "attention, feed-forward"))
    rest = sum(
        p.numel()
        for name, p in dense.named_parameters()
        if name.endswith("bias") or "Norm" in name or "classifier" in name
    )
    table = dense.get_input_embeddings().weight
    assert trained["word table of two factors"]["trained"] > inside + rest + 8 * sum(table.shape)
    assert (
        inside / 2 * 0.8 + rest < trained["CP"]["trained"] <= inside / 2 + rest + 24 * 24
    )  # and the pooler, if it is read
    assert trained["light on fitted MPOs"]["trained"] < trained["CP"]["trained"]
    assert trained["word table of two factors"]["total"] < trained["CP"]["total"] + inside + table.numel()


def test_the_light_run_is_tuned_for_all_its_epochs_and_made_once(base, starts):
    config = replace(RunConfig(**setting("MPO", base, starts)["config"]), seed=3)
    first = start_of(config, starts, "cpu")
    folder = starts / "centred-3"
    stamp = (folder / "record.json").stat().st_mtime_ns
    again = start_of(config, starts, "cpu")
    assert (folder / "record.json").stat().st_mtime_ns == stamp
    assert records.read_record(folder / "record.json")["config"]["epochs"] > config.epochs == 1
    for ours, other in zip(mpo_layers(first.model), mpo_layers(again.model), strict=True):
        assert torch.equal(ours.central, other.central)


def test_networks_are_found_once_for_a_seed_and_read_again(base, starts, monkeypatch):
    wanted = setting("ring", base, starts)
    first = formats.study(base, starts, ["ring"]).measure(wanted)

    def refuse(*_args):
        raise AssertionError("they were there")

    monkeypatch.setattr(changes, "in_format", refuse)
    again = formats.study(base, starts, ["ring"]).measure(wanted)
    assert again["errors"] == first["errors"]
    assert again["test"] == first["test"]


def test_the_pair_is_set_against_each_other_and_all_are_tuned_by_the_rule_of_the_rivals():
    assert COMPARISON.primary == (FITTED, AWARE)
    assert {variant.beside for name, variant in COMPARISON.variants.items() if not CHANGES[name].light} == {AWARE}
    assert {variant.seeds for variant in COMPARISON.variants.values()} == {5}
    assert (COMPARISON.tuned_for, COMPARISON.moves, len(COMPARISON.tuning_seeds)) == (0.5, 3, 3)
    assert COMPARISON.opened == ()


def test_rows_tell_what_points_hold(base, starts):
    names = ["MPO", AWARE]
    found = {"final": {}, "variants": {}}
    points = []
    for name in names:
        wanted = setting(name, base, starts)
        for seed, right in ((0, 0.5), (1, 0.75)):
            result = formats.study(base, starts, [name]).measure(wanted) if seed == 0 else points[-1]["result"]
            for when, shift in (("before", 0.0), ("after", 0.125)):
                score = {**result["judged"][when], "accuracy": right + shift, "auc": right + shift / 2}
                result = {**result, "judged": {**result["judged"], when: score}}
            result = {**result, "test": {**result["test"], "accuracy": right + 0.125}}
            config = {**wanted["config"], "seed": seed}
            points.append({"stage": "final", "setting": {**wanted, "config": config}, "result": result})
    found = compare.summarise(points, COMPARISON)
    spent = [
        {
            "setting": {"format": "MPO"},
            "result": {"make": 2.5, "run": {"dense": 2.0, "contracted": 5.0, "rebuilt": 3.0}},
        }
    ]
    rows = {row[0]: dict(zip(range(len(row)), row, strict=True)) for row in format_results.cells(found, spent)}
    assert [len(row) for row in rows.values()] == [len(format_results.HEAD)] * 2
    ours = rows["MPO"]
    first = points[0]["result"]
    assert ours[1] == f"{first['matrices']['parameters']:,}"
    assert ours[3] == f"{first['errors']['weights']:.3f}" != ours[4] == f"{first['errors']['outputs']:.3f}"
    assert (ours[5], ours[6], ours[8]) == ("62.5 %", "0.625", "0.688")
    assert ours[7].startswith("75.0 [") and ours[9].startswith("+0.0")
    assert (ours[11], ours[12], ours[13], ours[14]) == ("2.5 s", "2.50", "1.50", "O(n m d³)")
    assert (rows[AWARE][9], rows[AWARE][11]) == ("", "")
    assert rows[AWARE][14] == "O(2 m d³)"


def test_what_a_format_costs_is_of_all_matrices(tiny_model, tiny_task, monkeypatch):
    monkeypatch.setattr(format_costs, "RACES", 1)
    monkeypatch.setattr(format_costs, "MAKERS", (FITTED, AWARE))
    made = format_costs.study(RunConfig(model=tiny_model, task=tiny_task))
    assert made.serial
    for wanted in made.stages["costs"]([]):
        result = made.measure({**wanted, "tokens": 4})
        assert result["make"] > 0
        assert all(seconds > 0 for seconds in result["run"].values())
    matrix, metric = torch.randn(24, 24, dtype=torch.float64), torch.eye(24, dtype=torch.float64)
    shape = usual_shape(24, 24)
    for name in (AWARE, "SVD"):
        ours = format_costs._made(name, matrix, 24 * 12, metric, shape)
        assert np.linalg.norm((matrix - ours.to_matrix()).numpy()) == pytest.approx(
            np.linalg.norm(np.linalg.svd(matrix.numpy(), compute_uv=False)[6:])
        )


def test_points_of_a_study_can_be_resumed(base, tmp_path, monkeypatch):
    short = {AWARE: replace(COMPARISON.variants[AWARE], seeds=2)}
    fewer = {"variants": short, "tuning_seeds": (100,), "tuned_on": ("validation",), "moves": 0}
    monkeypatch.setattr(formats, "COMPARISON", replace(COMPARISON, **fewer))  # the tiny task leaves no sentence unused
    made = formats.study(base, tmp_path / "starts", [AWARE])
    points = engine.run(made, tmp_path)
    assert {point["stage"] for point in points} >= {"tuning", "final", "floors"}
    assert sum(point["stage"] == "final" for point in points) == 2
    assert engine.run(made, tmp_path, resume=True) == points
    assert all(len(correct_sentences(p["result"]["test"])) for p in points if p["stage"] == "final")
