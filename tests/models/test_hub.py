"""The hub's real clients against a hub on loopback, in processes of their own, since the address is read at import."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_glue
import tiny_images
import warm
from loopback_hub import serving

from mpo_tutorial.experiments.glue import GLUE
from mpo_tutorial.models.images import ON_HUB

COMMAND = Path(sys.executable).with_name("mpo-tutorial")
FINETUNE = ("finetune", "--model", "tiny/bert", "--device", "cpu", "--learning-rate", "0.01", "--epochs", "20")
LOAD = """
import dataclasses, json, sys
from mpo_tutorial.experiments.tasks import load_task
print(json.dumps({name: dataclasses.asdict(load_task(f"glue/{name}")) for name in sys.argv[1:]}))
"""
IMAGES = """
import hashlib, json, sys
from mpo_tutorial.models.images import from_hub
found = {name: from_hub(name) for name in sys.argv[1:]}
told = {
    name: [[(hashlib.sha256(pixels).hexdigest(), label) for pixels, label in split] for split in splits]
    for name, splits in found.items()
}
print(json.dumps(told))
"""
MODEL_PATH = "import sys; from mpo_tutorial.models.sources import model_path; print(model_path(sys.argv[1]))"


@pytest.fixture(scope="module")
def repositories(tmp_path_factory, tiny_model) -> Path:
    """A tiny model, and GLUE with a few sentences a task."""
    folder = tmp_path_factory.mktemp("repositories")
    shutil.copytree(tiny_model, folder / "models/tiny/bert")
    tiny_glue.write_glue(folder / "datasets/nyu-mll/glue")
    return folder


def python(code: str, *arguments: str, env: dict) -> subprocess.CompletedProcess:
    return warm.python("-c", code, *arguments, env={**os.environ, **env})


@pytest.fixture(scope="module")
def finetune(mpo_tutorial_command):
    """Fine-tune the hub's tiny model; what the command prints and its record come back."""

    def call(task: str, cwd: Path, env: dict, *more: str) -> tuple[str, dict]:
        done = mpo_tutorial_command(*FINETUNE, "--task", task, *more, cwd=cwd, env={**os.environ, **env})
        assert done.returncode == 0, done.stderr
        return done.stdout, json.loads((cwd / "runs/finetune/record.json").read_text())

    return call


def error(done: subprocess.CompletedProcess) -> str:
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def online(repositories, tmp_path_factory, finetune):
    """What was loaded and trained while the hub was there; it is gone when the tests begin, and its caches are full."""
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("online")
    with serving(repositories) as hub:
        env = hub.environment(home)
        loaded = python(LOAD, *GLUE, env=env)
        assert loaded.returncode == 0, loaded.stderr
        stsb, mnli = (finetune(f"glue/{task}", folder, env) for task in ("stsb", "mnli"))
    return SimpleNamespace(env=env, loaded=loaded, tasks=json.loads(loaded.stdout), stsb=stsb, mnli=mnli)


@pytest.mark.parametrize("name", GLUE)
def test_the_tests_are_glues_dev_sets_and_validation_is_taken_from_the_training_set(online, name):
    task, (columns, names) = online.tasks[name], tiny_glue.TASKS[name]
    assert task["label_names"] == list(names or ())
    assert task["metrics"] == list(GLUE[name].metrics)

    def of_glue(split: str) -> list:
        written = tiny_glue.rows(name, split)
        texts = [
            list(pair) if len(columns) == 2 else pair[0] for pair in zip(*(written[c] for c in columns), strict=True)
        ]
        return list(map(list, zip(texts, written["label"], strict=True)))

    splits = task["splits"]
    for split, dev in GLUE[name].tests.items():
        assert splits[split] == of_glue(dev)
    # The last training row is the first one of the dev set in capitals.
    validation, train, whole = splits["validation"], splits["train"], of_glue("train")
    assert (len(validation), len(train)) == (7, 72)
    assert sorted(map(str, validation + train)) == sorted(map(str, whole[:-1]))


def test_loading_is_quiet(online):
    assert online.loaded.stderr == ""


