"""Run records: what was run, on what, and what came out; their statistics and their tables."""

import json
import os
import platform
import shlex
import sys
from contextlib import contextmanager
from datetime import date
from importlib import metadata, resources
from pathlib import Path

VERSIONS_OF = ("mpo-tutorial", "torch", "transformers", "tensorly", "datasets", "accelerate", "numpy")


def provenance() -> dict:
    """Command, date, versions and hardware, for the head of a record."""
    import psutil
    import torch

    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": date.today().isoformat(),
        "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONS_OF}},
        "hardware": {
            "cpu": _cpu_name(),
            "threads": torch.get_num_threads(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def peak_memory_bytes() -> int:
    """The most memory that this process has held so far (resident set)."""
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    try:
        # Not getrusage here: on Linux it inherits the peak of the process that started this one.
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextmanager
def replacing(path: Path):
    """A path beside `path` to write to, renamed when the block ends well: the file is there whole, or the earlier one is."""
    partial = path.with_name(path.name + ".partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_record(record: dict, path: Path) -> None:
    """Write a record as JSON, whole or not at all."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict:
    """Read a record.

    Raises
    ------
    ValueError
        If the file is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"a record must be JSON, {path} is not: {error}; delete it and run again") from error


def shipped(name: str) -> dict:
    """A record that came with the package, by its name without ending: "compare", "demo"."""
    return json.loads(resources.files("mpo_tutorial.records").joinpath(f"{name}.json").read_text(encoding="utf-8"))
