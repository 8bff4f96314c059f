"""Seconds of contenders that take turns, and the peak memory of each in a process of its own."""

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from statistics import median

import torch

from mpo_tutorial.experiments import records

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
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_here, make, arguments, torch.get_num_threads()).result()


def _peak_here(make: Callable, arguments: tuple, threads: int) -> int:
    torch.set_num_threads(threads)
    make(*arguments)()
    return torch.cuda.max_memory_allocated() if "cuda" in arguments else records.peak_memory_bytes()
