from __future__ import annotations

import socket
from collections.abc import Iterator

import attrs
import pytest

from trioroom._wire.client_frames import encode_masked
from trioroom._wire.frames import Opcode, encode_frame
from trioroom.bench.swarm import Swarm
from trioroom.bench.tally import Tally


@attrs.define
class Pair:
    """A swarm with one member, and the server's end of its connection."""

    swarm: Swarm
    member: int
    server: socket.socket


@pytest.fixture
def pair() -> Iterator[Pair]:
    swarm = Swarm(Tally())
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(5)
    descriptor = ours.detach()
    swarm.pending[descriptor] = _Silent()
    swarm.poller.watch(descriptor)
    swarm.adopt(descriptor, 0, encode_frame(Opcode.TEXT, b"behind the handshake"))
    with theirs:
        yield Pair(swarm, descriptor, theirs)
        swarm.close()


class _Silent:
    def advance(self) -> None:
        """Never called: it is adopted at once."""


def test_messages_are_counted_also_those_behind_the_handshake(pair: Pair) -> None:
    assert pair.swarm.tally.counts.received == 1
    pair.server.sendall(encode_frame(Opcode.TEXT, b"one") + encode_frame(Opcode.BINARY, b"two"))
    pair.swarm.turn(5)
    assert pair.swarm.tally.counts.received == 3


def test_heartbeat_is_answered(pair: Pair) -> None:
    pair.server.sendall(encode_frame(Opcode.PING, b"42"))
    pair.swarm.turn(5)
    assert pair.server.recv(100) == encode_masked(Opcode.PONG, b"42")
    assert pair.swarm.tally.counts.pings == 1


def test_close_of_the_server_is_answered_and_counted_once_with_its_code(pair: Pair) -> None:
    pair.server.sendall(encode_frame(Opcode.CLOSE, b"\x10\x0ctoo slow"))
    pair.swarm.turn(5)
    assert pair.server.recv(100) == encode_masked(Opcode.CLOSE, b"\x10\x0c")
    pair.server.close()
    pair.swarm.turn(5)
    assert (pair.swarm.tally.counts.closed, pair.swarm.tally.counts.left) == (1, 0)
    assert pair.swarm.tally.reasons == {"closed by the server with 4108 too slow": 1}
    assert not pair.swarm.members


def test_loss_without_a_close_frame_is_told_apart(pair: Pair) -> None:
    lost: list[tuple[int, int]] = []
    pair.swarm.on_lost = lambda descriptor, number: lost.append((descriptor, number))
    pair.server.close()
    pair.swarm.turn(5)
    assert lost == [(pair.member, 0)]
    assert pair.swarm.tally.reasons == {"lost without a close frame": 1}


def test_who_said_goodbye_has_left_and_is_not_lost(pair: Pair) -> None:
    pair.swarm.leave(pair.member, encode_masked(Opcode.CLOSE, b"\x03\xe8"))
    assert pair.server.recv(100)
    pair.server.sendall(encode_frame(Opcode.CLOSE, b"\x03\xe8"))
    pair.server.close()
    for _ in range(2):
        pair.swarm.turn(5)
    assert (pair.swarm.tally.counts.left, pair.swarm.tally.counts.closed) == (1, 0)


def test_cut_member_has_left(pair: Pair) -> None:
    pair.swarm.cut([pair.member])
    assert pair.swarm.tally.counts.left == 1
    assert not pair.swarm.members
    assert pair.server.recv(100) == b""


def test_what_the_kernel_does_not_take_goes_out_later_and_in_order(pair: Pair) -> None:
    messages = [encode_masked(Opcode.TEXT, bytes([at]) * 50_000) for at in range(40)]
    for message in messages:
        pair.swarm.send(pair.member, message)
    expected = b"".join(messages)
    got = b""
    while len(got) < len(expected):
        got += pair.server.recv(65_536)
        pair.swarm.turn(0)
    assert got == expected
    pair.server.close()
    pair.swarm.send(pair.member, b"into the void")  # its end is found when it is read
    pair.swarm.turn(5)
    assert pair.swarm.tally.counts.closed == 1
