"""The command in a process that has its imports behind it: of a quarter of a minute a second is left."""

import os
import subprocess
import sys
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

IMPORTS = (
    "mpo_tutorial.cli",
    "mpo_tutorial.experiments.training",
    "mpo_tutorial.course.figures",
    "mpo_tutorial.models.peft",
    "transformers.models.bert.modeling_bert",
)
context = get_context("forkserver")
context.set_forkserver_preload([*IMPORTS])


def run(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess:
    """What `mpo-tutorial` with some arguments prints in a folder, and how it ends."""
    with TemporaryDirectory() as folder:
        printed = [Path(folder) / name for name in ("out", "err")]
        process = context.Process(target=_main, args=(arguments, str(cwd), *map(str, printed), dict(os.environ)))
        process.start()
        process.join()
        texts = (path.read_text(encoding="utf-8") for path in printed)
        return subprocess.CompletedProcess(arguments, process.exitcode, *texts)


def _main(arguments: list[str], cwd: str, out: str, err: str, environment: dict[str, str]) -> None:
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    sys.argv = ["mpo-tutorial", *arguments]
    from mpo_tutorial.cli import main

    main()
