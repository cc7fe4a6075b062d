"""The demo's page in one window of a real Chromium, as tests act on it from a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVarTuple

import trio
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

Args = TypeVarTuple("Args")
WAIT = 60  # seconds for one thing to show up on the page; reconnecting takes up to 5 of them


async def in_browser(fn: Callable[[*Args], object], *args: *Args) -> None:
    await trio.to_thread.run_sync(fn, *args)


class Page:
    """The chat in one window of ``driver``."""

    def __init__(self, driver: Chrome, port: int, room: str, name: str | None = None) -> None:
        self.driver = driver
        self.window = driver.current_window_handle
        driver.get(f"http://127.0.0.1:{port}/#{room}")
        self.wait_for(lambda: self.state == "connected")
        if name is not None:
            self.fill("name", name + Keys.TAB)

    def fill(self, id: str, text: str) -> None:
        self.driver.switch_to.window(self.window)
        box = self.driver.find_element(By.ID, id)
        box.clear()
        box.send_keys(text)

    def say(self, text: str) -> None:
        self.fill("text", text + Keys.ENTER)

    def text_of(self, id: str) -> str:
        self.driver.switch_to.window(self.window)
        return self.driver.find_element(By.ID, id).text

    @property
    def state(self) -> str | None:
        return self.driver.find_element(By.ID, "state").get_attribute("data-state")

    @property
    def draft(self) -> str | None:
        return self.driver.find_element(By.ID, "text").get_attribute("value")

    @property
    def said(self) -> list[tuple[str, str]]:
        """Names and texts in the log, without the page's own notes; read in one go, for lines come and go."""
        self.driver.switch_to.window(self.window)
        lines = self.driver.execute_script(
            "return [...document.querySelectorAll('#messages li:not(.system)')].map("
            "(line) => ['.name', '.text'].map((part) => line.querySelector(part).textContent))"
        )
        return [(name, text) for name, text in lines]

    @property
    def notes(self) -> str:
        self.driver.switch_to.window(self.window)
        lines = self.driver.execute_script(
            "return [...document.querySelectorAll('#messages .system .text')].map((text) => text.textContent)"
        )
        return "\n".join(lines)

    @property
    def present(self) -> list[str]:
        self.driver.switch_to.window(self.window)
        script = "return [...document.querySelectorAll('#who li')].map((member) => member.textContent)"
        return [str(name) for name in self.driver.execute_script(script)]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        self.driver.switch_to.window(self.window)
        WebDriverWait(self.driver, WAIT, poll_frequency=0.1).until(lambda _: condition())

    def wait_count(self, count: str) -> None:
        self.wait_for(lambda: self.text_of("count") == count)


def open_pair(driver: Chrome, port: int, room: str) -> tuple[Page, Page]:
    first = Page(driver, port, room, "Ada")
    driver.switch_to.new_window("window")
    return first, Page(driver, port, room, "Grace")
