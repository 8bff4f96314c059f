"""What a class has done of the exercises, in one table, from the files that `ex.progress()` writes.

The files come from other people's hands, so nothing in them is run, and what they say is held to the exercises that there are. They
are no proof: whoever can write a text file can write one of these.
"""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from mpo_tutorial.course.exercises import CHAPTERS, KIND, load
from mpo_tutorial.experiments import forms

LARGEST = 20_000  # bytes; a file with everything done has a few hundred
FORM = {"kind": forms.word(KIND), "name": forms.TEXT, "done": forms.OBJECT}
FORMULA = ("=", "+", "-", "@")  # what a spreadsheet would take for the start of a formula


@dataclass(frozen=True)
class Progress:
    """What one file says.

    Parameters
    ----------
    file : str
        Its path within the folder that was collected.
    name : str
        As whoever wrote it gave it; may be empty.
    done : mapping of a chapter's two digits to the numbers of its exercises that are done
    """

    file: str
    name: str
    done: dict[str, tuple[int, ...]]


def collect(folder: Path) -> tuple[list[Progress], list[str]]:
    """Read every .json file in a folder and the folders in it; what is hidden, and links, are left out.

    Returns
    -------
    list of Progress
        In the order of the files' paths.
    list of str
        A sentence for each file that could not be read.

    Raises
    ------
    ValueError
        If the folder is none, or has no such file.
    """
    if not folder.is_dir():
        raise ValueError(f"what is collected is a folder with the files that ex.progress() writes, {folder} is none")
    paths = sorted(path for path in folder.rglob("*.json") if path.is_file() and not path.is_symlink())
    paths = [path for path in paths if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not paths:
        raise ValueError(f"there is no .json file in {folder}; ex.progress() writes one beside the notebook")
    read, unread = [], []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            read.append(_read(path, name))
        except (OSError, ValueError) as error:
            unread.append(" ".join(str(error).split()))
    return read, unread


def table(found: list[Progress]) -> list[tuple[str, ...]]:
    """A head and a row for each file: who, how many exercises of each chapter, how many in all."""
    sizes = {chapter: len(load(chapter)) for chapter in CHAPTERS}
    rows = [("file", "name", *(f"{chapter} (of {size})" for chapter, size in sizes.items()), "all")]
    for one in found:
        counts = [len(one.done.get(chapter, ())) for chapter in sizes]
        rows.append((one.file, one.name, *map(str, counts), str(sum(counts))))
    return rows


def as_csv(rows: list[tuple[str, ...]]) -> str:
    """Comma-separated; a text that a spreadsheet would compute gets an apostrophe in front."""
    text = io.StringIO()
    csv.writer(text).writerows([f"'{cell}" if cell.startswith(FORMULA) else cell for cell in row] for row in rows)
    return text.getvalue()


def _read(path: Path, name: str) -> Progress:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{name} has {path.stat().st_size} bytes, a file of ex.progress() at most {LARGEST}")
    found = forms.parsed(path.read_bytes(), name, FORM, "ask for another")
    return Progress(
        name,
        _printable(found["name"]),
        {chapter: _numbers(name, chapter, told) for chapter, told in found["done"].items()},
    )


def _numbers(name: str, chapter: str, told: object) -> tuple[int, ...]:
    if chapter not in CHAPTERS:
        raise ValueError(f"{name} has exercises of a chapter {chapter[:20]!r}; there are {', '.join(CHAPTERS)}")
    size = len(load(chapter))
    if not isinstance(told, list) or not all(type(number) is int and 1 <= number <= size for number in told):
        raise ValueError(
            f"{name} must have a list of numbers from 1 to {size} for chapter {chapter}, it has not; ask for another"
        )
    return tuple(sorted(set(told)))


def _printable(name: str) -> str:
    return "".join(letter for letter in name if letter.isprintable())[:80].strip()
