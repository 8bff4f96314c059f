"""Who makes the points of a study: this process, several of them, or the workers of a Dask cluster."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context

ANSWER_SECONDS = 4  # in which a scheduler must answer
MOST_DEATHS = 3  # of workers, at the same point, after which it is tried no more


def points_of(
    make: Callable[..., dict], settings: Sequence[dict], workers: int, scheduler: str | None
) -> Iterator[dict]:
    """The points of some settings, each as soon as it is there."""
    if not settings:
        return iter(())
    if scheduler is not None:
        return _on_cluster(partial(make, threads=1), settings, scheduler)
    if workers > 1:
        return _in_processes(make, settings, workers)
    return (make(setting) for setting in settings)  # no `map`, which a StopIteration would end without a word


def _in_processes(make: Callable[..., dict], settings: Sequence[dict], workers: int) -> Iterator[dict]:
    """Each worker is a pool of one process, so that one which is killed takes no other's point with it."""
    import torch

    make = partial(make, threads=max(1, torch.get_num_threads() // workers))
    new_pool = partial(ProcessPoolExecutor, 1, mp_context=get_context("spawn"))
    others = set(active_children())
    pools = [new_pool() for _ in range(min(workers, len(settings)))]
    waiting, idle = deque((setting, 0) for setting in settings), deque(range(len(pools)))
    running: dict[Future, tuple[int, dict, int]] = {}
    try:
        while waiting or running:
            while waiting and idle:
                place, (setting, deaths) = idle.popleft(), waiting.popleft()
                running[pools[place].submit(make, setting)] = place, setting, deaths
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place, setting, deaths = running.pop(future)
                try:
                    point = future.result()
                except BrokenProcessPool as error:
                    if deaths == MOST_DEATHS:
                        raise OSError(
                            f"workers died {deaths + 1} times at the point {setting}, perhaps for want of memory: take fewer "
                            "--workers, then --resume"
                        ) from error
                    pools[place] = new_pool()
                    waiting.append((setting, deaths + 1))
                else:
                    yield point
                idle.append(place)
    except BaseException:
        for worker in set(active_children()) - others:
            worker.terminate()
        raise
    finally:
        for pool in pools:
            pool.shutdown(cancel_futures=True)


def _on_cluster(make: Callable[..., dict], settings: Sequence[dict], address: str) -> Iterator[dict]:
    try:
        from distributed import Client, KilledWorker
        from distributed import as_completed as completed
    except ImportError as error:
        raise ValueError("a scheduler needs Dask; type: pip install 'mpo-tutorial[cluster]'") from error
    try:
        client = Client(address, timeout=ANSWER_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise ConnectionError(
            f"no Dask scheduler answers at {address} within {ANSWER_SECONDS} seconds; start one by `dask scheduler`, its workers "
            "by `dask worker ADDRESS --nthreads 1`, or leave out --scheduler"
        ) from error
    with client:
        try:
            for _, point in completed(client.map(make, settings, pure=False), loop=client.loop, with_results=True):
                yield point
        except KilledWorker as error:
            raise OSError(
                f"workers of {address} died at the same point again and again; look at their memory, then --resume"
            ) from error
