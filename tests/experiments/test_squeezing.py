"""Squeezing in a folder: killed, stopped, resumed, refused."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from mpo_tutorial.experiments import squeezing
from mpo_tutorial.experiments.evaluation import logits
from mpo_tutorial.experiments.plans import Plan
from mpo_tutorial.experiments.records import locked
from mpo_tutorial.experiments.squeeze import MET, Squeeze
from mpo_tutorial.experiments.squeezing import run
from mpo_tutorial.experiments.tuned import Tuned
from mpo_tutorial.models.convert import decompose, freeze
from mpo_tutorial.models.loading import load

PLAN = Plan(step=5, steps=24, between=3, ratio=0.6, refresh=2, delta=10.0)


@pytest.fixture(scope="module")
def straight(tiny_light_run, tmp_path_factory) -> Path:
    """Folder of a squeezing that nothing interrupted."""
    out = tmp_path_factory.mktemp("straight") / "squeeze"
    run(Tuned.of_run(tiny_light_run).prepared, PLAN, out)
    return out


def told(out: Path) -> dict:
    record = json.loads((out / "record.json").read_text())
    return {name: value for name, value in record.items() if name not in ("seconds", "peak_memory_bytes", "command")}


def weights(out: Path) -> bytes:
    return (out / squeezing.MODEL / "model.safetensors").read_bytes()


def test_a_squeezing_ends_with_a_record_and_a_model_that_computes_the_same(tiny_light_run, straight, tmp_path):
    prepared = Tuned.of_run(tiny_light_run).prepared
    record = run(prepared, PLAN, tmp_path / "new")
    assert told(tmp_path / "new") == told(straight)
    assert record["stopped"] == MET
    assert record["parameters"]["cores"] <= 0.6 * record["parameters"]["dense"]
    assert record["bytes"] == 4 * record["parameters"]["total"]
    assert record["steps"][-1]["done"] == PLAN.steps
    assert not (tmp_path / "new" / "state").exists()
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "new" / squeezing.MODEL)
    dataset = prepared.dataset("test")
    found, right = (logits(model, dataset, prepared.tokenizer) for model in (loaded, prepared.model))
    assert abs(found - right).max() < 1e-5
    assert record["test"]["accuracy"] == pytest.approx((right.argmax(1) == dataset["labels"]).mean())


@pytest.mark.parametrize("n_kills", [3, pytest.param(10, marks=pytest.mark.full)])
def test_killed_at_random_moments_it_ends_in_the_same_model(tiny_light_run, straight, tmp_path, monkeypatch, n_kills):
    monkeypatch.setattr(squeezing, "SECONDS_BETWEEN_SAVES", 0)
    out, rng, kills = tmp_path / "killed", random.Random(0), 0
    started = time.monotonic()
    run(Tuned.of_run(tiny_light_run).prepared, PLAN, tmp_path / "timed")
    length = time.monotonic() - started
    while kills < n_kills:
        child = os.fork()
        if not child:
            run(Tuned.of_run(tiny_light_run).prepared, PLAN, out, resume=True)
            os._exit(0)
        time.sleep(rng.uniform(0.2, 0.9) * length)
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        kills += 1
        if os.WIFEXITED(status):  # it was done before it was killed
            assert (out / "record.json").exists()
            assert told(out) == told(straight)
            (out / "record.json").unlink()
    run(Tuned.of_run(tiny_light_run).prepared, PLAN, out, resume=True)
    assert told(out) == told(straight)
    assert weights(out) == weights(straight)


def test_ctrl_c_says_what_is_kept_and_resume_goes_on(tiny_light_run, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(squeezing, "SECONDS_BETWEEN_SAVES", 0)

    def interrupt(step):
        if step.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(
        InterruptedError, match=r"^stopped by Ctrl-C after step \d+ of 24; .* with --resume goes on from it$"
    ):
        run(Tuned.of_run(tiny_light_run).prepared, PLAN, tmp_path, show=interrupt)
    numbers = []
    run(
        Tuned.of_run(tiny_light_run).prepared,
        PLAN,
        tmp_path,
        resume=True,
        show=lambda step: numbers.append(step.number),
    )
    assert numbers[0] >= 1  # the model as it came is not looked at again
    assert told(tmp_path) == told(straight)
    again = []
    assert run(Tuned.of_run(tiny_light_run).prepared, PLAN, tmp_path, resume=True, show=again.append)["stopped"] == MET
    assert again == []  # a finished one is read


def test_what_differs_is_named(tiny_light_run, straight):
    prepared = Tuned.of_run(tiny_light_run).prepared
    with pytest.raises(ValueError, match=r"has ratio 0\.6, not 0\.5; sweeps 0, not 1: give the same options"):
        run(prepared, replace(PLAN, ratio=0.5, sweeps=1), straight, resume=True)
    prepared = Tuned.of_run(tiny_light_run).prepared
    prepared.config = replace(prepared.config, learning_rate=0.125)
    with pytest.raises(ValueError, match=r"has learning_rate 0\.005, not 0\.125: give the same options"):
        run(prepared, PLAN, straight, resume=True)
    prepared = Tuned.of_run(tiny_light_run).prepared
    with torch.no_grad():
        next(layer for name, layer in prepared.model.named_parameters() if name.endswith("cores.0")).mul_(1.5)
    with pytest.raises(ValueError, match=r"began with another model, whose numbers differ; take another --out"):
        run(prepared, PLAN, straight, resume=True)


def test_a_folder_in_use_or_of_another_command_is_refused(tiny_light_run, tmp_path):
    with locked(tmp_path), pytest.raises(ValueError, match=r"^one run at a time works in a folder"):
        run(Tuned.of_run(tiny_light_run).prepared, PLAN, tmp_path)
    with pytest.raises(ValueError, match=r"record\.json must have the word squeeze at kind, there is 'finetune'"):
        run(Tuned.of_run(tiny_light_run).prepared, PLAN, tiny_light_run, resume=True)
    (tmp_path / "record.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match=r"has the record\.jsonl of another command"):
        run(Tuned.of_run(tiny_light_run).prepared, PLAN, tmp_path, resume=True)


def test_a_full_disk_is_an_error_with_the_state_before_it_kept(tiny_light_run, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(squeezing, "SECONDS_BETWEEN_SAVES", 0)
    written, write = [], Path.write_bytes

    def full(path, content):
        written.append(path)
        if len(written) == 4:
            raise OSError(28, "No space left on device", str(path))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left on device"):
        run(Tuned.of_run(tiny_light_run).prepared, PLAN, tmp_path)
    assert [path.name for path in (tmp_path / "state").iterdir() if "partial" in path.name] == []
    run(Tuned.of_run(tiny_light_run).prepared, PLAN, tmp_path, resume=True)
    assert told(tmp_path) == told(straight)


def test_a_model_in_memory_is_squeezed_step_by_step(tiny_model, tiny_task):
    model, tokenizer = load(tiny_model, 2, seed=0)
    decompose(model)
    freeze(model)
    squeeze = squeezing.squeeze(
        model,
        tokenizer,
        tiny_task,
        Plan(step=8, steps=4, between=1, ratio=0.8),
        epochs=1,
        batch_size=8,
        micro_batch_size=8,
    )
    assert isinstance(squeeze, Squeeze)
    parameters = [step.parameters for step in squeeze]
    assert parameters[0] > parameters[-1] == squeeze.parameters
    assert squeeze.stopped == MET
    with pytest.raises(ValueError, match=r"^squeezing is for light fine-tuning with three or more cores, got full"):
        squeezing.squeeze(*load(tiny_model, 2, seed=0), tiny_task)
