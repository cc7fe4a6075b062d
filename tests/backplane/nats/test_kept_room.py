"""What is delivered of a room with a history: what each publication follows, and what shows that something is gone."""

from __future__ import annotations

import attrs
import pytest

from tests.backplane.history_node import ROOM, payloads
from tests.backplane.nats.brokers import open_node
from tests.backplane.nats.servers import NatsServer
from trioroom._core.history import Kept
from trioroom.backplane.base import Delivery, Lost
from trioroom.backplane.nats import NatsSettings
from trioroom.backplane.nats.epochs import Before, Epoch, Epochs
from trioroom.backplane.nats.history_stream import MARK
from trioroom.backplane.nats.kept_room import KeptRoom
from trioroom.backplane.nats.protocol import Message, pack_headers
from trioroom.backplane.nats.server_clock import ServerClock
from trioroom.testing.histories import listening

LOST = Lost("backplane")


@attrs.define(eq=False)
class Record:
    heard: list[Delivery] = attrs.field(factory=list)

    def offer(self, delivery: Delivery) -> None:
        self.heard.append(delivery)


class Scene:
    def __init__(self) -> None:
        self.epochs = Epochs("subject", ServerClock(), lambda: "server")
        self.epochs.settled = self.epochs.adopt(Epoch("e", 1, ""))
        self.room = KeptRoom(b"room", epochs=self.epochs)
        self.record = Record()
        self.room.add(self.record)
        self.room.confirm()

    def take(self, offset: object, follows: object, *, mark: bool = False) -> list[Delivery]:
        """What comes of it."""
        headers = {"Nats-Sequence": str(offset), "Nats-Last-Sequence": str(follows), **({MARK: "1"} if mark else {})}
        self.record.heard.clear()
        self.room.take(Message(b"room", 1, None, pack_headers(headers), b"x"))
        return list(self.record.heard)


def test_each_says_what_it_follows() -> None:
    scene = Scene()
    assert scene.take(5, 0) == [Kept("e", 5, b"x", 0.0, 0)]
    assert scene.take(6, 5) == [Kept("e", 6, b"x")]
    assert scene.take(9, 6) == [Kept("e", 9, b"x", 0.0, 6)]


def test_hole_is_for_the_room_to_see() -> None:
    scene = Scene()
    scene.take(5, 0)
    assert scene.take(9, 7) == [Kept("e", 9, b"x", 0.0, 7)]
    assert not scene.epochs.doubt


def test_mark_is_passed_over() -> None:
    scene = Scene()
    scene.take(5, 0)
    assert scene.take(20, 0, mark=True) == []
    assert scene.take(22, 20) == [Kept("e", 22, b"x", 0.0, 0)]
    assert scene.take(25, 22) == [Kept("e", 25, b"x", 0.0, 22)]


def test_what_comes_twice_is_read_and_no_reason_for_doubt() -> None:
    scene = Scene()
    scene.take(5, 0)
    assert scene.take(5, 0)[0] == LOST
    assert not scene.epochs.doubt


def test_what_is_gone_is_no_reason_for_doubt_when_another_epoch_has_begun_for_that() -> None:
    """Else each room of a stream that has lost something would begin one more, at the cost of all."""
    scene = Scene()
    scene.take(90, 80)
    scene.epochs.adopt(Epoch("f", 99, "", (Before("e", None),)))
    assert scene.take(120, 40) == [Kept("f", 120, b"x", 0.0, 40)]
    assert not scene.epochs.doubt


def test_one_that_does_not_follow_what_came_before_shows_that_this_is_gone() -> None:
    scene = Scene()
    scene.take(5, 0)
    scene.take(8, 5)
    assert scene.take(9, 5) == [LOST, Kept("e", 9, b"x", 0.0, 5)]
    assert scene.epochs.doubt


def test_after_an_outage_nothing_is_concluded_from_what_came_before() -> None:
    scene = Scene()
    scene.take(8, 0)
    scene.room.interrupt()
    scene.room.confirm()
    assert scene.take(9, 5) == [Kept("e", 9, b"x", 0.0, 5)]
    assert not scene.epochs.doubt


def test_what_comes_before_the_epoch_is_known_is_left_to_be_read() -> None:
    scene = Scene()
    scene.epochs.settled = False
    assert scene.take(5, 0) == [LOST]


@pytest.mark.parametrize(("offset", "follows"), [("", ""), ("x", 1), (1, "x")])
def test_what_is_not_from_the_stream_is_none_of_the_room(offset: object, follows: object) -> None:
    assert Scene().take(offset, follows) == []


@pytest.mark.nats
async def test_message_that_somebody_removes_ends_the_epoch(nats_server: NatsServer) -> None:
    async with open_node(nats_server.url, settings=NatsSettings(history_streams=1)) as node:
        async with listening(node.backplane.history, ROOM) as receive:
            before = await node.publish(b"1", b"2")
            await nats_server.ask("$JS.API.STREAM.MSG.DELETE.trioroom_history_0", b'{"seq": %d}' % before.offset)
            await node.publish(b"3")
            assert [type(await receive.receive()) for _ in range(4)] == [Kept, Kept, Lost, Kept]
            page = await node.read(before.offset, seen=before)
            assert (page.previous, page.kept) == (None, ())
            assert page.position.epoch != before.epoch
            after = await node.publish(b"4")
            assert payloads(await node.read(0, seen=after)) == [b"4"]
