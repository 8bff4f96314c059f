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


SPOKEN = 130  # words a minute, in front of a class
PAGE = (NOTEBOOKS[0].parents[1] / "docs" / "teaching.md").read_text(encoding="utf-8")


def sections_of(number: str) -> dict[str, list]:
    """The cells of a chapter's sections, by heading. A cell with several headings is taken apart."""
    path = next(path for path in NOTEBOOKS if path.name.startswith(number))
    found: dict[str, list] = {"": []}
    for cell in nbformat.read(path, as_version=4).cells:
        parts = (
            re.split(r"^(?=## )", cell.source, flags=re.MULTILINE) if cell.cell_type == "markdown" else [cell.source]
        )
        for part in parts:
            if cell.cell_type == "markdown" and part.startswith("## "):
                found[part.partition("\n")[0][3:]] = []
            found[[*found][-1]].append((cell, part))
    return found


def minutes_in_class(section: list) -> float:
    """To tell it, exercises left out."""
    texts = [part for cell, part in section if cell.cell_type == "markdown"]
    codes = [part for cell, part in section if cell.cell_type == "code" and "ex.check" not in part]
    prose = "\n".join(re.sub(r"\]\([^)]*\)", "", text) for text in texts)
    widgets = sum("widget" in cell.metadata.get("tags", []) for cell, _ in section)
    return (
        len(re.findall(r"\w[\w'.,-]*", prose)) / SPOKEN
        + sum(code.count("\n") + 1 for code in codes) / LINES_A_MINUTE
        + GUESS * len(re.findall(r"\*\*[^*]*\?[^*]*\*\*", prose))
        + WIDGET * widgets
    )


ROWS = re.findall(r"^\| (\d+) to (\d+) \| ([^|]+) \| (?:(\d\d), ([^|]+))?\|$", block_of(PAGE, "ninety"), re.M)


def test_the_plan_for_ninety_minutes_has_no_gaps():
    starts, ends = ([int(row[k]) for row in ROWS] for k in (0, 1))
    assert [*starts, 90] == [0, *ends]


@pytest.mark.parametrize("row", ROWS[:-1], ids=lambda row: f"{row[0]} to {row[1]}")
def test_each_row_of_the_plan_fits_its_minutes(row):
    start, end, what, number, where = row
    sections, needed = sections_of(number), 0.0
    for only_sliders, heading in re.findall(r"(sliders of )?\*([^*]+)\*", where):
        section = sections[heading]
        if only_sliders:
            place = next(k for k, (cell, _) in enumerate(section) if "widget" in cell.metadata.get("tags", []))
            section = section[place - 1 : place + 1]
        needed += minutes_in_class(section)
    exercises = import_module(f"mpo_tutorial.course.exercises.chapter_{number}").EXERCISES
    for k in re.findall(r"[Ee]xercise (\d)", what):
        assert any(
            f"ex.check({k}, " in part for heading in sections if heading in where for _, part in sections[heading]
        )
        needed += FUNCTION if exercises[int(k) - 1].trials else NUMBER
    assert 0.7 * (int(end) - int(start)) < needed < int(end) - int(start)


def test_sections_that_the_plans_name_are_there():
    plans = PAGE[PAGE.index("### One day") : PAGE.index("## What to prepare")]
    headings = {heading for path in NOTEBOOKS for heading in sections_of(path.name[:2])}
    named = re.findall(r"(?:up to|to|from)\s\*([^*]+)\*", plans)
    assert len(named) >= 4
    assert set(named) <= headings
