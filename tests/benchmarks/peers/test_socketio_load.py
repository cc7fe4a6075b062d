"""The load for Socket.IO servers, on one that knows as much of the protocol as the load says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator

import pytest
from websockets.sync.server import ServerConnection, serve

from tests.benchmarks.peers.socketio_load import PLAYS, run
from trioroom.bench.options import BenchOptions, Scenario

MEMBERS, IN_FLIGHT = 5, 2


def speak(connection: ServerConnection, members: set[ServerConnection]) -> None:
    """Engine.IO 4 and Socket.IO 5, from https://socket.io/docs/v4/engine-io-protocol: as much as an event needs."""
    assert connection.request is not None
    assert connection.request.path == "/socket.io/?EIO=4&transport=websocket"
    connection.send('0{"sid":"a","upgrades":[],"pingInterval":25000,"pingTimeout":20000,"maxPayload":1000000}')
    assert connection.recv() == "40"
    members.add(connection)
    connection.send('40{"sid":"b"}')
    for packet in connection:
        assert isinstance(packet, str)
        event, argument = json.loads(packet.removeprefix("42"))
        assert argument == "x" * 128
        for member in [connection] if event == "echo" else list(members):
            member.send(packet)


def serve_in_thread(handler: Callable[[ServerConnection], None]) -> Iterator[str]:
    """The URL of a server that runs until the generator goes on."""
    with serve(handler, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        host, port = server.socket.getsockname()
        yield f"ws://{host}:{port}/socket.io/?EIO=4&transport=websocket"
        server.shutdown()
        thread.join()


@pytest.fixture
def url() -> Iterator[str]:
    """Of a server for a test."""
    members: set[ServerConnection] = set()
    yield from serve_in_thread(lambda connection: speak(connection, members))


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Of a server that lets nobody into its namespace."""

    def keep_waiting(connection: ServerConnection) -> None:
        for _ in connection:
            pass

    yield from serve_in_thread(keep_waiting)


@pytest.mark.parametrize("scenario", PLAYS)
def test_members_connect_to_the_namespace_and_events_are_counted(url: str, scenario: Scenario) -> None:
    result = run(BenchOptions(scenario=scenario, members=MEMBERS, in_flight=IN_FLIGHT, duration=0.2), url)
    assert result.succeeded, list(result.notes())
    counts = result.tally.counts
    assert counts.opened == MEMBERS
    if scenario is Scenario.ECHO:
        assert counts.received == counts.sent > 0
    elif scenario is Scenario.FANOUT:
        assert 0 <= MEMBERS * counts.sent - counts.received <= IN_FLIGHT  # nobody waits for the publisher's own
        assert counts.sent > 0
    else:
        assert (counts.received, counts.sent) == (0, 0)


def test_members_wait_for_the_namespace(silent_url: str) -> None:
    result = run(BenchOptions(scenario=Scenario.CONNECT, members=MEMBERS, patience=0.5), silent_url)
    assert not result.succeeded
    assert any("the answers to CONNECT" in note for note in result.notes())
