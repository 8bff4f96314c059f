import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import distributed
import numpy as np
import pytest
import small_studies
import torch
import warm
from small_studies import cluster, environment, hold, inherit, measure, stop, study

from mpo_tutorial.experiments import forms, records, workers
from mpo_tutorial.experiments.study import RECORD, Study, make_point, run


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def results(points: list[dict]) -> list[tuple]:
    return [(point["stage"], point["setting"], point["result"]) for point in points]


@pytest.fixture
def made(tmp_path) -> tuple[list[dict], Path]:
    """A finished study, and its folder."""
    return run(study(), tmp_path / "made", progress=False), tmp_path / "made"


def test_a_study_makes_its_grid_and_then_what_follows_from_it(made):
    points, out = made
    settings = [{"size": size, "seed": seed} for size in (3, 5, 7) for seed in (0, 1)]
    assert [point["setting"] for point in points[:-1]] == settings
    assert all(point["result"] == measure(point["setting"]) for point in points)
    largest = max(points[:-1], key=lambda point: max(point["result"]["values"]))
    assert (points[-1]["stage"], points[-1]["setting"]) == ("final", {**largest["setting"], "seed": 2})
    assert records.read_points(out / RECORD, show=pytest.fail) == points  # nothing to say of a whole record


def test_a_point_says_what_it_was_made_with(made):
    for point in made[0]:
        assert (point["study"], point["version"]) == ("small", 1)
        assert point["seconds"] > 0
        assert point["versions"]["numpy"] == np.__version__
        assert point["hardware"]["threads"] == 1
        assert point.keys() >= {"command", "date", "peak_memory_bytes"}


def test_a_point_says_what_it_took_and_by_which_command(monkeypatch):
    now = iter([10.0, 12.5])
    monkeypatch.setattr("mpo_tutorial.experiments.study.time.perf_counter", lambda: next(now))
    monkeypatch.setattr(records, "reset_peak_memory", lambda: False)
    point = make_point(lambda setting: {"double": 2 * setting["size"]}, {"command": "as it was typed"}, {"size": 3})
    assert point["command"] == "as it was typed"
    assert (point["result"], point["seconds"]) == ({"double": 6}, 2.5)
    assert point["peak_memory_bytes"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a point's own peak is not known")
def test_the_peak_of_a_point_is_its_own(tmp_path):
    sizes = (300, 1)
    memory = Study("memory", 1, hold, {"grid": lambda _: [{"megabytes": size} for size in sizes]})
    large, small = run(memory, tmp_path, progress=False)
    assert large["peak_memory_bytes"] - small["peak_memory_bytes"] > 200e6


def test_only_what_lacks_is_made_and_nothing_is_changed(made):
    points, out = made
    path = out / RECORD
    lines = path.read_text().splitlines(keepends=True)
    marked = json.loads(lines[0]) | {"result": {"values": [1e6]}}
    path.write_text(json.dumps(marked) + "\n" + "".join(lines[2:-1]))
    again = run(study(), out, resume=True, progress=False)
    assert again[0] == marked
    assert results(again[1:-1]) == results(points[1:-1])
    assert again[-1]["setting"] == {"size": 3, "seed": 2}  # the stage follows from the points that are there
    assert path.read_text().startswith(json.dumps(marked) + "\n" + lines[2])


def test_without_resume_the_old_record_is_kept_beside(made):
    _, out = made
    before, said = (out / RECORD).read_bytes(), []
    run(study(sizes=(2,)), out, progress=False, show=said.append)
    assert (out / f"{RECORD}.old").read_bytes() == before
    assert "--resume would have gone on" in said[0]
    assert len(said) == 1 + 2 + 1


@pytest.mark.parametrize("damage", [b'{"study": "small", "ver', b"\xff\xfe", b'{"study": "small"}'])
def test_a_last_line_that_was_cut_off_is_dropped_with_a_word(made, damage):
    points, out = made
    path, said = out / RECORD, []
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + damage)
    again = run(study(), out, resume=True, progress=False, show=said.append)
    assert results(again) == results(points)
    assert path.read_bytes().startswith(b"".join(lines[:-1]))
    assert sum("was cut off; its point is made again" in word for word in said) == 1


