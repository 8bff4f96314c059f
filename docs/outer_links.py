"""All addresses outside the repository that its texts lead to, for whoever can open them."""

import json
import re
from pathlib import Path

from make_badges import WaysIn

ROOT = Path(__file__).parents[1]
TEXTS = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/*.md", "docs/*.md", "notebooks/*.ipynb")
ADDRESS = re.compile(r"\]\((https?://[^\s()]*(?:\([^\s()]*\)[^\s()]*)*)\)")


def outer_links(root: Path = ROOT) -> dict[str, list[str]]:
    """The addresses in order, each with the files that lead there; those that `make badges` writes are left out."""
    ours = ("https://colab.research.google.com/", "https://mybinder.org/", WaysIn.read(root).address)
    found: dict[str, list[str]] = {}
    for path in sorted(path for pattern in TEXTS for path in root.glob(pattern)):
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        for address in dict.fromkeys(ADDRESS.findall(text)):
            if not address.startswith(ours) and path.stem != "online":
                found.setdefault(address, []).append(
                    path.stem.partition("_")[0] if path.suffix == ".ipynb" else path.name
                )
    return dict(sorted(found.items()))


def as_list() -> str:
    return "\n".join(f"- <{address}> ({', '.join(files)})" for address, files in outer_links().items())
