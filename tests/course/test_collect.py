"""A folder of files from other people's hands, one good and each of the others bad in a way of its own."""

import csv
import io
import json
import os

import pytest

from mpo_tutorial.course import collect
from mpo_tutorial.course.exercises import CHAPTERS, KIND, load

GOOD = {"kind": KIND, "name": "Ada Lovelace", "done": {"00": [1, 3], "01": [2]}}


def written(folder, name: str, content) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def test_what_progress_writes_is_read(tmp_path):
    for number in (1, 3):
        ex = load("00", tmp_path)
        assert ex.check(number, ex._numbered(number).answer()) == "Right."
    ex = load("01", tmp_path)
    ex.check(2, ex._numbered(2).answer())
    assert ex.progress("Ada Lovelace").endswith("Noted in progress-ada-lovelace.json.")
    found, unread = collect.collect(tmp_path)  # the hidden file of the exercises is left out
    assert unread == []
    assert found == [collect.Progress("progress-ada-lovelace.json", "Ada Lovelace", {"00": (1, 3), "01": (2,)})]


def test_the_table_counts_by_chapter_and_in_all(tmp_path):
    written(tmp_path, "b/progress.json", GOOD)
    written(tmp_path, "a/progress.json", {**GOOD, "name": "", "done": {}})
    found, _ = collect.collect(tmp_path)
    head, first, second = collect.table(found)
    assert head == ("file", "name", *(f"{chapter} (of {len(load(chapter))})" for chapter in CHAPTERS), "all")
    assert first == ("a/progress.json", "", *("0" for _ in CHAPTERS), "0")
    assert second == ("b/progress.json", "Ada Lovelace", "2", "1", *("0" for _ in CHAPTERS[2:]), "3")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("__import__('os').remove('x')", "must be JSON"),
        ("[" * 10_000, "must be JSON"),
        ("[]", "must have a JSON object"),
        ({**GOOD, "kind": "squeeze"}, "must have the word progress at kind"),
        ({**GOOD, "name": 7}, "must have a text at name"),
        ({"kind": KIND, "name": "A"}, "must have a JSON object at done"),
        ({**GOOD, "done": {"99": [1]}}, "exercises of a chapter '99'"),
        ({**GOOD, "done": {"../../etc": [1]}}, "exercises of a chapter '../../etc'"),
        ({**GOOD, "done": {"01": [1, 5]}}, "a list of numbers from 1 to 4 for chapter 01"),
        ({**GOOD, "done": {"01": [0]}}, "a list of numbers from 1 to 4"),
        ({**GOOD, "done": {"01": [True]}}, "a list of numbers from 1 to 4"),
        ({**GOOD, "done": {"01": [1.5]}}, "a list of numbers from 1 to 4"),
        ({**GOOD, "done": {"01": "12"}}, "a list of numbers from 1 to 4"),
        ({**GOOD, "name": "A" * collect.LARGEST}, "bytes, a file of ex.progress() at most"),
    ],
)
def test_a_file_with_foreign_content_gets_a_sentence_and_the_others_are_read(tmp_path, content, said):
    written(tmp_path, "bad.json", content)
    written(tmp_path, "good.json", GOOD)
    found, unread = collect.collect(tmp_path)
    assert [one.file for one in found] == ["good.json"]
    (sentence,) = unread
    assert sentence.startswith("bad.json") and said in sentence and "\n" not in sentence


def test_bytes_that_are_no_text_are_told(tmp_path):
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe\x00")
    assert "must be JSON" in collect.collect(tmp_path)[1][0]


def test_links_and_hidden_files_are_left_out(tmp_path):
    outside = tmp_path / "outside.json"
    written(tmp_path, "outside.json", GOOD)
    written(tmp_path, "class/.hidden/x.json", GOOD)
    os.symlink(outside, tmp_path / "class" / "link.json")
    with pytest.raises(ValueError, match=r"there is no \.json file in .*class; ex\.progress\(\)"):
        collect.collect(tmp_path / "class")


def test_what_is_no_folder_is_told_so(tmp_path):
    with pytest.raises(ValueError, match="is a folder with the files"):
        collect.collect(tmp_path / "nowhere")


def test_exercises_named_twice_count_once(tmp_path):
    written(tmp_path, "a.json", {**GOOD, "done": {"01": [2, 2, 1]}})
    assert collect.collect(tmp_path)[0][0].done == {"01": (1, 2)}


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@x"])
def test_a_spreadsheet_computes_nothing(tmp_path, name):
    written(tmp_path, "a.json", {**GOOD, "name": f'{name}, "quoted"\n'})
    rows = list(csv.reader(io.StringIO(collect.as_csv(collect.table(collect.collect(tmp_path)[0])))))
    assert rows[1][1] == f'\'{name}, "quoted"'
    assert len(rows) == 2


def test_a_name_keeps_its_letters_and_loses_what_is_none(tmp_path):
    written(tmp_path, "a.json", {**GOOD, "name": " 李\x1b[31m四\u202e "})
    assert collect.collect(tmp_path)[0][0].name == "李[31m四"
    assert load("00", tmp_path).progress("李 四").endswith("progress-李-四.json.")


def test_a_folder_that_cannot_be_written_is_told_and_the_count_shown(tmp_path):
    said = load("01", tmp_path / "no such folder").progress()
    assert said.startswith("Chapter 01: 0 of 4 done.")
    assert "(progress.json cannot be written: " in said
