"""Over real sockets, with members that stop reading and read again: each message is received or counted as lost."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
import trio.lowlevel

import trioroom
from trioroom import Overflow
from trioroom.testing import Peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Greet

MEMBERS, PAUSING = 20, 5
MESSAGES = 2_000
FILLER = "x" * 1_000
KEYS = 50
WAITING = 100  # messages that may wait for a member
SOCKET_BYTES = 8_192  # asked of the kernel for each direction, so that little waits there
SETTINGS = trioroom.Settings(socket_send_bytes=SOCKET_BYTES, close_timeout=2, drain_timeout=1)


class Watcher:
    """A v1 member that adds up what it gets."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.lost = 0
        self.reads = trio.Event()
        """While it is not set, nothing is read."""
        self.reads.set()
        self.closed: trioroom.ConnectionClosed | None = None

    @property
    def accounted(self) -> int:
        return len(self.received) + self.lost

    async def run(self, port: int, greet: Greet, *, task_status: trio.TaskStatus[None]) -> None:
        sock = trio.socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BYTES)
        await sock.connect(("127.0.0.1", port))
        async with trio.SocketStream(sock) as stream:
            peer = await greet(stream, "/", ("Sec-WebSocket-Protocol: trioroom.v1.json",))
            await peer.receive()
            await peer.send_json({"type": "join", "id": 1, "room": "room"})
            await peer.receive()
            task_status.started()
            try:
                while True:
                    await self.reads.wait()
                    await self.take_one(peer)
            except trioroom.ConnectionClosed as closed:
                self.closed = closed

    async def take_one(self, peer: Peer) -> None:
        envelope = await peer.receive_json()
        if envelope["type"] == "gap":
            lost = envelope["lost"]
            assert isinstance(lost, int)
            self.lost += lost
        else:
            self.received.append(int(str(envelope["data"]).partition(" ")[0]))


@pytest.fixture
def watchers() -> list[Watcher]:
    """The first `PAUSING` of them pause."""
    return [Watcher() for _ in range(MEMBERS)]


async def flood(app: trioroom.App, watchers: list[Watcher]) -> None:
    """Publish all, while those that read keep up; the others pause for the part in the middle."""
    pausing, reading = watchers[:PAUSING], watchers[PAUSING:]
    for number in range(MESSAGES):
        if number == MESSAGES // 4:
            for watcher in pausing:
                watcher.reads = trio.Event()
        if number == MESSAGES * 3 // 4:
            for watcher in pausing:
                watcher.reads.set()
        await app.publish("room", f"{number} {FILLER}", key=str(number % KEYS))
        if number % (WAITING // 2) == 0:
            await until(lambda: min(watcher.accounted for watcher in reading) >= number)  # noqa: B023  # awaited here


async def until(condition: Callable[[], bool]) -> None:
    """The kernel has a part in when."""
    while not condition():
        await trio.lowlevel.checkpoint()


def all_is_out(room: trioroom.Room) -> bool:
    statistics = room.statistics()
    return statistics.waiting == statistics.deliveries.queued == 0


def app_with(policy: Overflow) -> tuple[trioroom.App, list[trioroom.Room]]:
    """And the room, once it is open."""
    app, rooms = trioroom.App(), list[trioroom.Room]()

    class Open(trioroom.Room):
        overflow = policy
        max_outbox_messages = WAITING

        async def on_open(self) -> None:
            rooms.append(self)

    app.route("room", Open)
    return app, rooms


@pytest.mark.untraced
@pytest.mark.parametrize("policy", [Overflow.DROP_OLDEST, Overflow.DROP_NEWEST, Overflow.LATEST])
async def test_each_message_is_received_or_counted_in_a_gap(
    greet: Greet, watchers: list[Watcher], policy: Overflow
) -> None:
    app, rooms = app_with(policy)
    with trio.fail_after(60):
        async with open_test_server(app, SETTINGS, tcp=True) as server, trio.open_nursery() as nursery:
            for watcher in watchers:
                await nursery.start(watcher.run, server.port, greet)
            (room,) = rooms
            await flood(app, watchers)
            await until(lambda: min(watcher.accounted for watcher in watchers) >= MESSAGES and all_is_out(room))
            counted = room.statistics().deliveries
            assert [watcher.accounted for watcher in watchers] == [MESSAGES] * MEMBERS
            assert counted == trioroom.Deliveries(
                offered=MESSAGES * MEMBERS,
                sent=sum(len(watcher.received) for watcher in watchers),
                queued=0,
                dropped=sum(watcher.lost for watcher in watchers),
                unsent=0,
                slow_consumers=0,
            )
            assert min(watcher.lost for watcher in watchers[:PAUSING]) > 0
            for watcher in watchers:
                check_order(watcher.received, policy)
            nursery.cancel_scope.cancel()


def check_order(received: list[int], policy: Overflow) -> None:
    if policy is Overflow.LATEST:  # each key's messages in order, and the newest of each
        for key in range(KEYS):
            of_key = [number for number in received if number % KEYS == key]
            assert of_key == sorted(set(of_key))
            assert of_key[-1] == MESSAGES - KEYS + key
    else:
        assert received == sorted(set(received))


@pytest.mark.untraced
async def test_member_that_is_closed_with_4108_has_received_all_up_to_then(
    greet: Greet, watchers: list[Watcher]
) -> None:
    app, rooms = app_with(Overflow.DISCONNECT)
    patient = attrs.evolve(SETTINGS, close_timeout=30)  # else who reads on too late finds its connection reset
    with trio.fail_after(60):
        async with open_test_server(app, patient, tcp=True) as server, trio.open_nursery() as nursery:
            for watcher in watchers:
                await nursery.start(watcher.run, server.port, greet)
            (room,) = rooms
            await flood(app, watchers)
            await until(lambda: all(len(watcher.received) == MESSAGES or watcher.closed for watcher in watchers))
            await until(lambda: all_is_out(room))
            codes = [watcher.closed.code if watcher.closed else None for watcher in watchers]
            assert codes == [4108] * PAUSING + [None] * (MEMBERS - PAUSING)
            counted = room.statistics().deliveries
            assert counted.sent == sum(len(watcher.received) for watcher in watchers)
            assert counted.offered == counted.sent + counted.dropped + counted.unsent
            assert counted.dropped >= PAUSING * WAITING
            assert counted.slow_consumers == PAUSING
            for watcher in watchers:
                assert watcher.received == list(range(len(watcher.received)))
            nursery.cancel_scope.cancel()


async def test_peer_that_takes_nothing_is_told_so_when_it_reads_again(greet: Greet) -> None:
    app, rooms = app_with(Overflow.DROP_OLDEST)
    watcher = Watcher()
    settings = trioroom.Settings(write_timeout=0.2, socket_send_bytes=SOCKET_BYTES)
    with trio.fail_after(60):
        async with open_test_server(app, settings, tcp=True) as server, trio.open_nursery() as nursery:
            await nursery.start(watcher.run, server.port, greet)
            (room,) = rooms
            watcher.reads = trio.Event()
            for number in range(MESSAGES):
                await app.publish("room", f"{number} {FILLER}")
            await until(lambda: room.statistics().deliveries.slow_consumers == 1)
            watcher.reads.set()
            await until(lambda: watcher.closed is not None)
            assert watcher.closed is not None
            assert watcher.closed.code == 4108
            assert watcher.closed.reason.endswith("nothing read for 0.2 s")
            assert watcher.received == sorted(set(watcher.received))
