"""The page in a real Chromium. What the browser does runs in a thread, beside the server in the test's loop."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from trio_websocket import WebSocketConnection, open_websocket_url

from tests.demo.page import WAIT, Page, in_browser, open_pair
from trioroom import App, open_server
from trioroom.demo.app import PAGE, Chat, app

pytestmark = pytest.mark.browser


async def test_two_pages_see_each_other(chromium: Chrome) -> None:
    def act(port: int) -> None:
        ada, grace = open_pair(chromium, port, "lobby")
        ada.wait_count("2")
        grace.wait_count("2")
        ada.say("hello <b>there</b>")
        said = [("Ada", "hello <b>there</b>")]
        grace.wait_for(lambda: grace.said == said)
        grace.say("hello Ada")
        said.append(("Grace", "hello Ada"))
        ada.wait_for(lambda: ada.said == said)
        assert grace.said == said
        assert chromium.get_log("browser") == []  # type: ignore[no-untyped-call]  # nothing broke its CSP
        chromium.switch_to.window(grace.window)
        chromium.close()
        ada.wait_count("1")

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await in_browser(act, server.port)


async def test_changing_the_room_leaves_the_old_one(chromium: Chrome) -> None:
    def act(port: int) -> None:
        ada, grace = open_pair(chromium, port, "lobby")
        grace.say("in the lobby")
        grace.wait_for(lambda: len(grace.said) == 1)
        grace.fill("room", "kitchen" + Keys.ENTER)
        grace.wait_for(lambda: "kitchen" in grace.notes)
        assert grace.said == []
        assert chromium.current_url.endswith("#kitchen")
        grace.wait_count("1")
        ada.wait_count("1")
        grace.fill("room", "no/such" + Keys.ENTER)
        grace.wait_for(lambda: "no room is called 'chat/no/such'" in grace.notes)
        assert not chromium.find_element(By.CSS_SELECTOR, "#send button").is_enabled()

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await in_browser(act, server.port)


async def test_page_reconnects_and_keeps_what_was_being_written(chromium: Chrome) -> None:
    pages: list[Page] = []

    def begin(port: int) -> None:
        pages.append(Page(chromium, port, "lobby", "Ada"))

    def write_meanwhile() -> None:
        (page,) = pages
        page.wait_for(lambda: page.state == "reconnecting")
        page.say("still here")
        assert page.draft == "still here"

    def come_back() -> None:
        (page,) = pages
        page.wait_count("1")
        assert page.said == []
        assert page.draft == "still here"
        chromium.find_element(By.CSS_SELECTOR, "#send button").click()
        page.wait_for(lambda: page.said == [("Ada", "still here")])
        assert page.draft == ""

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await in_browser(begin, server.port)
        await in_browser(write_meanwhile)
        async with open_server(app, port=server.port):
            await in_browser(come_back)


class OnePlace(Chat):
    max_members = 1


async def test_page_waits_for_a_place_in_a_full_room(chromium: Chrome) -> None:
    pages: list[Page] = []

    def wait(port: int) -> None:
        chromium.get(f"http://127.0.0.1:{port}/#lobby")
        pages.append(Page.__new__(Page))
        pages[0].driver, pages[0].window = chromium, chromium.current_window_handle

    def come_in() -> None:
        pages[0].wait_for(lambda: pages[0].state == "connected")
        assert "Not in room" not in pages[0].notes

    small = App()
    small.route("chat/{name}", OnePlace)
    small.static("/", PAGE)
    with trio.fail_after(60):
        async with open_server(small, port=0) as server:
            async with open_websocket_url(f"ws://127.0.0.1:{server.port}/chat/lobby"):
                await in_browser(wait, server.port)
                await trio.sleep(1)
                assert pages[0].state == "connecting"
            await in_browser(come_in)


async def test_page_lists_who_is_here_under_the_names_they_have_now(chromium: Chrome) -> None:
    def act(port: int) -> None:
        ada, grace = open_pair(chromium, port, "lobby")
        ada.wait_for(lambda: ada.present == ["Ada (you)", "Grace"])
        grace.wait_for(lambda: grace.present == ["Ada", "Grace (you)"])
        grace.fill("name", "Hopper" + Keys.TAB)
        ada.wait_for(lambda: ada.present == ["Ada (you)", "Hopper"])
        ada.driver.refresh()
        ada.wait_for(lambda: ada.present == ["Ada (you)", "Hopper"])
        chromium.switch_to.window(grace.window)
        chromium.close()
        ada.wait_for(lambda: ada.present == ["Ada (you)"])

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await in_browser(act, server.port)


async def message_text(client: WebSocketConnection) -> str:
    """The text of the next message, past the counts."""
    while True:
        data = json.loads(await client.get_message())
        if data.get("kind") == "message":
            return str(data["text"])


async def test_plain_websocket_of_a_page_talks_to_another_plain_client(chromium: Chrome) -> None:
    def open_socket(port: int) -> None:
        chromium.get(f"http://127.0.0.1:{port}/chat.css")  # any page of this origin, but not a chat
        chromium.execute_async_script("""
            const done = arguments[0];
            window.got = [];
            window.socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/chat/x");
            socket.onmessage = (event) => got.push(JSON.parse(event.data));
            socket.onopen = () => { socket.send("from the page"); done(); };
        """)

    def wait_for_answer() -> None:
        script = "return got.filter((data) => data.kind === 'message').map((data) => data.text)"
        heard = WebDriverWait(chromium, WAIT, poll_frequency=0.1)
        heard.until(lambda _: chromium.execute_script(script) == ["from the page", "from the other"])

    with trio.fail_after(60):
        async with (
            open_server(app, port=0) as server,
            open_websocket_url(f"ws://127.0.0.1:{server.port}/chat/x") as client,
        ):
            await in_browser(open_socket, server.port)
            assert await message_text(client) == "from the page"
            await client.send_message("from the other")
            await in_browser(wait_for_answer)


async def test_narrow_page_shows_the_whole_list_of_who_is_here_and_tells_its_name(chromium: Chrome) -> None:
    pages: list[Page] = []

    def act(port: int) -> None:
        narrow = {"width": 320, "height": 640, "deviceScaleFactor": 1, "mobile": True}
        ada, grace = open_pair(chromium, port, "lobby")
        ada.say("hello")
        grace.say("It is a fine day, and this line is longer than a phone is wide.")
        grace.fill("name", "Grace of the very long name in this room" + Keys.TAB)
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", narrow)
        grace.wait_count("2")
        grace.wait_for(lambda: any(name.startswith("Grace of the") for name in grace.present))
        chromium.find_element(By.CSS_SELECTOR, "#members summary").click()
        edges = "const edges = document.getElementById('who').getBoundingClientRect(); return [edges.left, edges.right]"
        left, right = chromium.execute_script(edges)
        assert chromium.find_element(By.TAG_NAME, "h1").accessible_name == "trioroom"
        assert 0 <= left < right <= 320
        assert chromium.execute_script("return document.documentElement.scrollWidth") == 320
        screenshot(chromium, "chat-narrow")
        pages.append(grace)

    def look_again() -> None:
        pages[0].wait_for(lambda: pages[0].state == "reconnecting")
        assert chromium.find_element(By.TAG_NAME, "h1").accessible_name == "trioroom"
        assert chromium.execute_script("return document.documentElement.scrollWidth") == 320
        screenshot(chromium, "chat-narrow-reconnecting")

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await in_browser(act, server.port)
        await in_browser(look_again)


def screenshot(driver: Chrome, name: str) -> None:
    """Keep a picture of the page where ``TRIOROOM_SCREENSHOTS`` says."""
    if folder := os.environ.get("TRIOROOM_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        assert driver.save_screenshot(str(Path(folder) / f"{name}.png"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_page_fits_desktop_and_phone(chromium: Chrome, scheme: str) -> None:
    def act(port: int) -> None:
        ada, grace = open_pair(chromium, port, "lobby")
        emulate("setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        grace.say("Is a longer line wrapped when the window is as narrow as that of a phone held upright?")
        ada.say("It is, and so is a word without a gap: " + "room" * 40)
        ada.say("Two of us are here.")
        grace.wait_for(lambda: len(grace.said) == 3)
        grace.say("See you!")
        grace.wait_for(lambda: len(grace.said) == 4)
        for screen, width, height in (("desktop", 1280, 800), ("phone", 390, 844)):
            emulate("setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
            grace.wait_for(lambda width=width: chromium.execute_script("return innerWidth") == width)  # type: ignore[misc]
            assert chromium.execute_script("return document.documentElement.scrollWidth") == width
            screenshot(chromium, f"chat-{screen}-{scheme}")

    def emulate(what: str, **arguments: object) -> None:
        chromium.execute_cdp_cmd(f"Emulation.{what}", arguments)

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await in_browser(act, server.port)
