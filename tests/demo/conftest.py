from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

from tests.demo.brokers import EACH, KINDS, Broker

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,800",
)


@pytest.fixture(params=EACH)
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[Broker]:
    """One of each kind."""
    async with KINDS[request.param]() as opened:
        yield opened


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chrome]:
    """A fresh Chromium. Its calls block: make them in a thread while a server runs in the test's loop."""
    with open_chromium(tmp_path / "profile") as driver:
        yield driver


@contextmanager
def open_chromium(profile: Path) -> Iterator[Chrome]:
    """The same, for who is no test."""
    options = ChromeOptions()
    options.binary_location = program("TRIOROOM_CHROMIUM", "chromium", "chromium-browser", "google-chrome")
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # Given the driver's path, selenium looks for nothing and downloads nothing.
    service = Service(executable_path=program("TRIOROOM_CHROMEDRIVER", "chromedriver"))
    driver = Chrome(options=options, service=service)
    try:
        driver.set_page_load_timeout(60)
        driver.set_script_timeout(60)
        yield driver
    finally:
        driver.quit()


def program(variable: str, *names: str) -> str:
    """The path of a program, from the environment or by its name; without it the test is skipped."""
    for candidate in (os.environ.get(variable), *names):
        if candidate and (path := shutil.which(candidate)):
            return path
    return missing(f"{' or '.join(names)} is not on PATH; install it or set {variable}")


def missing(reason: str) -> NoReturn:
    """In CI a browser test that does not run is a failure."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
