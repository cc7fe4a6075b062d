"""What a server counts agrees with what has happened to it, as ``/metrics`` and `Server.statistics` tell."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import attrs
import pytest
import trio
from trio.testing import MockClock, memory_stream_pair, wait_all_tasks_blocked

import trioroom
from tests.conftest import Tracked, app_of, close_code
from tests.scraping import counts, told, until
from trioroom import Overflow
from trioroom._core.meters import MESSAGES_PER_TIMING, Outcome
from trioroom._net.drain import drain
from trioroom.backplane.base import Lost
from trioroom.backplane.memory import MemoryBackplane
from trioroom.testing import open_peer, open_test_server, open_v1_peer

if TYPE_CHECKING:
    from tests._net.conftest import OpenPeer
    from trioroom.backplane.room_channel import RoomChannel

pytestmark = pytest.mark.usefixtures("fresh_records")
SETTINGS = trioroom.Settings(
    drain_timeout=2.0, close_timeout=1.0, leave_timeout=1.0, public_metrics=True, ping_interval=math.inf
)


async def test_counts_agree_with_a_course_of_events() -> None:
    async with open_test_server(app_of(Tracked), SETTINGS, tcp=True) as server:
        async with open_peer(server, "/room/a") as plain, open_v1_peer(server) as v1:
            await v1.join("room/a")
            await plain.send("leave")
            assert await close_code(plain) == 1000
        found = await until(server.port, ("connections_closed_total", "1006"), 1)
        statistics = server.statistics()
    assert found["connections_opened_total",] == found["handshakes_total", "accepted", "101"] == 2
    assert found["connections_closed_total", "1000"] == 1
    assert found["messages_received_total",] == 2
    assert {found["connections", mode] for mode in ("plain", "v1.json", "v1.msgpack")} == {0}
    assert found["rooms",] == found["members",] == 0
    hooks = ("authorize", "on_join", "on_leave", "on_close")  # of which the room has two
    assert [found["hook_seconds_count", hook] for hook in hooks] == [0, 2, 2, 0]
    assert statistics.opened_connections == 2
    assert {code: count for code, count in statistics.closed_connections.items() if count} == {"1000": 1, "1006": 1}
    assert statistics.messages_received == 2


async def test_connections_and_members_are_told_while_they_are_there() -> None:
    async with open_test_server(app_of(Tracked), SETTINGS, tcp=True) as server:
        async with open_peer(server, "/room/a"), open_v1_peer(server) as v1:
            await v1.join("room/a")
            await v1.join("room/b")
            found = await until(server.port, ("members",), 3)
            assert server.statistics().members == 3
    assert (found["connections", "plain"], found["connections", "v1.json"]) == (1, 1)
    assert found["rooms",] == 2
    assert found["draining",] == 0


async def test_deliveries_and_bytes_are_those_on_the_wire() -> None:
    async with open_test_server(app_of(trioroom.Room), SETTINGS, tcp=True) as server:
        async with open_peer(server, "/room/a", tcp=True) as one, open_peer(server, "/room/a", tcp=True) as other:
            await until(server.port, ("members",), 2)
            for _ in range(3):
                await one.send("x" * 100)
                assert await other.receive() == "x" * 100
            found = await counts(server.port)
    assert found["deliveries_total", "sent", "disconnect"] == 3
    assert found["sent_bytes_total",] == 3 * 102
    assert found["received_bytes_total",] == 3 * 106
    assert found["publications_total", "published"] == 3
    assert found["fanout_pass_seconds_count",] == found["fanout_batch_size_count",] == 3
    assert found["fanout_batch_size_sum",] == 3
    assert found["fanout_batch_size_bucket", "1.0"] == 3


# -- who is not let in -----------------------------------------------------------------------------


async def say(port: int, *said: bytes) -> None:
    """To a server, and hear it out."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for data in said:
            await stream.send_all(data)
        with suppress(trio.BrokenResourceError):
            async for _ in stream:
                pass


def asking(path: str, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in ("Host: test", *headers))
    return f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode()


