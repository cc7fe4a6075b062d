"""Pages of a room's history: in handlers and over the wire, both ways, within their bounds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import trio
from trio.testing import MockClock

import trioroom
from tests._net.losing_store import LosingBackplane, Store
from tests._net.test_recovery import ROOM, app_of, join, messages, publish
from trioroom._core.history import Page
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.memory_history import MemoryHistory
from trioroom.errors import PositionLost
from trioroom.testing import V1Peer, open_test_server, open_v1_peer


class Asked(trioroom.Room):
    history = trioroom.History(size=10, ttl=60)

    async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
        page = await self.read_history(2)
        return [[kept.offset, kept.data, kept.sender] for kept in page.messages], page.position.offset, page.more


@pytest.fixture
async def peer() -> AsyncIterator[V1Peer]:
    """In a room whose history has the offsets 3 to 12, of which it has seen none."""
    app, backplane = app_of(Asked), MemoryBackplane()
    settings = trioroom.Settings(ping_interval=float("inf"))
    async with open_test_server(app, settings, backplane=backplane) as server, open_v1_peer(server) as opened:
        await publish(app, *range(1, 13))
        await join(opened)
        yield opened


async def ask(peer: V1Peer, **fields: Any) -> dict[str, Any]:
    return await peer.request("history", room=ROOM, **fields)


def offsets(answer: dict[str, Any]) -> list[int]:
    return [message["offset"] for message in answer["messages"]]


async def test_latest_come_without_a_position_and_pages_lead_back_to_the_first(
    peer: V1Peer, autojump_clock: MockClock
) -> None:
    answer = await ask(peer, limit=4)
    assert (offsets(answer), answer["more"], answer["position"]["offset"]) == ([9, 10, 11, 12], True, 12)
    epoch = answer["position"]["epoch"]
    answer = await ask(peer, limit=4, before={"epoch": epoch, "offset": 9})
    assert (offsets(answer), answer["more"]) == ([5, 6, 7, 8], True)
    answer = await ask(peer, limit=4, before={"epoch": epoch, "offset": 5})
    assert (offsets(answer), answer["more"]) == ([3, 4], False)
    answer = await ask(peer, limit=4, before={"epoch": epoch, "offset": 3})
    assert (offsets(answer), answer["more"]) == ([], False)


async def test_pages_lead_forward_from_a_position(peer: V1Peer, autojump_clock: MockClock) -> None:
    epoch = (await ask(peer))["position"]["epoch"]
    answer = await ask(peer, limit=6, after={"epoch": epoch, "offset": 2})
    assert (offsets(answer), answer["more"]) == ([3, 4, 5, 6, 7, 8], True)
    answer = await ask(peer, limit=6, after={"epoch": epoch, "offset": 8})
    assert (offsets(answer), answer["more"]) == ([9, 10, 11, 12], False)
    answer = await ask(peer, after={"epoch": epoch, "offset": 12})
    assert (offsets(answer), answer["more"]) == ([], False)


async def test_position_that_is_not_known_or_held_is_lost(peer: V1Peer, autojump_clock: MockClock) -> None:
    epoch = (await ask(peer))["position"]["epoch"]
    for fields in ({"after": {"epoch": epoch, "offset": 1}}, {"after": {"epoch": epoch, "offset": 13}}):
        assert (await ask(peer, **fields))["code"] == "position_lost"
    for way in ("after", "before"):
        answer = await ask(peer, **{way: {"epoch": "another", "offset": 5}})
        assert (answer["code"], answer["retry"]) == ("position_lost", False)
        assert answer["message"] == "the history knows no position another:5; begin anew"


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"limit": 0}, "history: limit=0 is not from 1 to 1000; page through more"),
        ({"limit": 1001}, "history: limit=1001 is not from 1 to 1000; page through more"),
        (
            {"before": {"epoch": "e", "offset": 1}, "after": {"epoch": "e", "offset": 1}},
            "history: before and after exclude each other; give one of them",
        ),
    ],
)
async def test_question_that_makes_no_sense_is_explained(
    peer: V1Peer, autojump_clock: MockClock, fields: Any, complaint: str
) -> None:
    answer = await ask(peer, **fields)
    assert (answer["code"], answer["message"]) == ("bad_envelope", complaint)


async def test_what_is_too_old_is_on_no_page(peer: V1Peer, autojump_clock: MockClock) -> None:
    await trio.sleep(61)
    answer = await ask(peer)
    assert (offsets(answer), answer["more"]) == ([], False)


async def test_handler_gets_a_page(peer: V1Peer, autojump_clock: MockClock) -> None:
    await peer.request("publish", room=ROOM, data="mine")
    answer = await peer.request("call", room=ROOM, data=None)
    assert answer["data"] == [[[12, 12, None], [13, "mine", peer.id]], 13, True]


async def test_binary_data_is_base64_in_json_and_large_messages_end_a_page(autojump_clock: MockClock) -> None:
    app = app_of()
    async with (
        open_test_server(app) as server,
        open_v1_peer(server) as peer,
        open_v1_peer(server, subprotocol="trioroom.v1.msgpack") as other,
    ):
        for each in (peer, other):
            await join(each)
        large = b"x" * 100_000
        for data in (b"\0\1", large, large, large):
            await publish(app, data)
            await messages(peer, 1)
            await messages(other, 1)
        answer = await ask(peer)
        assert (offsets(answer), answer["more"]) == ([3, 4], True)
        answer = await ask(other, before=answer["position"] | {"offset": 3})
        assert [message["data"] for message in answer["messages"]] == [b"\0\1", large]
        answer = await ask(peer, limit=1, after=answer["position"] | {"offset": 0})
        assert answer["messages"] == [{"offset": 1, "data": "AAE=", "encoding": "base64"}]


async def test_pages_reach_back_however_far_that_is(autojump_clock: MockClock) -> None:
    class Long(trioroom.Room):
        history = trioroom.History(size=5_000, ttl=600)

    app = app_of(Long)
    async with open_test_server(app) as server, open_v1_peer(server) as peer:
        await publish(app, *range(1, 4_001))
        epoch = (await join(peer))["position"]["epoch"]
        answer = await ask(peer, limit=3, before={"epoch": epoch, "offset": 5})
        assert (offsets(answer), answer["more"]) == ([2, 3, 4], True)


@pytest.mark.parametrize("ends", ["restart", "flush"])
async def test_page_holds_messages_of_one_epoch_though_that_ends_while_it_is_read(
    ends: str, autojump_clock: MockClock
) -> None:
    store, app = Store(), app_of()
    async with open_test_server(app, backplane=LosingBackplane(store)) as server, open_v1_peer(server) as peer:
        await publish(app, *range(1, 6))
        position = (await join(peer))["position"]

        async def end() -> None:
            if ends == "restart":
                store.restart(lost=4)  # the room's position is one of what is lost
            else:
                store.flush()
            await publish(app, "new")
            await trio.sleep(1)

        store.before_read = end
        answer = await ask(peer, limit=2)
        epoch = answer["position"]["epoch"]
        assert epoch != position["epoch"]
        assert answer["messages"] == ([] if ends == "restart" else [{"offset": 1, "data": "new"}])
        answer = await ask(peer, before=position)
        assert answer["code"] == "position_lost"


async def test_room_without_history_has_no_pages(autojump_clock: MockClock) -> None:
    failures: list[Exception] = []

    class Plain(trioroom.Room):
        async def on_join(self, member: trioroom.Member) -> None:
            try:
                await self.read_history()
            except RuntimeError as exc:
                failures.append(exc)

    async with open_test_server(app_of(Plain)) as server, open_v1_peer(server) as peer:
        await peer.join(ROOM)
        assert [str(failure) for failure in failures] == [
            "room 'room/a' keeps no history; say how much in Plain.history"
        ]


async def test_window_that_the_budget_took_is_read_again_once_for_all_who_ask(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    backplane, reads = MemoryBackplane(), 0
    store = backplane.history
    assert isinstance(store, MemoryHistory)
    read_before = store.read_before

    async def read_slowly(room: str, history: trioroom.History, offset: int, limit: int) -> Page:
        nonlocal reads
        reads += 1
        await trio.sleep(1)
        return await read_before(room, history, offset, limit)

    app = app_of(Asked)
    async with open_test_server(app, backplane=backplane) as server, open_v1_peer(server) as peer:
        position = (await join(peer))["position"]
        await publish(app, *range(5))
        await messages(peer, 5)
        history = next(iter(server._hub.rooms.values())).history
        assert history is not None
        history._forget()
        monkeypatch.setattr(store, "read_before", read_slowly)
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(history.page, 5, None, None)
        assert reads == 1
        page = await history.page(5, None, None)
        assert [kept.offset for kept in page.messages] == [1, 2, 3, 4, 5]
        with pytest.raises(PositionLost):
            await history.page(5, None, trioroom.Position(position["epoch"], 99))
