"""The JavaScript client against real servers, in Node and in a browser: what comes is complete, or there is a gap."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import attrs
import pytest
import trio
from selenium.webdriver import Chrome
from selenium.webdriver.support.wait import WebDriverWait

from tests.backplane.processes import free_port
from tests.backplane.proxy import open_proxy
from tests.backplane.redis.servers import binaries, open_redis_server
from tests.cli.conftest import Command, open_command
from tests.web.conftest import HERE
from tests.web.web_rooms import app
from trioroom import open_backplane, open_server

ROOM = "kept/a"
STALL = float(os.environ.get("TRIOROOM_STALL", "4"))
"""Seconds in which nothing comes through; what it takes to notice comes on top."""

Event: TypeAlias = dict[str, Any]


@attrs.define
class Publisher:
    """Says numbers into the room by another server, whatever becomes of the one that the client is at."""

    said: int = 0

    async def say(self, count: int) -> None:
        for _ in range(count):
            await app.publish(ROOM, ["publisher", self.said])
            self.said += 1
            await trio.sleep(0.01)


@asynccontextmanager
async def open_publisher(url: str) -> AsyncIterator[Publisher]:
    async with open_backplane(url) as backplane, open_server(app, port=0, backplane=backplane):
        yield Publisher()


def serve(url: str, port: int, *options: str) -> AbstractAsyncContextManager[Command]:
    quick = ("--set", "ping_interval=1", "--set", "ping_timeout=0.9", *options)
    return open_command("serve", "web_rooms:app", "--port", str(port), "--backplane", url, *quick, directory=HERE)


def check(events: Sequence[Event], publisher: Publisher) -> None:
    """All that was said came once, in order, and nobody speaks of a gap."""
    assert [event for event in events if event["event"] == "gap"] == []
    messages = [event for event in events if event["event"] == "message" and isinstance(event["data"], list)]
    offsets = [event["position"]["offset"] for event in messages]
    assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
    said = [event["data"][1] for event in messages if event["data"][0] == "publisher"]
    assert said == list(range(said[0], publisher.said))
    own = [event["data"][1] for event in messages if event["data"][0] == "reader"]
    assert own == list(range(len(own)))


# ---- Node


@pytest.mark.parametrize("codec", ["json", "msgpack"])
async def test_conversation_of_a_program_in_node(node: str, codec: str) -> None:
    with trio.fail_after(60):
        async with open_command("serve", "web_rooms:app", "--port", "0", directory=HERE) as server:
            url = f"ws://127.0.0.1:{await server.wait_port()}/"
            command = [node, "--experimental-websocket", "--no-warnings", "conversation.mjs", url, codec]
            result = await trio.run_process(
                command, cwd=HERE, capture_stdout=True, stderr=subprocess.STDOUT, check=False
            )
            assert (result.returncode, result.stdout.decode()) == (0, "all of it\n"), result.stdout.decode()


def test_node_without_a_websocket_is_told_what_to_do(node: str) -> None:
    options = subprocess.run([node, "--help"], capture_output=True, text=True, check=True).stdout
    without = "--no-experimental-websocket" if "--no-experimental-websocket" in options else "--no-warnings"
    result = subprocess.run([node, without, "reader.mjs", "ws://x/", "json"], cwd=HERE, capture_output=True, text=True)
    assert result.returncode != 0
    assert "run node --experimental-websocket, or pass { WebSocket }" in result.stderr


class Reader:
    """``reader.mjs`` in a process."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.events: list[Event] = []
        self.ended = trio.Event()

    async def listen(self) -> None:
        assert self.process.stdout is not None
        rest = b""
        async with self.process.stdout as stdout:
            async for data in stdout:
                *lines, rest = (rest + data).split(b"\n")
                self.events.extend(json.loads(line) for line in lines)
        self.ended.set()

    async def wait_event(self, name: str, after: int = 0) -> int:
        """The number of the first event of that name from ``after`` on."""
        while True:
            for number, event in enumerate(self.events[after:], after):
                if event["event"] == name:
                    return number
            await trio.sleep(0.02)


