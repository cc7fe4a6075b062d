"""Draining: everyone is told, may finish, and has gone by the deadline."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trioroom
from trioroom._core.routes import Routes
from trioroom._net.drain import drain
from trioroom._net.hub import Hub
from trioroom._wire.client_frames import take_frame
from trioroom._wire.codec import CODECS
from trioroom._wire.encoding import encoding_for
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import Peer, open_peer, open_test_server

if TYPE_CHECKING:
    from tests._net.conftest import Lobby, Upgrade
    from trioroom._net.connection import Connection

SETTINGS = trioroom.Settings(drain_timeout=10, close_timeout=3, leave_timeout=1)


# -- by itself -----------------------------------------------------------------------------------


class Parting:
    """A connection, as far as draining looks at one: it goes ``after`` so many seconds."""

    def __init__(self, hub: Hub, nursery: trio.Nursery, after: float, subprotocol: str | None = None) -> None:
        self.encoding = encoding_for(CODECS.get(subprotocol or ""), None)
        self.told: list[int] = []
        self.told_at = -1.0
        self.farewell = b""
        self.dropped = False
        self._hub, self._nursery, self._after = hub, nursery, after
        hub.add(self.as_connection)

    @property
    def as_connection(self) -> Connection:
        return cast("Connection", self)

    def close(self, code: int, reason: str = "", *, farewell: bytes = b"") -> None:
        self.told.append(code)
        self.told_at = trio.current_time()
        self.farewell = farewell
        self._nursery.start_soon(self._go)

    @property
    def slot(self) -> tuple[float, float]:
        """From the beginning of time, which the drain is at."""
        frame = take_frame(self.farewell)
        assert frame is not None
        bye = json.loads(frame[1])
        assert (bye["type"], bye["code"]) == ("bye", 4101)
        return self.told_at + bye["after"][0], self.told_at + bye["after"][1]

    def abort(self) -> None:
        self.dropped = True

    async def _go(self) -> None:
        await trio.sleep(self._after)
        self._hub.remove(self.as_connection)


@pytest.fixture
def make_hub(nursery: trio.Nursery) -> Callable[..., Hub]:
    def make(**settings: Any) -> Hub:
        routes: Routes[type[trioroom.Room]] = Routes()
        return Hub(routes, MemoryBackplane(), trioroom.Settings(**settings), nursery)

    return make


@pytest.fixture
def hub(make_hub: Callable[..., Hub]) -> Hub:
    return make_hub(drain_timeout=5, close_timeout=1)


async def test_nobody_to_wait_for_is_no_wait(hub: Hub, autojump_clock: MockClock) -> None:
    assert await drain(hub)
    assert trio.current_time() == 0


async def test_all_are_told_and_the_last_one_ends_it(
    hub: Hub, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    all_parting = [Parting(hub, nursery, after) for after in (0, 2, 1)]
    assert await drain(hub)
    assert trio.current_time() == 2
    assert [parting.told for parting in all_parting] == [[4101]] * 3


async def test_deadline_ends_it_too_and_is_told(hub: Hub, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    quick, slow = (Parting(hub, nursery, after) for after in (1, 6))
    assert not await drain(hub)
    assert trio.current_time() == 5
    assert (quick.dropped, slow.dropped) == (False, True)


async def test_cancelled_drain_leaves_the_rest_to_themselves(
    make_hub: Callable[..., Hub], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    hub = make_hub(drain_timeout=100, reconnect_rate=100)
    everybody = [Parting(hub, nursery, 3) for _ in range(300)]
    with trio.move_on_after(1) as scope:
        await drain(hub)
    assert scope.cancelled_caught
    assert sum(parting.told == [4101] for parting in everybody) == pytest.approx(100, abs=5)
    assert not any(parting.dropped for parting in everybody)


async def test_peers_are_closed_at_their_pace_each_with_a_slot_of_its_own(
    make_hub: Callable[..., Hub], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    hub = make_hub(drain_timeout=10, close_timeout=5, reconnect_rate=500)
    everybody = [Parting(hub, nursery, 0.1, "trioroom.v1.json") for _ in range(1_000)]
    assert await drain(hub)
    assert trio.current_time() == pytest.approx(2, abs=0.1)  # 1,000 / 500 a second, and the last ones' closing
    closed = Counter(int(parting.told_at * 10 + 1e-6) for parting in everybody)
    assert closed == dict.fromkeys(range(20), 50)
    slots = sorted(parting.slot for parting in everybody)
    assert [first for first, _ in slots] == pytest.approx([number / 500 for number in range(1_000)], abs=0.001)
    assert {round(last - first, 3) for first, last in slots} == {0.05}


async def test_more_than_the_pace_allows_for_are_closed_in_time_and_come_back_by_the_deadline(
    make_hub: Callable[..., Hub], nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    hub = make_hub(drain_timeout=10, close_timeout=4, reconnect_rate=1)
    everybody = [Parting(hub, nursery, 4, "trioroom.v1.json") for _ in range(500)]  # they take their time to part
    assert await drain(hub)
    assert trio.current_time() <= 10
    assert max(parting.told_at for parting in everybody) <= 6
    returns = Counter(int(parting.slot[0] + 1e-6) for parting in everybody)
    assert returns == dict.fromkeys(range(10), 50)


async def test_crowd_is_told_in_slices(make_hub: Callable[..., Hub], nursery: trio.Nursery) -> None:
    turns = 0

    class Counted(Parting):
        def close(self, code: int, reason: str = "", *, farewell: bytes = b"") -> None:
            super().close(code, reason)
            seen.add(turns)

    hub = make_hub(reconnect_rate=math.inf)
    seen: set[int] = set()
    for _ in range(3_000):
        Counted(hub, nursery, 0)
    nursery.start_soon(drain, hub)
    for turns in range(100):  # noqa: B007  # read by those who are told
        await trio.lowlevel.checkpoint()
    assert len(seen) >= 5


# -- a server that stops ---------------------------------------------------------------------------


async def closing_of(peer: Peer) -> tuple[int, str]:
    """Code and reason that the server gives, and answer it."""
    with pytest.raises(trioroom.ConnectionClosed) as closed:
        await peer.receive()
    return closed.value.code, closed.value.reason


async def test_peers_of_a_stopping_server_are_sent_elsewhere(
    lobby: Lobby, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app, SETTINGS) as server:
        plain = await nursery.start(serve_peer, server, "/echo/a", None)
        v1 = await nursery.start(serve_peer, server, "/", "trioroom.v1.json")
        assert (await v1.receive_json())["type"] == "hello"
        told: list[object] = []

        async def listen() -> None:
            told.append(await v1.receive_json())
            told.append(await closing_of(v1))

        nursery.start_soon(listen)
        nursery.start_soon(closing_of, plain)
    [bye, closing] = told
    assert isinstance(bye, dict)
    assert (bye["type"], bye["code"]) == ("bye", 4101)
    assert closing == (4101, "the server drains; reconnect")
    assert lobby.left == ["the server drains; reconnect"]
    assert trio.current_time() == 0  # as nobody kept it waiting


async def serve_peer(
    server: trioroom.Server, path: str, subprotocol: str | None, task_status: trio.TaskStatus[Peer]
) -> None:
    """A peer that outlives the body of the test server."""
    async with open_peer(server, path, subprotocol=subprotocol) as peer:
        task_status.started(peer)
        await trio.sleep(60)


@pytest.mark.parametrize(("close_timeout", "taken"), [(3, 3), (30, 10)])
async def test_peer_that_does_not_answer_is_waited_for_by_the_nearer_deadline(
    lobby: Lobby, nursery: trio.Nursery, autojump_clock: MockClock, close_timeout: float, taken: float
) -> None:
    settings = trioroom.Settings(drain_timeout=10, close_timeout=close_timeout, leave_timeout=1)
    async with open_test_server(lobby.app, settings) as server:
        await nursery.start(serve_peer, server, "/echo/a", None)
    assert trio.current_time() == pytest.approx(taken)
    assert lobby.left == ["the server drains; reconnect"]


async def test_what_was_sent_before_arrives_before_the_end(
    lobby: Lobby, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    received: list[object] = []

    async def listen(peer: Peer) -> None:
        received.append(await peer.receive())
        received.append(await closing_of(peer))

    async with open_test_server(lobby.app, SETTINGS) as server:
        peer = await nursery.start(serve_peer, server, "/echo/a", None)
        await wait_all_tasks_blocked()
        lobby.joined[0].send("last words")
        nursery.start_soon(listen, peer)
    assert received == ["last words", (4101, "the server drains; reconnect")]


async def test_on_leave_may_take_its_time_but_not_more(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    finished: list[str] = []

    class Slow(trioroom.Room):
        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            await trio.sleep(float(self.params["seconds"]))
            finished.append(self.params["seconds"])

    app = trioroom.App()
    app.route("slow/{seconds}", Slow)
    async with open_test_server(app, SETTINGS) as server:
        for seconds in ("0.5", "100"):
            nursery.start_soon(closing_of, await nursery.start(serve_peer, server, f"/slow/{seconds}", None))
    assert finished == ["0.5"]
    assert trio.current_time() == pytest.approx(1)


async def test_hooks_that_hang_take_two_leave_timeouts_at_most(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What the parent of workers, and who configures a service manager, goes by."""

    class Hanging(trioroom.Room):
        async def on_leave(self, member: trioroom.Member, reason: str) -> None:
            await trio.sleep_forever()

        async def on_close(self) -> None:
            await trio.sleep_forever()

    app = trioroom.App()
    app.route("hanging", Hanging)
    settings = trioroom.Settings(drain_delay=2, drain_timeout=10, close_timeout=60, leave_timeout=4)
    async with open_test_server(app, settings) as server:
        await nursery.start(serve_peer, server, "/hanging", None)  # answers no close frame
    assert trio.current_time() == pytest.approx(2 + 10 + 2 * 4)


