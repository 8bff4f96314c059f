"""Chromium without a window, for the tests that look at pages, and servers that give them some."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from playwright.sync_api import Browser, sync_playwright

PATIENCE = 180  # seconds, for whatever is waited for
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


@contextmanager
def served(
    command: Sequence[str], folder: Path, settings: dict[str, str | Path], address: Callable[[str], str | None]
) -> Iterator[str]:
    """A server, started in a folder and ended afterwards.

    `address` gets what it has said so far, and gives its address as soon as it answers there.
    """
    log = folder / "server.log"
    with open(log, "w") as file:
        environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
        server = psutil.Popen(command, cwd=folder, env=environment, stdout=file, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + PATIENCE
    try:
        while not (found := address(log.read_text())):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield found
    finally:
        processes = [server, *server.children(recursive=True)] if server.is_running() else []
        for process in processes:
            process.terminate()
        for process in psutil.wait_procs(processes, timeout=60)[1]:
            process.kill()