@asynccontextmanager
async def open_reader(node: str, url: str, codec: str) -> AsyncIterator[Reader]:
    command = [node, "--experimental-websocket", "--no-warnings", "reader.mjs", url, codec]
    async with trio.open_nursery() as nursery:
        process = await trio.lowlevel.open_process(command, cwd=HERE, stdout=subprocess.PIPE)
        reader = Reader(process)
        nursery.start_soon(reader.listen)
        try:
            yield reader
        finally:
            process.kill()
            with trio.CancelScope(shield=True):  # a process that was killed ends
                await process.wait()


@pytest.mark.redis
@pytest.mark.parametrize("codec", [pytest.param("json", marks=pytest.mark.thorough), "msgpack"])
async def test_node_misses_nothing_when_the_server_is_killed_and_started_anew(node: str, codec: str) -> None:
    port = free_port()
    with trio.fail_after(90):
        async with (
            open_redis_server(binaries()["valkey"]) as valkey,
            open_publisher(valkey.url) as publisher,
            open_reader(node, f"ws://127.0.0.1:{port}/", codec) as reader,
        ):
            await reader.wait_event("waiting")  # nobody is there yet
            async with serve(valkey.url, port):
                await reader.wait_event("published")
                await publisher.say(20)
            # It was killed in the middle of a conversation.
            await publisher.say(50)
            lost = await reader.wait_event("waiting", await reader.wait_event("open"))
            async with serve(valkey.url, port):
                await reader.wait_event("rejoined", lost)
                await publisher.say(20)
                await reader.wait_event("published", len(reader.events))
                await app.publish(ROOM, "end")
                await reader.ended.wait()
            check(reader.events, publisher)
            heard = [event["data"][1] for event in reader.events if event.get("data", [""])[0] == "reader"]
            confirmed = [event["number"] for event in reader.events if event["event"] == "published"]
            assert set(heard) >= set(confirmed[:-1])  # the last one may have come after the end


# ---- A browser


class Tab:
    """A page that keeps in ``events`` what its room tells; its calls block."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, port: int, user: str = "ann", room: str = ROOM) -> None:
        self.driver.get(f"http://127.0.0.1:{port}/trioroom.js")  # any page of that origin
        self.driver.execute_async_script(
            """
            const [user, name, done] = arguments;
            window.events = [];
            const { connect } = await import("/trioroom.js");
            window.client = connect("/", { token: user });
            window.room = client.join(name, { presence: true });
            client.on("state", ({ state, error }) => events.push({ event: state, why: String(error) }));
            for (const event of ["message", "gap", "presence", "rejoined", "end"]) {
                room.on(event, (detail) => events.push({ event, ...detail }));
            }
            done(await room.joined);
            """,
            user,
            room,
        )

    def say(self, first: int, count: int) -> None:
        self.run(
            """
            const [first, count] = arguments;
            for (let number = first; number < first + count; number++) room.publish(["reader", number]);
            """,
            first,
            count,
        )

    def run(self, script: str, *args: object) -> Any:
        return self.driver.execute_script(script, *args)

    @property
    def events(self) -> list[Event]:
        events: list[Event] = self.run("return events")
        return events

    def wait(self, condition: str, timeout: float = 30) -> None:
        """Until JavaScript's ``condition`` holds."""
        waiting = WebDriverWait(self.driver, timeout, poll_frequency=0.1)
        waiting.until(lambda _: self.run(f"return {condition}"), message=f"{condition}; {self.events[-20:]}")

    def wait_messages(self, count: int, timeout: float = 30) -> None:
        self.wait(f"events.filter(({{ event }}) => event === 'message').length >= {count}", timeout)


