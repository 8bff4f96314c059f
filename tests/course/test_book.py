"""The book is built once, from the real chapters, and its pages are read as a browser without a network reads them."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

import make_book
from make_badges import WaysIn

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
def book(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("build") / "book"
    assert make_book.build(folder) == 0  # a warning is a failure
    return folder


@pytest.fixture(scope="session")
def pages(book) -> list[Page]:
    return [Page(path) for path in book.rglob("*.html")]


@pytest.fixture(scope="session", params=CHAPTERS)
def chapter(request, book) -> Page:
    return Page(book / "notebooks" / f"{request.param}.html")


def test_pages_need_nothing_from_elsewhere(book, pages):
    for page in pages:
        needed = page.values("script", "src") + page.values("link", "href") + page.values("img", "src")
        assert needed
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


def test_widgets_show_their_code_alone(book, chapter):
    assert "VBox(" not in chapter.text
    assert "application/vnd.jupyter.widget" not in chapter.text
    assert "rank_explorer" in (book / "notebooks" / "01_svd.html").read_text(encoding="utf-8")


def test_links_to_the_library_lead_to_the_repository(book):
    assert WAYS.file("mpo_tutorial/maths/linalg.py") in Page(book / "notebooks" / "01_svd.html").values("a", "href")


def test_search_knows_the_words_of_a_chapter(book):
    index = json.loads((book / "searchindex.js").read_text(encoding="utf-8").removeprefix("Search.setIndex(")[:-1])
    places = index["terms"]["ellips"]  # the stem of ellipse
    where = [index["docnames"][k] for k in ([places] if isinstance(places, int) else places)]
    assert "notebooks/01_svd" in where
