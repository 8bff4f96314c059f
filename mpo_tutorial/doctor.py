"""Whether this machine can run the course, and what to type where it cannot."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from html import escape
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from mpo_tutorial.models.sources import EMBEDDED_MODELS, EMBEDDED_REVIEWS, hub_answers

NEEDED_MEMORY_GB, NEEDED_DISK_GB = 1.5, 1
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True)
class Check:
    """One line of the doctor's report. `fix` is what to type, None where all is well."""

    name: str
    found: str
    fix: str | None = None


class Report(list[Check]):
    """Checks. A notebook shows one line where all is well, else what to type, and has all of them folded away behind it."""

    @property
    def to_mend(self) -> list[Check]:
        return [check for check in self if check.fix]

    def summary(self) -> str:
        bad = len(self.to_mend)
        return f"{bad} of {len(self)} things want mending:" if bad else f"All is well: {len(self)} things looked at."

    def __repr__(self) -> str:
        return "\n".join(
            [self.summary(), *(f"{check.name}: {check.found}; type: {check.fix}" for check in self.to_mend)]
        )

    def _repr_html_(self) -> str:
        lines = (
            f"{escape(check.name)}: {escape(check.found)}; type: {escape(str(check.fix))}" for check in self.to_mend
        )
        rows = "".join(f"<tr><td>{escape(check.name)}</td><td>{escape(check.found)}</td></tr>" for check in self)
        table = f"<table><tr><th>what</th><th>found</th></tr>{rows}</table>"
        mended = "".join(f"<li>{line}</li>" for line in lines)
        return f"<p>{self.summary()}</p><ul>{mended}</ul><details><summary>All that was looked at</summary>{table}</details>"


def examine(folder: Path = Path()) -> Report:
    """All checks, in the order in which a reader would mend what they find.

    Parameters
    ----------
    folder : Path
        Where runs will be written; its disk is checked.
    """
    checks = [_python(), *_packages(), _threads(), _memory(), _gpu()]
    checks += [_embedded(f"model {name}", files) for name, files in EMBEDDED_MODELS.items()]
    checks += [_embedded("data rotten_tomatoes", EMBEDDED_REVIEWS), _hub(), _disk(folder)]
    return Report(checks)


def _python() -> Check:
    oldest = ".".join(map(str, OLDEST_PYTHON))
    fix = None if sys.version_info >= OLDEST_PYTHON else f"install Python {oldest} or newer from python.org"
    return Check("Python", platform.python_version(), fix)


def _packages() -> list[Check]:
    checks = []
    for line in metadata.requires("mpo-tutorial") or []:
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            checks.append(Check(requirement.name, "missing", f"pip install '{requirement}'"))
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        fix = None if fits else f"pip install --upgrade '{requirement}'"
        checks.append(Check(requirement.name, version, fix))
    return checks


def _threads() -> Check:
    import torch

    return Check("CPU threads", f"{torch.get_num_threads()} of {os.cpu_count()}")


def _memory() -> Check:
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f} GB"
    fix = None if memory.available / 1e9 >= NEEDED_MEMORY_GB else f"close programs until {NEEDED_MEMORY_GB} GB are free"
    return Check("memory", found, fix)


def _gpu() -> Check:
    import torch

    if torch.cuda.is_available():
        return Check("GPU", torch.cuda.get_device_name())
    return Check("GPU", "none (the course runs without)")


def _embedded(name: str, files) -> Check:
    try:
        files.path()
    except (FileNotFoundError, ValueError) as error:
        found, _, fix = str(error).rpartition("; type: ")
        return Check(name, found, fix)
    return Check(name, f"{files.dist} {metadata.version(files.dist)}, hashes match")


def _hub() -> Check:
    if hub_answers(timeout=3.0):
        return Check("Hugging Face hub", "answers")
    return Check("Hugging Face hub", "does not answer (only models from the hub need it)")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder.resolve()).free / 1e9
    fix = None if free >= NEEDED_DISK_GB else f"free {NEEDED_DISK_GB} GB, or work on another disk by --out"
    return Check("disk", f"{free:.1f} GB free", fix)