@pytest.mark.parametrize("peers", [0, 2])
async def test_drain_without_a_deadline_ends_with_the_last_peer(
    peers: int, lobby: Lobby, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app, trioroom.Settings(drain_timeout=math.inf, close_timeout=math.inf)) as server:
        for _ in range(peers):
            nursery.start_soon(closing_of, await nursery.start(serve_peer, server, "/echo/a", None))
    assert trio.current_time() == 0


async def test_new_peers_are_refused_while_the_others_go(
    lobby: Lobby, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    refused: list[OSError] = []

    async def come_late(port: int) -> None:
        await trio.sleep(1)
        try:
            await trio.open_tcp_stream("127.0.0.1", port)
        except OSError as exc:
            refused.append(exc)

    async with open_test_server(lobby.app, SETTINGS, tcp=True) as server:
        await nursery.start(serve_peer, server, "/echo/a", None)
        nursery.start_soon(come_late, server.port)
    assert trio.current_time() == pytest.approx(3)
    assert len(refused) == 1


async def test_peer_in_its_handshake_when_draining_begins_is_not_let_in_for_good(
    lobby: Lobby, nursery: trio.Nursery, autojump_clock: MockClock, upgrade: Upgrade
) -> None:
    ours, theirs = memory_stream_pair()
    handshake = upgrade()

    async def finish_late() -> None:
        await trio.sleep(1)  # draining, and the other peer keeps it waiting
        await ours.send_all(handshake[20:])
        received = b"".join([data async for data in ours])
        told.append((trio.current_time(), received))

    told: list[tuple[float, bytes]] = []
    async with open_test_server(lobby.app, SETTINGS) as server:
        await nursery.start(serve_peer, server, "/echo/a", None)  # answers no close frame: 3 seconds
        nursery.start_soon(server.serve_stream, theirs)
        await ours.send_all(handshake[:20])
        nursery.start_soon(finish_late)
    assert trio.current_time() <= 5  # not drain_timeout
    ((moment, received),) = told
    assert moment <= 5
    assert received.startswith(b"HTTP/1.1 503 ") or (4101).to_bytes(2, "big") in received