async def in_tab(fn: Any, *args: Any) -> None:
    await trio.to_thread.run_sync(fn, *args)


@pytest.mark.browser
async def test_pages_join_publish_and_see_each_other(chromium: Chrome) -> None:
    def act(port: int) -> None:
        ann, bob = Tab(chromium), Tab(chromium)
        ann.open(port, "ann")
        first = chromium.current_window_handle
        chromium.switch_to.new_window("window")
        bob.open(port, "bob")
        second = chromium.current_window_handle
        bob.wait("room.count === 2 && room.present.has('ann')")
        bob.run("room.publish(new Uint8Array([0, 1, 255])); room.publish({ text: 'hello' });")
        chromium.switch_to.window(first)
        ann.wait_messages(2)
        said = "return events.filter(({ event }) => event === 'message').map(({ data }) => data)"
        [binary, text] = ann.run(said.replace("=> data", "=> data instanceof Uint8Array ? [...data] : data"))
        assert (binary, text) == ([0, 1, 255], {"text": "hello"})
        ann.wait("room.present.has('bob')")
        chromium.switch_to.window(second)
        chromium.close()
        chromium.switch_to.window(first)
        ann.wait("!room.present.has('bob') && room.count === 1")

    with trio.fail_after(60):
        async with open_server(app, port=0) as server:
            await in_tab(act, server.port)


@pytest.mark.browser
@pytest.mark.redis
async def test_page_misses_nothing_when_the_server_is_killed_and_started_anew(chromium: Chrome) -> None:
    port, tab = free_port(), Tab(chromium)
    with trio.fail_after(90):
        async with open_redis_server(binaries()["valkey"]) as valkey, open_publisher(valkey.url) as publisher:
            async with serve(valkey.url, port) as server:
                await server.wait_port()
                await in_tab(tab.open, port)
                await publisher.say(20)
                await in_tab(tab.say, 0, 20)
            await in_tab(tab.wait, "client.state !== 'open'")
            await in_tab(tab.say, 20, 20)
            await publisher.say(50)
            async with serve(valkey.url, port):
                await in_tab(tab.wait, "events.some(({ event }) => event === 'rejoined')")
                await publisher.say(20)
                await in_tab(tab.wait_messages, 130)
                check(await trio.to_thread.run_sync(lambda: tab.events), publisher)


@pytest.mark.browser
@pytest.mark.redis
@pytest.mark.slow
async def test_page_misses_nothing_when_the_network_stalls(chromium: Chrome) -> None:
    tab = Tab(chromium)
    with trio.fail_after(90 + 2 * STALL):
        async with open_redis_server(binaries()["valkey"]) as valkey, open_publisher(valkey.url) as publisher:
            async with serve(valkey.url, 0) as server, open_proxy(await server.wait_port()) as proxy:
                await in_tab(tab.open, proxy.port)
                await publisher.say(20)
                await in_tab(tab.say, 0, 10)
                await in_tab(tab.wait_messages, 30)
                proxy.black_hole()
                await publisher.say(50)
                await in_tab(tab.say, 10, 10)
                await trio.sleep(STALL)
                proxy.heal()
                await in_tab(tab.wait_messages, 90, 60.0)
                await publisher.say(20)
                await in_tab(tab.wait_messages, 110)
                events = await trio.to_thread.run_sync(lambda: tab.events)
                check(events, publisher)
                assert any(re.search("nothing was heard", event.get("why", "")) for event in events)


@pytest.mark.browser
async def test_page_in_a_room_without_a_history_is_told_of_a_gap(chromium: Chrome) -> None:
    port, tab = free_port(), Tab(chromium)
    with trio.fail_after(60):
        async with open_server(app, port=port):
            await in_tab(tab.open, port, "ann", "fleeting/a")
        async with open_server(app, port=port):
            await in_tab(tab.wait, "events.some(({ event, reason }) => event === 'gap' && reason === 'reconnect')")
