"""How much a peer may say in a time: messages, the requests of a v1 frame, pings and pongs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

import trioroom
from tests.conftest import app_of, close_code, closed_with
from trioroom._net.transport import MAX_DISCARDED
from trioroom._wire.client_frames import encode_masked
from trioroom._wire.frames import Opcode, Pong
from trioroom.testing import open_peer, open_test_server, open_v1_peer

if TYPE_CHECKING:
    from tests._net.conftest import Lobby

RATES = trioroom.Settings(
    max_message_rate=10, message_burst=5, max_control_rate=2, control_burst=3, ping_interval=math.inf, close_timeout=1
)


class Quiet(trioroom.Room):
    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        """Nobody gets it."""


async def test_messages_beyond_the_burst_are_closed_with_1008_and_what_to_do(
    lobby: Lobby, autojump_clock: MockClock
) -> None:
    async with open_test_server(lobby.app, RATES) as server, open_peer(server, "/echo/a") as peer:
        for number in range(8):
            await peer.send(str(number))
        assert await closed_with(peer) == (1008, "more than max_message_rate=10/s, burst 5; send less")
    assert lobby.received == ["0", "1", "2", "3", "4"]
    assert lobby.left == ["more than max_message_rate=10/s, burst 5; send less"]


async def test_peer_that_keeps_to_the_rate_may_go_on_for_ever(lobby: Lobby, autojump_clock: MockClock) -> None:
    async with open_test_server(lobby.app, RATES) as server, open_peer(server, "/echo/a") as peer:
        for number in range(50):
            await peer.send(str(number))
            assert await peer.receive() == str(number)
            await trio.sleep(0.1)


async def test_silence_earns_a_burst(lobby: Lobby, autojump_clock: MockClock) -> None:
    async with open_test_server(lobby.app, RATES) as server, open_peer(server, "/echo/a") as peer:
        for _ in range(3):
            for number in range(5):
                await peer.send(str(number))
                assert await peer.receive() == str(number)
            await trio.sleep(0.5)


@pytest.mark.untraced
@pytest.mark.parametrize("rate", [math.inf, 1e9])
async def test_high_rate_does_not_stand_in_the_way(lobby: Lobby, rate: float) -> None:
    settings = trioroom.Settings(max_message_rate=rate)
    async with open_test_server(lobby.app, settings) as server, open_peer(server, "/echo/a") as peer:
        for number in range(3_000):
            await peer.send(str(number))
            assert await peer.receive() == str(number)


async def test_default_lets_a_burst_of_1000_pass_and_no_flood(lobby: Lobby, autojump_clock: MockClock) -> None:
    """Asserted from the outside and with the default settings: a limit that nobody passes on is none."""
    async with open_test_server(app_of(Quiet), trioroom.Settings()) as server, open_peer(server, "/room/a") as peer:
        for _ in range(990):
            await peer.send("x")
        await peer.send_frame(Opcode.PING)
        assert await peer.receive_event() == Pong(b"")
        for _ in range(30):
            await peer.send("x")
        assert await close_code(peer) == 1008


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("request_", [{"type": "auth", "token": ""}, {"type": "ping"}], ids=["auth", "ping"])
async def test_requests_of_v1_count_one_by_one_however_they_are_framed(
    autojump_clock: MockClock, together: bool, request_: dict[str, object]
) -> None:
    async with open_test_server(app_of(Quiet), RATES) as server, open_v1_peer(server) as v1:
        requests: list[dict[str, object]] = [{**request_, "id": number} for number in range(8)]
        for batch in [requests] if together else [[request] for request in requests]:
            await v1.peer.send_json(*batch)
        assert await close_code(v1.peer) == 1008


async def test_frame_of_as_many_requests_as_the_burst_allows_is_served(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Quiet), RATES) as server, open_v1_peer(server) as v1:
        await v1.peer.send_json(*({"type": "auth", "id": number, "token": ""} for number in range(5)))
        assert [(await v1.receive())["id"] for _ in range(5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("v1", [False, True])
async def test_flood_that_comes_in_one_read_lets_others_run(lobby: Lobby, v1: bool, autojump_clock: MockClock) -> None:
    handled = [0]

    class Quick(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            handled[-1] += 1

    async with (
        open_test_server(app_of(Quick)) as server,
        open_v1_peer(server) as one,
        open_peer(server, "/room/a") as two,
    ):
        await one.join("room/a")
        await wait_all_tasks_blocked()
        if v1:
            await one.peer.send_json(*[{"type": "publish", "room": "room/a", "data": 1}] * 300)
        else:
            await two.stream.send_all(encode_masked(Opcode.TEXT, b"x") * 300)
        while sum(handled) < 300:
            handled.append(0)
            await trio.lowlevel.checkpoint()
    assert max(handled) <= 16  # twice as many as at once: it may be the last in one round and the first in the next


# -- control frames ------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.PONG])
async def test_control_frames_beyond_the_burst_are_closed_with_1008_and_what_to_do(
    lobby: Lobby, autojump_clock: MockClock, opcode: Opcode
) -> None:
    async with open_test_server(lobby.app, RATES) as server, open_peer(server, "/echo/a") as peer:
        for _ in range(4):
            await peer.send_frame(opcode, b"x")
        assert await closed_with(peer) == (1008, "more pings than max_control_rate=2/s, burst 3; send fewer")


async def test_pings_at_the_rate_are_answered_for_ever(lobby: Lobby, autojump_clock: MockClock) -> None:
    async with open_test_server(lobby.app, RATES) as server, open_peer(server, "/echo/a") as peer:
        for number in range(20):
            await peer.send_frame(Opcode.PING, bytes([number]))
            assert await peer.receive_event() == Pong(bytes([number]))
            await trio.sleep(0.5)


async def test_messages_and_control_frames_are_counted_apart(lobby: Lobby, autojump_clock: MockClock) -> None:
    async with open_test_server(lobby.app, RATES) as server, open_peer(server, "/echo/a") as peer:
        for _ in range(3):
            await peer.send("x")
            await peer.send_frame(Opcode.PING)
        await peer.send("y")
        assert [await peer.receive() for _ in range(4)] == ["x", "x", "x", "y"]


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.TEXT])
async def test_flood_over_a_socket_ends_soon(lobby: Lobby, opcode: Opcode) -> None:
    with trio.fail_after(60):
        async with open_test_server(lobby.app, tcp=True) as server, open_peer(server, "/echo/a", tcp=True) as peer:
            peer.answers = False  # the flood is the one to send
            async with trio.open_nursery() as nursery:

                async def flood() -> None:
                    try:
                        while True:
                            await peer.send_frame(opcode, b"x")
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        pass

                nursery.start_soon(flood)
                assert await close_code(peer) == 1008
                nursery.cancel_scope.cancel()


async def test_flood_is_not_read_on_for_ever_after_its_end_was_told(lobby: Lobby, autojump_clock: MockClock) -> None:
    """Until then it is, for closing with something unread would reset the connection and take the close frame along."""
    settings = trioroom.Settings(max_control_rate=1, control_burst=1, close_timeout=60)
    sent = 0
    async with open_test_server(lobby.app, settings) as server, open_peer(server, "/echo/a") as peer:
        flood = encode_masked(Opcode.PING, bytes(125)) * 1_000
        try:
            while True:
                await peer.stream.send_all(flood)
                sent += len(flood)
                await wait_all_tasks_blocked()
        except trio.BrokenResourceError:
            pass  # it has hung up
        assert MAX_DISCARDED <= sent < MAX_DISCARDED + 10 * len(flood)
        assert trio.current_time() == 0
        assert await close_code(peer) == 1008
