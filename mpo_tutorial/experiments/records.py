"""Run records: what was run, on what, and what came out; their statistics and their tables."""

import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from datetime import date
from importlib import metadata, resources
from pathlib import Path

from filelock import FileLock, Timeout

from mpo_tutorial.experiments import forms

NAMES = ("record.json", "record.jsonl")  # of a run or a demo, and of a study, in a folder
DELETE_LINE = "delete the line, and --resume makes its point again"
VERSIONS_OF = ("mpo-tutorial", "torch", "transformers", "tensorly", "datasets", "accelerate", "numpy")


def started_by() -> str:
    """The command that this process was started by, without the folders before its name."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def provenance(command: str | None = None) -> dict:
    """Command (this process's, if no other is given), date, versions and hardware, for a record."""
    import psutil
    import torch

    return {
        "command": started_by() if command is None else command,
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


def reset_peak_memory() -> bool:
    """Begin to count `peak_memory_bytes` anew; False where only a process's whole life has a peak (elsewhere than on Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


@contextmanager
def locked(out: Path):
    """Make the folder `out` and hold it: a second process that comes for it is refused with a ValueError."""
    out.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise ValueError(
            f"one run at a time works in a folder, another one is in {out}; wait, or take --out"
        ) from error


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


def read_record(path: Path, form: forms.Form = forms.OBJECT, advice: str = "delete it and run again") -> dict:
    """Read a record.

    Parameters
    ----------
    advice : str
        What to do if the file is not as it must be.

    Raises
    ------
    ValueError
        If the file is no JSON, or does not have the form.
    """
    return forms.parsed(path.read_bytes(), str(path), form, advice)


def read_run(path: Path, advice: str, splits: Mapping[str, forms.Form] | None = None) -> dict:
    """Read the record of a fine-tuning run.

    Parameters
    ----------
    advice : str
        What to do if the file is not as it must be.
    splits : mapping of str to form
        What it must have been measured on.

    Raises
    ------
    ValueError
        If the file is no JSON, or no such record.
    """
    record = read_record(path, {**forms.RUN, **(splits or {})}, advice)
    measured = [name for name, part in record.items() if isinstance(part, dict) and "n" in part]
    forms.require(record, str(path), dict.fromkeys(measured, forms.MEASURED), advice)
    return record


def require_own(out: Path, own: str) -> None:
    """Refuse, by a ValueError, to go on in a folder that has no record of the name `own`, but that of another command."""
    other = next(name for name in NAMES if name != own)
    if (out / other).exists() and not (out / own).exists():
        raise ValueError(
            f"a run is resumed in its own folder, {out} has the {other} of another command and no {own}; take another --out, or "
            "leave out --resume"
        )


def shipped(name: str) -> dict:
    """A record that came with the package, by its name without ending: "demo"."""
    return json.loads(_file_of(f"{name}.json"))


def shipped_points(name: str) -> list[dict]:
    """The points of a study's record that came with the package: "compare", "cuts", "bench"."""
    return [json.loads(line) for line in _file_of(f"{name}.jsonl").splitlines()]


def _file_of(name: str) -> str:
    return resources.files("mpo_tutorial.records").joinpath(name).read_text(encoding="utf-8")


def append_point(point: dict, path: Path) -> None:
    """Add a line to a record, whole or, with an OSError, not at all."""
    line = (json.dumps(point, allow_nan=False) + "\n").encode()
    with open(path, "ab", buffering=0) as file:
        end = file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[file.write(line) :]
            os.fsync(file.fileno())
        except OSError as error:
            file.truncate(end)
            raise OSError(
                f"a point could not be written to {path} ({error.strerror}); those before it are kept: make room, then --resume"
            ) from error


def read_points(path: Path, show: Callable[[str], None] = lambda _: None) -> list[dict]:
    """The points of a record. A last line that was cut off is dropped from the file, with a word to `show`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If another line is no point.
    """
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    if len(whole) < len(text):
        os.truncate(path, len(whole))
        show(f"The last line of {path} was cut off; its point is made again.")
    points = []
    for number, line in enumerate(whole.splitlines(), start=1):
        points.append(forms.parsed(line, f"line {number} of {path}", forms.POINT, DELETE_LINE))
    return points
