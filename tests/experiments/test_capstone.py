import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mpo_tutorial.course import capstone_results
from mpo_tutorial.experiments import capstone, compare, marks, study, training, watch
from mpo_tutorial.experiments.capstone import at_hand, comparison, fitting, folder_for, needed, timetable
from mpo_tutorial.experiments.compare import chosen_rates, summarise
from mpo_tutorial.experiments.rivals import LORA, RIVALS
from mpo_tutorial.experiments.tasks import load_task

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.fixture(scope="module")
def tiny(tiny_model, tiny_films) -> capstone.Capstone:
    """The small one, on the tiny model."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capstone, "SMALL", {"model": tiny_model, "task": str(tiny_films), "epochs": 3, "device": "cpu"})
        return at_hand("nobody/has-this", device="cpu", sentences=96)


def clocked(work: capstone.Capstone, **changed) -> list[dict]:
    """Points as a clock of even seconds leaves them."""
    found = {
        "micro_batch_size": 16,
        "seconds_to_load": 10,
        "seconds_a_step": 0.5,
        "seconds_a_sentence": 0.01,
        "steps": 100,
        "sentences": 1000,
        **changed,
    }
    return [{"setting": {"variant": name}, "result": found} for name in work.configs()]


@NO_GPU
def test_without_a_gpu_it_is_small_and_says_why():
    work = at_hand("albert-base-v2", ("rte", "wnli"))
    assert work.is_small
    assert (work.base.model, work.tasks, work.base.train_size) == ("minilm", ("rotten_tomatoes",), 320)
    assert "there is no GPU that torch can see, and a CPU would take hours for albert-base-v2" in work.why


def test_without_the_hub_it_is_small_and_says_why():
    work = at_hand("nobody/has-this", device="cpu")
    assert work.is_small
    assert "'nobody/has-this' is neither embedded nor a local folder, and the hub does not answer" in work.why
    assert at_hand("minilm", device="cpu").is_small  # the task, too, needs it


@pytest.mark.parametrize("tasks", [(), "rte", ("rte", "rte"), ("rte", "squad")])
def test_tasks_are_of_glue(tasks):
    with pytest.raises(ValueError, match=r"tasks are a tuple of one or more of sst2, mnli, .*, each once, got "):
        at_hand(tasks=tasks)


def test_a_regression_is_refused():
    with pytest.raises(ValueError, match="glue/stsb asks for a figure"):
        at_hand(tasks=("stsb",))


def test_lora_trains_as_many_numbers_as_light(tiny):
    configs = tiny.configs()
    assert [config.method for config in configs.values()] == ["light", "full", "lora"]
    light, full, lora = (capstone._counts(c.model, c.method, c.size) for c in configs.values())
    assert lora[1] == pytest.approx(light[1], rel=0.15)  # a rank more or less of so small a model is so much
    assert full[0] == full[1] > light[1]
    assert (full[2], lora[2]) == (0, 0)


def test_of_the_embedded_model_the_rank_is_that_of_the_study_of_rivals():
    # There, biases and normalisations, which light fine-tuning trains besides, are counted too.
    assert RIVALS.variants[LORA].options["size"] - capstone._equal_rank("minilm") in (0, 1)


def test_more_minutes_hold_more_seeds(tiny):
    points = clocked(tiny)
    seed = 3 * (10 + 50 + 10)  # seconds: of three contenders, to load, to train, to judge
    for minutes, seeds in ((0.1, 1), (seed / 60 * 1.99, 1), (seed / 60 * 2.01, 2), (1000, capstone.MOST_SEEDS)):
        found = timetable(tiny, points, minutes)
        assert (found.seeds, found.tuning, found.seed) == (seeds, 0, seed)
        assert {variant.seeds for variant in comparison(tiny, points, minutes).variants.values()} == {seeds}
    assert str(timetable(tiny, points, 0.1)).endswith(
        "The 0.1 minutes asked for are too few for one seed of each; one is run all the same."
    )
    assert str(timetable(tiny, points, 8)) == "2 seeds of 3.5 minutes: 7 minutes of the 8 asked for."
    assert "One seed has no interval" in str(timetable(tiny, points, 4))


def test_tuning_comes_out_of_the_same_minutes(tiny):
    real = replace(tiny, is_small=False)
    points = clocked(real)
    tuning = 4 * 3 * (10 + 25 + 10)  # three rates and one beyond
    assert timetable(real, points, 20).tuning == tuning
    assert timetable(real, points, (tuning + 2.01 * 210) / 60).seeds == 2
    assert timetable(real, points, (tuning + 1.99 * 210) / 60).seeds == 1


@pytest.mark.parametrize("minutes", [0, -1, float("inf"), float("nan"), "20", True])
def test_minutes_are_a_number_above_0(tiny, tmp_path, minutes):
    with pytest.raises(ValueError, match="minutes is a number above 0, got "):
        timetable(tiny, clocked(tiny), minutes)
    with pytest.raises(ValueError, match="minutes is a number above 0, got "):
        capstone.run(tiny, minutes, tmp_path)
    assert not list(tmp_path.iterdir())


def test_rates_go_with_the_width(tiny):
    width = 384 / 24
    for name, variant in comparison(replace(tiny, is_small=False), clocked(tiny), 1).variants.items():
        rate = tiny.configs()[name].learning_rate
        assert variant.rates == pytest.approx([rate * width / 2, rate * width, rate * width * 2], rel=1e-2)
        assert variant.options["micro_batch_size"] == 16
    small = comparison(tiny, clocked(tiny), 1)
    assert [len(variant.rates) for variant in small.variants.values()] == [1, 1, 1]
    assert chosen_rates([], small) == {name: variant.rates[0] for name, variant in small.variants.items()}


def test_the_largest_micro_batch_that_fits_is_taken(tiny):
    config = tiny.configs()[next(iter(tiny.configs()))]
    for micro in (16, 8, 1):
        enough = needed(config, micro).total / capstone.FREE
        assert fitting(config, int(enough) + 1) == micro
        if micro > 1:
            assert fitting(config, int(enough) - 1) == micro // 2


def test_what_does_not_fit_is_refused_with_what_would(tiny):
    light, full, lora = tiny.configs().values()
    least = {config.method: needed(config, 1).total for config in (light, full, lora)}
    assert least["lora"] < least["full"]
    free = int(least["lora"] / capstone.FREE) + 1
    with pytest.raises(
        MemoryError, match=r"full, one sentence of 64 tokens at a time, takes about .* GB .*LoRA \(.* fit"
    ):
        fitting(full, free)
    with pytest.raises(MemoryError, match="no method fits: take a smaller model, such as distilbert-base-uncased"):
        fitting(full, 1000)


def test_what_is_made_is_kept_on_a_drive_that_is_there(tmp_path):
    drive = tmp_path / "content" / "drive" / "MyDrive"
    folder, said = folder_for("capstone", drive)
    assert (folder, said) == (Path("runs/capstone"), "What is made is kept in runs/capstone.")
    drive.parents[1].mkdir()
    folder, said = folder_for("capstone", drive)
    assert folder == Path("runs/capstone")
    assert "lost with this machine" in said
    assert f"drive.mount('{drive.parent}')" in said
    drive.mkdir(parents=True)
    folder, said = folder_for("capstone", drive)
    assert folder == drive / "capstone"
    assert "survives this machine" in said


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """All of it, and what it said."""
    told: list[str] = []
    out = tmp_path_factory.mktemp("capstone")
    return tiny, *capstone.run(tiny, 0.01, out, show=told.append), told, out


def test_it_clocks_says_how_long_it_will_take_and_compares(made):
    tiny, made_of, points, told, out = made
    names = [*tiny.configs()]
    assert [line.partition(":")[0] for line in told[:3]] == names
    assert told[3].startswith("1 seed of ")
    assert [(p["stage"], p["setting"]["variant"], p["setting"]["config"]["seed"]) for p in points] == [
        ("final", name, 0) for name in names
    ]
    summary = summarise(points, made_of)
    assert summary["variants"][names[0]]["minus_beside"]["seeds"] == 1
    assert not list((out / capstone.STATE).iterdir())
    # The same call makes nothing anew.
    before = (out / study.RECORD).read_bytes(), (out / capstone.CLOCK / study.RECORD).read_bytes()
    assert capstone.run(tiny, 0.01, out)[1] == points
    assert ((out / study.RECORD).read_bytes(), (out / capstone.CLOCK / study.RECORD).read_bytes()) == before


def test_its_tables_say_what_was_measured(made):
    tiny, made_of, points, _told, out = made
    summary = summarise(points, made_of)
    head, cells = capstone_results.head(tiny), capstone_results.cells(summary, tiny)
    assert (head[0], head[-1], len(head)) == ("", "trained / all (M)", 3)
    assert [row[0] for row in cells] == ["guessing", "light", "full", "LoRA"]
    for row, point in zip(cells[1:], points, strict=True):
        assert row[1] == f"{100 * point['result']['test']['accuracy']:.1f}"
    clocks = [json.loads(line) for line in (out / capstone.CLOCK / study.RECORD).read_text().splitlines()]
    for row, point in zip(capstone_results.clock_cells(clocks), clocks, strict=True):
        found = point["result"]
        assert row[1] == f"{found['seconds_a_step']:.2f} s"
        assert found["steps"] == 9  # three epochs of 96 sentences
        assert found["sentences"] == 16 + 40  # of 160, for validation and test; up to 96 of each would be judged


def test_the_small_one_is_judged_on_as_many_sentences_as_it_is_trained_on(tiny, tmp_path):
    work = replace(tiny, judged=5)
    assert {p["result"]["sentences"] for p in capstone.clock(work, tmp_path)} == {10}
    _, points = capstone.run(work, 0.01, tmp_path)
    assert {p["result"][split]["n"] for p in points for split in ("validation", "test")} == {5}
    assert tiny.judged == tiny.base.train_size == 96


def test_published_rows_are_those_of_the_model_and_the_tasks():
    assert capstone_results.published("bert-base-uncased", ("glue/rte", "glue/sst2")) == [
        ("BERT, theirs, all trained", "70.0", "", "110 / 110"),
        ("MPOP_B, squeezed", "70.8", "", "7.7 / 70.4"),
    ]
    assert capstone_results.published("bert-base-uncased", ("glue/sst2",)) == []
    assert [row[1] for row in capstone_results.published("albert-base-v2", ("glue/rte",))] == ["71.1", "78.3", "73.3"]
    assert capstone_results.published("minilm", ("rotten_tomatoes",)) == []


def test_a_run_that_was_cut_off_goes_on(tiny, tmp_path, monkeypatch):
    """The last of two saves was whole when it was killed, at step 8 of 9; one step is left."""
    steps = []

    def counted(self, *arguments, **options):
        steps.append(1)
        return on_step_end(self, *arguments, **options)

    def killed(folder, **_options):
        raise ChildProcessError(folder)

    config = replace(tiny.base, method="full", learning_rate=5e-3).settled(load_task(tiny.base.task))
    setting = {"variant": "full", "config": config.as_dict(), "splits": ["validation"]}
    straight = compare.measure(setting)
    on_step_end = watch.Watch.on_step_end
    monkeypatch.setattr(watch.Watch, "on_step_end", counted)
    with monkeypatch.context() as patch, pytest.raises(ChildProcessError):
        patch.setattr(training, "STEPS_BETWEEN_SAVES", 4)
        patch.setattr(marks, "shutil", SimpleNamespace(rmtree=killed))
        compare.measure(setting, state=tmp_path)
    steps.clear()
    found = compare.measure(setting, state=tmp_path)
    assert len(steps) == 1
    assert found["validation"] == straight["validation"]
    assert not list(tmp_path.iterdir())
