"""Fan-out: publications become as few sends as can be, each member gets its own, and nobody waits for anybody."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from trioroom._wire.publication import encode_publication
from trioroom.backplane.base import Delivery, Lost
from trioroom.backplane.memory import MemoryBackplane
from trioroom.backplane.room_channel import RoomChannel
from trioroom.testing import open_test_server

if TYPE_CHECKING:
    from tests.conftest import Recorder
    from trioroom._wire.message import Data

JSON, MSGPACK = "trioroom.v1.json", "trioroom.v1.msgpack"


class FedBackplane(MemoryBackplane):
    """Delivers, besides, what a test feeds it: losses, garbage, much at once."""

    def __init__(self) -> None:
        super().__init__()
        self._feeds: dict[str, RoomChannel] = {}

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        self._feeds[room] = channel
        yield

    def feed(self, room: str, *deliveries: Delivery) -> None:
        for delivery in deliveries:
            assert self._feeds[room].put_nowait(delivery)


class Stage:
    """A server, and those who watch its room/a."""

    def __init__(self, make_recorder: type[Recorder], nursery: trio.Nursery) -> None:
        self.met: list[trioroom.Member] = []
        self.recorders: dict[str, Recorder] = {}
        """By the ids of their members."""
        self.let_in = trio.Event()
        """Joiners wait for it."""
        self.let_in.set()
        self.app = trioroom.App()
        self.backplane = FedBackplane()
        self.server: trioroom.Server
        self._make_recorder = make_recorder
        self._nursery = nursery
        self._watching: dict[str, Recorder] = {}
        stage = self

        class Quiet(trioroom.Room):
            async def on_join(self, member: trioroom.Member) -> object:
                stage.met.append(member)
                if recorder := stage._watching.get(member.request.query):
                    stage.recorders[member.id] = recorder
                if stage.let_in.is_set():
                    return None
                await stage.let_in.wait()
                return "state"

        self.app.route("room/{name}", Quiet)

    async def watch(self, count: int = 1, path: str = "/room/a") -> list[Recorder]:
        """So many plain members."""
        return await self._connect(count, path)

    async def connect_v1(self, count: int = 1, subprotocol: str = JSON) -> list[Recorder]:
        """So many v1 connections that are in no room yet."""
        return await self._connect(count, "/", subprotocol)

    async def watch_v1(self, count: int = 1, subprotocol: str = JSON) -> list[Recorder]:
        """So many v1 members."""
        recorders = await self.connect_v1(count, subprotocol)
        join = {"type": "join", "id": 1, "room": "room/a"}
        for recorder in recorders:
            recorder.say(msgspec.json.encode(join).decode() if subprotocol == JSON else msgspec.msgpack.encode(join))
        await wait_all_tasks_blocked()
        for recorder in recorders:
            recorder.sends.clear()
        return recorders

    async def _connect(self, count: int, path: str, subprotocol: str | None = None) -> list[Recorder]:
        recorders = [self._make_recorder() for _ in range(count)]
        for recorder in recorders:
            query = str(len(self._watching))
            self._watching[query] = recorder
            recorder.connect(self._nursery, self.server, f"{path}?{query}", subprotocol)
        await wait_all_tasks_blocked()
        for recorder in recorders:
            recorder.settle()
        return recorders

    async def feed(self, *deliveries: Delivery) -> None:
        """Let all of it wait for the room at once, and see it through."""
        self.backplane.feed("room/a", *deliveries)
        await wait_all_tasks_blocked()

    async def feed_and_act_during_the_pass(
        self, delivery: Delivery, recorders: Sequence[Recorder], act: Callable[[], None]
    ) -> None:
        """Call ``act`` when some of ``recorders`` have been sent something and some have not."""

        def sends() -> int:
            return sum(len(recorder.sends) for recorder in recorders)

        async def watch() -> None:
            while sends() == before:
                await trio.lowlevel.checkpoint()
            assert sends() < before + len(recorders), "the pass is over already"
            act()

        before = sends()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch)
            await self.feed(delivery)


@asynccontextmanager
async def open_stage(make_recorder: type[Recorder], **settings: float) -> AsyncIterator[Stage]:
    """A `Stage` with a server; those who watch go when it closes."""
    wide = {"room_channel_size": 10_000, "room_channel_bytes": 1 << 30}  # what is fed at once is no test of the channel
    chosen = trioroom.Settings(close_timeout=1, **wide | settings)  # type: ignore[arg-type]  # by name
    async with trio.open_nursery() as nursery:
        stage = Stage(make_recorder, nursery)
        async with open_test_server(stage.app, chosen, backplane=stage.backplane) as stage.server:
            yield stage
            nursery.cancel_scope.cancel()


def publication(text: str, exclude: str | None = None) -> bytes:
    return encode_publication(text, None, exclude)


def publications(texts: Sequence[str]) -> list[bytes]:
    return [publication(text) for text in texts]


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def bytes_of(message: Data) -> bytes:
    """A message as the decoders take it."""
    assert isinstance(message, str | bytes)
    return message.encode() if isinstance(message, str) else message


# -- few sends ---------------------------------------------------------------------------------------


async def test_all_that_waits_goes_to_a_member_in_one_send(
    make_recorder: type[Recorder], autojump_clock: MockClock
) -> None:
    async with open_stage(make_recorder) as stage:
        one, two = await stage.watch(2)
        v1_one, v1_two = await stage.watch_v1(2)
        (msgpack,) = await stage.watch_v1(subprotocol=MSGPACK)
        await stage.feed(*publications(numbers(100)))
        assert [len(recorder.sends) for recorder in (one, two, v1_one, v1_two, msgpack)] == [1] * 5
        assert one.sends == two.sends
        assert v1_one.sends == v1_two.sends
        assert one.take() == numbers(100)
        assert [msgspec.json.decode(bytes_of(message))["data"] for message in v1_one.take()] == numbers(100)
        assert [msgspec.msgpack.decode(bytes_of(message))["data"] for message in msgpack.take()] == numbers(100)


@pytest.mark.parametrize(("count", "size"), [(5_000, 1), (100, 60_000)])
async def test_batch_is_bounded_in_publications_and_bytes(
    count: int, size: int, make_recorder: type[Recorder], autojump_clock: MockClock
) -> None:
    async with open_stage(make_recorder) as stage:
        (recorder,) = await stage.watch()
        await stage.feed(*publications([f"{number}," + "x" * size for number in range(count)]))
        assert len(recorder.sends) > 1
        assert max(map(len, recorder.sends)) < 400_000
        assert [str(message).partition(",")[0] for message in recorder.take()] == numbers(count)


async def test_excluded_member_gets_the_other_publications_in_order_and_one_send(
    make_recorder: type[Recorder], autojump_clock: MockClock
) -> None:
    async with open_stage(make_recorder) as stage:
        await stage.watch(3)
        (id, one), (other_id, other), (_, third) = stage.recorders.items()
        excluded = [id, None, other_id, id, "of another node", None]
        await stage.feed(*map(publication, numbers(6), excluded))
        assert [len(recorder.sends) for recorder in (one, other, third)] == [1, 1, 1]
        assert one.take() == ["1", "2", "4", "5"]
        assert other.take() == ["0", "1", "3", "4", "5"]
        assert third.take() == numbers(6)
        await stage.feed(publication("not for one", exclude=id))
        assert one.sends == []
        assert other.take() == ["not for one"]


# -- losses and garbage --------------------------------------------------------------------------------


async def test_loss_is_told_to_v1_members_in_its_place(
    make_recorder: type[Recorder], autojump_clock: MockClock
) -> None:
    async with open_stage(make_recorder) as stage:
        (plain,) = await stage.watch()
        (v1,) = await stage.watch_v1()
        one, two, three, four = publications("1234")
        await stage.feed(one, two, Lost("overflow", 7), three, Lost("backplane"), Lost("expired", 0), four)
        assert plain.take() == ["1", "2", "3", "4"]
        push, gap = {"type": "message", "room": "room/a"}, {"type": "gap", "room": "room/a"}
        assert [msgspec.json.decode(bytes_of(message)) for message in v1.take()] == [
            {**push, "data": "1"},
            {**push, "data": "2"},
            {**gap, "reason": "overflow", "lost": 7},
            {**push, "data": "3"},
            {**gap, "reason": "backplane", "lost": None},
            {**gap, "reason": "expired", "lost": 0},
            {**push, "data": "4"},
        ]


ODD_KEY = msgspec.msgpack.encode([{None: "a key that JSON has no word for"}])


@pytest.mark.parametrize(
    "garbage", [b"", b"\xc1", b"no publication", msgspec.msgpack.encode({"data": 1}), b"\x90", ODD_KEY]
)
async def test_what_is_no_publication_is_dropped_and_logged(
    garbage: bytes, make_recorder: type[Recorder], caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async with open_stage(make_recorder) as stage:
        (plain,) = await stage.watch()
        (v1,) = await stage.watch_v1()
        await stage.feed(garbage)
        assert plain.take() == v1.take() == []
        await stage.feed(publication("before"), garbage, publication("after"))
        assert plain.take() == ["before", "after"]
        assert len(v1.take()) == 2
    logged = [record for record in caplog.records if "dropped what is no publication" in record.getMessage()]
    assert [(record.levelno, "room/a" in record.getMessage()) for record in logged] == [(logging.WARNING, True)] * 2
