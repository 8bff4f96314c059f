"""The page that needs no installation, in a browser, its numbers beside the library's."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Page, expect

import make_page
import mpo_tutorial as mt

TRIED = 200


@pytest.fixture(scope="module")
def shown() -> list[make_page.Shown]:
    return make_page.matrices()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(make_page.page(), encoding="utf-8")
    return path


@pytest.fixture
def page(chromium, path) -> Page:
    page, errors = chromium.new_page(viewport={"width": 1100, "height": 900}), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: errors.append(request.url) if not request.url.startswith("file:") else None)
    page.goto(path.as_uri())
    yield page
    assert errors == []
    page.close()


def sliced(one: make_page.Shown, bonds: tuple[int, ...]) -> torch.Tensor:
    """The matrix of the first values of every bond, a bond that its neighbours force left as it is."""
    kept = [1, *one.mpo.shape.to_cut(bonds), 1]
    cores = [
        core.double()[:left, ..., :right] for core, left, right in zip(one.mpo.cores, kept, kept[1:], strict=False)
    ]
    ends = [core.shape[-1] for core in cores[:-1]]
    assert ends == [min(bond, stored) for bond, stored in zip(kept[1:-1], one.mpo.bonds, strict=True)]
    return mt.MPO(tuple(cores)).to_matrix()


def random_bonds(n: int) -> list[tuple[int, ...]]:
    generator = np.random.default_rng(0)
    return [tuple(int(generator.integers(1, full + 1)) for full in make_page.SHAPE.full_bonds) for _ in range(n)]


def test_the_page_is_light_and_names_no_other_place(path):
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < make_page.HEAVIEST
    assert not re.search(r"(src|href)=|https?://|@import|fetch\(", text)
    assert not re.search(r"/\* (style|data|chain|page) \*/", text)


def test_its_numbers_are_the_librarys(page, shown):
    script = """([index, bonds]) => {
        const { rebuilt, ...numbers } = numbersOf(index, bonds);
        return numbers;
    }"""
    for k, bonds in enumerate(random_bonds(TRIED)):
        one = shown[k % len(shown)]
        found = page.evaluate(script, [k % len(shown), list(bonds)])
        matrix = one.mpo.to_matrix().double()
        usable = one.spectra.shape.usable(bonds)
        weights = [
            values[:bond] ** 2 / (values[:bond] ** 2).sum()
            for values, bond in zip(one.spectra.values, usable, strict=True)
        ]
        assert found["error"] == pytest.approx(mt.relative_error(sliced(one, bonds), matrix), abs=1e-4)
        assert found["bound"] == pytest.approx(one.spectra.bound(bonds, relative=True), abs=1e-4)
        assert found["sizes"] == list(one.spectra.shape.n_params_each(usable))
        assert found["share"] == pytest.approx(sum(found["sizes"]) / matrix.numel(), abs=1e-6)
        assert found["entropies"] == pytest.approx([mt.entropy(np.sqrt(weight)) for weight in weights], abs=1e-4)


def test_the_matrix_that_it_rebuilds_is_the_one_of_its_cores(page, shown):
    for index, bonds in ((0, (6, 96, 96, 6)), (0, (3, 40, 50, 6)), (2, (2, 96, 10, 5)), (3, (3, 3, 3, 3))):
        rebuilt = np.array(page.evaluate("([k, bonds]) => [...chains[k].rebuilt(bonds)]", [index, list(bonds)]))
        wanted = sliced(shown[index], bonds).numpy()
        assert np.abs(rebuilt.reshape(wanted.shape) - wanted).max() < 1e-5 * np.abs(wanted).max()


def test_the_matrices_are_what_their_names_say(shown):
    bert = mt.load("minilm", pooling="pooler")[0].bert
    assert torch.allclose(shown[0].mpo.to_matrix(), bert.encoder.layer[0].attention.self.query.weight.T, atol=1e-5)
    assert torch.allclose(shown[2].mpo.to_matrix(), bert.pooler.dense.weight.T, atol=1e-5)
    local = shown[3]
    assert local.spectra.bound((3, 3, 3, 3), relative=True) < 1e-6 < local.spectra.bound((3, 2, 3, 3), relative=True)


def test_the_tour_has_six_steps_and_sets_the_page(page):
    back, following, title = (
        page.get_by_role("button", name="Back"),
        page.get_by_role("button", name="Next"),
        page.locator("#tour-title"),
    )
    expect(back).to_be_disabled()
    seen = []
    for k in range(6):
        expect(title).to_contain_text(f"Step {k + 1} of 6: ")
        seen.append((page.locator("#tour-text").inner_text(), page.locator("#words").inner_text()))
        if k < 5:
            following.press("Enter")
    expect(following).to_be_disabled()
    assert len({text for text, _ in seen}) == 6
    assert "Bonds 3, 3, 3, 3" in seen[3][1]
    assert "off by 0.0 % of the norm" in seen[3][1]
    following.press("Enter")
    expect(following).to_be_focused()
    expect(title).to_contain_text("Step 6 of 6")
    back.press("Enter")
    expect(title).to_contain_text("Step 5 of 6")
    expect(page.locator("#matrix")).to_have_value("2")


def test_a_bond_is_moved_by_the_keyboard_and_words_and_pictures_follow(page):
    words, slider = page.locator("#words"), page.get_by_label("bond 2")
    expect(words).to_contain_text("off by 0.0 % of the norm. Bonds 6, 96, 96, 6")
    before = page.locator("#lost").evaluate("canvas => canvas.toDataURL()")
    slider.press("Home")
    expect(words).to_contain_text("Bonds 6, 1, 16, 6 (asked 6, 1, 96, 6; the neighbours cannot use more)")
    assert page.locator("#lost").evaluate("canvas => canvas.toDataURL()") != before
    slider.press("ArrowRight")
    expect(words).to_contain_text("Bonds 6, 2, 32, 6")
    page.get_by_role("button", name="nothing cut").click()
    expect(slider).to_have_value("96")
    expect(words).to_contain_text("off by 0.0 %")


def test_what_has_changed_is_said_once_and_when_it_is_over(page):
    """Many keys are one change, and the news of a step or of a matrix come before how the chain stands."""
    page.evaluate("""() => {
        window.said = [];
        const status = document.getElementById("status");
        new MutationObserver(() => said.push(status.textContent)).observe(status, { childList: true });
    }""")
    status, slider = page.locator("#status"), page.get_by_label("bond 2")
    expect(status).to_have_text("Off by 0.0 % of the norm, with 113 % of the numbers.")
    page.evaluate("said.length = 0")
    for _ in range(10):
        slider.press("ArrowLeft")
    page.get_by_role("button", name="halved").press("Enter")
    expect(status).to_have_text(re.compile(r"^Off by \d\d\.\d % of the norm, with \d\d % of the numbers\.$"))
    assert len(page.evaluate("said")) <= 2  # two, if a slow machine takes half a second for a key
    page.get_by_role("button", name="Next").press("Enter")
    expect(status).to_have_text(
        re.compile(r"^Step 2 of 6: cut one bond\. The second bond .* Off by 57\.\d % of the norm")
    )
    page.get_by_label("Matrix", exact=True).select_option("pooler")
    expect(status).to_have_text(re.compile(r"^A matrix that this model has and never uses.* Off by 0\.0 % of the norm"))
    assert page.locator("[aria-live=polite]").count() == 0


def test_a_slider_says_how_much_of_its_bond_can_be_used(page):
    page.get_by_label("bond 2").press("Home")
    expect(page.get_by_label("bond 3")).to_have_attribute("aria-valuetext", "96 (usable 16)")
    expect(page.get_by_label("bond 2")).to_have_attribute("aria-valuetext", "1")


def test_the_curves_stand_there_as_a_table(page):
    rows = mt.cut_results.summarise(mt.shipped_points("cuts"))["summary"]
    page.get_by_text("The curves as a table").click()
    row = page.get_by_role("row", name=re.compile("^20 %"))
    wanted = [
        row["auc"]
        for way in make_page.WAYS
        for row in rows
        if (row["way"], row["part"], row["ratio"]) == (way, "all", 0.2)
    ]
    shown = [
        f"{100 * auc['mean']:.1f} % [{', '.join(f'{100 * end:.1f}' for end in auc['interval'])}]" for auc in wanted
    ]
    assert row.get_by_role("cell").all_inner_texts() == ["20 %", *shown]


def test_sliders_and_pictures_are_on_one_screen(chromium, path):
    page = chromium.new_page(viewport={"width": 1000, "height": 800})
    page.goto(path.as_uri())
    for _ in range(6):
        edges = [page.locator(name).bounding_box() for name in ("#tour-next", "#chain", "#bonds", "#lost")]
        assert max(edge["y"] + edge["height"] for edge in edges) <= 800
        page.get_by_role("button", name="Next").press("Enter")
    page.close()


def test_the_record_of_the_whole_model_stands_beside_it(page):
    rows = mt.cut_results.summarise(mt.shipped_points("cuts"))["summary"]
    told = {
        row["way"]: f"{100 * row['auc']['mean']:.1f} %" for row in rows if row["part"] == "all" and row["ratio"] == 0.4
    }
    page.evaluate("setBonds([6, 64, 60, 6])")
    words = page.locator("#model-words")
    expect(words).to_contain_text(
        f"The nearest measurement, all matrices at 40 %: plain cuts {told['plain']}, fitted cuts {told['fitted']}, "
        f"two factors {told['two factors']}."
    )
    place = float(page.locator("#here").get_attribute("x1"))
    page.evaluate("setBonds([6, 30, 30, 6])")
    expect(words).to_contain_text("at 20 %")
    assert float(page.locator("#here").get_attribute("x1")) < place


def test_a_phone_need_not_scroll_sideways(chromium, path):
    page = chromium.new_page(viewport={"width": 390, "height": 800})
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()
