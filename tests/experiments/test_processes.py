"""Runs that torchrun shares out to two processes (gloo), and runs that are killed at any moment."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest
import torch
import warm
from safetensors.torch import load_file

from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare, run

COMMAND = Path(sys.executable).with_name("mpo-tutorial")
OTHERS = (("light", 4), ("full", 2), ("full", 4))
SAVED_OFTEN = """
import sys
from mpo_tutorial import cli
from mpo_tutorial.experiments import training
training.STEPS_BETWEEN_SAVES = 2
sys.argv[0] = "mpo-tutorial"
cli.main()
"""


@pytest.fixture(scope="module")
def without_dropout(tiny_model, tmp_path_factory) -> str:
    """Processes drop out numbers of their own, so that only without is their work that of one."""
    folder = shutil.copytree(tiny_model, tmp_path_factory.mktemp("model") / "tiny")
    config = json.loads((folder / "config.json").read_text())
    dropout = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)
    (folder / "config.json").write_text(json.dumps({**config, **dropout}))
    return str(folder)


def options_of(config: RunConfig) -> list[str]:
    """What the command has to be given for a config."""
    changed = {name: value for name, value in asdict(config).items() if value != getattr(RunConfig, name)}
    return [word for name, value in changed.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def torchrun(config: RunConfig, out: Path, *more: str, program: Path | str = COMMAND) -> list[str]:
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    return [*start, str(program), "finetune", *options_of(config), "--out", str(out), *more]


@pytest.mark.parametrize(
    ("method", "micro"), [("light", 2), *(pytest.param(*pair, marks=pytest.mark.full) for pair in OTHERS)]
)
def test_two_processes_do_the_work_of_one(without_dropout, tiny_task, tmp_path, method, micro):
    """33 sentences in steps of 8: of the last one's single sentence, each process has the same."""
    sizes = {"train_size": 33, "epochs": 2, "batch_size": 8, "micro_batch_size": micro}
    config = RunConfig(without_dropout, tiny_task, method, **sizes, learning_rate=2e-3, patience=2, device="cpu")
    done = subprocess.run(torchrun(config, tmp_path / "two"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Record: ") == 1  # the second process prints nothing
    two = json.loads((tmp_path / "two/record.json").read_text())
    assert two["processes"] == 2
    one = run(prepare(config), tmp_path / "one", progress=False)
    assert two["epochs"]["losses"] == pytest.approx(one["epochs"]["losses"], rel=1e-5)
    assert two["epochs"]["scores"] == one["epochs"]["scores"]
    assert two["test"] == one["test"]
    tensors = load_file(tmp_path / "one/task.safetensors")
    for name, tensor in load_file(tmp_path / "two/task.safetensors").items():
        if not name.endswith(
            "key.bias"
        ):  # no loss depends on it: its gradient is rounding, of which Adam makes whole steps
            torch.testing.assert_close(tensor, tensors[name], atol=1e-4, rtol=1e-3, msg=name)


CANNOT_SHARE = (
    "batch_size is a multiple of micro_batch_size times the processes, got 6 and 2 x 2; take --micro-batch-size 3"
)


def test_processes_that_cannot_share_a_batch_are_refused(tiny_model, tiny_task, tmp_path, monkeypatch):
    """In this process, which is told what torchrun tells each of two: it is refused before they meet."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    config = RunConfig(tiny_model, tiny_task, batch_size=6, micro_batch_size=2, device="cpu")
    with pytest.raises(ValueError, match=f"^{CANNOT_SHARE}$"):
        run(prepare(config), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.full
def test_torchrun_shows_why_processes_are_refused(tiny_model, tiny_task, tmp_path):
    config = RunConfig(tiny_model, tiny_task, batch_size=6, micro_batch_size=2, device="cpu")
    done = subprocess.run(torchrun(config, tmp_path / "run"), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert CANNOT_SHARE in done.stderr


def workers_of(process: subprocess.Popen) -> dict[int, psutil.Process]:
    """The two that torchrun has started, by rank."""
    found = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        environment = child.environ()
        if "RANK" in environment and "finetune" in child.cmdline():
            found[int(environment["RANK"])] = child
    return found


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.full), 1])
def test_when_one_of_two_is_killed_the_other_ends_with_a_sentence(tiny_model, tiny_task, tmp_path, rank):
    """And the same command with --resume ends as if nothing had been."""
    program = tmp_path / "saved_often.py"
    program.write_text(SAVED_OFTEN)
    sizes = {"train_size": 64, "epochs": 5, "batch_size": 8, "micro_batch_size": 4}
    config = RunConfig(tiny_model, tiny_task, **sizes, learning_rate=2e-3, device="cpu")
    command = torchrun(config, tmp_path / "run", program=program)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list((tmp_path / "run").glob("state/checkpoint-*/whole.json")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.01)
        workers_of(process)[rank].send_signal(signal.SIGKILL)
        _, said = process.communicate()
    assert process.returncode != 0
    assert f"process {1 - rank} of 2 stopped because another one of this run ended, or by SIGTERM" in said
    assert not (tmp_path / "run/record.json").exists()
    for out in ("run", "straight"):
        done = subprocess.run(
            torchrun(config, tmp_path / out, "--resume", program=program), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    straight = load_file(tmp_path / "straight/task.safetensors")
    for name, tensor in load_file(tmp_path / "run/task.safetensors").items():
        torch.testing.assert_close(tensor, straight[name], atol=1e-6, rtol=0)


# Everything is loaded once; each run is a fork of that process. A run that is killed goes on in the next fork, until enough were
# killed, each in its share of the time that half a run takes; one that came to its end before makes room for another.
KILLS = """
import json, os, random, signal, sys, time
from pathlib import Path
from mpo_tutorial.experiments import training
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare, run

config, out, chance = RunConfig(**json.loads(sys.argv[1])), Path(sys.argv[2]), random.Random(sys.argv[3])
n_kills = int(sys.argv[4])
training.STEPS_BETWEEN_SAVES = 3

def start(folder):
    child = os.fork()
    if child == 0:
        run(prepare(config), folder, resume=True, progress=False, splits=("validation",))
        os._exit(0)
    return child

def ended(child):
    return os.waitpid(child, 0)[1]

begun = time.perf_counter()
assert ended(start(out / "straight")) == 0
longest = (time.perf_counter() - begun) / 2
folder, kills = 0, []
while len(kills) < n_kills:
    child = start(out / str(folder))
    time.sleep((len(kills) + chance.random()) / n_kills * longest)
    os.kill(child, signal.SIGKILL)
    if os.WIFSIGNALED(ended(child)):
        kills.append(sorted(path.name for path in (out / str(folder)).glob("state/checkpoint-*")))
    else:
        folder += 1
while folder >= 0:
    assert ended(start(out / str(folder))) == 0
    folder -= 1
print(json.dumps(kills))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="it forks itself with torch in memory")
@pytest.mark.parametrize(
    ("method", "n_kills"),
    [("light", 4), *(pytest.param(method, 10, marks=pytest.mark.full) for method in ("light", "full"))],
)
def test_kills_at_random_moments_end_in_the_same_weights(tiny_model, tiny_task, tmp_path, method, n_kills):
    sizes = {"train_size": 96, "epochs": 12, "batch_size": 8, "micro_batch_size": 4}
    config = RunConfig(tiny_model, tiny_task, method, **sizes, learning_rate=2e-3, patience=12, device="cpu")
    chance = os.urandom(4).hex()
    done = warm.python("-c", KILLS, json.dumps(asdict(config)), tmp_path, chance, n_kills)
    assert done.returncode == 0, done.stderr
    kills = json.loads(done.stdout)
    assert len(kills) == n_kills
    assert len({tuple(left) for left in kills}) > 1, f"kills drawn by {chance} came at one place: {kills}"
    straight = load_file(tmp_path / "straight/task.safetensors")
    for folder in (path for path in tmp_path.iterdir() if path.name.isdecimal()):
        found = load_file(folder / "task.safetensors")
        assert found.keys() == straight.keys()
        for name, tensor in straight.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-6, rtol=0, msg=f"{chance}, {folder.name}: {name}")
