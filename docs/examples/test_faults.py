"""Tests of news.py on two servers whose link fails, run by pytest with pytest-trio and ``trio_mode = true``."""

import pytest
import trio
from news import News

import trioroom
from trioroom.client import Message
from trioroom.testing import FaultyBackplane, assert_no_orphans, open_client, open_test_server


def make_app() -> trioroom.App:
    app = trioroom.App()
    app.route("news/{name}", News)
    return app


async def test_reader_misses_nothing_over_an_outage(autojump_clock: object) -> None:
    here = FaultyBackplane()
    there = here.another_node()
    paper, agency = make_app(), make_app()
    async with (
        assert_no_orphans(),
        open_test_server(paper, backplane=here) as server,
        open_test_server(agency, backplane=there),
        open_client(server) as reader,
        reader.join("news/world") as room,
    ):
        with here.partitioned():
            await agency.publish("news/world", "while the link was down")
            with pytest.raises(trioroom.BackplaneUnavailable):
                await paper.publish("news/world", "cannot go out")
            await trio.sleep(240)
        assert (await anext(room)).data == "while the link was down"


async def test_publication_in_doubt_counts_once(autojump_clock: object) -> None:
    backplane = FaultyBackplane()
    app = make_app()
    async with (
        open_test_server(app, backplane=backplane) as server,
        open_client(server) as reader,
        reader.join("news/world") as room,
    ):
        backplane.lose_next_answer()
        for data in ("first", "second"):
            for attempt in range(3):
                try:
                    await app.publish("news/world", data, publication_id=data)
                    break
                except trioroom.BackplaneUnavailable:
                    await trio.sleep(2**attempt)
        assert [(await anext(room)).data, (await anext(room)).data] == ["first", "second"]


async def test_history_heals_what_no_backplane_may_do(autojump_clock: object) -> None:
    faulty = FaultyBackplane(seed=1, drop=0.1, duplicate=0.1, reorder=0.1, delay=(0.0, 0.2))
    app = make_app()
    async with (
        open_test_server(app, backplane=faulty) as server,
        open_client(server) as reader,
        reader.join("news/world") as room,
    ):
        for number in range(100):
            await app.publish("news/world", number)
        faulty.drop = 0  # only what follows shows that something is missing
        await app.publish("news/world", "end")
        read: list[object] = []
        async for event in room.events():
            assert isinstance(event, Message), "a gap"
            if event.data == "end":
                break
            read.append(event.data)
        assert read == list(range(100))
