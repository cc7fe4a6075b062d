"""What the relay's numbers say of what is missing, and that it is there again when somebody has removed it."""

from __future__ import annotations

import pytest

from tests.backplane.nats.scenes import Record
from trioroom.backplane.base import Lost
from trioroom.backplane.nats import NatsSettings
from trioroom.backplane.nats.protocol import Message, pack_headers
from trioroom.backplane.nats.relay import RelayedRoom, relay_config

LOST = Lost("backplane")


def message(number: int, before: int, payload: bytes = b"x") -> Message:
    head = pack_headers({"Nats-Sequence": str(number), "Nats-Last-Sequence": str(before)})
    return Message(b"t.got.room.a", 17, None, head, payload)


@pytest.fixture
def room() -> RelayedRoom:
    return RelayedRoom(b"t.got.room.a")


@pytest.mark.parametrize(
    ("come", "heard"),
    [
        ([(11, 0), (15, 11)], [b"11", b"15"]),
        ([(11, 4), (15, 11)], [b"11", b"15"]),
        ([(15, 12)], [LOST, b"15"]),
        ([(11, 0), (15, 13)], [b"11", LOST, b"15"]),
        ([(11, 0), (15, 0)], [b"11", b"15"]),
        ([(11, 0), (2, 1), (3, 2)], [b"11", LOST, b"2", b"3"]),
        ([(11, 0), (11, 0)], [b"11", LOST, b"11"]),
    ],
    ids=["whole", "old before", "missed the first", "hole", "forgotten", "begun anew", "number again"],
)
def test_hole_before_a_publication_is_told(come: list[tuple[int, int]], heard: list[object], room: RelayedRoom) -> None:
    record = Record()
    room.add(record)
    room.confirm_at(10)
    for number, before in come:
        room.take(message(number, before, b"%d" % number))
    assert record.heard == heard


def test_what_came_while_it_was_not_live_is_one_loss(room: RelayedRoom) -> None:
    record = Record()
    room.add(record)
    room.confirm_at(10)
    room.interrupt()
    room.confirm_at(20)
    room.take(message(21, 19))
    assert record.heard == [LOST, b"x"]


def test_newcomer_is_told_of_no_loss_of_what_came_before_it_was_live(room: RelayedRoom) -> None:
    record = Record()
    room.add(record)
    room.pass_over(message(11, 9))  # behind the number that is confirmed, as nobody waits for who was told of it
    room.confirm_at(10)
    room.take(message(12, 11))
    room.interrupt()
    room.confirm_at(2)  # of another relay
    room.take(message(3, 1))
    assert record.heard == [b"x", LOST, b"x"]


def test_what_is_too_large_has_its_place_too(room: RelayedRoom) -> None:
    record = Record()
    room.add(record)
    room.confirm_at(10)
    room.drop(message(11, 0))
    room.take(message(12, 11))
    assert record.heard == [Lost("backplane", 1), b"x"]


@pytest.mark.parametrize("head", [b"", pack_headers({"Nats-Sequence": "x", "Nats-Last-Sequence": "1"})])
def test_what_has_no_number_is_nothing(head: bytes, room: RelayedRoom) -> None:
    record = Record()
    room.add(record)
    room.confirm_at(10)
    room.take(Message(b"t.got.room.a", 17, None, head, b"x"))
    room.drop(Message(b"t.got.room.a", 17, None, head, b"x"))
    assert record.heard == []


def test_stream_is_as_the_settings_say() -> None:
    config = relay_config(NatsSettings(prefix="t", publication_id_ttl=2.5, replicas=3, max_relay_bytes=100_000))
    assert config["name"] == "t_relay"
    assert (config["max_age"], config["duplicate_window"]) == (2_500_000_000, 2_500_000_000)
    assert (config["num_replicas"], config["max_bytes"], config["storage"]) == (3, 100_000, "memory")
