import copy
import math
import os
import platform
import resource
import subprocess
import sys
from datetime import date
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import warm

from mpo_tutorial.experiments import bench, compare, cuts, forms, movement, records

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from mpo_tutorial.experiments.records import write_record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_record({"long": "x" * 5000}, Path(sys.argv[1]))
"""


def test_a_full_disk_leaves_the_earlier_record_whole(tmp_path):
    path = tmp_path / "record.json"
    records.write_record({"earlier": 1}, path)
    done = warm.python("-c", FULL_DISK, path)
    assert "OSError" in done.stderr
    assert records.read_record(path) == {"earlier": 1}
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == '{\n "earlier": 1\n}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "must be JSON, it is not"),
        (b"", "must be JSON, it is not"),
        (b"\xff\xfe\x00", "must be JSON, it is not"),
        (b"[" * 10**5, "must be JSON, it is not"),
        (b"[1]", r"must have a JSON object, there is \[1\]"),
        (b"null", "must have a JSON object, there is null"),
        (b'"text"', "must have a JSON object, there is 'text'"),
        (b"3", "must have a JSON object, there is 3"),
    ],
)
def test_a_file_that_is_no_record_is_named(tmp_path, content, message):
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"record.json {message}.*; delete it and run again"):
        records.read_record(tmp_path / "record.json")


SPLIT = {"n": 9, "accuracy": 0.5, "interval": [0.2, 0.8], "right": "ff80"}
FIGURES = {"n": 9, "metrics": {"pearson": {"value": -0.1, "interval": [-0.5, 0.3]}}}
RUN = {
    "kind": "finetune",
    "config": {"model": "minilm", "task": "rotten_tomatoes"},
    "parameters": {"trained": 1, "total": 2},
    "stored_bytes": 4,
    "train_sentences": 3200,
    "seconds": {"train": 0.5},
    "test": SPLIT,
}
NEEDED = [
    *("kind", "config", "config.model", "config.task", "parameters", "parameters.trained", "parameters.total"),
    *("stored_bytes", "train_sentences", "seconds", "seconds.train", "test"),
]
NO_SPLITS = [
    {},
    *({name: value for name, value in SPLIT.items() if name != left_out} for left_out in SPLIT),
    *(SPLIT | change for change in ({"n": 17}, {"n": 0}, {"n": True}, {"right": "no hex"}, {"right": 3})),
    *(SPLIT | {"accuracy": value} for value in (None, "0.5", True, 0.9, float("nan"))),
    *(SPLIT | {"interval": value} for value in (None, [0.2], [0.2, "0.8"], [0.8, 0.2], 0.5)),
    *(SPLIT | {"metrics": value} for value in ({}, [], {"strange": SPLIT}, {"f1": 0.5}, {"f1": {"value": 0.5}})),
    *({"n": 9, "metrics": value} for value in (None, {}, {"pearson": {"value": 2, "interval": [0, 1]}})),
]


def test_a_runs_record_is_read_also_with_more_in_it_and_with_figures_instead_of_classes(tmp_path):
    path = tmp_path / "record.json"
    for record in (RUN, {**RUN, "more": {"of": 1}}, {**RUN, "test": FIGURES}, {**RUN, "validation": SPLIT}):
        records.write_record(record, path)
        assert records.read_run(path, "", {"test": forms.MEASURED}) == record


@pytest.mark.parametrize("place", NEEDED)
@pytest.mark.parametrize("value", [None, [], {}, True, 10**400, [10**400]], ids=lambda value: repr(value)[:8])
def test_what_a_runs_record_has_of_another_type_is_named(tmp_path, place, value):
    *outer, name = place.split(".")
    record = copy.deepcopy(RUN)
    (record[outer[0]] if outer else record)[name] = value
    records.write_record(record, tmp_path / "record.json")
    with pytest.raises(ValueError, match=rf"record.json must have .* at {place}.*; do this"):
        records.read_run(tmp_path / "record.json", "do this", {"test": forms.MEASURED})


@pytest.mark.parametrize("place", NEEDED)
def test_what_a_runs_record_lacks_is_named(tmp_path, place):
    *outer, name = place.split(".")
    record = copy.deepcopy(RUN)
    del (record[outer[0]] if outer else record)[name]
    records.write_record(record, tmp_path / "record.json")
    with pytest.raises(ValueError, match=rf"record.json must have .* at {place}, it is missing; do this"):
        records.read_run(tmp_path / "record.json", "do this", {"test": forms.MEASURED})


@pytest.mark.parametrize("part", NO_SPLITS)
def test_what_was_measured_on_a_split_is_whole(tmp_path, part):
    for split in ["test", "validation"] if "n" in part else ["test"]:  # an object without n is none of a split
        records.write_record({**RUN, split: part}, tmp_path / "record.json")
        with pytest.raises(ValueError, match=f"must have a count and metrics with their intervals at {split}"):
            records.read_run(tmp_path / "record.json", "", {"test": forms.MEASURED})


@pytest.mark.parametrize("name", ["light", "cuts", "bench", "movement"])
def test_the_shipped_points_have_the_forms_of_their_studies_and_no_less(name):
    form = {"light": compare.form, "cuts": cuts.form, "bench": bench.form, "movement": movement.form}[name]
    for point in records.shipped_points(name):
        expected = form(point["setting"])
        forms.require(point, "it", {**forms.POINT, "result": expected}, "")
        for key in expected:
            for result in ({**point["result"], key: None}, {**point["result"], key: [[]]}):
                with pytest.raises(ValueError, match=f"it must have .* at {key}"):
                    forms.require(result, "it", expected, "")


@pytest.mark.parametrize(
    "change",
    [
        {"seconds": 0},
        {"seconds": "1"},
        {"seconds": float("inf")},
        {"contender": None},
        {"contender": "another"},
        {"missing": "not installed"},
        {"peak_bytes": None},
    ],
)
def test_a_row_of_the_bench_that_cannot_be_divided_by_is_named(change):
    layer = next(point for point in records.shipped_points("bench") if point["setting"]["part"] == "layer")
    first, *others = layer["result"]["rows"]
    with pytest.raises(ValueError, match=r"it must have rows of nn\.Linear and MPOLinear, with seconds at rows"):
        forms.require({"peers": {}, "rows": [{**first, **change}, *others]}, "it", bench.form(layer["setting"]), "")


def test_what_is_no_json_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        records.append_point({"result": math.nan}, tmp_path / "record.jsonl")
    assert not list(tmp_path.iterdir())


def test_where_a_record_comes_from_is_what_the_system_says(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mpo-tutorial", "compare", "--out", "two words"])
    before, found, after = date.today(), records.provenance(), date.today()
    assert found["command"] == "mpo-tutorial compare --out 'two words'"
    assert records.provenance("another")["command"] == "another"
    assert before.isoformat() <= found["date"] <= after.isoformat()
    assert found["versions"].pop("python") == platform.python_version()
    assert found["versions"].keys() >= {"mpo-tutorial", "torch", "transformers"}
    assert found["versions"] == {name: metadata.version(name) for name in found["versions"]}
    assert found["hardware"].keys() == {"cpu", "threads", "memory_gb", "gpu"}
    assert found["hardware"]["cpu"] == records._cpu_name()
    assert found["hardware"]["threads"] == torch.get_num_threads()
    assert found["hardware"]["memory_gb"] == round(psutil.virtual_memory().total / 1e9, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    assert records.provenance()["hardware"]["gpu"] == "a card"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert records.provenance()["hardware"]["gpu"] is None


def test_the_processor_has_its_name_from_where_the_system_keeps_it(monkeypatch):
    def cpu_where_the_file_says(text):
        monkeypatch.setattr(Path, "read_text", lambda path: {Path("/proc/cpuinfo"): text}[path])
        return records._cpu_name()

    cores = "processor\t: 0\nmodel name\t: Abacus: 2\n\nprocessor\t: 1\nmodel name\t: Counting frame\n"
    assert cpu_where_the_file_says(cores) == "2 x Abacus: 2"
    assert cpu_where_the_file_says("processor\t: 0\n") == platform.machine()

    def missing(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr(Path, "read_text", missing)
    monkeypatch.setattr(platform, "processor", lambda: "abacus")
    assert records._cpu_name() == "abacus"
    monkeypatch.setattr(platform, "processor", lambda: "")
    assert records._cpu_name() == platform.machine()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert peak <= records.peak_memory_bytes() <= 1.1 * peak


def test_windows_tells_its_peak_itself(monkeypatch):
    memory = SimpleNamespace(peak_wset=7)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(memory_info=lambda: memory))
    monkeypatch.setattr(sys, "platform", "win32")
    assert records.peak_memory_bytes() == 7


def test_only_some_systems_count_the_peak_anew(monkeypatch):
    written = []
    monkeypatch.setattr(Path, "write_text", lambda path, text: written.append((str(path), text)))
    assert records.reset_peak_memory() is True
    assert written == [("/proc/self/clear_refs", "5")]

    def refused(*_):
        raise PermissionError

    monkeypatch.setattr(Path, "write_text", refused)
    assert records.reset_peak_memory() is False


def test_a_folder_is_made_and_held(tmp_path):
    out = tmp_path / "a" / "b"
    with records.locked(out):
        message = r"^one run at a time works in a folder, another one is in .*b; wait, or take --out$"
        with pytest.raises(ValueError, match=message), records.locked(out):
            pass
    with records.locked(out):
        assert os.listdir(out) == [".lock"]


def test_the_records_that_came_with_the_package_are_read():
    assert records.shipped("demo")["versions"].keys() >= {"python", "torch"}
    for name in ("light", "cuts", "bench", "movement"):
        points = records.shipped_points(name)
        assert points
        assert all(point.keys() >= {"study", "stage", "setting", "result"} for point in points)


def test_peak_memory_is_at_least_what_is_held_and_no_parents():
    code = "from mpo_tutorial.experiments.records import peak_memory_bytes as p; a = p(); b = bytearray(10**8); print(a, p())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 0.9e8 < after - before < 1.5e8
    assert records.peak_memory_bytes() <= 1.1 * 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
