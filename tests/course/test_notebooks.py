"""Every chapter, executed in a kernel of its own, in a temporary folder, without a network.

A chapter that takes little is run twice in its kernel. One that takes long is run once, its expensive constants smaller; `make
test-full` runs it as it is, and twice.
"""

import ast
import re
from pathlib import Path

import pytest
from chapters import LONG_TO_RUN, NOTEBOOKS, SMALL, Run, code_cells, execute, parsed, profile, run_of
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from mpo_tutorial.models.sources import EMBEDDED_MODELS, INSTALL_OFFLINE

RUNS = [pytest.param(profile(path), id=path.stem) for path in NOTEBOOKS]
RUNS += [
    pytest.param((path, {}, True), id=f"{path.stem}-full", marks=pytest.mark.full)
    for path in NOTEBOOKS
    if path.stem in {*SMALL, *LONG_TO_RUN}
]
PACKAGE = EMBEDDED_MODELS["minilm"].package
WITH_MODEL = [path for path in NOTEBOOKS if 'model="minilm"' in code_cells(path)[0].source]

WIDGET = "application/vnd.jupyter.widget-view+json"


def outputs(cells: list[NotebookNode]) -> list[NotebookNode]:
    return [output for cell in cells for output in cell.outputs]


@pytest.fixture(scope="module", params=RUNS)
def run(request, shared_folder) -> Run:
    return run_of(*request.param, shared_folder)


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


def early_source(path: Path) -> str:
    """The last cell that needs a name which another one than the set-up makes."""
    setup, *rest = code_cells(path)
    made = set().union(*(names(cell, ast.Store) for cell in rest)) - names(setup, ast.Store)
    return [cell for cell in rest if made & names(cell, ast.Load) - names(cell, ast.Store)][-1].source


@pytest.fixture(scope="module")
def told(tmp_path_factory) -> dict[str, dict[str, str]]:
    """Of each chapter what its set-up says "without the model", and what a cell says that is run "too early".

    All in one kernel, which forgets its names between two chapters.
    """
    cells, places = [], {}
    for path in NOTEBOOKS:
        uninstalled = f"import sys; there = sys.modules.pop({PACKAGE!r}, None); sys.modules[{PACKAGE!r}] = None"
        installed = f"del sys.modules[{PACKAGE!r}]; there and sys.modules.update({{{PACKAGE!r}: there}})"
        setup = code_cells(path)[0].source
        sources = ["%reset -f", uninstalled, setup, installed, setup, early_source(path)]
        places[path.stem] = {"without the model": len(cells) + 2, "too early": len(cells) + 5}
        cells += map(new_code_cell, sources)
    execute(tmp_path_factory.mktemp("early"), cells, allow_errors=True)
    for stem, at in places.items():  # the set-up itself goes well where the model is there
        assert not [output for output in cells[at["too early"] - 1].outputs if output.output_type == "error"], stem
    return {
        stem: {what: "".join(map(str, outputs([cells[place]]))) for what, place in at.items()}
        for stem, at in places.items()
    }


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_cell_that_is_run_too_early_says_what_to_run(path, told):
    said = told[path.stem]["too early"]
    assert "NameError" in said
    assert "Run > Run All Above" in said


@pytest.mark.parametrize("path", WITH_MODEL, ids=lambda path: path.stem)
def test_without_the_model_the_first_cell_says_what_to_install(path, told):
    assert f"the package {PACKAGE} is not installed; type: {INSTALL_OFFLINE}" in told[path.stem]["without the model"]


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
