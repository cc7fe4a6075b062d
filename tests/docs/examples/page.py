"""Pages of examples in a real Chromium, whose calls block: they are made in a thread, beside the server."""

from __future__ import annotations

from collections.abc import Callable

import trio
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

PATIENCE = 30  # seconds for a thing to show up on a page


class Page:
    """What one window shows."""

    def __init__(self, driver: Chrome) -> None:
        self._driver = driver

    async def do(self, act: Callable[[Chrome], object]) -> None:
        """Do something with the window."""
        await trio.to_thread.run_sync(act, self._driver)

    async def open(self, url: str) -> None:
        """Load a page, and see it be in its room."""
        await self.do(lambda driver: driver.get(url))
        await self.wait_for("document.getElementById('state').textContent === 'open'")

    async def wait_for(self, condition: str) -> None:
        """Until an expression in JavaScript is true."""

        def holds(driver: Chrome) -> bool:
            return bool(driver.execute_script(f"return {condition}"))

        waiting = WebDriverWait(self._driver, PATIENCE, poll_frequency=0.05)
        await self.do(lambda _: waiting.until(holds, message=condition))

    async def wait_text(self, id: str, text: str) -> None:
        """Until ``text`` stands in the element with this id."""
        await self.wait_for(f"document.getElementById({id!r}).textContent.includes({text!r})")

    async def check(self) -> None:
        """It has complained of nothing, and fits the window of a phone."""
        await self.do(check)


def check(driver: Chrome) -> None:
    phone = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    assert driver.execute_script("return document.documentElement.scrollWidth") == 400
    assert driver.get_log("browser") == []  # type: ignore[no-untyped-call]
