"""Chapters executed in kernels of their own: once for all tests of a session, which look at the outputs in turn."""

import ast
import json
import os
from dataclasses import dataclass
from pathlib import Path

import nbformat
import warm
from filelock import FileLock
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
# Notebook: {constant: (as its set-up cell has it, as `make test` runs it)}.
SMALL = {
    "01_svd": {"COMPETITORS": (20_000, 2_000)},
    "04_where_bert_keeps_its_information": {"SENTENCES": (60, 20), "DRAWS": (10, 2), "NOISES": (3, 2)},
    "05_mpo_networks": {"EPOCHS": (8, 2)},
    "07_lightweight_fine_tuning": {"SENTENCES": (320, 64), "EPOCHS": (4, 1)},
    "10_gpu_capstone": {"SENTENCES": (320, 32), "MINUTES_IF_SMALL": (2, 0.1)},
}

CUT_OFF = """
import sys


def refuse(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    else:
        return
    if host not in ("localhost", "127.0.0.1", "::1"):
        raise ConnectionRefusedError(f"no network in the tests, asked for {host}")


sys.addaudithook(refuse)
"""
MEASURE = """
import json, time
import psutil, torch
from mpo_tutorial.experiments.records import peak_memory_bytes

measured = {
    "seconds": time.time() - psutil.Process().create_time(),
    "cpu_seconds": time.process_time(),
    "peak_memory_bytes": peak_memory_bytes(),
    "threads": torch.get_num_threads(),
}
print(json.dumps(measured))
"""


def execute(folder: Path, cells: list[NotebookNode], allow_errors: bool = False) -> NotebookNode:
    """Run cells, which get their outputs, in a new kernel that reaches no network. An error ends it and raises, unless allowed."""
    notebook = new_notebook(cells=[new_code_cell(CUT_OFF), *cells])
    options = {"timeout": 600, "kernel_name": "python3", "allow_errors": allow_errors}
    client = NotebookClient(notebook, **options, resources={"metadata": {"path": folder}})
    with warm.kernels():
        client.execute(env={name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"})
    return notebook


def markdown(path: Path) -> str:
    """A text, or the text cells of a notebook."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = json.loads(path.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def code_cells(path: Path) -> list[NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def parsed(source: str) -> ast.Module:
    return ast.parse(TransformerManager().transform_cell(source))  # which makes Python of %pip


def shrunk(source: str, sizes: dict[str, tuple]) -> str:
    """A set-up cell with other constants, each of which must have been as `sizes` says."""
    module = parsed(source)
    literals = {}
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            target, value = statement.targets[0], statement.value
            pairs = zip(target.elts, value.elts, strict=True) if isinstance(target, ast.Tuple) else [(target, value)]
            literals |= {ast.unparse(name): literal for name, literal in pairs}
    for name, (full, small) in sizes.items():
        assert literals[name].value == full, f"the profile says {name} = {full}, the notebook {literals[name].value}"
        literals[name].value = small
    return ast.unparse(module)


LONG_TO_RUN = (
    "04_where_bert_keeps_its_information",
    "06_compressing_bert",
    "07_lightweight_fine_tuning",
    "08_dimension_squeezing",
)


@dataclass(frozen=True)
class Run:
    """A chapter's cells with their outputs, once from top to bottom and, if asked for, once more in the same kernel."""

    once: list[NotebookNode]
    again: list[NotebookNode]
    widgets: list[dict]
    measured: dict


def profile(path: Path) -> tuple[Path, dict[str, tuple], bool]:
    """How `make test` runs a chapter: smaller constants, and whether twice."""
    return path, SMALL.get(path.stem, {}), path.stem not in LONG_TO_RUN


def run_of(path: Path, sizes: dict[str, tuple], twice: bool, folder: Path) -> Run:
    """The run of a chapter. The first that asks makes it in `folder`, and every later one reads it there."""
    kept = folder / f"{path.stem}{'-small' if sizes else ''}{'-twice' if twice else ''}.ipynb"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            once = code_cells(path)
            if sizes:
                once[0].source = shrunk(once[0].source, sizes)
            again = [new_code_cell(cell.source) for cell in once] if twice else []
            place = kept.with_suffix("")
            place.mkdir(exist_ok=True)
            nbformat.write(execute(place, [*once, new_code_cell(MEASURE), *again]), kept)
    notebook = nbformat.read(kept, as_version=4)
    _, *cells = notebook.cells
    n = len(code_cells(path))
    state = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {"state": {}})
    constants = ", ".join(f"{name} {small} for {full}" for name, (full, small) in sizes.items()) or "full"
    measured = {"chapter": path.stem, **json.loads(cells[n].outputs[0].text), "constants": constants}
    return Run(cells[:n], cells[n + 1 :], [widget["state"] for widget in state["state"].values()], measured)
