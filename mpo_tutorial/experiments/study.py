"""One way to run an experiment: a grid of settings, a function from one setting to its measurements, a record.

The record is a file of JSON Lines: each finished point is appended as one line and never touched again. So a study can be
killed at any moment, and goes on by making the points that the record lacks; it may run in this process, in several, or on a
Dask cluster. Summaries, tables and figures are made from the points each time they are shown.
"""

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mpo_tutorial.experiments import forms, records
from mpo_tutorial.experiments.records import locked
from mpo_tutorial.experiments.workers import points_of
from mpo_tutorial.maths.shapes import is_integer

Setting = dict[str, Any]
Point = dict[str, Any]

RECORD = "record.jsonl"
MAKE_ANEW = "take another --out, or leave out --resume to make all anew (the old record is kept beside)"


@dataclass(frozen=True)
class Study:
    """What is measured, and where.

    Parameters
    ----------
    name : str
    version : int
        To be raised when `measure` comes to mean something else: points of another version are stale.
    measure : callable
        From a setting to its measurements, both of JSON's types. A function of a module, or a `functools.partial` of one:
        it travels to other processes.
    stages : mapping of str to callable
        By name what gives the settings of a stage, in order, from the points of the stages before it.
    serial : bool
        True where seconds are measured: nothing else may run beside it.
    describe : callable
        From a point to a line about it.
    form : callable
        From a setting to the form of its measurements: what of them is read when a record is gone on with.
    """

    name: str
    version: int
    measure: Callable[[Setting], dict]
    stages: Mapping[str, Callable[[list[Point]], Iterable[Setting]]]
    serial: bool = False
    describe: Callable[[Point], str] = lambda point: json.dumps(point["setting"])
    form: Callable[[Setting], forms.Form] = lambda _: forms.OBJECT


def run(
    study: Study,
    out: Path,
    *,
    resume: bool = False,
    workers: int = 1,
    scheduler: str | None = None,
    progress: bool = True,
    show: Callable[[str], None] = lambda _: None,
) -> list[Point]:
    """Make the points that the record in `out` lacks, and append each as it is finished.

    Parameters
    ----------
    out : Path
        A folder, made if it does not exist; the record in it is `record.jsonl`.
    resume : bool
        Keep the points that are there. Otherwise a record that is there is moved aside, to `record.jsonl.old`.
    workers : int
        Processes that make points; with 1 this one does. They share its threads.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers make the points instead, each with one thread.
    progress : bool
        Show a bar for each stage.
    show : callable
        Gets a line about each point, and a word on what is dropped or moved.

    Returns
    -------
    list of dict
        All points, by stage and in the order of the settings. Each has study, version, stage, setting, result, seconds,
        peak_memory_bytes (None where the system cannot tell one point's from another's), command, date, versions, hardware.

    Raises
    ------
    ValueError
        If seconds are to be measured by several at once, the record's points are of another version or grid, a line of it is
        damaged, `out` is another command's, or another process works in it.
    ConnectionError
        If the scheduler does not answer.
    InterruptedError
        At Ctrl-C.
    OSError
        If a point cannot be written; the points before it are whole.
    """
    if not is_integer(workers) or workers < 1:
        raise ValueError(f"workers is an integer of at least 1, got {workers!r}")
    if scheduler is not None and workers > 1:
        raise ValueError(f"either workers or a scheduler makes the points, got {workers} workers and {scheduler}")
    if study.serial and (workers > 1 or scheduler is not None):
        raise ValueError(
            f"the study {study.name} measures seconds, so nothing may run beside it: leave out workers and scheduler"
        )
    with locked(out):
        path = out / RECORD
        points = _resumed(study, path, show) if resume else _moved_aside(path, show)
        head = {"study": study.name, "version": study.version, "command": records.started_by()}
        ordered: list[Point] = []
        try:
            for stage, settings_of in study.stages.items():
                settings = {key_of(setting): setting for setting in settings_of(list(ordered))}
                made = {key_of(point["setting"]): point for point in points if point["stage"] == stage}
                _require_grid(path, stage, made, settings)
                for point in made.values():
                    what, form = f"line {1 + points.index(point)} of {path}", {"result": study.form(point["setting"])}
                    forms.require(point, what, form, records.DELETE_LINE)
                missing = [setting for key, setting in settings.items() if key not in made]
                make = partial(make_point, study.measure, {**head, "stage": stage})
                bar = tqdm(desc=stage, total=len(settings), initial=len(made), unit="point", disable=not progress)
                with bar:
                    for point in points_of(make, missing, workers, scheduler):
                        records.append_point(point, path)
                        made[key_of(point["setting"])] = point
                        bar.update()
                        show(study.describe(point))
                ordered += [made[key] for key in settings]
        except (KeyboardInterrupt, InterruptedError) as error:
            raise InterruptedError(
                f"stopped by Ctrl-C; the points made so far are kept in {path}, and the same command with --resume goes on"
            ) from error
    return ordered


def make_point(
    measure: Callable[[Setting], dict], head: Mapping[str, Any], setting: Setting, threads: int | None = None
) -> Point:
    """Measure one setting, where it is called: the line of the record."""
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    told_apart = records.reset_peak_memory()
    started = time.perf_counter()
    result = measure(setting)
    point = {
        **head,
        "setting": setting,
        "result": result,
        "seconds": time.perf_counter() - started,
        "peak_memory_bytes": records.peak_memory_bytes() if told_apart else None,
        **records.provenance(command=head["command"]),
    }
    return json.loads(json.dumps(point))  # the same types whoever made it


def key_of(setting: Setting) -> str:
    """A setting as text: equal for equal settings."""
    return json.dumps(setting, sort_keys=True)


def _resumed(study: Study, path: Path, show: Callable[[str], None]) -> list[Point]:
    records.require_own(path.parent, path.name)
    points = records.read_points(path, show) if path.exists() else []
    for point in points:
        found = (point["study"], point["version"])
        if found != (study.name, study.version):
            raise ValueError(
                f"{path} has points of {found[0]}, version {found[1]}, this is {study.name}, version {study.version}: they do "
                f"not mean the same; {MAKE_ANEW}"
            )
        if point["stage"] not in study.stages:
            raise ValueError(
                f"{path} has a point of the stage {point['stage']}, the study {study.name} has {', '.join(study.stages)}; "
                f"{MAKE_ANEW}"
            )
    return points


def _moved_aside(path: Path, show: Callable[[str], None]) -> list[Point]:
    if path.exists() and path.stat().st_size:
        old = path.with_name(f"{path.name}.old")
        os.replace(path, old)
        show(f"The record that was there is now {old}; --resume would have gone on with it.")
    return []


def _require_grid(path: Path, stage: str, made: Iterable[str], settings: Iterable[str]) -> None:
    if strange := sorted(set(made) - set(settings)):
        raise ValueError(
            f"a study is resumed with the options it began with; {path} has {len(strange)} points of the stage {stage} that "
            f"these options do not ask for, such as {strange[0]}: give the same options, or leave out --resume to make all "
            "anew (the old record is kept beside)"
        )
