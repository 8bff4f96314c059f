"""Run the chapters and write them as a static site, to be read without Jupyter and without a network: `make book`."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from blocks import replace_block
from make_badges import WaysIn

ROOT = Path(__file__).parents[1]


def of_widget(cell: NotebookNode) -> bool:
    """Whether a cell's output is a widget, which is dead without a kernel."""
    return "widget" in cell.metadata.get("tags", [])


def run_chapter(path: Path) -> NotebookNode:
    """A notebook with its outputs, run in a folder that is removed with what the chapter left in it."""
    notebook = nbformat.read(path, as_version=4)
    for cell in filter(of_widget, notebook.cells):
        cell.metadata.tags.append("skip-execution")
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=600, skip_cells_with_tag="skip-execution", resources=resources)
        client.execute()
    return notebook


def page_of(notebook: NotebookNode, name: str, ways: WaysIn) -> str:
    """A notebook with its outputs as the book takes it.

    Its title gets the chapter's number, links to files outside the book lead to the repository, and cells of widgets show
    their code alone.
    """
    notebook.metadata.pop("widgets", None)
    notebook.cells[0].source = re.sub("^# ", f"# {name[:2]} ", notebook.cells[0].source, count=1)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            target = r"(?<=\]\()\.\./(?!docs/badges/)([^)]+)"
            cell.source = re.sub(target, lambda path: ways.file(path[1]), cell.source)
        elif of_widget(cell):
            cell.outputs = []
    return nbformat.writes(notebook)


def modules_of(room: str) -> str:
    """What the page of a room says of its modules, to be filled in by Sphinx from their docstrings."""
    paths = sorted((ROOT / "mpo_tutorial" / room).iterdir())
    names = [path.stem for path in paths if path.suffix == ".py" and path.stem != "__init__"]
    names += [path.name for path in paths if (path / "__init__.py").exists()]
    part = "## {0}\n\n```{{eval-rst}}\n.. automodule:: mpo_tutorial.{1}.{0}\n   :members:\n```\n"
    return "\n".join(part.format(name, room) for name in sorted(names))


def write_sources(folder: Path, run: Callable[[Path], NotebookNode]) -> None:
    """Lay out what Sphinx reads, with the same folders as in the repository."""
    ways = WaysIn.read(ROOT)
    (folder / "notebooks").mkdir(parents=True)
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        page = page_of(run(path), path.name, ways)
        (folder / "notebooks" / path.name).write_text(page, encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "badges", folder / "docs" / "badges")
    shutil.copy(ROOT / "docs" / "book" / "index.md", folder)
    (folder / "api").mkdir()
    for path in (ROOT / "docs" / "book" / "api").glob("*.md"):
        page = replace_block(path.read_text(encoding="utf-8"), "modules", modules_of(path.stem))
        (folder / "api" / path.name).write_text(page, encoding="utf-8")


def build(folder: Path, run: Callable[[Path], NotebookNode] = run_chapter) -> int:
    """Write the site into a folder, and its sources beside it; returns Sphinx's exit status.

    Parameters
    ----------
    folder : Path
        What it held is removed.
    run : function of a notebook's path, optional
        Gives the notebook with its outputs; runs it by default. The tests give outputs that they have already.
    """
    source = folder.with_name(f"{folder.name}-source")
    for old in (folder, source):
        if old.exists():
            shutil.rmtree(old)
    write_sources(source, run)
    strict = ["--fail-on-warning", "--nitpicky", "--fresh-env"]
    places = ["--conf-dir", ROOT / "docs" / "book", "--doctree-dir", folder.with_name(f"{folder.name}-doctrees")]
    command = [sys.executable, "-m", "sphinx", "--builder", "html", *strict, *places, source, folder]
    return subprocess.run(command, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(build(ROOT / "build" / "book"))
