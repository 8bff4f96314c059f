"""Widgets as the book has them: walked through when it is built, and moved in a browser without a kernel and without a network."""

import json
import re
from html import unescape
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import warm
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from playwright.sync_api import expect

import frames
import make_book
from mpo_tutorial.course import widgets
from mpo_tutorial.course.explorers import BondExplorer, RankExplorer
from mpo_tutorial.course.squeeze_explorers import SqueezeExplorer
from mpo_tutorial.experiments import records
from mpo_tutorial.maths.shapes import Shape

ROOT = Path(__file__).parents[2]
SHAPE = Shape((2, 3, 4), (3, 2, 4))


def leaves(tree: dict) -> list[dict]:
    return [leaf for below in tree["below"] for leaf in leaves(below)] if "below" in tree else [tree]


def matrix(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(rows, columns))


def test_every_setting_has_the_words_of_the_explorer(tmp_path):
    tree = frames.tree_of(widgets.rank_explorer(matrix(6, 8), rank=2), tmp_path)
    assert (tree["control"], tree["kind"], tree["start"]) == ("rank", "range", 1)
    assert tree["options"] == [*"123456"]
    explorer = RankExplorer(matrix(6, 8))
    assert [leaf["words"] for leaf in tree["below"]] == [explorer.in_words(rank) for rank in range(1, 7)]
    images = {leaf["image"] for leaf in tree["below"]}
    assert len(images) == 6
    for name in images:
        with Image.open(tmp_path / name) as image:
            assert image.format == "WEBP"
            assert image.width > 800


def test_of_a_long_slider_some_settings_are_left_out_but_no_end(tmp_path, monkeypatch):
    monkeypatch.setattr(frames, "MOST", 5)
    tree = frames.tree_of(widgets.rank_explorer(matrix(50, 60), rank=7), tmp_path)
    assert tree["options"] == ["1", "3", "7", "19", "50"]
    assert tree["options"][tree["start"]] == "7"
    assert tree["below"][0]["words"].startswith("Rank 1 of 50")
    assert tree["below"][-1]["words"].startswith("Rank 50 of 50")


def test_what_one_control_offers_may_depend_on_another(tmp_path):
    """Two replays of different lengths."""
    record = records.shipped("squeezed_by_outputs")
    lengths = {"long": 5, "short": 3}
    explorers = {
        name: SqueezeExplorer.of_record({**record, "steps": record["steps"][:n]}) for name, n in lengths.items()
    }
    tree = frames.tree_of(widgets.squeeze_replay(explorers), tmp_path)
    assert (tree["kind"], tree["options"], tree["start"]) == ("select", ["long", "short"], 0)
    for below, (name, n) in zip(tree["below"], lengths.items(), strict=True):
        assert below["options"] == [str(k) for k in range(n)]
        assert [leaf["words"] for leaf in below["below"]] == [explorers[name].in_words(k) for k in range(n)]


def test_a_chapters_widgets_become_frames_and_a_button_is_pressed_when_all_cells_have_run(tmp_path):
    button = """
import ipywidgets
from mpo_tutorial.course import plots

class Counter:
    count = 0
    def in_words(self): return f"pressed {self.count} times"
    def figure(self):
        with plots.styled(1, (2, 2)) as (figure, (ax,)):
            ax.plot([self.count, 1])
        return figure

counter = Counter()

def pressed(shown, update):
    counter.count += 1
    update()
"""
    show = """
from mpo_tutorial.course.widgets import _following
shown, update = _following([], counter)
button = ipywidgets.Button(description="again")
button.on_click(lambda _: pressed(shown, update))
ipywidgets.VBox([button, shown])
"""
    rank = "import numpy as np, mpo_tutorial as mt\nmt.widgets.rank_explorer(np.eye(3))"
    widget = {"tags": ["widget"]}
    cells = [
        new_code_cell(button),
        new_code_cell(show, metadata=widget),
        new_code_cell("print(counter.count)"),
        new_code_cell(rank, metadata=widget),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "chapter.ipynb")
    with warm.kernels():
        _, pressed, told, ranked = make_book.run_chapter(tmp_path / "chapter.ipynb", tmp_path / "images").cells
    assert told.outputs[0].text == "0\n"
    assert (pressed.source, ranked.source) == (show, rank)
    page = make_book.page_of(nbformat.read(tmp_path / "chapter.ipynb", as_version=4), "99_x.ipynb", None)
    assert '"outputs": []' in page  # without frames the code stands alone
    for cell, options in ((pressed, [*"0123456"]), (ranked, [*"123"])):
        (output,) = cell.outputs
        tree = json.loads(re.search(r"<script[^>]*>(.*?)</script>", output.data["text/html"], re.DOTALL)[1])
        assert tree["options"] == options
        assert all((tmp_path / "images" / leaf["image"]).exists() for leaf in leaves(tree))
    tree = json.loads(re.search(r"<script[^>]*>(.*?)</script>", pressed.outputs[0].data["text/html"], re.DOTALL)[1])
    assert [leaf["words"] for leaf in tree["below"]] == [f"pressed {k} times" for k in range(7)]


def opened(chromium, folder: Path, *boxes: str):
    """A page of the book with some widgets and nothing else, from files."""
    (folder / "notebooks").mkdir(exist_ok=True)
    script = "\n".join((ROOT / "docs/book" / name).read_text() for name in ("chain.js", "widgets.js"))
    page = f"<!doctype html><meta charset=utf-8><script>{script}</script>{''.join(boxes)}"
    (folder / "notebooks/page.html").write_text(page, encoding="utf-8")
    found = chromium.new_page(viewport={"width": 720, "height": 900})
    found.goto((folder / "notebooks/page.html").as_uri())
    return found


