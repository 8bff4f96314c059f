"""nyu-mll/glue as the hub has it, with a few sentences a task: columns, label names, splits and card are the real ones."""

from pathlib import Path

import yaml
from datasets import ClassLabel, Dataset, Features, Value

ENTAILMENT = ("entailment", "not_entailment")
# Columns, label names (None: a figure from 0 to 5), and the two sets of splits.
TASKS = {
    "cola": (("sentence",), ("unacceptable", "acceptable")),
    "sst2": (("sentence",), ("negative", "positive")),
    "mrpc": (("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
    "qqp": (("question1", "question2"), ("not_duplicate", "duplicate")),
    "stsb": (("sentence1", "sentence2"), None),
    "mnli": (("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
    "qnli": (("question", "sentence"), ENTAILMENT),
    "rte": (("sentence1", "sentence2"), ENTAILMENT),
    "wnli": (("sentence1", "sentence2"), ("not_entailment", "entailment")),
}
MNLI_SPLITS = ("train", "validation_matched", "validation_mismatched", "test_matched", "test_mismatched")
SIZES = {"train": 80, "validation": 24, "test": 8}


def rows(task: str, split: str) -> dict[str, list]:
    """Columns of a split; the test's labels are hidden, and the first row of each dev set is in the training set, too."""
    columns, names = TASKS[task]
    size = SIZES[split.split("_")[0]]
    adjectives = ("bad", "dull", "good", "great")
    texts = [[f"{task} {split} {k} says: {adjectives[k % 4]}, in {column}." for k in range(size)] for column in columns]
    labels = [k % 4 + 0.25 * (k % 3) for k in range(size)] if names is None else [k % len(names) for k in range(size)]
    if split == "train":
        for column, dev in zip(columns, texts, strict=True):
            dev[-1] = rows(task, "validation_matched" if task == "mnli" else "validation")[column][0].upper()
    elif split.startswith("test"):
        labels = [-1] * size
    return {**dict(zip(columns, texts, strict=True)), "label": labels, "idx": list(range(size))}


def write_glue(folder: Path) -> None:
    """Write the repository's files: a README.md with the card, and for each config a folder of Parquet files."""
    infos, configs = [], []
    for task, (columns, names) in TASKS.items():
        label = Value("float32") if names is None else ClassLabel(names=list(names))
        features = Features({**{column: Value("string") for column in columns}, "label": label, "idx": Value("int32")})
        splits = MNLI_SPLITS if task == "mnli" else tuple(SIZES)
        (folder / task).mkdir(parents=True)
        for split in splits:
            Dataset.from_dict(rows(task, split), features).to_parquet(folder / task / f"{split}-00000-of-00001.parquet")
        described = [{"name": column, "dtype": "string"} for column in columns]
        classes = names and {"class_label": {"names": {str(k): name for k, name in enumerate(names)}}}
        described += [{"name": "label", "dtype": classes or "float32"}, {"name": "idx", "dtype": "int32"}]
        counts = [{"name": split, "num_bytes": 1, "num_examples": SIZES[split.split("_")[0]]} for split in splits]
        infos.append(
            {"config_name": task, "features": described, "splits": counts, "download_size": 1, "dataset_size": 1}
        )
        configs.append(
            {"config_name": task, "data_files": [{"split": split, "path": f"{task}/{split}-*"} for split in splits]}
        )
    card = {"pretty_name": "GLUE", "config_names": list(TASKS), "dataset_info": infos, "configs": configs}
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n\n# Dataset Card for GLUE\n")
