"""The book is built once, from the chapters as other tests ran them; its pages are read as by a browser without a network."""

import ast
import inspect
import json
import pkgutil
import re
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path

import nbformat
import numpy as np
import pytest
import warm
from chapters import profile, run_of
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook, new_output

import frames
import make_book
from make_badges import WaysIn
from mpo_tutorial.course.widgets import rank_explorer

ROOT = Path(__file__).parents[2]
CHAPTERS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
WAYS = WaysIn.read(ROOT)


class Page(HTMLParser):
    """A page and its elements, each a name and its attributes."""

    def __init__(self, path: Path):
        super().__init__()
        self.path, self.elements = path, []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def values(self, tag: str, attribute: str) -> list[str]:
        return [found[attribute] for name, found in self.elements if name == tag and attribute in found]

    def leads_to(self, target: str) -> Path:
        return self.path.parent / re.sub(r"[?#].*", "", target)


@pytest.fixture(scope="session")
def book(tmp_path_factory, shared_folder) -> Path:
    def run(path: Path, images: Path) -> NotebookNode:
        """With the outputs that the tests of the notebooks look at, those of widgets too."""
        notebook = nbformat.read(path, as_version=4)
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for cell, done in zip(code, run_of(*profile(path), shared_folder).once, strict=True):
            cell.outputs, cell.execution_count = done.outputs, done.execution_count
        if path.stem == CHAPTERS[0]:  # all frames of all chapters would take minutes
            widget = rank_explorer(np.eye(3))
            html = frames.html_of(frames.tree_of(widget, images))
            (shown,) = filter(make_book.of_widget, code)
            shown.outputs = [new_output("display_data", {"text/html": html})]
        return notebook

    folder = tmp_path_factory.mktemp("build") / "book"
    assert make_book.build(folder, run) == 0  # a warning is a failure
    return folder


def test_an_error_stops_the_book_and_nothing_is_left_behind(tmp_path):
    nbformat.write(new_notebook(cells=[new_code_cell("print(6 * 7)")]), tmp_path / "good.ipynb")
    with warm.kernels():
        (ran,) = make_book.run_chapter(tmp_path / "good.ipynb", tmp_path / "images").cells
    assert [output.text for output in ran.outputs] == ["42\n"]
    nbformat.write(new_notebook(cells=[new_code_cell("1 / 0")]), tmp_path / "bad.ipynb")
    with pytest.raises(CellExecutionError, match="ZeroDivisionError"), warm.kernels():
        make_book.run_chapter(tmp_path / "bad.ipynb", tmp_path / "images")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.ipynb", "good.ipynb"]


@pytest.fixture(scope="session")
def pages(book) -> list[Page]:
    return [Page(path) for path in book.rglob("*.html")]


@pytest.fixture(scope="session", params=CHAPTERS)
def chapter(request, book) -> Page:
    return Page(book / "notebooks" / f"{request.param}.html")


def test_pages_need_nothing_from_elsewhere(book, pages):
    for page in pages:
        needed = page.values("script", "src") + page.values("link", "href") + page.values("img", "src")
        assert needed or page.path.name == "page.html"  # all of it is in that file
        for target in needed:
            assert target.startswith("data:image/") or page.leads_to(target).exists(), f"{page.path.name}: {target}"
        assert "require.js" not in page.text
    for path in book.rglob("*.css"):
        outside = re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\s]*", path.read_text(encoding="utf-8"))
        assert not outside, f"{path.name}: {outside}"


def test_links_inside_the_book_lead_somewhere(pages):
    for page in pages:
        for target in page.values("a", "href"):
            assert target.startswith("https://") or page.leads_to(target).exists(), f"{page.path.name}: {target}"


def test_every_chapter_opens_in_colab_and_in_binder(chapter):
    wanted = re.findall(r"\((https:.*?)\)", WAYS.badges(f"{chapter.path.stem}.ipynb"))
    assert len(wanted) == 2
    assert set(wanted) <= set(chapter.values("a", "href"))


