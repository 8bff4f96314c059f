"""Saving what one task trained, and putting it back on the base that all tasks share."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mpo_tutorial.experiments import forms
from mpo_tutorial.experiments.records import replacing

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEY = "mpo_tutorial"  # of a task file's metadata
METADATA = {"base": forms.TEXT, "sha256": forms.TEXT}


def fingerprint(model: "PreTrainedModel", how: str = "") -> str:
    """SHA-256 of an encoder as it was loaded, and of how it will be compressed or truncated.

    Not of the cores that come out: they differ in the last digits from machine to machine. Nor of a pooler that begins anew.
    """
    new_pooler = getattr(model, "new_pooler", False)
    tensors = model.base_model.state_dict().items()
    return digest({name: tensor for name, tensor in tensors if not (new_pooler and name.startswith("pooler."))}, how)


def digest(tensors: Mapping[str, Tensor], how: str = "") -> str:
    """SHA-256 of names and bytes of some tensors, and of a word on them."""
    found = hashlib.sha256(how.encode())
    for name, tensor in sorted(tensors.items()):
        found.update(name.encode())
        found.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def trained_tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def stored_bytes(model: nn.Module) -> int:
    """Bytes that have to be kept for a task: those of the tensors it trained."""
    return sum(tensor.numel() * tensor.element_size() for tensor in trained_tensors(model).values())


def save_task(model: nn.Module, base: str, path: Path) -> None:
    """Write the trained tensors, their SHA-256 and the fingerprint of their base (safetensors), whole or not at all.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    tensors = {name: tensor.cpu().contiguous() for name, tensor in trained_tensors(model).items()}
    try:
        with replacing(path) as partial:
            save_file(tensors, partial, metadata=_metadata(base, tensors))
    except SafetensorError as error:
        raise OSError(f"could not write {path}: {error}") from error


def load_task_file(model: nn.Module, base: str, path: Path) -> None:
    """Put a task's tensors into a model that was made from the same base with the same legs and bonds.

    Parameters
    ----------
    model : nn.Module
        Compressed and frozen as for the training of the task.
    base : str
        The `fingerprint` of this model.

    Raises
    ------
    ValueError
        If the file is no whole safetensors file, was altered, belongs to another base, or holds other tensors than the
        model trains.
    """
    tensors = _read_task(base, path)
    expected = {name: tuple(tensor.shape) for name, tensor in trained_tensors(model).items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != expected:
        differing = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise ValueError(
            f"{path} must hold the tensors that the model trains; these differ: {', '.join(differing[:5])}"
        )
    model.load_state_dict(tensors, strict=False)


class SharedBase:
    """One compressed model in memory, and the tasks that were trained over it, switched in place.

    Parameters
    ----------
    model : a transformers model
        A classifier with MPO layers, as it was loaded or prepared, before any task was put into it.
    base : str, optional
        Its `fingerprint`, as `finetune.prepare` gives it. Without one, that of a model that was saved with its MPOs and loaded.
    """

    def __init__(self, model: "PreTrainedModel", base: str | None = None):
        self.model = model
        self.base = fingerprint(model) if base is None else base
        self._untrained: dict[str, Tensor] = {}

    def switch(self, path: Path) -> None:
        """Put a task's tensors into the model, its head included, and the base's own back where this task has none.

        Raises
        ------
        ValueError
            If the file is no whole safetensors file, was altered, belongs to another base, or does not fit it.
        """
        tensors = _read_task(self.base, path)
        inside = f"{self.model.base_model_prefix}."
        parameters = dict(self.model.named_parameters())
        there, found = ({name: tuple(p.shape) for name, p in named.items()} for named in (parameters, tensors))
        head = [name for name in there if not name.startswith(inside)]
        *_, output = (name.removesuffix(".weight") for name in head if name.endswith(".weight"))
        rows = (f"{output}.weight", f"{output}.bias")  # one for each class of the task
        classes, *_ = found.get(rows[0]) or there[rows[0]]
        there |= {name: (classes, *there[name][1:]) for name in rows}
        for name in (*found, *head):
            if found.get(name) != there.get(name):
                here, base = found.get(name, "missing"), there.get(name, "no such tensor")
                raise ValueError(f"{path} does not fit the base: {name} is {here}, there is {base}")
        with torch.no_grad():
            for name, tensor in {**self._untrained, **tensors}.items():
                if name.startswith(inside):
                    self._untrained.setdefault(name, parameters[name].detach().clone())
                    parameters[name].copy_(tensor)
                else:
                    parameters[name].data = tensor.to(parameters[name])
                parameters[name].grad = None
        self.model.get_submodule(output).out_features = classes
        self.model.num_labels = self.model.config.num_labels = classes
        self.model.config.problem_type = None  # transformers sets it at the first loss


def _metadata(base: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """As one entry: safetensors writes several in any order, and equal runs should make equal files."""
    return {KEY: json.dumps({"base": base, "sha256": digest(tensors)})}


def _read_task(base: str, path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(KEY, "{}")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (safe_open is no dict)
    except SafetensorError as error:
        raise ValueError(f"a task file is a whole safetensors file, {path} is not: {error}") from error
    metadata = forms.parsed(text, f"the metadata {KEY} of {path}", METADATA, "train this task anew")
    if metadata["base"] != base:
        raise ValueError(f"{path} belongs to the base {metadata['base'][:12]}, not to {base[:12]}; train this one anew")
    if metadata["sha256"] != digest(tensors):
        raise ValueError(f"{path} was altered after it was saved; take a copy of the file that is whole")
    return tensors
