"""A reader of news that keeps its place by itself."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
import trio

from tests.backplane.processes import until
from tests.docs.examples.running import DEADLINE
from trioroom import App, Member, Message, open_server
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import open_v1_peer


async def wait(condition: Callable[[], bool]) -> None:
    async def ask() -> bool:
        return condition()

    await until(ask, "the reader has it", DEADLINE)


# trio-websocket leaves open the socket of a connection that the server refused, as it does while it drains.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_reader_misses_nothing_while_it_is_away() -> None:
    from news import app
    from news_client import NewsReader

    backplane = MemoryBackplane()

    async with trio.open_nursery() as nursery:
        async with open_server(app, port=0, backplane=backplane) as server:
            reader = NewsReader(f"ws://127.0.0.1:{server.port}/", "news/a")
            nursery.start_soon(reader.run)
            await wait(lambda: reader.position is not None)
            await app.publish("news/a", "one")
            await wait(lambda: reader.read == ["one"])
        async with open_server(app, port=0, backplane=backplane):
            await app.publish("news/a", "two")
        async with open_server(app, port=server.port, backplane=backplane):
            await app.publish("news/a", "three")
            await wait(lambda: len(reader.read) == 3)
            assert (reader.read, reader.complete) == (["one", "two", "three"], True)
            nursery.cancel_scope.cancel()
    gc.collect()  # now, while the warning is ignored


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # as above
async def test_reader_publishes_once_what_was_not_answered() -> None:
    from news import News, app
    from news_client import NewsReader

    published = trio.Event()

    class Silent(News):
        async def on_message(self, member: Member, message: Message) -> None:
            await super().on_message(member, message)
            published.set()
            await trio.sleep_forever()

    silent, backplane = App(), MemoryBackplane()
    silent.route("news/{name}", Silent)
    with trio.fail_after(DEADLINE):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as crash:
                async with open_server(silent, port=0, backplane=backplane) as server:
                    reader = NewsReader(f"ws://127.0.0.1:{server.port}/", "news/a")
                    nursery.start_soon(reader.run)
                    await reader.publish("mine")  # it goes when the room is joined
                    await published.wait()
                    crash.cancel()
                    await trio.sleep_forever()
            await reader.publish("and mine")  # while there is no server
            async with open_server(app, port=server.port, backplane=backplane) as server, open_v1_peer(server) as v1:
                await wait(lambda: not reader.unanswered)
                await app.publish("news/a", "the end")
                await wait(lambda: reader.read[-1:] == ["the end"])
                assert reader.read == ["mine", "the end"]  # the first by recovery, as another member than who said it
                await v1.join("news/a")
                page = await v1.request("history", room="news/a")
                assert [message["data"] for message in page["messages"]] == ["mine", "and mine", "the end"]
                nursery.cancel_scope.cancel()
