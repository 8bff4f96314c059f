"""Write a notebook of chapter 11's board alone, which `make explorer` shows by Voila."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

ROOT = Path(__file__).parents[1]
CHAPTER = ROOT / "notebooks" / "11_explorer.ipynb"


def board_alone(chapter: NotebookNode) -> NotebookNode:
    """A title, and the chapter's code as far as its widget."""
    code = [cell for cell in chapter.cells if cell.cell_type == "code"]
    last = next(k for k, cell in enumerate(code) if "widget" in cell.metadata.get("tags", []))
    title = new_markdown_cell("# A BERT of chains: every knob of the course", id="title")
    return nbformat.from_dict({**chapter, "cells": [title, *code[: last + 1]]})


if __name__ == "__main__":
    target = ROOT / "build" / "explorer.ipynb"
    target.parent.mkdir(exist_ok=True)
    nbformat.write(board_alone(nbformat.read(CHAPTER, as_version=4)), target)
