"""Several processes that train one model, as torchrun starts them: who is the first, where they meet, how they end."""

import os
import re
import signal
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=7)  # for the first process, which evaluates alone; one that has ended is noticed at once
LOST = "gloo|NCCL|Connection (closed|reset|refused)|Broken pipe"  # in what torch says when another process is gone


def count() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """This process's number, counted from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Its number among the processes of this machine: that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@contextmanager
def joined(device_type: str):
    """Let the processes work together while the block runs; one alone needs nothing.

    Parameters
    ----------
    device_type : {"cpu", "cuda"}
        What the model is on.

    Raises
    ------
    ConnectionError
        If another process ended before, or this one got SIGTERM, which torchrun sends to those that are left.
    """
    if count() == 1:
        yield
        return
    import torch.distributed as dist

    def ended(*_signal) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is ending already, and has to say why
        raise ConnectionError(
            f"process {rank()} of {count()} stopped because another one of this run ended, or by SIGTERM; what was saved is "
            "kept, and the same command with --resume goes on from it"
        )

    earlier = signal.signal(signal.SIGTERM, ended)
    try:
        dist.init_process_group("nccl" if device_type == "cuda" else "gloo", timeout=LONGEST_WAIT)
        yield
        dist.destroy_process_group()
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or re.search(LOST, str(error)):
            ended()
        raise
    signal.signal(signal.SIGTERM, earlier)


def meet() -> None:
    """Wait until all processes are here."""
    if count() > 1:
        from torch.distributed import barrier

        barrier()


def from_first(function: Callable[[], T]) -> T:
    """What a function gives in the first process, for all of them; the others do not call it."""
    if count() == 1:
        return function()
    from torch.distributed import broadcast_object_list

    found = [function() if rank() == 0 else None]
    broadcast_object_list(found)
    return found[0]  # pyright: ignore[reportReturnType] (it came from the first)


def means(values: Sequence[float]) -> list[float]:
    """Of each figure the mean over the processes."""
    if count() == 1:
        return list(values)
    import torch
    import torch.distributed as dist

    total = torch.tensor(values, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(total)
    return (total / count()).tolist()
