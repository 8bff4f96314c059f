import copy
import json

import pytest
import torch
from transformers import BertConfig

from mpo_tutorial.course import gpu_tables
from mpo_tutorial.experiments import gpu_bench, study
from mpo_tutorial.experiments.gpu_bench import Batch, over_lora

CONTENDERS = ("full", "light", "light, gauge amb", "LoRA")  # of five, to be quick
PRECISIONS = ("bfloat16",)
TINY = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 60, "vocab_size": 100}


@pytest.fixture(scope="module")
def points(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu")
    BertConfig(**TINY).save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_bench, "CONTENDERS", CONTENDERS)
        patch.setattr(gpu_bench, "PRECISIONS", PRECISIONS)
        config = str(folder / "config.json")
        made = gpu_bench.study([config], device="cpu", repeat=1, batch=Batch(4, 8), backend="eager")
        return study.run(made, folder / "out", progress=False)


def of(points, stage):
    return [point for point in points if point["stage"] == stage]


def test_every_contender_is_measured(points):
    assert [p["setting"]["contender"] for p in of(points, "passes")] == [*gpu_bench.PASSES] * len(PRECISIONS)
    steps = [
        (p["setting"]["compiled"], p["setting"]["precision"], p["setting"]["contender"]) for p in of(points, "steps")
    ]
    assert steps == [
        (compiled, precision, name) for compiled in (False, True) for precision in PRECISIONS for name in CONTENDERS
    ]
    for point in points:
        assert point["result"]["seconds"] > 0
        assert point["result"]["peak_bytes"] > 0


def test_light_and_lora_train_about_as_many_numbers_and_full_all(points):
    trained = {p["setting"]["contender"]: p["result"]["trained"] for p in of(points, "steps")}
    lights = {trained[name] for name in CONTENDERS[1:3]}
    assert max(lights) < trained["full"] / 2
    assert trained["LoRA"] == pytest.approx(max(lights), rel=0.3)


@pytest.mark.parametrize("name", gpu_bench.PASSES)
def test_a_pass_computes_what_the_model_computes(points, name, monkeypatch):
    """As it is timed: the outputs of the last call are looked at."""
    seen = []

    def timed(step, setting):
        seen.append(step().logits)
        return {}

    monkeypatch.setattr(gpu_bench, "_timed", timed)
    monkeypatch.setattr(gpu_bench, "CHAINED_BOND", None)
    setting = {**of(points, "passes")[0]["setting"], "precision": "float32"}
    for contender in (gpu_bench.DENSE, name):
        gpu_bench.measure({**setting, "contender": contender}, "eager")
    torch.testing.assert_close(*seen, atol=1e-5, rtol=1e-4)


def test_what_does_not_fit_is_told(points, monkeypatch):
    def full(_setting):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu_bench, "_model", full)
    point = copy.deepcopy(of(points, "steps")[0])
    point["result"] = gpu_bench.measure(point["setting"], "eager")
    assert point["result"] == {"missing": "did not fit into the GPU's memory"}
    assert gpu_bench.describe(point).endswith("bfloat16: did not fit into the GPU's memory")
    (row,) = gpu_tables.tables([point])[0].rows
    assert row[3:] == ("did not fit into the GPU's memory", "", "")
    assert over_lora([point]) == {}


def test_light_is_set_against_lora(points):
    slow = copy.deepcopy(points)
    for point in of(slow, "steps"):
        point["result"]["seconds"] = {"light": 2.3, "LoRA": 2.0}.get(point["setting"]["contender"], 9.0)
    assert set(over_lora(slow).values()) == {2.3 / 2.0}
    assert len(over_lora(slow)) == 2
    told = gpu_tables.sentences(slow)
    assert all("a light step takes 1.15 of LoRA's, more than the 1.1 that were asked for." in line for line in told[:2])
    for point in of(slow, "steps"):
        point["result"]["seconds"] = 2.0
    assert "takes 1.00 of LoRA's, at most the 1.1" in gpu_tables.sentences(slow)[0]


def test_the_tables_show_what_was_measured(points):
    page = gpu_tables.markdown(points)
    first = of(points, "steps")[0]["result"]
    assert (
        f"| {1000 * first['seconds']:.1f} ms | {4 / first['seconds']:,.0f} | {first['peak_bytes'] / 1e9:.2f} GB |"
        in page
    )
    for table in gpu_tables.tables(points):
        assert f"**{table.title}**" in page
        assert {len(row) for row in table.rows} == {len(table.head)}
    assert gpu_tables.markdown(None) == gpu_tables.NOBODY
    assert gpu_tables.in_a_line(points) == " ".join(gpu_tables.sentences(points))
    assert json.dumps(points[0]["date"])[1:-1] in page


def test_usually_there_are_five_contenders_two_precisions_and_two_models():
    assert len(gpu_bench.CONTENDERS) == 5
    made = gpu_bench.study(device="cpu")
    assert [len(settings([])) for settings in made.stages.values()] == [2, 2 * 2 * 4, 2 * 2 * 2 * 5]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_is_asked_for():
    with pytest.raises(ValueError, match="device cuda needs an NVIDIA GPU"):
        gpu_bench.study()
