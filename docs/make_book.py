"""Run the chapters and write them as a static site, to be read without Jupyter and without a network: `make book`."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from make_badges import WaysIn

ROOT = Path(__file__).parents[1]


def chapter(page: str, name: str, ways: WaysIn) -> str:
    """A notebook as the book takes it.

    Its title gets the chapter's number, links to files outside the book lead to the repository, and cells whose output is
    a widget, which is dead without a kernel, show their code and are not run.
    """
    notebook = json.loads(page)
    first = notebook["cells"][0]
    first["source"] = re.sub("^# ", f"# {name[:2]} ", "".join(first["source"]), count=1)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            target = r"(?<=\]\()\.\./(?!docs/badges/)([^)]+)"
            cell["source"] = re.sub(target, lambda path: ways.file(path[1]), "".join(cell["source"]))
        elif "widget" in cell["metadata"].get("tags", []):
            cell["metadata"]["tags"].append("skip-execution")
    return json.dumps(notebook)


def write_sources(folder: Path) -> None:
    """Lay out what Sphinx reads, with the same folders as in the repository."""
    ways = WaysIn.read(ROOT)
    (folder / "notebooks").mkdir(parents=True)
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        page = chapter(path.read_text(encoding="utf-8"), path.name, ways)
        (folder / "notebooks" / path.name).write_text(page, encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "badges", folder / "docs" / "badges")
    shutil.copy(ROOT / "docs" / "book" / "index.md", folder)


def build(folder: Path) -> int:
    """Write the site into a folder, and its sources beside it; returns Sphinx's exit status."""
    source = folder.with_name(f"{folder.name}-source")
    for old in (folder, source):
        if old.exists():
            shutil.rmtree(old)
    write_sources(source)
    strict = ["--fail-on-warning", "--nitpicky", "--fresh-env"]
    places = ["--conf-dir", ROOT / "docs" / "book", "--doctree-dir", folder.with_name(f"{folder.name}-doctrees")]
    command = [sys.executable, "-m", "sphinx", "--builder", "html", *strict, *places, source, folder]
    return subprocess.run(command, check=False).returncode  # noqa: S603


if __name__ == "__main__":
    sys.exit(build(ROOT / "build" / "book"))