UPGRADE = (
    *("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"),
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


@pytest.mark.parametrize(
    ("said", "outcome", "status"),
    [
        (asking("/healthz"), "http", "200"),
        (asking("/nothing"), "http", "404"),
        (asking("/metrics/", "Authorization: Bearer nonsense"), "http", "404"),
        (b"POST /room/a HTTP/1.1\r\nHost: test\r\n\r\n", "refused", "405"),
        (b"nonsense\r\n\r\n", "refused", "400"),
        (asking("/room/a", "X: " + "x" * 20_000), "refused", "431"),
        (asking("/elsewhere", *UPGRADE), "refused", "404"),
        (asking("/room/a", *UPGRADE, "Origin: http://elsewhere.example"), "refused", "403"),
        (asking("/room/a", "Upgrade: websocket"), "refused", "400"),
    ],
)
async def test_refusals_are_counted_by_their_status(said: bytes, outcome: str, status: str) -> None:
    async with open_test_server(app_of(Tracked), SETTINGS, tcp=True) as server:
        await say(server.port, said)
        found = await counts(server.port)
        assert found["handshakes_total", outcome, status] == 1
        assert sum(found[key] for key in found if key[0] == "handshakes_total") == 1
        assert found["connections_opened_total",] == 0


async def test_who_leaves_before_the_end_of_its_request_has_failed() -> None:
    async with open_test_server(app_of(Tracked), SETTINGS, tcp=True) as server:
        async with await trio.open_tcp_stream("127.0.0.1", server.port) as stream:
            await stream.send_all(b"GET /ro")
        await until(server.port, ("handshakes_total", "failed", ""), 1)


async def test_who_is_too_slow_to_ask_has_timed_out(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Tracked), SETTINGS) as server:
        ours, theirs = memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.serve_stream, theirs)
            assert b" 408 " in await ours.receive_some()
            await ours.aclose()
        assert server._overview.hub.limits.meters.handshakes == {(Outcome.TIMED_OUT, 408): 1}


async def test_who_finds_no_place_is_counted_by_the_limit() -> None:
    settings = attrs.evolve(SETTINGS, max_connections=2)
    async with open_test_server(app_of(Tracked), settings, tcp=True) as server:
        async with open_peer(server, "/room/a", tcp=True):
            await until(server.port, ("members",), 1)
            async with open_peer(server, "/room/a", tcp=True):
                await say(server.port, asking("/room/a", *UPGRADE))
        found = await until(server.port, ("connections_closed_total", "1006"), 2)
    assert found["handshakes_total", "max_connections", "503"] >= 1
    assert found["peers_limit",] == 2


# -- what does not arrive --------------------------------------------------------------------------


def app_of_policies() -> trioroom.App:
    """A room at ``/{policy}`` for each, where four messages may wait for a member."""
    app = trioroom.App()
    for policy in Overflow:
        app.route(policy.value, type(policy.name, (trioroom.Room,), {"overflow": policy, "max_outbox_messages": 4}))
    return app


async def publish(app: trioroom.App, policy: Overflow, *messages: str) -> None:
    """One after the other: each is a pass of its own."""
    for message in messages:
        await app.publish(policy.value, message, key="k" if policy is Overflow.LATEST else None)
        await wait_all_tasks_blocked()


@pytest.mark.parametrize(
    ("policy", "dropped", "queued"),
    [(Overflow.DISCONNECT, 5, 0), (Overflow.DROP_OLDEST, 2, 4), (Overflow.DROP_NEWEST, 2, 4), (Overflow.LATEST, 5, 1)],
)
async def test_drops_are_counted_by_policy(
    open_narrow_peer: OpenPeer, autojump_clock: MockClock, policy: Overflow, dropped: int, queued: int
) -> None:
    app = app_of_policies()
    async with open_test_server(app, SETTINGS) as server, open_narrow_peer(server, f"/{policy.value}"):
        await wait_all_tasks_blocked()
        await publish(app, policy, *map(str, range(7)))
        found, counted = await told(server), server.statistics().deliveries[policy]
    assert found["drops_total", policy.value, "overflow"] == counted.dropped == dropped
    assert found["deliveries_total", "dropped", policy.value] == dropped
    assert found["deliveries_queued", policy.value] == counted.queued == queued + 1  # one is on its way
    assert found["slow_consumers_total", "overflow"] == (policy is Overflow.DISCONNECT)
    assert found["outboxes",] == 1
    assert found["queued_bytes",] > 0


async def test_drops_for_the_memory_of_the_server_are_told_apart(
    open_narrow_peer: OpenPeer, autojump_clock: MockClock
) -> None:
    app, settings = app_of_policies(), attrs.evolve(SETTINGS, max_queued_bytes=100_000)
    async with open_test_server(app, settings) as server, open_narrow_peer(server, "/drop_oldest"):
        await wait_all_tasks_blocked()
        await publish(app, Overflow.DROP_OLDEST, "first", "x" * 60_000, "y" * 60_000)
        found = await told(server)
    assert found["drops_total", "drop_oldest", "memory"] == found["deliveries_total", "dropped", "drop_oldest"] == 2
    assert found["drops_total", "drop_oldest", "overflow"] == 0
    assert found["slow_consumers_total", "memory"] == 1
    assert found["queued_bytes_limit",] == 100_000


async def test_drops_for_silence_are_told_apart(open_narrow_peer: OpenPeer, autojump_clock: MockClock) -> None:
    app = app_of_policies()
    async with open_test_server(app, SETTINGS) as server, open_narrow_peer(server, "/drop_oldest"):
        await wait_all_tasks_blocked()
        await publish(app, Overflow.DROP_OLDEST, *map(str, range(7)))
        await trio.sleep(SETTINGS.write_timeout + 1)
        found = await told(server)
    assert found["drops_total", "drop_oldest", "overflow"] == 2
    assert found["drops_total", "drop_oldest", "write_timeout"] == 4
    assert found["deliveries_total", "dropped", "drop_oldest"] == 6
    assert found["slow_consumers_total", "write_timeout"] == 1


