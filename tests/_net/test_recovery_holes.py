"""Rooms that share their offsets with others: members recover and page as they do where offsets go up by one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

import trioroom
from tests._net.test_recovery import ROOM, Kept, app_of, assert_silent, join, messages, publish
from tests.backplane.sparse_memory import STEP, SparseMemoryBackplane
from trioroom._net.api_rooms import read_page
from trioroom.testing import V1Peer, open_test_server, open_v1_peer

KEPT = [STEP * number for number in range(3, 13)]  # offsets of the ten that a history of 10 keeps of 12


@asynccontextmanager
async def open_scene() -> AsyncIterator[tuple[trioroom.App, trioroom.Server, V1Peer]]:
    """Of twelve publications ten are kept; the room is not active yet."""
    app = app_of()
    settings = trioroom.Settings(ping_interval=float("inf"))
    async with (
        open_test_server(app, settings, backplane=SparseMemoryBackplane()) as server,
        open_v1_peer(server) as peer,
    ):
        await publish(app, *range(1, 13))
        yield app, server, peer


async def test_member_gets_what_follows_the_place_it_names(autojump_clock: MockClock) -> None:
    async with open_scene() as (_, server, peer):
        epoch = (await join(peer))["position"]["epoch"]
        for place in range(2 * STEP, 12 * STEP + 1):  # those between two publications are places too
            async with open_v1_peer(server) as back:
                answer = await join(back, {"epoch": epoch, "offset": place})
                assert (answer["recovered"], answer["position"]["offset"]) == (True, place)
                missed = [offset for offset in KEPT if offset > place]
                assert [offset for offset, _ in await messages(back, len(missed))] == missed
                await assert_silent(back)


@pytest.mark.parametrize("place", [-1, 0, 2 * STEP - 1, 12 * STEP + 1])
async def test_place_before_what_is_gone_or_behind_the_end_is_not_recovered(
    place: int, autojump_clock: MockClock
) -> None:
    async with open_scene() as (app, _, peer):
        epoch = (await join(peer))["position"]["epoch"]
        await peer.request("leave", room=ROOM)
        assert not (await join(peer, {"epoch": epoch, "offset": place}))["recovered"]
        await publish(app, "live")
        assert await messages(peer, 1) == [(13 * STEP, "live")]


async def page_back(peer: V1Peer, limit: int) -> list[Sequence[int]]:
    """All pages from the latest to the first, as lists of offsets."""
    pages: list[Sequence[int]] = []
    before, more = None, True
    while more:
        answer = await peer.request("history", room=ROOM, limit=limit, before=before)
        offsets = [message["offset"] for message in answer["messages"]]
        pages.insert(0, offsets)
        more, before = answer["more"], {"epoch": answer["position"]["epoch"], "offset": offsets[0]}
    return pages


@pytest.mark.parametrize("limit", [1, 3, 5, 10, 50])
async def test_pages_are_full_and_end_with_the_first(limit: int, autojump_clock: MockClock) -> None:
    async with open_scene() as (_, server, peer):
        epoch = (await join(peer))["position"]["epoch"]
        pages = await page_back(peer, limit)
        assert [offset for page in pages for offset in page] == KEPT
        assert [len(page) for page in pages[1:]] == [limit] * (len(pages) - 1)
        answer = await peer.request("history", room=ROOM, limit=limit, after={"epoch": epoch, "offset": 7})
        assert [message["offset"] for message in answer["messages"]] == KEPT[:limit]
        assert answer["more"] is (limit < len(KEPT))
        store = server._hub.backplane.history
        assert store is not None
        api = await read_page(store, ROOM, Kept.history, limit, None)
        assert [item.offset for item in api.messages] == KEPT[-limit:]
        assert api.more is (limit < len(KEPT))


async def test_page_far_back_of_a_room_that_has_many(autojump_clock: MockClock) -> None:
    class Long(trioroom.Room):
        history = trioroom.History(size=5_000, ttl=600)

    app = app_of(Long)
    async with open_test_server(app, backplane=SparseMemoryBackplane()) as server, open_v1_peer(server) as peer:
        await publish(app, *range(1, 2_001))
        epoch = (await join(peer))["position"]["epoch"]
        before = {"epoch": epoch, "offset": 5 * STEP}
        answer = await peer.request("history", room=ROOM, limit=3, before=before)
        assert [message["data"] for message in answer["messages"]] == [2, 3, 4]
        assert answer["more"]
        with trio.fail_after(5):
            answer = await peer.request("history", room=ROOM, limit=3, before=before | {"offset": 2 * STEP})
        assert ([message["data"] for message in answer["messages"]], answer["more"]) == ([1], False)