def test_the_index_lists_the_chapters_in_order(book):
    links = Page(book / "index.html").values("a", "href")
    listed = dict.fromkeys(Path(link).stem for link in links if link.startswith("notebooks/"))
    assert list(listed) == CHAPTERS


@pytest.mark.parametrize("room", ["maths", "models", "experiments", "course"])
def test_a_room_has_a_page_with_every_public_function_and_class(book, room):
    page = Page(book / "api" / f"{room}.html")
    there = {attributes.get("id") for _, attributes in page.elements}
    wanted = set()
    for module in pkgutil.iter_modules([str(ROOT / "mpo_tutorial" / room)], f"mpo_tutorial.{room}."):
        wanted.add(f"module-{module.name}")
        for node in ast.parse(inspect.getsource(import_module(module.name))).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                wanted |= {f"{module.name}.{node.name}"} if ast.get_docstring(node) else set()
    assert len(wanted) > 20
    assert wanted <= there


def test_every_picture_is_described(chapter):
    figures = [found for tag, found in chapter.elements if tag == "img" and found["src"].startswith("data:image/png")]
    assert figures
    assert all(description.strip() for description in chapter.values("img", "alt"))
    assert len(chapter.values("img", "alt")) == len(chapter.values("img", "src"))


def test_formulas_are_drawn_by_a_file_of_the_book(book):
    page = Page(book / "notebooks" / "01_svd.html")
    assert r"\(A^T A\)" in page.text
    (script,) = [target for target in page.values("script", "src") if "tex-svg" in target]
    assert "MathJax" in page.leads_to(script).read_text(encoding="utf-8")


def test_nothing_is_left_of_widgets_that_need_a_kernel(book, chapter):
    assert "VBox(" not in chapter.text
    assert "application/vnd.jupyter.widget" not in chapter.text
    assert "rank_explorer" in (book / "notebooks" / "01_svd.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name, folder", [("index.html", "frames"), (f"notebooks/{CHAPTERS[0]}.html", "../frames")])
def test_a_chapters_frames_are_in_its_page_and_those_of_the_first_one_on_the_first_page(book, name, folder):
    page = Page(book / name)
    assert page.text.count('<div class="frames">') == 1
    (first,) = [source for source in page.values("img", "src") if source.endswith(".webp")]
    assert Path(first).parent.as_posix() == folder
    images = re.findall(r"[0-9a-f]{16}\.webp", page.text)
    assert all((book / "frames" / image).is_file() for image in images)
    assert len(set(images)) == 3
    assert any(target.startswith("_static/widgets.js") for target in Page(book / "index.html").values("script", "src"))


def test_the_first_page_has_the_demos_picture_and_a_map_of_the_course(book):
    page = Page(book / "index.html")
    (picture,) = [found for tag, found in page.elements if tag == "img" and "tradeoff" in found["src"]]
    assert picture["alt"].startswith("Two panels. Above, test accuracy")
    assert "Can a network live as MPOs from the start?" in page.text


def test_a_page_that_weighs_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(make_book, "HEAVIEST", 100)
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames/0123456789abcdef.webp").write_bytes(bytes(90))
    (tmp_path / "light.html").write_text("x" * 100)
    make_book.require_light(tmp_path)
    (tmp_path / "page.html").write_text("<img src=frames/0123456789abcdef.webp>")
    with pytest.raises(ValueError, match=r"page\.html weighs .* give its widgets fewer settings"):
        make_book.require_light(tmp_path)


def test_links_to_the_library_lead_to_the_repository(book):
    assert WAYS.file("mpo_tutorial/maths/linalg.py") in Page(book / "notebooks" / "01_svd.html").values("a", "href")


def test_search_knows_the_words_of_a_chapter(book):
    index = json.loads((book / "searchindex.js").read_text(encoding="utf-8").removeprefix("Search.setIndex(")[:-1])
    places = index["terms"]["ellips"]  # the stem of ellipse
    where = [index["docnames"][k] for k in ([places] if isinstance(places, int) else places)]
    assert "notebooks/01_svd" in where