def test_a_regression_is_learnt_and_recorded(online):
    printed, record = online.stsb
    for split, n in (("validation", 7), ("test", 24)):
        assert record[split].keys() == {"n", "metrics"}
        assert record[split]["n"] == n
        assert list(record[split]["metrics"]) == ["pearson", "spearman"]
    pearson = record["test"]["metrics"]["pearson"]
    assert 0.5 < pearson["value"] <= 1
    assert pearson["interval"][0] <= pearson["value"] <= pearson["interval"][1]
    assert "test Pearson [95 %]" in printed
    assert f"{pearson['value']:.3f} [" in printed


def test_pairs_of_mnli_are_learnt_and_measured_on_both_dev_sets(online):
    printed, record = online.mnli
    assert [split for split in record if split in ("validation", "test", "mismatched")] == [
        "validation",
        "test",
        "mismatched",
    ]
    for split in ("test", "mismatched"):
        part = record[split]
        assert part["metrics"]["accuracy"] == {"value": part["accuracy"], "interval": part["interval"]}
        assert f"{split}: accuracy {part['accuracy']:.3f}" in printed


def test_a_preset_stands_in_for_what_is_not_given(online, finetune, tmp_path):
    _, record = finetune("glue/rte", tmp_path, online.env, "--preset", "--max-length", "32", "--epochs", "1")
    config = record["config"]
    assert (config["learning_rate"], config["max_length"], config["epochs"]) == (0.01, 32, 1)  # given
    assert (config["warmup"], config["batch_size"]) == (0.25, 32)  # of the preset


def test_without_the_hub_everything_comes_from_the_cache(online, finetune, tmp_path):
    assert json.loads(python(LOAD, *GLUE, env=online.env).stdout) == online.tasks
    _, record = finetune("glue/stsb", tmp_path, online.env)
    assert record["test"] == online.stsb[1]["test"]


def test_offline_mode_is_the_same(online):
    done = python(LOAD, "rte", env={**online.env, "HF_HUB_OFFLINE": "1"})
    assert json.loads(done.stdout) == {"rte": online.tasks["rte"]}


def test_what_is_not_in_the_cache_is_refused_in_one_line(online, mpo_tutorial_command, tmp_path):
    env = {**os.environ, **online.env, "HF_HOME": str(tmp_path / "empty")}
    for arguments, message in (
        (("--task", "glue/rte"), "the data set nyu-mll/glue, rte, is not in the cache, and the hub does not answer"),
        (
            ("--model", "tiny/bert"),
            "the model 'tiny/bert' is neither embedded nor a local folder, and the hub does not",
        ),
    ):
        done = mpo_tutorial_command("finetune", *arguments, cwd=tmp_path, env=env)
        assert done.returncode == 2
        assert re.fullmatch(f"mpo-tutorial: {message}.*\n", done.stderr)
    assert not (tmp_path / "runs").exists()


def test_what_the_hub_has_not_is_refused(repositories, tmp_path):
    (tmp_path / "hub/models").mkdir(parents=True)
    with serving(tmp_path / "hub") as hub:
        env = hub.environment(tmp_path / "home")
        assert error(python(MODEL_PATH, "tiny/bert", env=env)).startswith(
            "ValueError: unknown model 'tiny/bert': the hub has none"
        )
        assert error(python(LOAD, "rte", env=env)).startswith("ValueError: the hub has no data set nyu-mll/glue")
        shutil.copytree(repositories / "datasets", tmp_path / "hub/datasets")
        shutil.rmtree(tmp_path / "hub/datasets/nyu-mll/glue/rte")
        assert error(python(LOAD, "rte", env=env)).startswith(
            "ConnectionError: the data set nyu-mll/glue, rte, could not be had from the hub, though it answers"
        )
        (tmp_path / "hub/datasets/nyu-mll/glue/README.md").unlink()
        assert error(python(LOAD, "rte", env=env)).startswith("ValueError: BuilderConfig 'rte' not found")


