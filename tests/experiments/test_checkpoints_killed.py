"""What a kill leaves of a checkpoint: `--resume` ends as if nothing had happened, and says what it passed over."""

import hashlib
import json
import logging
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import warm

from mpo_tutorial.experiments import marks, training, watch
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare, run

STEPS_BETWEEN_SAVES = 4  # of 9 steps, 3 in an epoch: both checkpoints lie in the midst of one
OLDER, NEWER = "checkpoint-4", "checkpoint-8"


class KilledError(Exception):
    """Stands for a kill, where the process must live to go on with the test."""


@pytest.fixture(scope="module")
def config(tiny_model, tiny_rows, tmp_path_factory) -> RunConfig:
    films = tmp_path_factory.mktemp("films") / "films.csv"
    pd.DataFrame(tiny_rows, columns=["text", "label"]).to_csv(films, index=False)
    options = {
        "train_size": 96,
        "epochs": 3,
        "patience": 3,
        "device": "cpu",
    }  # so patient that it keeps the best and never stops
    return RunConfig(model=tiny_model, task=str(films), method="full", learning_rate=5e-3, **options)


def end_of(config: RunConfig, out: Path) -> tuple[bytes, dict]:
    """Weights and record, all but seconds and memory, of a run that is gone on with in `out`, or begun there."""
    record = run(prepare(config), out, resume=True, progress=False, splits=("validation",))
    kept = {name: value for name, value in record.items() if name not in ("seconds", "peak_memory_bytes")}
    return (out / "task.safetensors").read_bytes(), kept


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    return end_of(config, tmp_path_factory.mktemp("straight"))


@pytest.fixture(scope="module")
def two_checkpoints(config, tmp_path_factory) -> Path:
    """A run that was killed when the newer checkpoint was whole and the older one not yet removed."""

    def killed(folder, **options):
        raise KilledError(folder)

    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KilledError, match=OLDER):
        patch.setattr(training, "STEPS_BETWEEN_SAVES", STEPS_BETWEEN_SAVES)
        patch.setattr(marks, "shutil", SimpleNamespace(rmtree=killed))
        end_of(config, out)
    assert {path.name for path in (out / "state").iterdir()} == {OLDER, NEWER, "config.json"}
    return out


def alter(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut in half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "altered": alter,
}


@pytest.mark.parametrize("first", [0, *(pytest.param(k, marks=pytest.mark.full) for k in (1, 2, 3))])
def test_whichever_file_a_checkpoint_lacks_the_one_before_it_is_gone_on_from(
    config, straight, two_checkpoints, tmp_path, caplog, first
):
    """One damage to each file, the kinds in turn from the first one on: all four turns make every damage to every file."""
    names = sorted(path.name for path in (two_checkpoints / "state" / NEWER).iterdir())
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", watch.KEPT, watch.BEST} < set(names)
    for k, name in enumerate(names, start=first):
        out = shutil.copytree(two_checkpoints, tmp_path / name)
        damage = list(DAMAGES)[k % len(DAMAGES)]
        DAMAGES[damage](out / "state" / NEWER / name)
        caplog.clear()
        assert end_of(config, out) == straight, (name, damage)
        assert [(line.levelno, line.getMessage()) for line in caplog.records if line.name == marks.__name__] == [
            (
                logging.WARNING,
                f"{NEWER} in {out / 'state'} is incomplete or altered and passed over; training goes on from {OLDER}.",
            )
        ]


def told(caplog) -> list[str]:
    return [line.getMessage() for line in caplog.records if line.name == marks.__name__]


def steps_done(monkeypatch) -> list[int]:
    """Where the steps that are done from now on are counted."""
    done = []
    on_step_end = watch.Watch.on_step_end

    def counted(self, args, state, control, **kwargs):
        done.append(state.global_step)
        on_step_end(self, args, state, control, **kwargs)

    monkeypatch.setattr(watch.Watch, "on_step_end", counted)
    return done


