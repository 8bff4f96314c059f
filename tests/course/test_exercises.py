import ast
import json
import re
from importlib import import_module

import numpy as np
import pytest
import torch

import mpo_tutorial as mt
from mpo_tutorial.course import exercises
from mpo_tutorial.course.exercises import CHAPTERS, PROGRESS_FILE, Chapter, Exercise, load
from mpo_tutorial.course.exercises.chapter_01 import EXERCISES

ALL = [
    (chapter, number, exercise)
    for chapter in CHAPTERS
    for number, exercise in enumerate(
        import_module(f"mpo_tutorial.course.exercises.chapter_{chapter}").EXERCISES, start=1
    )
]


@pytest.fixture
def chapter(tmp_path) -> Chapter:
    return load("01", tmp_path)


@pytest.mark.parametrize(("chapter", "number", "exercise"), ALL)
def test_the_right_answer_is_right_and_the_stub_is_asked_for_one(chapter, number, exercise, tmp_path):
    ex = load(chapter, tmp_path)
    assert ex.check(number, ...) == f"Exercise {number} waits for your answer: put it where the ... stands."
    assert ex.check(number, None) == ex.check(number, ...)
    assert "0 of" in ex.progress()
    assert ex.check(number, exercise.answer()) == "Right."
    assert f"({number})" in ex.progress()
    assert ex.hint(number)
    assert ex.solution(number) not in (ex.hint(number), "")


@pytest.mark.parametrize(("chapter", "number", "exercise"), ALL)
def test_every_known_mistake_gets_its_own_message(chapter, number, exercise, tmp_path):
    ex = load(chapter, tmp_path)
    messages = [re.sub(r" \(Tried with .*\)$", "", ex.check(number, mistake())) for mistake, _ in exercise.mistakes]
    assert messages == [f"Not yet. {message}" for _, message in exercise.mistakes]
    assert len(set(messages)) == len(messages) > 0
    assert "0 of" in ex.progress()


@pytest.mark.parametrize(("chapter", "number", "exercise"), ALL)
@pytest.mark.parametrize(
    "answer", ["seven", [1, [2]], {}, object(), np.nan, np.full(3, np.inf), np.zeros((0, 2)), 1e30, lambda: 1, 1 + 2j]
)
def test_no_answer_stops_the_notebook(chapter, number, exercise, answer, tmp_path):
    assert load(chapter, tmp_path).check(number, answer).startswith("Not yet. ")


@pytest.mark.parametrize(("chapter", "number", "exercise"), [item for item in ALL if item[2].trials])
def test_functions_that_fail_or_spoil_their_input_are_told_so(chapter, number, exercise, tmp_path):
    ex = load(chapter, tmp_path)

    def spoils(*arguments):
        result = exercise.answer()(*arguments)
        for argument in arguments:
            if isinstance(argument, np.ndarray):
                argument[...] = 0
        return result

    tried = f" (Tried with {exercise.trials[0]}.)"
    stopped = f"Not yet. Your function stopped with ZeroDivisionError: division by zero. A hint: {exercise.hint}"
    assert ex.check(number, lambda *_: 1 / 0) == stopped + tried
    assert "Your function stopped with TypeError" in ex.check(number, lambda: 0)
    assert ex.check(number, lambda *_: None) == f"Not yet. {exercises.NOTHING}"
    assert ex.check(number, lambda *_: "a").startswith("Not yet. The answer is")
    assert ex.check(number, spoils) == "Right."
    assert ex.check(number, spoils) == "Right."


@pytest.mark.parametrize(("chapter", "number", "exercise"), ALL)
def test_the_solution_that_is_shown_is_right(chapter, number, exercise, tmp_path):
    ex = load(chapter, tmp_path)
    code = ast.parse(str(ex.solution(number)))
    names = {"np": np, "mt": mt}
    last = code.body.pop()
    exec(compile(code, "solution", "exec"), names)  # noqa: S102
    if isinstance(last, ast.FunctionDef):
        exec(compile(ast.Module([last], []), "solution", "exec"), names)  # noqa: S102
        answer = names[last.name]
    else:
        answer = eval(compile(ast.Expression(last.value), "solution", "eval"), names)  # noqa: S307
    assert ex.check(number, answer) == "Right."


def test_the_input_on_which_a_function_failed_is_named_and_can_be_typed(tmp_path):
    right = load("02", tmp_path)._numbered(3).answer()
    said = load("02", tmp_path).check(3, lambda state, n_left: right(state, n_left) if n_left < 3 else [0.0] * 4)
    assert said.endswith("(Tried with mt.states.random_state(5, seed=2), 3.)")
    assert len(mt.states.random_state(5, seed=2)) == 2**5


