"""Studies of a second, whose functions other processes can import."""

import os
import signal
import time
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