def test_a_whole_checkpoint_is_gone_on_from_without_a_word(
    config, straight, two_checkpoints, tmp_path, caplog, monkeypatch
):
    out = shutil.copytree(two_checkpoints, tmp_path / "run")
    os.truncate(out / "state" / OLDER / "optimizer.pt", 0)  # as a kill in removing it might leave it
    done = steps_done(monkeypatch)
    assert end_of(config, out) == straight
    assert (done, told(caplog)) == ([9], [])


def test_where_none_is_whole_training_begins_anew(config, straight, two_checkpoints, tmp_path, caplog, monkeypatch):
    out = shutil.copytree(two_checkpoints, tmp_path / "run")
    for name in (OLDER, NEWER):
        (out / "state" / name / "optimizer.pt").unlink()
    done = steps_done(monkeypatch)
    assert end_of(config, out) == straight
    assert done == list(range(1, 10))
    assert told(caplog) == [
        f"{NEWER} and {OLDER} in {out / 'state'} are incomplete or altered and passed over; training begins anew."
    ]


def test_a_mark_that_says_nothing_is_none(config, straight, two_checkpoints, tmp_path, caplog):
    out = shutil.copytree(two_checkpoints, tmp_path / "run")
    (out / "state" / NEWER / marks.MARK).write_text("{}")
    assert end_of(config, out) == straight
    assert told(caplog)[0].endswith(f"training goes on from {OLDER}.")


def test_checkpoints_without_a_mark_as_earlier_versions_wrote_them_are_passed_over(
    config, straight, two_checkpoints, tmp_path, caplog
):
    out = shutil.copytree(two_checkpoints, tmp_path / "run")
    for name in (OLDER, NEWER):
        (out / "state" / name / marks.MARK).unlink()
    assert end_of(config, out) == straight
    assert told(caplog)[0].endswith("training begins anew.")


