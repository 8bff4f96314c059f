"""Seconds of contenders that take turns, and what one gives, and its peak memory, in a process of its own."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median
from typing import TypeVar

import torch

from mpo_tutorial.experiments import records

T = TypeVar("T")
TOO_LONG = 60.0  # seconds
PAUSE = 0.2  # seconds; the threads of a BLAS go on spinning for a while, and would slow the next contender


def race(steps: dict[str, Callable[[], object]], device: str, repeat: int) -> dict[str, float]:
    """Median seconds of a step of each contender, without its first turn, unless that one took too long for another."""
    first = {name: _seconds(step, device) for name, step in steps.items()}
    turns = {name: [] for name, seconds in first.items() if seconds < TOO_LONG}
    order = list(turns)
    for _ in range(repeat):
        order.reverse()  # so that nobody is always the first, or always behind the same
        for name in order:
            turns[name].append(_seconds(steps[name], device))
    return first | {name: median(seconds) for name, seconds in turns.items()}


def _seconds(step: Callable[[], object], device: str) -> float:
    time.sleep(PAUSE)
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def peak(make: Callable, *arguments) -> int:
    """Bytes at the peak of a process, or of the GPU, that makes a step, does it once, and nothing else."""
    return alone(_once, make, arguments)[1]


def _once(make: Callable, arguments: tuple) -> None:
    make(*arguments)()


def alone(function: Callable[..., T], *arguments) -> tuple[T, int]:
    """What a function gives in a process of its own, and the bytes at the peak of that, or of the GPU if it used one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_with_peak, function, arguments, torch.get_num_threads()).result()


def _with_peak(function: Callable[..., T], arguments: tuple, threads: int) -> tuple[T, int]:
    torch.set_num_threads(threads)
    found = function(*arguments)
    return found, torch.cuda.max_memory_allocated() or records.peak_memory_bytes()