@pytest.mark.parametrize("line", [b"{", b"null", b"[]", b"3", b'"a"', b'{"study": "small"}', b"", b"[" * 10**5])
def test_any_other_damage_is_named_and_left_alone(made, line):
    _, out = made
    lines = (out / RECORD).read_bytes().splitlines()
    damaged = b"\n".join([lines[0], line, *lines[1:]]) + b"\n"
    (out / RECORD).write_bytes(damaged)
    with pytest.raises(ValueError, match=r"^line 2 of .*record\.jsonl must .*; delete the line, and --resume"):
        run(study(), out, resume=True, progress=False)
    assert (out / RECORD).read_bytes() == damaged


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"stage": 3}, "a text at stage, there is 3"),
        ({"setting": [1]}, r"a JSON object at setting, there is \[1\]"),
        ({"result": None}, "a JSON object at result, there is null"),
        ({"hardware": {"cpu": "one"}}, "a count of at least 1 at hardware.threads, it is missing"),
        ({"version": True}, "a count of at least 1 at version, there is True"),
        ({"result": {"values": 3}}, "a list of numbers at result.values, there is 3"),
        ({"result": {"values": [float("nan")]}}, r"a list of numbers at result.values, there is \[nan\]"),
    ],
)
def test_a_point_of_another_form_is_named_and_left_alone(made, change, place):
    _, out = made
    lines = (out / RECORD).read_text().splitlines()
    lines[2] = json.dumps(json.loads(lines[2]) | change)
    (out / RECORD).write_text("\n".join(lines) + "\n")
    measured = replace(study(), form=lambda setting: {"values": forms.NUMBERS})
    with pytest.raises(ValueError, match=rf"^line 3 of .*record\.jsonl must have {place}; delete the line"):
        run(measured, out, resume=True, progress=False)
    assert (out / RECORD).read_text() == "\n".join(lines) + "\n"


def test_a_stage_that_the_study_does_not_have_is_named(made):
    _, out = made
    lines = (out / RECORD).read_text().splitlines()
    (out / RECORD).write_text("\n".join([*lines, json.dumps(json.loads(lines[0]) | {"stage": "prologue"})]) + "\n")
    with pytest.raises(ValueError, match="a point of the stage prologue, the study small has grid, final"):
        run(study(), out, resume=True, progress=False)


def test_a_study_is_not_resumed_in_the_folder_of_a_run(tmp_path):
    (tmp_path / "record.json").write_text("{}")
    with pytest.raises(ValueError, match=r"has the record\.json of another command and no record\.jsonl; take another"):
        run(study(), tmp_path, resume=True, progress=False)
    assert len(run(study(), tmp_path, progress=False)) == 7
    assert len(run(study(), tmp_path, resume=True, progress=False)) == 7


def test_another_version_or_grid_says_so_and_offers_both_ways_out(made):
    _, out = made
    before = (out / RECORD).read_bytes()
    ways = "they do not mean the same; take another --out, or leave out --resume to make all anew"
    with pytest.raises(ValueError, match=f"points of small, version 1, this is small, version 2: .*{ways}"):
        run(study(version=2), out, resume=True, progress=False)
    with pytest.raises(
        ValueError,
        match=r"record\.jsonl has 2 points of the stage grid that these options do not ask for, such as "
        r'{"seed": 0, "size": 3}: give the same options, or leave out --resume to make all anew '
        r"\(the old record is kept beside\)$",
    ):
        run(study(sizes=(5, 7)), out, resume=True, progress=False)
    assert (out / RECORD).read_bytes() == before


def test_a_study_that_was_never_begun_is_resumed_from_nothing(tmp_path):
    assert len(run(study(sizes=(2,)), tmp_path, resume=True, progress=False)) == 3


def test_one_worker_is_this_process(tmp_path):
    here = Study("here", 1, lambda _: {"process": os.getpid()}, {"grid": lambda _: [{"size": 2}]})
    assert run(here, tmp_path, progress=False)[0]["result"] == {"process": os.getpid()}


def test_a_bar_for_each_stage_begins_with_the_points_that_are_there(tmp_path, capsys):
    run(study(sizes=(2,)), tmp_path)
    bars = capsys.readouterr().err
    for whole in (r"grid: +100%.* 2/2 \[.*\d(point/s|s/point)\]", r"final: +100%.* 1/1 \["):
        assert re.search(whole, bars)
    path = tmp_path / RECORD
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    run(study(sizes=(2,)), tmp_path, resume=True)
    grid = capsys.readouterr().err.split("final")[0]
    assert "1/2" in grid
    assert "2/2" in grid
    assert "0/2" not in grid
    run(study(sizes=(2,)), tmp_path, progress=False)
    assert not capsys.readouterr().err


def test_a_second_writer_is_refused(tmp_path):
    with records.locked(tmp_path), pytest.raises(ValueError, match="one run at a time works in a folder"):
        run(study(), tmp_path, progress=False)


def test_ctrl_c_keeps_the_points_and_says_so(tmp_path):
    with pytest.raises(
        InterruptedError, match=r"are kept in .*record\.jsonl, and the same command with --resume goes on"
    ):
        run(study(sizes=(3, 4, 5), function=stop), tmp_path, progress=False)
    assert [point["setting"]["size"] for point in records.read_points(tmp_path / RECORD)] == [3, 3]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from small_studies import study
