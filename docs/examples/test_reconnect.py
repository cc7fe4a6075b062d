"""Tests of clients of news.py that lose their connection, run by pytest with pytest-trio and ``trio_mode = true``."""

import trio
from news import News

import trioroom
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import open_client, open_line, open_test_server


def make_app() -> trioroom.App:
    app = trioroom.App()
    app.route("news/{name}", News)
    return app


async def test_reader_gets_what_was_said_while_it_was_away(autojump_clock: object) -> None:
    app = make_app()
    async with (
        open_test_server(app) as server,
        open_line(server) as line,
        open_client(line) as reader,
        reader.join("news/world") as room,
    ):
        line.server = None  # nobody listens there any more
        line.cut()
        await app.publish("news/world", "missed")
        await trio.sleep(60)
        assert reader.state.name == "waiting"
        line.server = server
        assert (await anext(room)).data == "missed"


async def test_dead_connection_is_found_out(autojump_clock: object) -> None:
    app = make_app()
    async with open_test_server(app) as server, open_line(server) as line, open_client(line) as reader:
        await reader.wait_open()
        line.silence()  # as if a cable were pulled: nobody is told
        await trio.sleep(60)
        assert line.dials == 2
        assert reader.state.name == "open"


async def test_reader_goes_from_a_server_that_drains_to_the_next(autojump_clock: object) -> None:
    broker = MemoryBackplane()
    old, new = make_app(), make_app()
    async with open_line() as line, open_client(line) as reader:
        async with open_test_server(old, backplane=broker) as server:
            line.server = server
            await reader.wait_open()
        async with open_test_server(new, backplane=broker) as server:
            line.server = server
            async with reader.join("news/world") as room:
                await new.publish("news/world", "from the new one")
                assert (await anext(room)).data == "from the new one"
