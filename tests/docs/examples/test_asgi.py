"""Starlette on Hypercorn beside the rooms: what is posted to the one is seen in the others, and Ctrl-C ends both."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.common.keys import Keys

import trioroom
from tests.backplane.processes import free_port
from tests.docs.examples.page import Page
from tests.docs.examples.running import DEADLINE, running


class Both:
    """The program, with the addresses of its two servers."""

    def __init__(self, process: subprocess.Popen[str], web: str, rooms: str) -> None:
        self.process = process
        self.web = web
        self.rooms = rooms

    async def post(self, order: object) -> tuple[int, object]:
        """Status and answer."""
        return await self.post_bytes(json.dumps(order).encode())

    async def post_bytes(self, body: bytes) -> tuple[int, object]:
        return await trio.to_thread.run_sync(self._post, body)

    def _post(self, body: bytes) -> tuple[int, object]:
        request = Request(f"{self.web}/orders", body, {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=DEADLINE) as answer:
                return answer.status, json.load(answer)
        except HTTPError as refusal:
            with refusal:
                return refusal.code, json.load(refusal)


@contextmanager
def both_running() -> Iterator[Both]:
    web, rooms = free_port(), free_port()
    with running("-c", f"import trio; from asgi.app import main; trio.run(main, {web}, {rooms})") as process:
        assert process.stdout is not None
        said = ""
        while (line := process.stdout.readline()) != f"kitchen: http://127.0.0.1:{web}/\n":
            said += line  # Hypercorn logs where it serves
            assert line, said
        yield Both(process, f"http://127.0.0.1:{web}", f"http://127.0.0.1:{rooms}")


async def test_what_is_posted_is_seen_and_ctrl_c_ends_both() -> None:
    with trio.fail_after(DEADLINE), both_running() as both:
        url = both.rooms.replace("http", "ws")
        async with trioroom.connect(url) as client, client.join("kitchen") as kitchen:
            assert await both.post({"table": 3, "dish": "soup"}) == (201, {"ordered": "soup"})
            assert (await anext(kitchen)).data == {"table": 3, "dish": "soup"}
            for body in (
                b'{"table": "3"}',
                b"soup!",
                b'{"table": 3, "dish": "%s"}' % (b"x" * 101),
                b'{"table": 1000, "dish": "x"}',
            ):
                assert await both.post_bytes(body) == (400, {"error": 'send {"table": 7, "dish": "soup"}'})
            with pytest.raises(trioroom.RequestRefused, match="orders come by HTTP"):
                await kitchen.publish({"table": 3, "dish": "champagne"})
            assert [kept.data for kept in (await kitchen.history()).messages] == [{"table": 3, "dish": "soup"}]
            both.process.send_signal(signal.SIGINT)
            ended = partial(both.process.communicate, timeout=DEADLINE)
            said, _ = await trio.to_thread.run_sync(ended)
            assert (both.process.returncode, "Traceback" in said) == (0, False), said


@pytest.mark.browser
async def test_page_orders_and_shows_what_is_ordered(chromium: Chrome) -> None:
    def order(driver: Chrome) -> None:
        dish = driver.find_element("id", "dish")
        dish.clear()
        dish.send_keys("<b>cake" + Keys.ENTER)

    with trio.fail_after(2 * DEADLINE), both_running() as both:
        await both.post({"table": 3, "dish": "soup"})
        page = Page(chromium)
        await page.open(f"{both.web}/")
        await page.wait_text("orders", "soup")
        await page.do(order)
        await page.wait_text("note", "Ordered: <b>cake.")
        await page.wait_text("orders", "<b>caketable 7")
        await page.check()
