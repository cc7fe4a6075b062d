"""A server is killed and started again, while others publish: each client has all messages in order, or a gap."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import trio

import trioroom
from tests.backplane.processes import free_port
from tests.cli.conftest import open_command
from tests.client.conftest import Codec, make_app
from trioroom.backplane.memory import MemoryBackplane
from trioroom.client import Backoff, Client, ClientRoom, Gap, Message, Rejoined
from trioroom.testing import open_test_server

QUICK = Backoff(first=0.05, most=0.2)
READERS = 5
MESSAGES = 150


class Reader:
    """What one client got; `None` stands for a gap."""

    def __init__(self) -> None:
        self.got: list[object] = []
        self.done = trio.Event()

    async def read(self, room: ClientRoom) -> None:
        async for event in room.events():
            if isinstance(event, Message):
                self.got.append(event.data)
                if event.data == "the end":
                    return self.done.set()
            elif isinstance(event, Gap):
                self.got.append(None)


async def run_reader(url: str, codec: Codec, reader: Reader, *, task_status: trio.TaskStatus[None]) -> None:
    async with trioroom.connect(url, codec=codec, backoff=QUICK) as client, client.join("news/a") as room:
        task_status.started()
        await reader.read(room)


async def publish_all(client: Client) -> None:
    """One after another, each until it is confirmed."""
    async with client.join("news/a") as room:
        for number in range(MESSAGES):
            await room.publish(number)
            await trio.sleep(0.01)
        await room.publish("the end")


@pytest.mark.parametrize("drains", [True, False], ids=["drained", "crashed"])
async def test_nothing_is_lost_or_twice_over_restarts(codec: Codec, drains: bool) -> None:
    """The history outlives the servers, as with a broker, so there is not even a gap."""
    app, backplane = make_app(), MemoryBackplane()
    readers = [Reader() for _ in range(READERS)]
    async with open_test_server(app, backplane=backplane, tcp=True) as server:
        port = server.port
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            url = f"ws://127.0.0.1:{port}/"
            async with trioroom.open_server(app, port=port, backplane=backplane):
                for reader in readers:
                    await nursery.start(run_reader, url, codec, reader)
            async with trioroom.connect(url, backoff=QUICK) as publisher:
                publishing = trio.Event()

                async def publish() -> None:
                    await publish_all(publisher)
                    publishing.set()

                nursery.start_soon(publish)
                while not publishing.is_set():
                    await serve_for(app, port, backplane, 0.3, drains=drains)
                settings = trioroom.Settings(drain_timeout=2.0)
                async with trioroom.open_server(app, port=port, settings=settings, backplane=backplane):
                    for reader in readers:
                        await reader.done.wait()
    for reader in readers:
        assert reader.got == [*range(MESSAGES), "the end"]


async def serve_for(app: trioroom.App, port: int, backplane: MemoryBackplane, seconds: float, *, drains: bool) -> None:
    """Be a server for a while."""
    settings = trioroom.Settings(drain_timeout=2.0, close_timeout=0.5, leave_timeout=1.0)
    with trio.CancelScope() as crash:
        async with trioroom.open_server(app, port=port, settings=settings, backplane=backplane):
            await trio.sleep(seconds)
            if not drains:
                crash.cancel()
                await trio.sleep_forever()


NEWS = """
import trioroom

class News(trioroom.Room):
    history = trioroom.History(size=100)

app = trioroom.App()
app.route("news/{name}", News)
"""


async def test_history_that_died_with_its_server_is_a_gap(tmp_path: Path) -> None:
    (tmp_path / "news.py").write_text(NEWS)
    serve = partial(open_command, "serve", "news:app", directory=tmp_path)
    port = str(free_port())
    async with serve("--port", port) as command:
        await command.wait_port()
        async with trioroom.connect(f"ws://127.0.0.1:{port}/", backoff=QUICK) as client, client.join("news/a") as room:
            await room.publish("gone with it")
            before = room.position
            command.process.kill()
            await command.wait_ended()
            async with serve("--port", port) as again:
                await again.wait_port()
                events = room.events()
                assert await anext(events) == Rejoined(False)
                assert await anext(events) == Gap("reconnect", None, room.position)
                assert room.position != before
                await room.publish("kept")
                assert [message.data for message in (await room.history()).messages] == ["kept"]