def test_frames_are_moved_by_the_keyboard_and_their_words_are_read_out(chromium, tmp_path):
    explorer = RankExplorer(matrix(6, 8))
    tree = frames.tree_of(widgets.rank_explorer(matrix(6, 8), rank=2), tmp_path / frames.FOLDER)
    page = opened(chromium, tmp_path, frames.html_of(tree))
    words, slider, picture = page.locator("p"), page.get_by_label("rank"), page.locator("img")
    expect(words).to_have_attribute("aria-live", "polite")
    for key, rank in (("ArrowRight", 3), ("End", 6), ("Home", 1)):
        slider.press(key)
        expect(words).to_have_text(explorer.in_words(rank))
        expect(slider).to_have_attribute("aria-valuetext", str(rank))
        expect(page.locator("output")).to_have_text(str(rank))
        expect(picture).to_have_attribute("src", f"../frames/{tree['below'][rank - 1]['image']}")
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 800


def test_the_lower_control_follows_the_upper_one(chromium, tmp_path):
    def leaf(words: str) -> dict:
        return {"words": words, "image": "none.webp"}

    def steps(name: str, n: int) -> dict:
        labels = [str(k) for k in range(n)]
        below = [leaf(f"{name} {k} </script>") for k in range(n)]
        return {"control": "step", "kind": "range", "options": labels, "start": 1, "below": below}

    below = [steps("long", 5), steps("short", 2)]
    tree = {"control": "way", "kind": "select", "options": ["long", "short"], "start": 0, "below": below}
    page = opened(chromium, tmp_path, frames.html_of(tree))
    words = page.locator("p")
    expect(words).to_have_text("long 1 </script>")
    page.get_by_label("step").press("End")
    expect(words).to_have_text("long 4 </script>")
    page.get_by_label("way").select_option("short")
    expect(words).to_have_text("short 1 </script>")
    page.get_by_label("step").press("Home")
    expect(words).to_have_text("short 0 </script>")
    page.get_by_label("way").select_option("long")
    expect(words).to_have_text("long 0 </script>")


def test_without_a_script_the_first_frame_stands_there():
    tree = {"control": "k", "kind": "range", "options": ["a", "b"], "start": 1}
    tree["below"] = [{"words": "one", "image": "1.webp"}, {"words": "2 < 3", "image": "2.webp"}]
    html = frames.html_of(tree)
    assert '<p aria-live="polite">2 &lt; 3</p>' in html
    assert 'src="../frames/2.webp"' in html


@pytest.mark.parametrize("shape", [SHAPE, Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))], ids=str)
def test_a_chain_in_the_page_counts_as_the_library_does(chromium, tmp_path, shape):
    explorer = BondExplorer(torch.tensor(matrix(shape.in_size, shape.out_size)), shape)
    page = opened(chromium, tmp_path, frames.bonds_of(explorer))
    generator = np.random.default_rng(1)
    tried = [explorer.full_bonds, *explorer.presets().values()]
    tried += [tuple(int(generator.integers(1, full + 1)) for full in explorer.full_bonds) for _ in range(12)]
    script = """bonds => {
        const chain = new Chain(dataOf(document.querySelector("div.bonds")));
        const usable = chain.usable(bonds);
        return [usable, chain.sizes(bonds), chain.bound(bonds), chain.entropies(usable), chain.words(bonds)];
    }"""
    for bonds in tried:
        usable, sizes, bound, entropies, words = page.evaluate(script, [*bonds])
        mpo = explorer.cut(bonds)
        assert tuple(usable) == mpo.bonds
        assert sizes == [core.numel() for core in mpo.cores]
        assert bound == pytest.approx(explorer.spectra.bound(bonds, relative=True), abs=1e-5)
        said = explorer.in_words(*bonds)
        said = re.sub(r"Error [\d.]+ % of the norm, bound ([\d.]+) %", r"Error at most \1 % of the norm", said)
        share = r"\(([\d.]+) %\)"  # a half is rounded up here, and to the even number there
        assert abs(float(re.search(share, words)[1]) - float(re.search(share, said)[1])) <= 1
        assert re.sub(share, "", words) == re.sub(share, "", said)
        assert len(entropies) == len(bonds)


def test_a_chains_sliders_and_buttons_move_its_words_and_its_picture(chromium, tmp_path):
    explorer = BondExplorer(torch.tensor(matrix(24, 24)), SHAPE)
    page = opened(chromium, tmp_path, frames.bonds_of(explorer))
    words, first = page.locator("p"), page.get_by_label("bond 1")
    before = page.locator("svg").inner_html()
    first.press("Home")
    expect(words).to_contain_text("Bonds 1, 6 (asked 1, 16; the neighbours cannot use more): 138 numbers")
    assert page.locator("svg").inner_html() != before
    page.get_by_role("button", name="half").click()
    half = explorer.presets()["half"]
    expect(words).to_contain_text(f"Bonds {', '.join(map(str, half))}: ")
    expect(first).to_have_value(str(half[0] - 1))
    page.get_by_role("button", name="reset").click()
    expect(words).to_contain_text("Error at most 0.0 % of the norm")
    texts = page.locator("svg text").all_text_contents()
    assert {unescape(text) for text in texts} >= {"6", "16", "2", "3", "4"}
