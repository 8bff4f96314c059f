"""Chromium without a window, for the tests that look at pages."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--no-first-run"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium. Without one a test is skipped, and fails where CI runs it."""
    path = shutil.which("chromium")
    if path is None:
        advice = "Chromium is missing; install your system's package, on Debian: apt-get install chromium"
        if "MPO_TUTORIAL_CI" in os.environ:
            pytest.fail(advice)
        pytest.skip(advice)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=path, args=OPTIONS) as browser:
        yield browser
