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
from nbformat.v4 import new_code_cell

import make_page
from blocks import block_of, replace_block
from frames import FOLDER, with_frames
from make_badges import WaysIn

ROOT = Path(__file__).parents[1]
HEAVIEST = 5_000_000  # bytes of a page
LIVE = re.compile('<div class="(frames|bonds)">')


def of_widget(cell: NotebookNode) -> bool:
    """Whether a cell's output is a widget, which is dead without a kernel."""
    return "widget" in cell.metadata.get("tags", [])


def run_chapter(path: Path, images: Path) -> NotebookNode:
    """A notebook with its outputs, those of widgets as frames, whose images go to a folder. It is run in another one, which is
    removed with what the chapter left there.
    """
    notebook = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in notebook.cells]
    for cell in filter(of_widget, notebook.cells):
        cell.source = with_frames(cell.source, images.resolve())
    press = new_code_cell(f"if 'frames' in globals():\n    frames.press({str(images.resolve())!r})")
    notebook.cells.append(press)
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": folder}}).execute()
    notebook.cells.pop()
    for cell, source in zip(notebook.cells, sources, strict=True):
        cell.source = source
    for cell, output in zip(
        [cell for cell in filter(of_widget, notebook.cells) if not cell.outputs], press.outputs, strict=True
    ):
        cell.outputs = [output]
    return notebook


def page_of(notebook: NotebookNode, name: str, ways: WaysIn) -> str:
    """A notebook with its outputs as the book takes it.

    Its title gets the chapter's number, links to files outside the book lead to the repository, and cells of widgets show
    their frames, or where there are none their code alone.
    """
    notebook.metadata.pop("widgets", None)
    notebook.cells[0].source = re.sub("^# ", f"# {name[:2]} ", notebook.cells[0].source, count=1)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            target = r"(?<=\]\()\.\./(?!docs/badges/|docs/glossary|docs/teaching)([^)]+)"
            cell.source = re.sub(target, lambda path: ways.file(path[1]), cell.source)
        elif of_widget(cell):
            cell.outputs = [
                output for output in cell.outputs if LIVE.match(output.get("data", {}).get("text/html", ""))
            ]
    return nbformat.writes(notebook)


def modules_of(room: str) -> str:
    """What the page of a room says of its modules, to be filled in by Sphinx from their docstrings."""
    paths = sorted((ROOT / "mpo_tutorial" / room).iterdir())
    names = [path.stem for path in paths if path.suffix == ".py" and path.stem != "__init__"]
    names += [path.name for path in paths if (path / "__init__.py").exists()]
    part = "## {0}\n\n```{{eval-rst}}\n.. automodule:: mpo_tutorial.{1}.{0}\n   :members:\n```\n"
    return "\n".join(part.format(name, room) for name in sorted(names))


def map_of(chapters: dict[str, NotebookNode]) -> str:
    """A table of the chapters, with the question that is each one's title."""
    rows = []
    for name, notebook in chapters.items():
        number, _, words = name.partition("_")
        question = notebook.cells[0].source.partition("\n")[0].removeprefix("# ")
        rows.append(f"| [{number} {words.replace('_', ' ')}](notebooks/{name}.ipynb) | {question} |")
    return "\n".join(["| chapter | question |", "|---|---|", *rows])


def first_widget(notebook: NotebookNode) -> str:
    """The frames of a chapter's first widget, for a page beside the folder of the chapters; nothing if it has none."""
    outputs = (output for cell in filter(of_widget, notebook.cells) for output in cell.outputs)
    found = (output.get("data", {}).get("text/html", "") for output in outputs)
    return next((html.replace(f"../{FOLDER}/", f"{FOLDER}/") for html in found if LIVE.match(html)), "")


def write_sources(folder: Path, run: Callable[[Path, Path], NotebookNode], images: Path) -> None:
    """Lay out what Sphinx reads, with the same folders as in the repository, and the images of frames in another one."""
    ways = WaysIn.read(ROOT)
    (folder / "notebooks").mkdir(parents=True)
    chapters = {path.stem: run(path, images) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    index = (ROOT / "docs" / "book" / "index.md").read_text(encoding="utf-8")
    index = replace_block(index, "map", map_of(chapters))
    index = replace_block(index, "picture", block_of((ROOT / "README.md").read_text(encoding="utf-8"), "picture"))
    index = replace_block(index, "widget", first_widget(next(iter(chapters.values()))))
    (folder / "index.md").write_text(index, encoding="utf-8")
    for name, notebook in chapters.items():
        page = page_of(notebook, name, ways)
        (folder / "notebooks" / f"{name}.ipynb").write_text(page, encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "badges", folder / "docs" / "badges")
    for name in ("tradeoff.png", "glossary.md", "teaching.md"):
        shutil.copy(ROOT / "docs" / name, folder / "docs")
    (folder / "api").mkdir()
    for path in (ROOT / "docs" / "book" / "api").glob("*.md"):
        page = replace_block(path.read_text(encoding="utf-8"), "modules", modules_of(path.stem))
        (folder / "api" / path.name).write_text(page, encoding="utf-8")


def build(folder: Path, run: Callable[[Path, Path], NotebookNode] = run_chapter) -> int:
    """Write the site into a folder, and its sources beside it; returns Sphinx's exit status.

    Parameters
    ----------
    folder : Path
        What it held is removed.
    run : function of a notebook's path and a folder for images, optional
        Gives the notebook with its outputs; runs it by default. The tests give outputs that they have already.
    """
    source, images = (folder.with_name(f"{folder.name}-{part}") for part in ("source", FOLDER))
    for old in (folder, source, images):
        if old.exists():
            shutil.rmtree(old)
    images.mkdir(parents=True)
    write_sources(source, run, images)
    strict = ["--fail-on-warning", "--nitpicky", "--fresh-env"]
    places = ["--conf-dir", ROOT / "docs" / "book", "--doctree-dir", folder.with_name(f"{folder.name}-doctrees")]
    command = [sys.executable, "-m", "sphinx", "--builder", "html", *strict, *places, source, folder]
    status = subprocess.run(command, check=False).returncode  # noqa: S603
    if status == 0:
        shutil.move(images, folder / FOLDER)
        (folder / "page.html").write_text(make_page.page(), encoding="utf-8")
        require_light(folder)
    return status


def require_light(folder: Path) -> None:
    """Refuse, by a ValueError, a book with a page that weighs too much together with the images of its frames."""
    for path in folder.rglob("*.html"):
        page = path.read_text(encoding="utf-8")
        images = set(re.findall(r"[0-9a-f]{16}\.webp", page))
        weight = len(page.encode()) + sum((folder / FOLDER / name).stat().st_size for name in images)
        if weight > HEAVIEST:
            raise ValueError(
                f"{path.name} weighs {weight / 1e6:.1f} MB, {HEAVIEST / 1e6:g} is the most; give its widgets fewer settings"
            )


if __name__ == "__main__":
    sys.exit(build(ROOT / "build" / "book"))
