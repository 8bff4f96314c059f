"""Every chapter, executed in a kernel of its own, in a temporary folder, without a network.

Here a chapter's expensive constants are smaller. `make test-full` runs such a chapter as it is, too.
"""

import ast
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from mpo_tutorial.models.sources import EMBEDDED_MODELS, INSTALL_OFFLINE

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
# Notebook: {constant: (as its set-up cell has it, as `make test` runs it)}.
SMALL = {
    "01_svd": {"COMPETITORS": (20_000, 2_000)},
    "04_where_bert_keeps_its_information": {"SENTENCES": (60, 20), "DRAWS": (3, 2)},
}
RUNS = [pytest.param((path, SMALL.get(path.stem, {})), id=path.stem) for path in NOTEBOOKS]
RUNS += [
    pytest.param((path, {}), id=f"{path.stem}-full", marks=pytest.mark.full) for path in NOTEBOOKS if path.stem in SMALL
]
WITH_MODEL = [path for path in NOTEBOOKS if "minilm" in path.read_text(encoding="utf-8")]

WIDGET = "application/vnd.jupyter.widget-view+json"
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


def execute(folder: Path, cells: list[NotebookNode]) -> NotebookNode:
    """Run cells, which get their outputs, in a new kernel that reaches no network. An error ends it and raises."""
    notebook = new_notebook(cells=[new_code_cell(CUT_OFF), *cells])
    client = NotebookClient(notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}})
    client.execute(env={name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"})
    return notebook


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


def outputs(cells: list[NotebookNode]) -> list[NotebookNode]:
    return [output for cell in cells for output in cell.outputs]


@dataclass(frozen=True)
class Run:
    """A chapter's cells with their outputs, once from top to bottom and once more in the same kernel."""

    once: list[NotebookNode]
    again: list[NotebookNode]
    widgets: list[dict]
    measured: dict


@pytest.fixture(scope="module", params=RUNS)
def run(request, tmp_path_factory) -> Run:
    path, sizes = request.param
    once, measure = code_cells(path), new_code_cell(MEASURE)
    if sizes:
        once[0].source = shrunk(once[0].source, sizes)
    again = [new_code_cell(cell.source) for cell in once]
    notebook = execute(tmp_path_factory.mktemp(path.stem), [*once, measure, *again])
    state = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {"state": {}})[
        "state"
    ]
    profile = ", ".join(f"{name} {small} for {full}" for name, (full, small) in sizes.items()) or "full"
    measured = {"chapter": path.stem, **json.loads(measure.outputs[0].text), "profile": profile}
    return Run(once, again, [widget["state"] for widget in state.values()], measured)


def test_no_cell_complains(run):
    shown = outputs(run.once) + outputs(run.again)
    assert not [output for output in shown if output.output_type == "error" or output.get("name") == "stderr"]


def test_figures_are_shown_with_a_description(run):
    """All of them as HTML: JupyterLab shows a plain PNG without any."""
    shown = outputs(run.once)
    assert not any("image/png" in output.get("data", {}) for output in shown)
    texts = [output.get("data", {}).get("text/html", "") for output in shown]
    images = re.findall(r"<img\b[^>]*>", "".join(texts))
    assert images
    images += re.findall(r"<img\b[^>]*>", "".join(str(widget.get("value")) for widget in run.widgets))
    for image in images:
        alt_text = re.search(r'\balt="([^"]*)"', image)
        assert alt_text, image[:200]
        assert len(alt_text[1].strip()) >= 20, image[:200]


def test_the_tag_widget_is_on_the_cells_that_show_one(run):
    for cell in run.once:
        assert any(WIDGET in output.get("data", {}) for output in cell.outputs) == (
            "widget" in cell.metadata.get("tags", [])
        )


def test_the_kernel_keeps_to_the_memory_of_binder(run, record_property):
    record_property("chapter", run.measured)
    assert run.measured["peak_memory_bytes"] < 1.5e9


def names(cell: NotebookNode, context: type[ast.expr_context]) -> set[str]:
    """What a cell makes (`ast.Store`) or takes (`ast.Load`)."""
    return {
        node.id
        for node in ast.walk(parsed(cell.source))
        if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_that_is_run_too_early_says_what_to_run(path, tmp_path):
    setup, *rest = code_cells(path)
    made = set().union(*(names(cell, ast.Store) for cell in rest)) - names(setup, ast.Store)
    early = [cell for cell in rest if made & names(cell, ast.Load) - names(cell, ast.Store)]
    with pytest.raises(CellExecutionError, match="NameError") as stopped:
        execute(tmp_path, [setup, early[-1]])
    assert "Run > Run All Above" in stopped.value.traceback


@pytest.mark.parametrize("path", WITH_MODEL, ids=lambda path: path.stem)
def test_without_the_model_the_first_cell_says_what_to_install(path, tmp_path):
    package = EMBEDDED_MODELS["minilm"].package
    uninstalled = new_code_cell(f"import sys; sys.modules[{package!r}] = None")
    with pytest.raises(CellExecutionError, match=f"the package {package} is not installed; type: {INSTALL_OFFLINE}"):
        execute(tmp_path, [uninstalled, code_cells(path)[0]])


def test_the_network_is_cut_off_in_these_tests(tmp_path):
    calls = new_code_cell("""
import socket, urllib.request

for call in (lambda: urllib.request.urlopen("http://example.org"), lambda: socket.socket().connect(("192.0.2.1", 80))):
    try:
        call()
    except OSError as error:
        print(error)
""")
    execute(tmp_path, [calls])
    assert "asked for example.org" in calls.outputs[0].text
    assert "asked for 192.0.2.1" in calls.outputs[0].text
