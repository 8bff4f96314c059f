"""Who makes the points of a study: this process, several of them, or the workers of a Dask cluster."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import active_children, get_context

ANSWER_SECONDS = 4  # in which a scheduler must answer
MOST_DEATHS = 3  # of workers in a row, without a point in between


def points_of(
    make: Callable[..., dict], settings: Sequence[dict], workers: int, scheduler: str | None
) -> Iterator[dict]:
    """The points of some settings, each as soon as it is there."""
    if not settings:
        return iter(())
    if scheduler is not None:
        return _on_cluster(partial(make, threads=1), settings, scheduler)
    return map(make, settings) if workers == 1 else _in_processes(make, settings, workers)


def _in_processes(make: Callable[..., dict], settings: Sequence[dict], workers: int) -> Iterator[dict]:
    import torch

    make = partial(make, threads=max(1, torch.get_num_threads() // workers))
    left, deaths, others = list(settings), 0, set(active_children())
    while left:
        pool = ProcessPoolExecutor(min(workers, len(left)), mp_context=get_context("spawn"))
        futures = {pool.submit(make, setting): setting for setting in left}
        try:
            for future in as_completed(futures):
                point = future.result()
                left.remove(futures[future])
                deaths = 0
                yield point
        except BrokenProcessPool as error:  # a worker was killed, and took the points under way with it
            deaths += 1
            if deaths > MOST_DEATHS:
                raise OSError(
                    f"workers died {deaths} times in a row, perhaps for want of memory: take fewer --workers, then --resume"
                ) from error
        except BaseException:
            for worker in set(active_children()) - others:
                worker.terminate()
            raise
        finally:
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
