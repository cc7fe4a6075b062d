"""The page in a real Chromium. What the browser does runs in a thread, beside the server in the test's loop."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVarTuple

import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from trio_websocket import WebSocketConnection, open_websocket_url

from tests.backplane.servers import binaries, open_redis_server
from tests.cli.conftest import open_command
from trioroom import App, BackplaneUnavailable, History, Position, open_backplane, open_server
from trioroom._core.publication_ids import PublicationIds
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.memory_history import MemoryHistory
from trioroom.demo.app import PAGE, Chat, app

pytestmark = pytest.mark.browser
Args = TypeVarTuple("Args")
WAIT = 20  # seconds for one thing to show up on the page; reconnecting takes up to 5 of them


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
        WebDriverWait(self.driver, WAIT, poll_frequency=0.05).until(lambda _: condition())

    def wait_count(self, count: str) -> None:
        self.wait_for(lambda: self.text_of("count") == count)


def open_pair(driver: Chrome, port: int, room: str) -> tuple[Page, Page]:
    first = Page(driver, port, room, "Ada")
    driver.switch_to.new_window("window")
    return first, Page(driver, port, room, "Grace")


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


def before_sending(driver: Chrome, kind: str, reaction: str) -> None:
    """Have pages that open from now on run ``reaction`` instead of sending their first request of that kind.

    ``send`` is what sends it after all, ``this`` the WebSocket.
    """
    script = f"""
        let met = false;
        const original = WebSocket.prototype.send;
        WebSocket.prototype.send = function (frame) {{
            if (met || !frame.includes('"type":"{kind}"')) return original.call(this, frame);
            met = true;
            const send = () => original.call(this, frame);
            {reaction}
        }};
    """
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": script})


async def say_in_lobby(text: str) -> None:
    await app.publish("chat/lobby", {"kind": "message", "user": "u", "name": "Bob", "text": text})


async def test_older_messages_are_shown_though_the_connection_is_lost_before_they_come(chromium: Chrome) -> None:
    def act(port: int) -> None:
        before_sending(chromium, "history", "this.close(4101);")
        page = Page(chromium, port, "lobby", "Ada")
        page.wait_for(lambda: page.said == [("Bob", "before")])
        assert "Connection lost" in page.notes or page.notes == "You are in room “lobby”."

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await say_in_lobby("before")
            await in_browser(act, server.port)


async def test_message_that_comes_before_the_history_is_shown_once(chromium: Chrome) -> None:
    pages: list[Page] = []

    def begin(port: int) -> None:
        before_sending(chromium, "history", "window.sendHistory = send;")
        pages.append(Page(chromium, port, "lobby"))

    def go_on() -> None:
        (page,) = pages
        chromium.execute_script("sendHistory()")
        page.wait_for(lambda: "You are in room" in page.notes)
        assert page.said == [("Bob", "before"), ("Bob", "meanwhile")]
        page.say("after")
        page.wait_for(lambda: [text for _, text in page.said] == ["before", "meanwhile", "after"])
        times = "return [...document.querySelectorAll('#messages li')].map((line) => !!line.querySelector('time'))"
        assert chromium.execute_script(times) == [False, False, True, True]  # the note and what is live have one

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await say_in_lobby("before")
            await in_browser(begin, server.port)
            await say_in_lobby("meanwhile")
            await in_browser(go_on)


async def test_new_name_before_the_history_has_come_costs_no_message(chromium: Chrome) -> None:
    def act(port: int) -> None:
        before_sending(chromium, "history", "window.sendHistory = send;")
        page = Page(chromium, port, "lobby", "Ada")
        page.wait_for(lambda: page.said == [("Bob", "before")])
        page.say("hello")
        page.wait_for(lambda: page.said == [("Bob", "before"), ("Ada", "hello")])

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await say_in_lobby("before")
            await in_browser(act, server.port)


async def test_who_was_in_the_old_room_is_not_shown_in_the_new_one(chromium: Chrome) -> None:
    def act(port: int) -> None:
        ada, grace = open_pair(chromium, port, "lobby")
        grace.wait_for(lambda: grace.present == ["Ada", "Grace (you)"])
        chromium.execute_script("""
            const original = WebSocket.prototype.send;
            WebSocket.prototype.send = function (frame) {
                if (frame.includes('"type":"who"')) window.sendWho = () => original.call(this, frame);
                else original.call(this, frame);
            };
        """)
        grace.fill("room", "kitchen" + Keys.ENTER)
        grace.wait_for(lambda: "kitchen" in grace.notes and chromium.find_element(By.ID, "send").is_enabled())
        assert not chromium.find_element(By.ID, "members").is_displayed()
        chromium.execute_script("sendWho()")
        grace.wait_for(lambda: grace.present == ["Grace (you)"])
        assert chromium.find_element(By.ID, "members").is_displayed()
        ada.wait_for(lambda: ada.present == ["Ada (you)"])

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await in_browser(act, server.port)


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


async def test_page_that_opens_shows_what_was_said_before(chromium: Chrome) -> None:
    said = [("Ada", f"number {number}") for number in range(60)]

    def act(port: int) -> None:
        page = Page(chromium, port, "lobby", "Grace")
        page.wait_for(lambda: page.said == said[-50:])
        page.say("hello")
        page.wait_for(lambda: page.said == [*said[-50:], ("Grace", "hello")])
        chromium.refresh()
        page.wait_for(lambda: page.said == [*said[-49:], ("Grace", "hello")])
        assert "own" in str(chromium.find_elements(By.CSS_SELECTOR, "#messages li")[-2].get_attribute("class"))

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            for name, text in said:
                data = {"kind": "message", "user": "u", "name": name, "text": text}
                await app.publish("chat/lobby", data)
            await in_browser(act, server.port)


@pytest.mark.redis
async def test_page_goes_on_where_it_was_after_the_server_was_started_anew(chromium: Chrome) -> None:
    pages: list[Page] = []
    said = [("Ada", "before")]

    def begin(port: int) -> None:
        pages.append(Page(chromium, port, "lobby", "Ada"))
        pages[0].say("before")
        pages[0].wait_for(lambda: pages[0].said == said)

    def go_on() -> None:
        said.extend([("Bob", "while you were away"), ("Ada", "after")])
        pages[0].wait_for(lambda: pages[0].said == said[:2])
        assert "what was said in between follows" in pages[0].notes
        pages[0].say("after")
        pages[0].wait_for(lambda: pages[0].said == said)

    with trio.fail_after(60):
        async with open_redis_server(binaries()["valkey"]) as valkey, open_backplane(valkey.url) as backplane:
            async with open_server(app, port=0, backplane=backplane) as server:
                await in_browser(begin, server.port)
            async with open_server(app, port=0, backplane=backplane):
                data = {"kind": "message", "user": "u", "name": "Bob", "text": "while you were away"}
                await app.publish("chat/lobby", data)
            async with open_server(app, port=server.port, backplane=backplane):
                await in_browser(go_on)


class RefusingHistory(MemoryHistory):
    """One whose broker has gone away, as far as messages are concerned; when that is noticed, the test says."""

    def __init__(self, refusals: trio.Semaphore) -> None:
        super().__init__(1e6, PublicationIds(1.0, 1))
        self.refusals = refusals

    async def publish(
        self, room: str, payload: bytes, history: History | None, publication_id: str | None = None
    ) -> Position | None:
        await self.refusals.acquire()
        raise BackplaneUnavailable("it is away")


class RefusingBackplane(MemoryBackplane):
    def __init__(self, refusals: trio.Semaphore) -> None:
        super().__init__()
        self._history = RefusingHistory(refusals)


async def test_message_that_was_not_sent_is_given_back(chromium: Chrome) -> None:
    why = "Most likely not sent: no answer came."
    refusals = trio.Semaphore(0)
    backplane = RefusingBackplane(refusals)

    def act(port: int) -> None:
        page = Page(chromium, port, "lobby", "Ada")
        page.wait_count("1")
        page.say("one")
        assert page.draft == ""
        trio.from_thread.run_sync(refusals.release)
        page.wait_for(lambda: page.notes.endswith(f"{why} It is back in the box, to be sent again."))
        assert page.draft == "one"
        page.say("two")
        page.fill("text", "what is being written")
        trio.from_thread.run_sync(refusals.release)
        page.wait_for(lambda: page.notes.endswith(f"{why} It was: two"))
        assert page.draft == "what is being written"
        assert page.said == []

    with trio.fail_after(60):
        async with open_server(app, port=0, backplane=backplane) as server:
            await in_browser(act, server.port)


@pytest.mark.redis
async def test_pages_on_two_servers_are_one_chat_also_after_the_broker_was_away(chromium: Chrome) -> None:
    pages: list[Page] = []
    said = [("Ada", "hello over there"), ("Grace", "hello back")]

    def begin(*ports: int) -> None:
        pages.append(Page(chromium, ports[0], "lobby", "Ada"))
        chromium.switch_to.new_window("window")
        pages.append(Page(chromium, ports[1], "lobby", "Grace"))
        for page in pages:
            page.wait_count("2")
        converse(*said)

    def converse(*messages: tuple[str, str]) -> None:
        for message in messages:
            pages[("Ada", "Grace").index(message[0])].say(message[1])
            for page in pages:
                page.wait_for(lambda page=page, message=message: page.said[-1:] == [message])  # type: ignore[misc]

    def speak_in_vain() -> None:
        pages[0].say("is anybody there?")
        pages[0].wait_for(lambda: "Most likely not sent" in pages[0].notes)
        assert pages[0].draft == "is anybody there?"

    def go_on() -> None:
        for page in pages:
            page.wait_for(lambda page=page: "Some messages may be missing here." in page.notes)  # type: ignore[misc]
        said.extend([("Ada", "is anybody there?"), ("Grace", "again")])
        converse(*said[2:])
        for page in pages:
            page.wait_count("2")
            assert page.said == said
            assert page.state == "connected"

    with trio.fail_after(120):
        async with open_redis_server(binaries()["valkey"]) as valkey:
            demo = ("demo", "--port", "0", "--backplane", valkey.url)
            async with open_command(*demo) as one, open_command(*demo) as two:
                await in_browser(begin, await one.wait_port(), await two.wait_port())
                valkey.kill()
                await in_browser(speak_in_vain)
                await valkey.restart()
                await in_browser(go_on)
            for command in (one, two):
                assert "Traceback" not in command.output


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
        heard = WebDriverWait(chromium, WAIT, poll_frequency=0.05)
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
