"""The image data sets of the hub with a few images each: configs, columns, label names, splits and card are the real ones."""

import io
from pathlib import Path

import numpy as np
import yaml
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

from mpo_tutorial.models.images import CLASSES, ON_HUB

SIZES = {"train": 40, "test": 10}
SHAPES = {"fashion_mnist": (28, 28), "mnist": (28, 28), "cifar10": (32, 32, 3)}


def pixels(task: str, split: str) -> np.ndarray:
    """Of shape (images, height, width) or, in colours, (images, height, width, 3), as bytes."""
    return np.random.default_rng(SIZES[split]).integers(0, 256, (SIZES[split], *SHAPES[task]), dtype=np.uint8)


def labels(split: str) -> list[int]:
    return [k % 10 for k in range(SIZES[split])]


def write(folder: Path, task: str) -> None:
    """Write a repository's files below `folder`: a README.md with the card, and a Parquet file a split."""
    name, config, column = ON_HUB[task]
    features = Features({column: Image(), "label": ClassLabel(names=list(CLASSES[task]))})
    place = folder / name / config
    place.mkdir(parents=True)
    for split in SIZES:
        images = [{"bytes": _png(image), "path": None} for image in pixels(task, split)]
        made = Dataset.from_dict({column: images, "label": labels(split)}, features)
        made.to_parquet(place / f"{split}-00000-of-00001.parquet")
    classes = {"class_label": {"names": {str(k): label for k, label in enumerate(CLASSES[task])}}}
    described = [{"name": column, "dtype": "image"}, {"name": "label", "dtype": classes}]
    counts = [{"name": split, "num_bytes": 1, "num_examples": n} for split, n in SIZES.items()]
    info = {"config_name": config, "features": described, "splits": counts, "download_size": 1, "dataset_size": 1}
    files = [{"split": split, "path": f"{config}/{split}-*"} for split in SIZES]
    card = {"dataset_info": info, "configs": [{"config_name": config, "data_files": files}]}
    (folder / name / "README.md").write_text(f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n\n# Dataset Card\n")


def _png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Picture.fromarray(image).save(file, "PNG")
    return file.getvalue()
