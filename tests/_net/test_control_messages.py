"""What servers say to each other in the control room, and what anybody else may send there."""

from __future__ import annotations

import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests._net.test_control import ORDER, open_nodes
from trioroom._net.control import _ORDERS, _QUESTIONS
from trioroom._wire.control import (
    Answered,
    Asked,
    Disconnect,
    Done,
    FindRooms,
    Kick,
    decode_control,
    encode_control,
)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x91" * 100_000,
        msgspec.msgpack.encode({"type": "asked"}),
        encode_control({**msgspec.to_builtins(Asked("n", 1, ORDER)), "version": 2}),
        encode_control(Asked("n", 1, Disconnect(1005, "", user="ann"))),
        encode_control(Asked("n", 1, Disconnect(4005, "", user="ann", connection="c"))),
        encode_control(Asked("n", 1, Disconnect(4005, ""))),
        encode_control(Asked("n", 1, Disconnect(4005, "x" * 1_001, user="ann"))),
        encode_control(Asked("n", 1, FindRooms("", "", 1_001))),
        encode_control(Asked("n", 1, FindRooms("", "", 0))),
        encode_control({"type": "asked", "node": "n", "number": 1, "command": {"type": "shut_down"}, "version": 1}),
    ],
    ids=range(12),
)
async def test_what_makes_no_sense_is_counted_and_dropped(payload: bytes, autojump_clock: MockClock) -> None:
    async with open_nodes(1, 10) as (here, there):
        for room in (_ORDERS, _QUESTIONS):
            await here.control._link.publish(room, payload)  # type: ignore[union-attr]
        await wait_all_tasks_blocked()
        assert there.control.unreadable == 1, "orders are kept, and this one was not"
        assert not there.commands
        history = here.control._link.history  # type: ignore[union-attr]
        assert history is not None
        await history.publish(_ORDERS, payload, trioroom.History(1))
        await wait_all_tasks_blocked()
        assert there.control.unreadable == 2
        assert await here.ask(ORDER) == ([1, 10], 0)


async def test_flood_of_nonsense_is_one_line_in_the_log(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_nodes(1) as (here,):
        for _ in range(1_000):
            await here.control._link.publish(_QUESTIONS, b"?")  # type: ignore[union-attr]
        await wait_all_tasks_blocked()
        assert here.control.unreadable == 1_000
    assert [record.levelname for record in caplog.records if record.levelno >= logging.WARNING] == ["WARNING"]


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_value_error(payload: bytes) -> None:
    try:
        message = decode_control(payload)
    except ValueError:
        return
    assert isinstance(message, Asked | Answered)


@given(st.integers(3000, 4999), st.text(max_size=1_000), st.text())
def test_messages_come_over_as_they_are(code: int, reason: str, user: str) -> None:
    for message in (
        Asked("n", 1, Disconnect(code, reason, user=user)),
        Asked("n", 2, Kick(user, user, reason)),
        Answered("n", 3, Done(code)),
    ):
        assert decode_control(encode_control(message)) == message