def test_the_command_shows_what_it_passed_over(config, straight, two_checkpoints, tmp_path, mpo_tutorial_command):
    out = shutil.copytree(two_checkpoints, tmp_path / "run")
    os.truncate(out / "state" / NEWER / "trainer_state.json", 0)
    options = (
        f"finetune --model {config.model} --task {config.task} --method full --learning-rate 0.005 --train-size 96"
        " --epochs 3 --patience 3 --device cpu --out run --resume"
    )
    done = mpo_tutorial_command(*options.split(), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    sentence = f"{NEWER} in run/state is incomplete or altered and passed over; training goes on from {OLDER}."
    assert sentence in done.stderr.splitlines()
    assert (out / "task.safetensors").read_bytes() == straight[0]


@pytest.mark.parametrize("stops", [(3, 4), (3, 6, 7), (1, 3, 5, 8)])
def test_a_run_that_is_stopped_again_and_again_ends_as_without(config, straight, tmp_path, monkeypatch, stops):
    """Also at the end of an epoch, and then in the midst of the next one."""
    on_step_end = watch.Watch.on_step_end

    def stopped(self, args, state, control, **kwargs):
        self.ctrl_c = state.global_step in stops
        on_step_end(self, args, state, control, **kwargs)

    monkeypatch.setattr(watch.Watch, "on_step_end", stopped)
    for _ in stops:
        with pytest.raises(InterruptedError):
            end_of(config, tmp_path / "run")
    assert end_of(config, tmp_path / "run") == straight


# Trains in a process of its own until a save begins. From there it forks itself for each moment of the save, and the fork
# kills itself at that moment: when a file is about to be opened for writing, renamed or removed, or lies there half written
# by code that is no Python. What each fork leaves is moved to a folder of its own.
KILLS = """
import json, os, shutil, signal, sys
from itertools import count
from pathlib import Path
import torch
from transformers import Trainer, modeling_utils
from mpo_tutorial.experiments import marks, training, watch
from mpo_tutorial.experiments.config import RunConfig
from mpo_tutorial.experiments.finetune import prepare, run

config, out, outs, step = json.loads(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
training.STEPS_BETWEEN_SAVES = 4
save_checkpoint, on_save = Trainer._save_checkpoint, watch.Watch.on_save
moments_to_live = None

def moment():
    global moments_to_live
    if moments_to_live is not None:
        moments_to_live -= 1
        if moments_to_live < 0:
            os.kill(os.getpid(), signal.SIGKILL)

def hook(event, args):
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR) or event in ("os.rename", "os.remove", "os.rmdir"):
        moment()

def in_halves(write, path_at):
    def written(*args, **kwargs):
        moment()
        write(*args, **kwargs)
        path = Path(args[path_at])
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        moment()
        path.write_bytes(whole)
    return written

def forked_save(self, model, trial):
    global moments_to_live
    state = out / "state"
    if self.state.global_step == step:
        shutil.copytree(state, outs / "before")
        for k in count():
            child = os.fork()
            if child == 0:
                moments_to_live = k
                break
            status = os.waitpid(child, 0)[1]
            state.rename(outs / str(k))
            shutil.copytree(outs / "before", state)
            if status == 0:
                print("kills:", k)
                sys.stdout.flush()
                os._exit(0)
            if os.WTERMSIG(status) != signal.SIGKILL:
                sys.exit(f"ended by itself at {k}: {status}")
    save_checkpoint(self, model, trial)

def last_save(self, *args, **kwargs):
    on_save(self, *args, **kwargs)
    if moments_to_live is not None:
        os._exit(0)

Trainer._save_checkpoint, watch.Watch.on_save = forked_save, last_save
torch.save = in_halves(torch.save, 1)
modeling_utils.safe_save_file = in_halves(modeling_utils.safe_save_file, 1)
watch.save_file = in_halves(watch.save_file, 1)
sys.addaudithook(hook)
run(prepare(RunConfig(**config)), out, resume=True, progress=False, splits=("validation",))
"""


def digest_of(folder: Path) -> str:
    """Equal for two folders whose files are."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()


@pytest.mark.skipif(sys.platform != "linux", reason="it forks itself with torch in memory")
@pytest.mark.parametrize(
    ("start", "saved", "every"),
    [
        ("empty", NEWER, 4),
        *(
            pytest.param(*case, 1, marks=pytest.mark.full)
            for case in (("empty", NEWER), ("empty", OLDER), ("damaged", NEWER))
        ),
    ],
)
def test_a_kill_at_any_moment_of_a_save(config, straight, two_checkpoints, tmp_path, caplog, start, saved, every):
    """A kill at all moments; what is gone on from is what every so manieth of them left."""
    if start == "damaged":  # the newer checkpoint is written over what a damage made of it
        shutil.copytree(two_checkpoints, tmp_path / "run")
        DAMAGES["cut in half"](tmp_path / "run" / "state" / NEWER / "rng_state.pth")
    killed = tmp_path / "killed"
    killed.mkdir()
    step = saved.rpartition("-")[2]
    done = warm.python("-c", KILLS, json.dumps(asdict(config)), tmp_path / "run", killed, step)
    assert "kills: " in done.stdout, done.stderr
    states = [killed / str(k) for k in range(int(done.stdout.split()[1]))]
    written = {path.name for path in (killed / str(len(states)) / saved).iterdir()}
    left = [{path.name for path in (state / saved).glob("*")} for state in states]
    if start == "empty":
        never = {name for name in written if all(name in names for names in left)}
        assert not never, "no kill came before these"
    resumed = set()
    for state, names in list(zip(states, left, strict=True))[::every]:
        digest = digest_of(state)
        if digest in resumed:
            continue
        resumed.add(digest)
        out = tmp_path / f"resumed-{state.name}"
        out.mkdir()
        begun = (state / saved).exists()
        state.rename(out / "state")
        caplog.clear()
        assert end_of(config, out) == straight, (out.name, names)
        if start == "empty":
            assert bool(told(caplog)) == (begun and marks.MARK not in names), (out.name, names)
    assert len(states) > len(written)
