"""The dashboard's modules in Node, and all of it in a real Chromium."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

import trioroom
from tests.web.conftest import node, run

__all__ = ["node"]

HERE = Path(__file__).parent
SUITES = ("format", "model", "poller", "series")
KEY = "correct-horse-battery"
WAIT = 60  # seconds for one thing to show up
MARKUP = '<img src=x onerror="document.title=1">'


@pytest.mark.parametrize("name", SUITES)
def test_modules_pass_their_tests(node: str, name: str) -> None:
    run(node, "--test", f"{name}.test.mjs", cwd=HERE)


def test_each_file_of_tests_is_run() -> None:
    assert sorted(path.name.partition(".")[0] for path in HERE.glob("*.test.mjs")) == list(SUITES)


# -- in a browser ------------------------------------------------------------------------------------


class Echo(trioroom.Room):
    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        await self.publish(message.data)


class Page:
    """The dashboard as a thread of the test sees it."""

    def __init__(self, driver: Chrome, port: int) -> None:
        self.driver = driver
        driver.get(f"http://operator:{KEY}@127.0.0.1:{port}/_/")
        self.wait_for(lambda: self.state == "live")

    @property
    def state(self) -> str | None:
        return self.driver.find_element(By.ID, "state").get_attribute("data-state")

    def tile(self, label: str) -> float:
        """Its number."""
        script = """
            const tiles = [...document.querySelectorAll('.tile')];
            const tile = tiles.find((tile) => tile.querySelector('.label').textContent === arguments[0]);
            return tile.querySelector('.number').textContent;
        """
        shown = str(self.driver.execute_script(script, label)).split("\u00a0")[0].replace(",", "")
        if not shown[0].isdigit():
            return 0.0  # not known yet
        return float(shown.removesuffix("k")) * (1000 if shown.endswith("k") else 1)

    def rows(self, table: str) -> list[list[str]]:
        script = """
            const rows = [...document.querySelectorAll(`#${arguments[0]} tbody tr`)];
            return rows.map((row) => [...row.cells].map((cell) => cell.textContent));
        """
        return [[str(cell) for cell in row] for row in self.driver.execute_script(script, table)]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        WebDriverWait(self.driver, WAIT, poll_frequency=0.1).until(lambda _: condition())

    def assert_nothing_was_complained_of(self) -> None:
        assert self.driver.get_log("browser") == []  # type: ignore[no-untyped-call]  # not typed by selenium


@asynccontextmanager
async def open_busy_server(*rooms: str) -> AsyncIterator[trioroom.Server]:
    """Each room has two members and a talk of fifty messages a second."""
    app = trioroom.App()
    app.route("chat/{name}", Echo)

    async def member(name: str, talks: bool) -> None:
        async with trioroom.connect(f"ws://127.0.0.1:{server.port}/") as client, client.join(name) as room:
            while True:
                if talks:
                    await room.publish("hello")
                    await trio.sleep(0.02)
                else:
                    await anext(room)

    async with trioroom.open_server(app, port=0, api_key=KEY) as server, trio.open_nursery() as nursery:
        for name in rooms:
            for talks in (True, False):
                nursery.start_soon(member, name, talks)
        yield server
        nursery.cancel_scope.cancel()


async def in_browser(fn: Callable[[], None]) -> None:
    with trio.fail_after(90):
        await trio.to_thread.run_sync(fn)


@pytest.mark.browser
async def test_figures_rise_under_load(chromium: Chrome) -> None:
    def act() -> None:
        page = Page(chromium, server.port)
        page.wait_for(lambda: page.tile("Deliveries") > 20 and page.tile("Messages in") > 10)
        page.wait_for(lambda: page.tile("Memory") > 1)
        assert page.tile("Connections") == page.tile("Members") == 4
        assert page.tile("Active rooms") == 2
        assert [row[:2] for row in page.rows("rooms")] == [["chat/a", "2"], ["chat/b", "2"]]
        assert [row[1] for row in page.rows("nodes")] == ["up"]
        assert page.driver.title == "4 connections · trioroom"
        paths = page.driver.execute_script(
            "return [...document.querySelectorAll('.line')].map((path) => path.getAttribute('d'))"
        )
        assert all(path.startswith("M") for path in paths), "each figure has a line"
        page.assert_nothing_was_complained_of()

    async with open_busy_server("chat/a", "chat/b") as server:
        await in_browser(act)


@pytest.mark.browser
async def test_room_called_like_markup_is_only_text(chromium: Chrome) -> None:
    def act() -> None:
        page = Page(chromium, server.port)
        page.wait_for(lambda: page.rows("rooms")[:1] != [])
        assert page.rows("rooms")[0][0] == f"chat/{MARKUP}"
        assert page.driver.execute_script("return document.querySelectorAll('main img').length") == 0
        assert page.driver.title != "1"
        page.assert_nothing_was_complained_of()

    async with open_busy_server(f"chat/{MARKUP}") as server:
        await in_browser(act)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_page_fits_a_phone_and_can_be_read(chromium: Chrome, scheme: str) -> None:
    def act() -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        page = Page(chromium, server.port)
        page.wait_for(lambda: page.rows("rooms")[:1] != [])
        assert page.driver.execute_script("return document.documentElement.scrollWidth") == 400
        lowest = page.driver.execute_script((HERE / "contrast.js").read_text("utf-8"))
        assert lowest["contrast"] >= 4.5, lowest  # WCAG 2.2, 1.4.3

    async with open_busy_server("chat/a") as server:
        await in_browser(act)


@pytest.mark.browser
async def test_page_says_that_its_server_is_gone_and_goes_on_when_it_is_back(chromium: Chrome) -> None:
    pages: list[Page] = []

    def begin() -> None:
        pages.append(Page(chromium, server.port))

    def notice() -> None:
        pages[0].wait_for(lambda: pages[0].state == "failing")
        assert "next try in" in chromium.find_element(By.ID, "state").text

    def come_back() -> None:
        pages[0].wait_for(lambda: pages[0].state == "live")

    async with open_busy_server() as server:
        await in_browser(begin)
    await in_browser(notice)
    async with trioroom.open_server(trioroom.App(), port=server.port, api_key=KEY):
        await in_browser(come_back)


@pytest.mark.browser
async def test_page_of_another_key_stops_asking(chromium: Chrome) -> None:
    pages: list[Page] = []

    def begin() -> None:
        pages.append(Page(chromium, server.port))

    def notice() -> None:
        pages[0].wait_for(lambda: pages[0].state == "locked")

    async with open_busy_server() as server:
        await in_browser(begin)
    async with trioroom.open_server(trioroom.App(), port=server.port):
        await in_browser(notice)


@pytest.mark.browser
async def test_page_that_nobody_looks_at_asks_nothing(chromium: Chrome) -> None:
    def act() -> None:
        page = Page(chromium, server.port)
        first = chromium.current_window_handle
        chromium.switch_to.new_window("tab")
        chromium.switch_to.window(first)
        page.wait_for(lambda: page.state == "live")
        chromium.execute_script("""
            Object.defineProperty(document, "hidden", { value: true, configurable: true });
            document.dispatchEvent(new Event("visibilitychange"));
        """)
        assert page.state == "paused"

    async with open_busy_server() as server:
        await in_browser(act)
