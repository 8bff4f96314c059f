"""The minutes that a chapter states are those that its words, its questions and its exercises take."""

import re
from importlib import import_module

import nbformat
import pytest
from chapters import NOTEBOOKS

from blocks import block_of

WORDS_A_MINUTE, LINES_A_MINUTE = 200, 40
NUMBER, FUNCTION, GUESS, WIDGET, ROAD = 5, 14, 1.5, 3, 12  # minutes that one takes, as fresh readers reckoned
STATED = re.compile(r"^\*\*Time:\*\* some (\d+) minutes to read and try, (less than one|one|two|three) to run\.$", re.M)


def minutes(path) -> float:
    cells = nbformat.read(path, as_version=4).cells
    text = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    prose = re.sub(r"\]\([^)]*\)|<!--.*?-->", "", text, flags=re.DOTALL)
    lines = sum(cell.source.count("\n") + 1 for cell in cells if cell.cell_type == "code")
    exercises = import_module(f"mpo_tutorial.course.exercises.chapter_{path.stem[:2]}").EXERCISES
    functions = sum(bool(exercise.trials) for exercise in exercises)
    widgets = sum("widget" in cell.metadata.get("tags", []) for cell in cells)
    return (
        len(re.findall(r"\w[\w'.,-]*", prose)) / WORDS_A_MINUTE
        + lines / LINES_A_MINUTE
        + GUESS * len(re.findall(r"\*\*[^*]*\?[^*]*\*\*", text))
        + FUNCTION * functions
        + NUMBER * (len(exercises) - functions)
        + WIDGET * widgets
        + ROAD
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_stated_minutes_are_within_a_fifth_of_what_it_takes(path):
    stated = int(STATED.search(nbformat.read(path, as_version=4).cells[0].source)[1])
    assert stated == pytest.approx(minutes(path), rel=0.2)
    assert stated % 5 == 0


def test_the_teachers_page_has_the_same_minutes():
    page = (NOTEBOOKS[0].parents[1] / "docs" / "teaching.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d) [^|]+ \| (\d+) \| ([^|]+) \|$", block_of(page, "minutes"), re.M)
    told = {path.stem[:2]: STATED.search(nbformat.read(path, as_version=4).cells[0].source) for path in NOTEBOOKS}
    assert rows == [(number, found[1], found[2]) for number, found in told.items()]
