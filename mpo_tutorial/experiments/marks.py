"""Which checkpoints of a training are whole: each gets a mark, written last, and what has none that fits is passed over."""

import logging
import shutil
from pathlib import Path

from mpo_tutorial.experiments import records
from mpo_tutorial.models.stored import file_sha256

MARK = "whole.json"  # a checkpoint's last file, written at once: the SHA-256 of each of its other files


def mark_whole(folder: Path) -> None:
    """Put the mark into a checkpoint, and then remove the others beside it."""
    files = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(MARK)]
    records.write_record({path.name: file_sha256(path) for path in sorted(files)}, folder / MARK)
    for other in folder.parent.glob("checkpoint-*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def newest_whole(state: Path) -> Path | None:
    """The newest whole checkpoint in a folder, or None, and a warning that names what was passed over on the way to it."""
    folders = sorted(state.glob("checkpoint-*"), key=step_of, reverse=True)
    newest = next(filter(_is_whole, folders), None)
    if passed_over := folders[: folders.index(newest)] if newest else folders:
        logging.getLogger(__name__).warning(
            "%s in %s incomplete or altered and passed over; training %s.",
            " and ".join(folder.name for folder in passed_over),
            f"{state} is" if len(passed_over) == 1 else f"{state} are",
            f"goes on from {newest.name}" if newest else "begins anew",
        )
    return newest


def step_of(folder: Path) -> int:
    """After which step a checkpoint was saved."""
    return int(folder.name.rpartition("-")[2])


def _is_whole(folder: Path) -> bool:
    try:
        kept = records.read_record(folder / MARK)
    except (FileNotFoundError, ValueError):
        return False
    return bool(kept) and all(
        (folder / name).is_file() and file_sha256(folder / name) == sha256 for name, sha256 in kept.items()
    )
