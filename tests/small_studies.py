"""Studies of a second, whose functions other processes can import, and a cluster to run them on."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from mpo_tutorial.experiments.study import Study


def measure(setting: dict, marks: Path | None = None, deaths: int = 0) -> dict:
    """Singular values of a random matrix. At a size of 7 the process dies, as often as `deaths` says; marks count that."""
    if setting["size"] == 7 and marks is not None and len(list(marks.iterdir())) < deaths:
        (marks / f"{time.time_ns()}").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if marks is not None and setting["size"] == 5:
        time.sleep(0.2)
    matrix = np.random.default_rng(setting["seed"]).standard_normal((setting["size"],) * 2)
    return {"values": np.linalg.svd(matrix, compute_uv=False).tolist()}


INHERITED = None


def inherit(setting: dict, **options) -> dict:
    """`measure`, and then what a test has set here in its own process."""
    measure(setting, **options)
    return {"inherited": INHERITED}


def hold(setting: dict) -> dict:
    """Take some memory for a moment."""
    return {"bytes": len(np.ones(setting["megabytes"] * 125_000).tobytes())}


def stop(setting: dict) -> dict:
    if setting["size"] == 4:
        raise KeyboardInterrupt
    return measure(setting)


def grid(_points: list[dict], sizes=(3, 5, 7)) -> list[dict]:
    return [{"size": size, "seed": seed} for size in sizes for seed in (0, 1)]


def largest(points: list[dict]) -> list[dict]:
    """The size with the largest singular value, with another seed."""
    best = max(points, key=lambda point: point["result"]["values"][0])
    return [{"size": best["setting"]["size"], "seed": 2}]


def study(version: int = 1, sizes=(3, 5, 7), function=measure, **options) -> Study:
    stages = {"grid": partial(grid, sizes=sizes), "final": largest}
    return Study("small", version, partial(function, **options), stages)


def killed_in_training(setting: dict, marks: Path, deaths: int) -> dict:
    """`compare.measure`; for the seed 1 the process dies after the first step, as often as `deaths` says."""
    from mpo_tutorial.experiments import compare, watch  # transformers, which the other studies' workers do without

    def die(*_args, **_options):
        os.kill(os.getpid(), signal.SIGKILL)

    if setting["config"]["seed"] == 1 and len(list(marks.iterdir())) < deaths:
        (marks / f"{time.time_ns()}").touch()
        watch.Watch.on_step_end = die
    return compare.measure(setting)


def environment() -> dict[str, str]:
    folders = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "OMP_NUM_THREADS": "1"}


@contextmanager
def cluster(folder: Path, workers: int = 2):
    """A Dask scheduler and its workers, each a command as a reader would type it; yields the address."""
    file, processes = folder / "scheduler.json", []
    dask = [str(Path(sys.executable).with_name("dask"))]
    options = {"env": environment(), "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        scheduler = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        processes.append(subprocess.Popen([*dask, *scheduler], **options))
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        for _ in range(workers):
            worker = ["worker", address, "--nthreads", "1", "--no-dashboard", "--host", "127.0.0.1"]
            processes.append(subprocess.Popen([*dask, *worker], **options))
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()
