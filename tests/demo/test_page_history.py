"""What the page shows of what was said before, and how it goes on after it was away."""

from __future__ import annotations

import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.backplane.redis.servers import binaries, open_redis_server
from tests.demo.page import Page, in_browser, open_pair
from trioroom import BackplaneUnavailable, History, Position, open_backplane, open_server
from trioroom._core.publication_ids import PublicationIds
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.memory_history import MemoryHistory
from trioroom.demo.app import app

pytestmark = pytest.mark.browser


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


TIMEOUT_ON_DEMAND = """
    AbortSignal.timeout = () => {
        const controller = new AbortController();
        window.runOut = () => controller.abort(new DOMException("", "TimeoutError"));
        return controller.signal;
    };
"""


async def test_message_that_was_not_sent_is_given_back(chromium: Chrome) -> None:
    why = "Most likely not sent: no answer came."
    refusals = trio.Semaphore(0)
    backplane = RefusingBackplane(refusals)

    def act(port: int) -> None:
        chromium.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": TIMEOUT_ON_DEMAND})
        page = Page(chromium, port, "lobby", "Ada")
        page.wait_count("1")
        page.say("one")
        assert page.draft == ""
        trio.from_thread.run_sync(refusals.release)
        chromium.execute_script("runOut()")
        page.wait_for(lambda: page.notes.endswith(f"{why} It is back in the box, to be sent again."))
        assert page.draft == "one"
        page.say("two")
        page.fill("text", "what is being written")
        trio.from_thread.run_sync(refusals.release)
        chromium.execute_script("runOut()")
        page.wait_for(lambda: page.notes.endswith(f"{why} It was: two"))
        assert page.draft == "what is being written"
        assert page.said == []

    with trio.fail_after(60):
        async with open_server(app, port=0, backplane=backplane) as server:
            await in_browser(act, server.port)
            for _ in range(10):
                refusals.release()  # for all that the server says when it ends


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
