"""What the command says of records and folders that are not as it left them: one line, with the file and a way out."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from mpo_tutorial import cli
from mpo_tutorial.experiments import finetune, records, study
from mpo_tutorial.experiments.checkpoint import KEY

WHOLE = ["", "{", "[" * 10**5, "[]", "null", '"text"', "3", "true", "NaN", "{}", '{"kind": "demo", "light": {}}']
CHANGES = [
    {"config": None},
    {"config": []},
    {"config": {"model": 3, "task": "a.csv"}},
    {"parameters": "many"},
    {"seconds": {}},
    {"stored_bytes": 10**400},
    {"test": None},
    {"test": {"n": 3}},
    {"strange": {"n": 3}},
]


@pytest.fixture
def refused(monkeypatch, capsys):
    """Run the command in this process, which must refuse, and return its line."""

    def call(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["mpo-tutorial", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            cli.main()
        said = capsys.readouterr().err
        assert exit_.value.code == 2, said
        (line,) = [line for line in said.splitlines() if line.startswith("mpo-tutorial: ")]
        return line

    return call


@pytest.fixture
def light(tiny_light_run, tmp_path) -> Path:
    """A copy of a finished light run, as a demo's folder has it."""
    return shutil.copytree(tiny_light_run, tmp_path / "demo" / "light")


def options_of(run: Path) -> list[str]:
    """The options that a run was made with."""
    config = json.loads((run / "record.json").read_text())["config"]
    names = ("model", "task", "learning_rate", "train_size", "epochs")
    return [word for name in names for word in (f"--{name.replace('_', '-')}", str(config[name]))]


@pytest.mark.parametrize("damage", [*WHOLE, *CHANGES], ids=lambda damage: repr(damage)[:40])
def test_a_strange_record_of_a_run_is_named_by_whatever_reads_it(refused, light, damage):
    path, options = light / "record.json", options_of(light)
    record = json.loads(path.read_text())
    path.write_text(damage if isinstance(damage, str) else json.dumps(record | damage))
    for command in (
        ("report", light),
        ("cuts", "--run", light, "--out", light.parent / "cuts"),
        ("finetune", *options, "--out", light, "--resume"),
        ("demo", *options, "--out", light.parent, "--resume"),
    ):
        if command[0] == "cuts" and damage == {"test": None}:
            continue  # what is cut need not have been tested
        line = refused(*command)
        assert f"{path} must " in line, line
        assert "; give " in line or "; take another --out" in line


@pytest.mark.parametrize("damage", [*WHOLE[:-1], '{"kind": "finetune"}'], ids=lambda damage: damage[:40])
def test_a_strange_record_of_a_demo_is_named(refused, light, damage):
    (light.parent / "record.json").write_text(damage)
    line = refused("demo", *options_of(light), "--out", light.parent, "--resume")
    assert f"{light.parent / 'record.json'} must " in line
    assert "take another --out, or leave out --resume to start anew" in line


@pytest.mark.parametrize("damage", WHOLE[:9], ids=lambda damage: damage[:40])
def test_a_strange_config_of_an_interrupted_run_is_named(refused, light, damage):
    options = options_of(light)
    (light / "state").mkdir()
    (light / "state" / "config.json").write_text(damage)
    assert f"{light / 'state' / 'config.json'} must " in refused("finetune", *options, "--out", light, "--resume")


@pytest.mark.parametrize("text", WHOLE[:-1], ids=lambda text: text[:40])
def test_strange_metadata_of_a_task_file_is_named(refused, light, text):
    path = light / "task.safetensors"
    save_file(load_file(path), path, {KEY: text})
    for command in (
        ("finetune", *options_of(light), "--out", light),
        ("demo", *options_of(light), "--out", light.parent),
    ):
        assert f"the metadata {KEY} of {path} must " in refused(*command, "--resume")


def test_a_folder_of_another_command_is_not_resumed(refused, light, tmp_path, monkeypatch):
    def train(*_args, **_options):
        raise AssertionError("nothing may be trained before the folder is refused")

    monkeypatch.setattr(finetune, "train", train)
    monkeypatch.setattr(study, "make_point", train)
    run, demo, points = options_of(light), light.parent, tmp_path / "study"
    records.write_record({"kind": "demo"}, demo / "record.json")
    points.mkdir()
    (points / "record.jsonl").touch()
    compared = [*run[:4], *run[6:]]
    for command, folder, message in (
        (["finetune", *run], demo, "must have the word finetune at kind, there is 'demo'"),
        (["demo", *run], light, "must have the word demo at kind, there is 'finetune'"),
        (["finetune", *run], points, "has the record.jsonl of another command and no record.json"),
        (["demo", *run], points, "has the record.jsonl of another command and no record.json"),
        (["compare", *compared], demo, "has the record.json of another command and no record.jsonl"),
        (["cuts", *compared], demo, "has the record.json of another command and no record.jsonl"),
        (["cuts", "--run", light], demo, "has the record.json of another command and no record.jsonl"),
        (["bench"], light, "has the record.json of another command and no record.jsonl"),
    ):
        line = refused(*command, "--out", folder, "--resume")
        assert message in line, line
        assert str(folder) in line
        assert "take another --out, or leave out --resume" in line


def test_a_run_that_was_not_measured_on_what_is_asked_for_is_not_taken_for_it(refused, light):
    record = json.loads((light / "record.json").read_text())
    del record["test"]
    records.write_record(record, light / "record.json")
    line = refused("finetune", *options_of(light), "--out", light, "--resume")
    assert "at test, it is missing; take another --out, or leave out --resume to start anew" in line