def test_chains_that_are_none_are_told_what_is_missing(tmp_path):
    def said(cores):
        return load("03", tmp_path).check(3, lambda *_: cores)

    assert "list of cores, each an array" in said(3.0)
    assert "[(4, 4)]" in said([np.eye(4)])
    assert "outer bonds have size one" in said([np.ones((2, 4, 1))])
    assert "[(1, 4, 2), (3, 4, 1)]" in said([np.ones((1, 4, 2)), np.ones((3, 4, 1))])
    assert "array of shape (4, 4)" in said([np.ones((1, 4, 2)), np.ones((2, 4, 1))])


def test_another_gauge_is_as_right(tmp_path):
    """The check looks at what the cores make, so every sign and rotation passes."""
    ex = load("03", tmp_path)
    right = ex._numbered(3).answer()

    def turned(tensor, bonds):
        first, second, *more = right(tensor, bonds)
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((bonds[0], bonds[0])))[0]
        return [first @ turn, np.tensordot(turn.T, second, 1), *more]

    assert ex.check(3, turned) == "Right."


def test_a_folder_that_cannot_be_written_costs_the_note_only(tmp_path):
    chapter = load("01", tmp_path / "no such folder")
    assert chapter.check(1, 7).startswith("Right. (It cannot be noted down: ")


def test_answers_may_be_of_torch_numpy_or_python(chapter):
    for answer in (7, 7.0, np.int64(7), np.array(7.0), torch.tensor(7), torch.tensor(7.0, requires_grad=True)):
        assert chapter.check(1, answer) == "Right."
    for answer in ([45**0.5, 5**0.5], torch.tensor([45.0, 5.0]).sqrt(), (6.7082, 2.2361)):
        assert chapter.check(2, answer) == "Right."


def test_a_number_of_a_wrong_shape_is_told_the_shape(chapter):
    assert chapter.check(1, [7]) == "Not yet. The answer is a number, and this is an array of shape (1,)."
    assert chapter.check(2, 7) == "Not yet. The answer is an array of shape (2,), and this is a number."
    assert chapter.check(1, "7a") == "Not yet. The answer is a number, and this is str: 7a."
    assert chapter.check(3, 7) == "Not yet. The answer is a function, and this is int: 7."


def test_a_small_right_answer_is_not_taken_for_zero(tmp_path):
    tiny = Exercise("", answer=lambda: 1e-9, solution="", hint="")
    assert tiny.verdict(1e-9) is None
    assert tiny.verdict(0.0)


def test_progress_outlives_the_notebook_and_counts_once(tmp_path):
    load("01", tmp_path).check(1, 7)
    again = load("01", tmp_path)
    again.check(1, 7)
    again.check(1, 8)
    assert again.progress().startswith("Chapter 01: 1 of 4 done (1). Next is 2: singular values")
    for number in (2, 3, 4):
        again.check(number, EXERCISES[number - 1].answer())
    assert again.progress() == "Chapter 01: 4 of 4 done (1, 2, 3, 4). Noted in progress.json."


@pytest.mark.parametrize("content", ["{", "[1]", '{"01": 3}', '{"01": ["x"]}', ""])
def test_a_broken_progress_file_is_set_aside(tmp_path, content):
    (tmp_path / PROGRESS_FILE).write_text(content)
    chapter = load("01", tmp_path)
    assert chapter.check(1, 7) == "Right."
    assert chapter.progress().startswith("Chapter 01: 1 of 4 done (1).")
    assert [path.read_text() for path in tmp_path.glob("*.broken")] == [content]


def test_other_chapters_progress_is_kept(tmp_path):
    (tmp_path / PROGRESS_FILE).write_text(json.dumps({"99": [2]}))
    load("01", tmp_path).check(1, 7)
    assert json.loads((tmp_path / PROGRESS_FILE).read_text()) == {"99": [2], "01": [1]}


def test_unknown_chapters_and_exercises_are_refused(chapter):
    with pytest.raises(ValueError, match=r"the chapters with exercises are 00, 01.*, got '77'"):
        load("77")
    for number in (0, 5, "1"):
        with pytest.raises(ValueError, match="the exercises 1 to 4, got"):
            chapter.check(number, 7)


def test_a_count_is_right_or_wrong_and_a_rounded_number_is_asked_for_digits(tmp_path):
    count = Exercise("", answer=lambda: 18504, solution="", hint="")
    assert count.verdict(18504.0) is None
    assert count.verdict(18505) == "It has the right form, but not the right value."
    measure = Exercise("", answer=lambda: 0.6931, solution="", hint="", mistakes=[(lambda: 0.68, "known")])
    assert measure.verdict(0.6935) is None
    assert measure.verdict(0.70).startswith("Close. If you rounded")
    assert measure.verdict(0.68) == "known"
    assert measure.verdict(0.6) == "It has the right form, but not the right value."


def test_messages_read_as_text():
    assert repr(exercises.Message("Right.")) == "Right."
