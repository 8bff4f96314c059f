"""Exercises that answer back.

>>> import tempfile
>>> ex = load("01", folder=tempfile.mkdtemp())
>>> ex.check(1, ...)
Exercise 1 waits for your answer: put it where the ... stands.
>>> ex.check(1, 12)
Not yet. That is the size of the matrix, 3 x 4. Two factors of rank 1 hold a column of 3 and a row of 4.
>>> ex.check(1, 7)
Right.
>>> ex.progress()
Chapter 01: 1 of 4 done (1). Next is 2: singular values of [[3, 0], [4, 5]]. Noted in progress.json.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from mpo_tutorial.experiments.records import replacing
from mpo_tutorial.maths import states

CHAPTERS = ("00", "01", "02", "03", "04", "05", "06", "07", "08", "10", "11")
PROGRESS_FILE = ".exercises-done.json"
KIND = "progress"  # of the file that is handed in
RELATIVE_TOLERANCE, ROUNDED = 1e-3, 0.03
NOTHING = "Your function returns nothing yet. (To print is not to return.)"


class Message(str):
    """Text that a notebook shows without quotation marks."""

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True)
class Exercise:
    """One question whose answer is a number, an array, or a function.

    Parameters
    ----------
    question : str
        In a few words, for `progress`; the notebook asks in full.
    answer : callable
        Returns the right answer, computed when it is needed. For a question whose answer is a function, that function.
    solution : str
        Code whose last statement is the answer, or defines it; comments say why. It may use `np` and `mt`.
    hint : str
    mistakes : pairs of a callable and a str
        What a usual mistake gives, as `answer` does, and what to tell whoever made it.
    trials : sequence of str, optional
        If the answer is a function: the arguments that it is tried with, as code that a reader can type, with `np` and `mt.states`.
    compared : callable, optional
        What of a function's result is compared, where several results are right. Raises ValueError, with a sentence for the
        reader, for what cannot be one.
    """

    question: str
    answer: Callable[[], object]
    solution: str
    hint: str
    mistakes: Sequence[tuple[Callable[[], object], str]] = ()
    trials: Sequence[str] = ()
    compared: Callable[[object], object] = lambda result: result

    def verdict(self, given: object) -> str | None:
        """What is wrong with an answer, or None if nothing is."""
        if self.trials:
            if not callable(given):
                return f"The answer is a function, and this is {_named(given)}."
            tried = ((trial, self._verdict_of(given, trial)) for trial in self.trials)
            failed = next(((trial, said) for trial, said in tried if said), None)
            return failed and (NOTHING if failed[1] == NOTHING else f"{failed[1]} (Tried with {failed[0]}.)")
        said = _difference(given, self.answer())
        told = (text for mistake, text in self.mistakes if said and not _difference(given, mistake()))
        return next(told, said)

    def _verdict_of(self, given: Callable, trial: str) -> str | None:
        """What is wrong with what a function makes of a trial, or None if nothing is."""
        try:
            result = given(*_arguments(trial))
        except Exception as error:  # whatever a reader's own code may raise
            return f"Your function stopped with {type(error).__name__}: {error}. A hint: {self.hint}"
        if result is None or result is ...:
            return NOTHING
        try:
            result = self.compared(result)
        except ValueError as error:
            return str(error)

        def difference(function: Callable) -> str | None:
            return _difference(result, self.compared(function(*_arguments(trial))))

        said = difference(self.answer())
        told = (text for mistake, text in self.mistakes if said and not difference(mistake()))
        return next(told, said)


class Chapter:
    """The exercises of one chapter, and which of them are done.

    Parameters
    ----------
    number : str
        "01"
    exercises : sequence of Exercise
    folder : Path
        Where the progress is kept: beside the notebook.
    """

    def __init__(self, number: str, exercises: Sequence[Exercise], folder: Path):
        self.number = number
        self._exercises = exercises
        self._file = folder / PROGRESS_FILE

    def __len__(self) -> int:
        return len(self._exercises)

    def check(self, number: int, answer: object) -> Message:
        """Say whether an answer is right, or what is wrong with it."""
        exercise = self._numbered(number)
        if answer is ... or answer is None:
            return Message(f"Exercise {number} waits for your answer: put it where the ... stands.")
        wrong = exercise.verdict(answer)
        if wrong:
            return Message(f"Not yet. {wrong}")
        try:
            self._remember(number)
        except OSError as error:
            return Message(f"Right. (It cannot be noted down: {error})")
        return Message("Right.")

    def hint(self, number: int) -> Message:
        """A step towards the answer."""
        return Message(self._numbered(number).hint)

    def solution(self, number: int) -> Message:
        """The answer, and how one comes to it."""
        return Message(self._numbered(number).solution)

    def progress(self, name: str = "") -> Message:
        """Which exercises are done, and which is next; those of all chapters are written to a file that can be handed in.

        Parameters
        ----------
        name : str
            Whose they are. It goes into the file, and into its name: `progress-ada-lovelace.json`.
        """
        everything = self._done()
        done = everything.get(self.number, [])
        which = f" ({', '.join(map(str, done))})" if done else ""
        left = [(k, exercise.question) for k, exercise in enumerate(self._exercises, start=1) if k not in done]
        following = f" Next is {left[0][0]}: {left[0][1]}." if left else ""
        file = self._file.with_name("-".join([KIND, *re.findall(r"\w+", str(name).lower())]) + ".json")
        try:
            with replacing(file) as partial:
                partial.write_text(json.dumps({"kind": KIND, "name": str(name), "done": everything}), encoding="utf-8")
            noted = f"Noted in {file.name}."
        except OSError as error:
            noted = f"({file.name} cannot be written: {error})"
        return Message(f"Chapter {self.number}: {len(done)} of {len(self)} done{which}.{following} {noted}")

    def _numbered(self, number: int) -> Exercise:
        if number not in range(1, len(self) + 1):
            raise ValueError(f"chapter {self.number} has the exercises 1 to {len(self)}, got {number!r}")
        return self._exercises[number - 1]

    def _done(self) -> dict[str, list[int]]:
        """By chapter. A file that cannot be read counts as none; it is moved aside when the next one is written."""
        try:
            done = json.loads(self._file.read_text(encoding="utf-8"))
            return {chapter: sorted({int(number) for number in numbers}) for chapter, numbers in done.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError):
            self._file.replace(self._file.with_suffix(".broken"))
            return {}

    def _remember(self, number: int) -> None:
        done = self._done()
        done[self.number] = sorted({*done.get(self.number, []), number})
        with replacing(self._file) as partial:
            partial.write_text(json.dumps(done), encoding="utf-8")


def load(chapter: str, folder: str | Path = ".") -> Chapter:
    """The exercises of a chapter.

    Parameters
    ----------
    chapter : str
        Its two digits: "01".
    folder : path
        Where to keep what is done; the folder of the notebook.

    Raises
    ------
    ValueError
        If the chapter has no exercises.
    """
    if chapter not in CHAPTERS:
        raise ValueError(f"the chapters with exercises are {', '.join(CHAPTERS)}, got {chapter!r}")
    exercises = import_module(f"mpo_tutorial.course.exercises.chapter_{chapter}").EXERCISES
    return Chapter(chapter, exercises, Path(folder))


def _difference(given: object, wanted: object) -> str | None:
    """How an answer differs from the right one, or None if it does not."""
    kind = "a number" if np.ndim(wanted) == 0 else f"an array of shape {np.shape(wanted)}"
    try:
        found = np.asarray(given.detach() if hasattr(given, "detach") else given, dtype=float)
    except (TypeError, ValueError):
        return f"The answer is {kind}, and this is {_named(given)}."
    if found.shape != np.shape(wanted):
        form = "a number" if found.ndim == 0 else f"an array of shape {found.shape}"
        return f"The answer is {kind}, and this is {form}."
    if not np.isfinite(found).all():
        return "There is an infinity in it, or something that is not a number."
    counted = np.asarray(wanted).dtype.kind in "iu"
    wanted = np.asarray(wanted, dtype=float)
    size = max(np.abs(wanted).max(initial=0), 1e-12)
    wrong = np.abs(found - wanted) / size > (1e-9 if counted else RELATIVE_TOLERANCE)
    if not wrong.any():
        return None
    if not counted and (np.abs(found - wanted) / size <= ROUNDED).all():
        return "Close. If you rounded, give more digits, or let Python do the arithmetic."
    if wrong.ndim == 1 and not wrong.all():
        right, others = (" and ".join(f"number {k}" for k in np.flatnonzero(of) + 1) for of in (~wrong, wrong))
        return f"Of the {len(wrong)}, {right} {'is' if (~wrong).sum() == 1 else 'are'} right. Look again at {others}."
    if counted and (found != np.round(found)).any():
        return "A count is a whole number."
    if not counted and (np.abs(wanted) <= 1).all() and (np.abs(found / 100 - wanted) / size <= ROUNDED).all():
        return "As a share, please: between 0 and 1. You gave percent."
    return "It has the right form, but not the right value."


def _arguments(trial: str) -> tuple:
    names = {"np": np, "mt": SimpleNamespace(states=states)}  # as a reader has them; what no trial needs is not loaded
    return eval(f"({trial},)", names)  # noqa: S307 - the course's own text


def _named(given: object) -> str:
    return "a function" if callable(given) else f"{type(given).__name__}: {str(given)[:40]}"