def test_images_come_channel_by_channel_and_from_the_cache_where_the_hub_is_gone(tmp_path):
    for name in ON_HUB:
        tiny_images.write(tmp_path / "hub/datasets", name)
    with serving(tmp_path / "hub") as hub:
        env = hub.environment(tmp_path / "home")
        there = python(IMAGES, *ON_HUB, env=env)
        assert there.returncode == 0, there.stderr
    found = json.loads(there.stdout)
    for name in ON_HUB:
        for split, got in zip(("train", "test"), found[name], strict=True):
            images = tiny_images.pixels(name, split)
            if images.ndim == 4:
                images = images.transpose(0, 3, 1, 2)
            hashes = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
            assert got == [[*pair] for pair in zip(hashes, tiny_images.labels(split), strict=True)]
    assert python(IMAGES, *ON_HUB, env=env).stdout == there.stdout
    alone = error(python(IMAGES, "cifar10", env={**env, "HF_HOME": str(tmp_path / "empty")}))
    assert alone.startswith(
        "FileNotFoundError: uoft-cs/cifar10 is not on this machine, and the hub does not answer; connect"
    )


def test_a_known_model_keeps_its_name(repositories, tmp_path):
    with serving(repositories) as hub:
        assert python(MODEL_PATH, "tiny/bert", env=hub.environment(tmp_path)).stdout == "tiny/bert\n"


def test_ctrl_c_while_data_are_fetched_and_then_again(repositories, tmp_path):
    with serving(repositories) as hub:
        env = hub.environment(tmp_path / "home")
        hub.flowing.clear()
        process = subprocess.Popen(
            [COMMAND, "finetune", "--task", "glue/rte"],
            env={**os.environ, **env},
            cwd=tmp_path,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not any("GET /elsewhere/datasets" in line for line in hub.asked):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate()
        assert process.returncode == 2
        assert re.fullmatch("mpo-tutorial: stopped by Ctrl-C.*\n", stderr)
        hub.flowing.set()
        assert json.loads(python(LOAD, "rte", env=env).stdout)["rte"]["label_names"] == ["entailment", "not_entailment"]


CAPSTONE = ("capstone", "--model", "tiny/bert", "--device", "cpu", "--max-length", "32")


@pytest.mark.parametrize("tasks", [("rte",), pytest.param(("wnli", "rte"), marks=pytest.mark.full)])
def test_the_capstone_goes_on_after_a_kill(online, mpo_tutorial_command, tmp_path, tasks):
    """On the tasks as they lie in the cache: clocked, tuned, tested, and killed in the midst of it."""
    env = {**os.environ, **online.env}
    command = (*CAPSTONE, "--tasks", ",".join(tasks), "--epochs", "2", "--minutes", "0.01", "--out", "out")
    record = tmp_path / "out/record.jsonl"
    process = subprocess.Popen(
        [COMMAND, *command], env=env, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while not record.exists() or record.read_bytes().count(b"\n") < 3:
        assert process.poll() is None
        time.sleep(0.02)
    process.kill()
    process.wait()
    before = record.read_bytes()
    kept = before[: before.rfind(b"\n") + 1]
    clocked = (tmp_path / "out/clock/record.jsonl").read_bytes()
    done = mpo_tutorial_command(*command, "--resume", cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    assert record.read_bytes().startswith(kept)
    assert (tmp_path / "out/clock/record.jsonl").read_bytes() == clocked
    assert not list((tmp_path / "out/unfinished").iterdir())
    points = [json.loads(line) for line in record.read_text().splitlines()]
    names = [f"{title}, {task}" for task in tasks for title in ("light", "full", "LoRA")]
    tuned = [point["setting"]["variant"] for point in points if point["stage"] == "tuning"]
    assert tuned == [name for name in names for _ in range(3)]
    assert [point["setting"]["variant"] for point in points if point["stage"] == "final"] == names
    assert f"tiny/bert on {', '.join(tasks)}, on the CPU, float32." in done.stdout
    rows = {
        line.split()[0]: line.split() for line in done.stdout.splitlines() if line.startswith(("guessing", "light "))
    }
    assert rows["guessing"][1:] == ["50.0"] * len(tasks)  # of the 24 pairs of a dev set
    final = next(point for point in points if point["stage"] == "final")
    assert rows["light"][1] == f"{100 * final['result']['test']['accuracy']:.1f}"
