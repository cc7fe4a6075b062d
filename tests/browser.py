"""A real Chromium for tests, and programs that pip cannot bring.

One browser serves all tests of a process, each in a window of its own: to start one takes more processor time than
most tests take in it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

if TYPE_CHECKING:
    from selenium.webdriver import Chrome  # imported where one is opened: most runs open none

SIZE = (1280, 800)
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
    f"--window-size={SIZE[0]},{SIZE[1]}",
)


@contextmanager
def open_chromium(profile: Path) -> Iterator[Chrome]:
    """Its calls block: make them in a thread while a server runs in the test's loop."""
    from selenium.webdriver import Chrome, ChromeOptions
    from selenium.webdriver.chrome.service import Service

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


def renew(driver: Chrome) -> None:
    """One new window, all others closed, and nothing left of what they knew and said.

    What pages store is theirs alone anyway: each server has a port of its own, and so its pages an origin. Cookies
    do not look at ports. What is emulated and what is cut off ends with its window.
    """
    old = driver.window_handles
    driver.switch_to.window(old[-1])
    driver.switch_to.new_window("window")
    new = driver.current_window_handle
    for window in old:
        driver.switch_to.window(window)
        driver.close()
    driver.switch_to.window(new)
    driver.set_window_size(*SIZE)
    driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
    driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    driver.get_log("browser")  # type: ignore[no-untyped-call]  # taken, it is not there any more


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
