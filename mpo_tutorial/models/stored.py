"""What the safetensors files of a checkpoint hold, read from their headers, before memory is taken for it."""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError, safe_open

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WEIGHTS = "model.safetensors"
MOST_PER_NUMBER = 100  # sizes of a config are this much below the numbers in the files, however truncated
MOST_TENSORS, MOST_NUMBERS = 1000, 100_000  # taken for those of a config without files: 1,000 layers, 10 million words


def weight_files(path: str, variant: str | None = None, **where) -> dict[str, Path]:
    """The safetensors files of a folder or of a model on the hub, by name.

    Parameters
    ----------
    variant : str, optional
        As in transformers: "fp16" for the file model.fp16.safetensors.
    where
        Options of transformers' `cached_file`, such as `revision`.

    Raises
    ------
    ValueError
        If there are none, or the index of several is damaged or names one that is not there.
    """
    from transformers.utils import cached_file

    def file(name: str) -> str | None:
        return cached_file(path, name, **where, _raise_exceptions_for_missing_entries=False)

    infix = "" if variant is None else f".{variant}"
    whole = WEIGHTS.replace(".", f"{infix}.")
    found = {whole: file(whole)}
    if found[whole] is None and (index := file(f"{WEIGHTS}.index{infix}.json")) is not None:
        found = {name: file(name) for name in _names_in_index(Path(index))}
    for name, where_it_is in found.items():
        if where_it_is is None:
            raise ValueError(f"a model is read from safetensors files only, {path} has no {name}")
    return {name: Path(where_it_is) for name, where_it_is in found.items()}


def shapes_in(files: Mapping[str, Path]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors in some files, by name; a file that is not whole is a ValueError."""
    shapes = {}
    for file in files.values():
        try:
            with safe_open(file, framework="pt") as tensors:
                shapes |= {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{file} is no whole safetensors file: {error}") from error
    return shapes


def saved_sha256(path: str, **where) -> dict[str, str]:
    """The SHA-256 that the config.json beside a model's files says they have, by name; empty where it says nothing."""
    from transformers.utils import cached_file

    config = cached_file(path, "config.json", **where, _raise_exceptions_for_missing_entries=False)
    found = None
    if config is not None:
        with suppress(ValueError, AttributeError):
            found = json.loads(Path(config).read_text(encoding="utf-8")).get("mpo_sha256")
    return found if isinstance(found, dict) else {}


def sha256_of(files: Mapping[str, Path]) -> dict[str, str]:
    """The SHA-256 of each file, by name."""
    return {name: file_sha256(path) for name, path in files.items()}


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sizes(config: "PreTrainedConfig", shapes: Mapping[str, tuple[int, ...]] | None = None) -> None:
    """Refuse, by a ValueError, a config that asks for a far larger model than its files hold, or than any model is.

    Parameters
    ----------
    shapes : mapping of names to shapes, optional
        What `shapes_in` returns for the files. Without it any model of a usual size passes.
    """
    n_tensors = MOST_TENSORS if shapes is None else len(shapes)
    n_numbers = MOST_NUMBERS if shapes is None else sum(map(math.prod, shapes.values()))
    for name, value in config.to_dict().items():
        limit = MOST_PER_NUMBER * n_numbers
        if re.search("layers|groups|num$|num_feed", name):
            shared = name == "num_hidden_layers" and "albert" in config.model_type.split("_")
            limit = MOST_TENSORS if shared else n_tensors
        if isinstance(value, int) and value > limit:
            what = "any model" if shapes is None else f"files with {n_tensors} tensors and {n_numbers:,} numbers"
            raise ValueError(
                f"a config asks for {name} {value:,}, which is too much for {what}; one of them is damaged"
            )


def _names_in_index(index: Path) -> list[str]:
    try:
        return sorted({str(name) for name in json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index} is no index of safetensors files: {error!r}") from error