from mpo_tutorial.experiments.study import run
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
run(study(), Path(sys.argv[1]), progress=False)
"""


def test_a_disk_that_fills_stops_the_study_and_keeps_every_whole_point(made, tmp_path):
    points, _ = made

    def with_room(name: str, room: int) -> subprocess.CompletedProcess:
        return warm.python("-c", FULL_DISK, tmp_path / name, f"{room:08}", env=environment())

    assert with_room("large", 10**7).returncode == 0
    first, second, third, *_ = (tmp_path / "large" / RECORD).read_bytes().splitlines(keepends=True)
    done = with_room("small", len(first) + len(second) + len(third) // 2)
    assert "OSError: a point could not be written to" in done.stderr
    kept = records.read_points(tmp_path / "small" / RECORD, show=pytest.fail)  # no part of a third is there
    assert results(kept) == results(points[:2])
    assert results(run(study(), tmp_path / "small", resume=True, progress=False)) == results(points)


def test_processes_give_the_same_values_also_when_workers_are_killed(made, tmp_path):
    points, _ = made
    marks = tmp_path / "marks"
    marks.mkdir()
    torch.set_num_threads(7)
    found = run(study(marks=marks, deaths=2), tmp_path / "out", workers=2, progress=False)
    assert len(list(marks.iterdir())) == 2
    assert results(found) == results(points)
    assert {point["hardware"]["threads"] for point in found} == {3}


def test_a_point_is_tried_four_times_by_workers_that_inherit_nothing(tmp_path, monkeypatch):
    """torch does not take kindly to a fork after it has computed."""
    monkeypatch.setattr(small_studies, "INHERITED", "the parent's")
    marks = tmp_path / "marks"
    marks.mkdir()
    dying = Study("dying", 1, partial(inherit, marks=marks, deaths=3), {"grid": lambda _: [{"size": 7, "seed": 0}]})
    (point,) = run(dying, tmp_path / "out", workers=2, progress=False)
    assert len(list(marks.iterdir())) == 3
    assert point["result"] == {"inherited": None}


def test_workers_that_die_again_and_again_end_the_study(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "get_context", lambda _: warm.context)
    (tmp_path / "marks").mkdir()
    with pytest.raises(OSError, match=r"workers died 4 times at the point .*take fewer --workers, then --resume"):
        run(study(marks=tmp_path / "marks", deaths=99), tmp_path / "out", workers=2, progress=False)
    assert len(records.read_points(tmp_path / "out" / RECORD)) >= 4


def test_each_worker_of_a_cluster_has_one_thread_whatever_its_environment_says(monkeypatch):
    monkeypatch.setattr(workers, "_on_cluster", lambda make, settings, _: map(make, settings))
    made = workers.points_of(lambda setting, threads=None: {**setting, "threads": threads}, [{"size": 1}], 1, "tcp://")
    assert list(made) == [{"size": 1, "threads": 1}]


def test_a_dask_cluster_gives_the_same_values_also_when_a_worker_is_killed_twice(made, tmp_path):
    points, _ = made
    marks = tmp_path / "marks"
    marks.mkdir()

    def no_default(_):
        """What else the reader has on a cluster is not sent to ours."""
        with pytest.raises(ValueError, match="No clients found"):
            distributed.default_client()

    with cluster(tmp_path) as address:
        options = {"scheduler": address, "progress": False, "show": no_default}
        found = run(study(marks=marks, deaths=2), tmp_path / "out", **options)
    assert len(list(marks.iterdir())) == 2
    assert results(found) == results(points)
    assert {point["hardware"]["threads"] for point in found} == {1}


def test_workers_of_a_cluster_that_die_again_and_again_end_the_study(tmp_path):
    (tmp_path / "marks").mkdir()
    message = r"^workers of tcp.* died at the same point again and again; look at their memory, then --resume$"
    with cluster(tmp_path, workers=1) as address, pytest.raises(OSError, match=message):
        run(study(sizes=(7,), marks=tmp_path / "marks", deaths=99), tmp_path / "out", scheduler=address, progress=False)


def test_a_scheduler_that_does_not_answer_is_told(tmp_path):
    message = (
        r"^no Dask scheduler answers at tcp://127\.0\.0\.1:1 within 4 seconds; start one by `dask scheduler`, its workers "
        r"by `dask worker ADDRESS --nthreads 1`, or leave out --scheduler$"
    )
    with pytest.raises(ConnectionError, match=message):
        run(study(), tmp_path, scheduler="tcp://127.0.0.1:1", progress=False)


def test_a_scheduler_without_dask_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"^a scheduler needs Dask; type: pip install 'mpo-tutorial\[cluster\]'$"):
        run(study(), tmp_path, scheduler="tcp://127.0.0.1:1", progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is an integer of at least 1, got 0"),
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:1"}, "either workers or a scheduler"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(study(), tmp_path, **options)


@pytest.mark.parametrize("options", [{"workers": 2}, {"scheduler": "tcp://127.0.0.1:1"}])
def test_seconds_are_measured_by_one_alone(tmp_path, options):
    timed = Study("timed", 1, measure, {"grid": lambda _: [{"size": 2, "seed": 0}]}, serial=True)
    with pytest.raises(ValueError, match="the study timed measures seconds, so nothing may run beside it"):
        run(timed, tmp_path, **options)
    assert len(run(timed, tmp_path, progress=False)) == 1


def raise_stop_iteration(_setting: dict) -> dict:
    return next(iter(()))


def test_a_point_that_raises_stop_iteration_does_not_end_the_study_as_if_it_were_done(tmp_path):
    with pytest.raises(RuntimeError):
        run(study(function=raise_stop_iteration), tmp_path, progress=False)
