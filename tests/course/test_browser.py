"""The chapters as readers meet them: JupyterLab in a real browser, run as far as their last widget, one of them to its end, and
their sliders moved by keyboard.
"""

import json
import re
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import headless
import nbformat
import pytest
from chapters import SMALL, shrunk
from playwright.sync_api import Page, expect

ROOT = Path(__file__).parents[2]
SCREENSHOTS = ROOT / "test-output"
PATIENCE = 1000 * headless.PATIENCE  # milliseconds


TO_ITS_END = "01_svd"


@dataclass(frozen=True)
class Slider:
    """One to move in a chapter: its label, and regular expressions of what the words say anywhere and at its two ends."""

    label: str
    words: str
    least: str
    most: str
    first_key: str = "ArrowLeft"  # one that moves it from where it starts, and not to its least end


CHAPTERS = {
    "00_start_here": Slider(
        label="bond",
        words=r"Bonds of all matrices at most \d+: [\d.]+ M central",
        least="Bonds of all matrices at most 16: 0.17 M central",
        most="Bonds of all matrices at most 192: 10.62 M central",
    ),
    "01_svd": Slider(
        label="rank",
        words=r"Rank \d+ of 384: [\d,]+ numbers",
        least="Rank 1 of 384: 768 numbers instead of 147,456",
        most="Rank 384 of 384: 294,912 numbers instead of 147,456",
    ),
    "03_matrix_product_operators": Slider(
        label="bond 2",
        words=r"Bonds [^:]*: [\d,]+ numbers",
        least="Bonds 6, 1, 16, 6 .* 1,960 numbers instead of 147,456",
        most="Bonds 6, 96, 96, 6: 165,960 numbers instead of 147,456",
    ),
    "06_compressing_bert": Slider(
        label="ratio",
        words=r"Cut in all, \d+ % of its parameters left",
        least=r"Cut in all, 20 % of its parameters left. plain: error [\d.]+ after the first layer",
        most=r"Cut in all, 80 % of its parameters left. plain: error [\d.]+ after the first layer",
        first_key="ArrowRight",
    ),
    "07_lightweight_fine_tuning": Slider(
        label="rate",
        words=r"centred at the rate [\de.-]+: [\d.]+ % right",
        least=r"centred at the rate 0.0001: [\d.]+ % right .* Its best rate is 0.0004",
        most=r"centred at the rate 0.0016: [\d.]+ % right .* Its best rate is 0.0004",
    ),
    "08_dimension_squeezing": Slider(
        label="step",
        words=r"Step \d+: |Before the first cut: ",
        least=r"Before the first cut: 110.2 % of the numbers are left. Loss",
        most=r"Step 37: value of layer 0 from .*; 25.0 % of the numbers are left. Loss",
    ),
    "11_explorer": Slider(
        label="all bonds",
        words=r"numbers in all chains[\d,]+left of",
        least=r"numbers in all chains[\d,]+left of the dense numbers in all0 %",
        most=r"numbers in all chains11,702,400left of the dense numbers in all110 %",
    ),
}


@pytest.fixture
def jupyterlab(tmp_path) -> Iterator[Callable[[str], str]]:
    """Addresses of notebooks, on a server of its own, which has a copy of them and nobody's settings."""
    course = tmp_path / "course"
    for folder in ("notebooks", "docs"):  # docs holds the badges
        shutil.copytree(ROOT / folder, course / folder, ignore=shutil.ignore_patterns(".*"))
    for name in CHAPTERS:
        notebook = nbformat.read(path := course / "notebooks" / f"{name}.ipynb", as_version=4)
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        first.source = shrunk(first.source, SMALL.get(name, {}))
        if name != TO_ITS_END:
            while "widget" not in notebook.cells[-1].metadata.get("tags", []):
                notebook.cells.pop()
        nbformat.write(notebook, path)
    no_news = tmp_path / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    no_news.parent.mkdir(parents=True)
    no_news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))
    token = secrets.token_hex()
    environment = {
        "JUPYTER_TOKEN": token,
        "IPYTHONDIR": tmp_path / "ipython",
        "JUPYTER_CONFIG_DIR": tmp_path / "config",
        "JUPYTER_DATA_DIR": tmp_path / "data",
        "JUPYTER_RUNTIME_DIR": tmp_path / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": tmp_path / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": tmp_path / "workspaces",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.port=0", f"--ServerApp.root_dir={course}"]

    def address(said: str) -> str | None:
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        return found and found[0]

    with headless.served(command, tmp_path, environment, address) as found:
        yield lambda name: f"{found}/lab/tree/notebooks/{name}?token={token}"


@pytest.fixture
def page(request, chromium) -> Iterator[Page]:
    """A page in headless Chromium, whose last sight is kept as a screenshot."""
    page = chromium.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(PATIENCE)
    dialog = page.locator(".jp-Dialog", has_text="Select Kernel")  # some settings make JupyterLab ask
    page.add_locator_handler(dialog, lambda: dialog.locator(".jp-mod-accept").click())
    expect.set_options(timeout=PATIENCE)
    yield page
    page.screenshot(path=SCREENSHOTS / f"{request.node.callspec.id}-last.png")
    page.close()


def run_all_cells(page: Page, n_cells: int) -> None:
    # The notebook's own indicator says idle before there is a kernel; the status bar does not.
    expect(page.locator("#jp-main-statusbar")).to_contain_text("(ipykernel) | Idle")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("[data-command='runmenu:run-all']").click()
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
    errors = page.locator(
        ".jp-OutputArea-output:is([data-mime-type$='jupyter.error'], [data-mime-type$='jupyter.stderr'])"
    )
    prompts.last.filter(has_text=re.compile(r"\d")).or_(errors).first.wait_for(state="attached")
    assert errors.all_text_contents() == []
    expect(prompts).to_have_text([f"[{k}]:" for k in range(1, n_cells + 1)])


# 06 and 07 take long until their sliders come, which are of the same kind as that of 08. The board of 11 is moved in
# test_explorer_page, and the sliders of 03, which are of the same kind as those of 00 and 01, in test_widgets.
@pytest.mark.parametrize(
    "chapter",
    [pytest.param(name, marks=[pytest.mark.full] * name.startswith(("03", "06", "07", "11"))) for name in CHAPTERS],
)
def test_a_chapter_runs_and_its_slider_moves_words_and_picture(chapter, jupyterlab, page, tmp_path, record_property):
    record_property("screenshots", str(SCREENSHOTS))  # text, because it travels between processes
    complaints = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(jupyterlab(f"{chapter}.ipynb"))
    opened = nbformat.read(tmp_path / "course" / "notebooks" / f"{chapter}.ipynb", as_version=4)
    run_all_cells(page, sum(cell.cell_type == "code" for cell in opened.cells))

    slider = CHAPTERS[chapter]
    control = page.locator(".widget-slider", has=page.get_by_text(slider.label, exact=True))
    cell = page.locator(".jp-CodeCell", has=control)
    picture = cell.locator("img")
    for key, wanted in ((slider.first_key, slider.words), ("Home", slider.least), ("End", slider.most)):
        words, image = re.search(slider.words, cell.text_content())[0], picture.get_attribute("src")
        control.locator(".noUi-handle").press(key)
        expect(cell).not_to_contain_text(words)
        expect(cell).to_contain_text(re.compile(wanted))
        expect(picture).not_to_have_attribute("src", image)
        page.screenshot(path=SCREENSHOTS / f"{chapter}-{key}.png")
    assert complaints == []