async def test_bytes_that_waited_are_counted_when_they_go_out(
    open_narrow_peer: OpenPeer, autojump_clock: MockClock
) -> None:
    app = app_of_policies()
    async with open_test_server(app, SETTINGS) as server, open_narrow_peer(server, "/drop_oldest") as peer:
        await wait_all_tasks_blocked()
        await publish(app, Overflow.DROP_OLDEST, "0", "1", "2")
        assert (await told(server))["sent_bytes_total",] == 0  # over a stream nobody knows of a part
        for number in range(3):
            assert await peer.receive() == str(number)
        await wait_all_tasks_blocked()
        found = await told(server)
    assert found["sent_bytes_total",] == 3 * 3
    assert found["deliveries_total", "sent", "drop_oldest"] == 3


# -- what a room loses, and what it cannot publish -------------------------------------------------


class Losing(MemoryBackplane):
    """One whose every publication is lost, for a reason that it is told by."""

    async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
        if b"unavailable" in payload:
            raise trioroom.BackplaneUnavailable("out of reach")
        self.channel.offer(Lost("overflow" if b"overflow" in payload else "a reason of its own"))

    @asynccontextmanager
    async def subscribe(self, room: str, channel: RoomChannel) -> AsyncIterator[None]:
        self.channel = channel
        yield


async def test_gaps_and_failures_to_publish_are_counted(autojump_clock: MockClock) -> None:
    app, backplane = app_of(trioroom.Room), Losing()
    async with open_test_server(app, SETTINGS, backplane=backplane) as server, open_v1_peer(server) as peer:
        await peer.join("room/a")
        for data in ("overflow", "b", "c"):
            await app.publish("room/a", data)
        for room in ("room/a", "room/none"):
            with pytest.raises(trioroom.BackplaneUnavailable):
                await app.publish(room, "unavailable")
        await wait_all_tasks_blocked()
        found = await told(server)
    assert (found["gaps_total", "overflow"], found["gaps_total", "other"]) == (1, 2)
    assert (found["publications_total", "published"], found["publications_total", "failed"]) == (3, 2)
    assert found["backplane_up",] == 1


# -- hooks, draining, and what no peer can do ------------------------------------------------------


async def test_some_calls_of_on_message_are_timed_and_all_of_other_hooks(autojump_clock: MockClock) -> None:
    class Slow(trioroom.Room):
        async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
            await trio.lowlevel.checkpoint()

        async def on_call(self, member: trioroom.Member, message: trioroom.Message) -> object:
            raise ValueError("on_call is broken")

    async with open_test_server(app_of(Slow), SETTINGS) as server, open_v1_peer(server) as peer:
        await peer.join("room/a")
        for _ in range(8 * MESSAGES_PER_TIMING):
            assert (await peer.request("publish", room="room/a", data="x"))["type"] == "ok"
        assert (await peer.request("call", room="room/a", data="x"))["type"] == "error"
        found = await told(server)
    assert found["hook_seconds_count", "on_message"] == 8
    assert found["hook_seconds_count", "on_call"] == 1


async def test_server_that_has_drained_still_tells_what_it_did(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Tracked), SETTINGS) as server, trio.open_nursery() as nursery:

        async def stay() -> None:
            async with open_peer(server, "/room/a") as peer:
                assert await close_code(peer) == 4101

        for _ in range(3):
            nursery.start_soon(stay)
        await wait_all_tasks_blocked()
        assert server.statistics().connections == 3
        nursery.start_soon(drain, server._hub)
    found = await told(server)
    assert found["connections_closed_total", "4101"] == found["connections_opened_total",] == 3
    assert found["connections", "plain"] == found["members",] == found["rooms",] == found["outboxes",] == 0
    assert found["draining",] == 1
    assert server.statistics().draining


async def test_peers_make_no_labels(autojump_clock: MockClock) -> None:
    async with open_test_server(app_of(Tracked), SETTINGS) as server:
        before = await told(server)
        for code in (3000, 3999, 4000, 4999):
            async with open_peer(server, f"/room/{code}") as peer:
                await peer.close(code)
                assert await close_code(peer) == code
        for path in ("/elsewhere", "/metrics?x", "/room/..%2f"):
            with pytest.raises(trioroom.ConnectionClosed):
                async with open_peer(server, path, subprotocol="chat"):
                    pass
        await wait_all_tasks_blocked()
        after = await told(server)
    assert after.keys() - before.keys() == {("handshakes_total", "refused", "404")}
    assert after["connections_closed_total", "other"] == 3
    assert after["connections_closed_total", "4000"] == 1
