"""The board as `make explorer` shows it: by Voila, in a browser, without cells."""

import re
import socket
import sys
import urllib.request
from collections.abc import Iterator

import headless
import nbformat
import pytest
from playwright.sync_api import expect

import make_explorer


@pytest.fixture
def address(tmp_path) -> Iterator[str]:
    chapter = nbformat.read(make_explorer.CHAPTER, as_version=4)
    nbformat.write(make_explorer.board_alone(chapter), tmp_path / "explorer.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def answering(_said: str) -> str | None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/static/", timeout=5)
        except urllib.error.HTTPError:
            return f"http://127.0.0.1:{port}/"
        except OSError:
            return None

    settings = {f"JUPYTER_{name}_DIR": tmp_path / name for name in ("CONFIG", "DATA", "RUNTIME")}
    command = [sys.executable, "-m", "voila", "explorer.ipynb", "--no-browser", f"--port={port}"]
    with headless.served(command, tmp_path, settings, answering) as found:
        yield found


def test_the_board_is_a_page_whose_address_restores_a_setting(address, chromium):
    query = "task=rotten_tomatoes&method=light&matrices=attention&cut=fitted&caps=6%2C48%2C48%2C6&version=1"
    page, complaints = chromium.new_page(viewport={"width": 1100, "height": 1200}), []
    page.set_default_timeout(1000 * headless.PATIENCE)
    expect.set_options(timeout=1000 * headless.PATIENCE)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"{address}?{query}")
    table = page.locator("table")
    expect(table).to_contain_text("fitted, in attention, bonds 6, 48, 48, 6 at most")
    assert page.locator(".jp-InputArea-editor, .highlight").count() == 0  # no cell, no code
    numbers = re.search(r"numbers in all chains\s*([\d,]+)", table.text_content())[1]
    picture = page.locator("img").get_attribute("src")
    slider = page.locator(".widget-slider", has=page.get_by_text("bond 2", exact=True))
    slider.locator(".noUi-handle").press("ArrowLeft")
    expect(table).to_contain_text("bonds 6, 47, 48, 6 at most")
    expect(page.locator("img")).not_to_have_attribute("src", picture)
    assert int(re.search(r"numbers in all chains\s*([\d,]+)", table.text_content())[1].replace(",", "")) < int(
        numbers.replace(",", "")
    )
    assert complaints == []
