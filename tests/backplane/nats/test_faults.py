"""What breaks a link that is then noticed at once: nothing is lost in silence, and traffic flows again soon."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
import trio

from tests.backplane.nats.brokers import open_nodes
from tests.backplane.nats.servers import NatsServer, open_nats_cluster, open_nats_server
from tests.backplane.observers import Flow, open_flow
from tests.backplane.processes import ANSWER_TIMEOUT

pytestmark = pytest.mark.nats

ROOMS = ("chat/a", "chat/b", "chat/c", "chat/d")
EVERYBODY = {(node, room) for node in (0, 1) for room in ROOMS}
AGAIN = 2.0  # seconds from the server's return until traffic flows
ELECTED = 15.0  # and from when the relay has lost its leader: the others wait for up to 9 s before they choose one

PROBED = 2.0  # and from when it flows until the next probe has come round, with the default settings


@pytest.fixture
async def flow(nats_server: NatsServer) -> AsyncIterator[Flow]:
    """Between two nodes; what it checks fails the test as an error of the teardown."""
    async with open_nodes(nats_server.url, nats_server.url) as nodes, open_flow(nodes, ROOMS) as opened:
        yield opened


async def test_server_that_has_forgotten_its_streams(nats_server: NatsServer, flow: Flow) -> None:
    nats_server.forget()
    await nats_server.restart()
    await flow.flows(AGAIN)
    assert flow.noticed() == EVERYBODY


async def test_relay_that_somebody_deletes_is_made_again(nats_server: NatsServer, flow: Flow) -> None:
    await nats_server.ask("$JS.API.STREAM.DELETE.trioroom_relay")
    await flow.told(2.0 + AGAIN)
    await flow.flows(AGAIN)
    assert flow.noticed() == EVERYBODY


async def test_killed_connections(nats_server: NatsServer, flow: Flow) -> None:
    for _ in range(3):
        await nats_server.kick_clients()
        await flow.becomes(False, within=0.5)
        await flow.flows(AGAIN)
        await flow.becomes(True, within=0.5)
    assert flow.noticed() == EVERYBODY


async def test_listener_that_is_kicked_for_reading_too_slowly() -> None:
    async with open_nats_server("max_payload: 65536\nmax_pending: 262144\nwrite_deadline: 200ms\n") as server:
        async with open_nodes(server.url, server.url) as nodes, open_flow(nodes, ROOMS) as flow:
            flood(server, b"trioroom.got.room." + ROOMS[0].encode(), count=4_000, size=16_384)
            assert "Slow Consumer" in server.log
            await flow.becomes(False, within=0.5)
            await flow.told(AGAIN)
            await flow.flows(AGAIN)
            await flow.becomes(True, within=0.5)


def flood(server: NatsServer, subject: bytes, count: int, size: int) -> None:
    """Publish while nobody in this thread reads: more than the kernel's buffers hold."""
    publication = b"PUB %b %d\r\n%b\r\n" % (subject, size, b"x" * size)
    with socket.create_connection(("127.0.0.1", server.port)) as publisher:
        publisher.settimeout(10)
        publisher.sendall(b'CONNECT {"verbose":false}\r\n')
        for _ in range(count):
            publisher.sendall(publication)
        publisher.sendall(b"PING\r\n")
        received = b""
        while b"PONG" not in received:
            received += publisher.recv(65_536)


async def test_lame_duck_is_left_for_another_server_before_it_closes() -> None:
    async with open_nats_cluster() as cluster:
        leaving, *_ = cluster.servers
        urls = [f"{server.url}?replicas=3" for server in cluster.servers[:2]]
        async with open_nodes(*urls) as nodes, open_flow(nodes, ROOMS) as flow:
            left: list[float] = []

            async def leave() -> None:
                await flow.becomes(False, within=ANSWER_TIMEOUT, nodes=[0])
                left.append(trio.current_time())

            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave)
                told = await leaving.enter_lame_duck_mode()
            assert left[0] - told < 1.0
            await flow.becomes(True, within=AGAIN, nodes=[0])
            await flow.flows(ELECTED)  # it may have had the relay
            assert leaving.alive
        assert (0, ROOMS[0]) in flow.noticed()


async def test_relay_that_another_server_takes_over() -> None:
    async with open_nats_cluster() as cluster:
        urls = [f"{server.url}?replicas=3" for server in cluster.servers]
        async with open_nodes(*urls) as nodes, open_flow(nodes, ROOMS, failed_may_be_late=True) as flow:
            for _ in range(5):
                await cluster.servers[0].ask("$JS.API.STREAM.LEADER.STEPDOWN.trioroom_relay")
                await flow.flows(ELECTED)
            await flow.becomes(True, within=PROBED)
        assert flow.noticed() == {(node, room) for node in range(3) for room in ROOMS}


@pytest.mark.slow
async def test_only_copy_is_waited_for() -> None:
    async with open_nats_cluster() as cluster, open_nodes(*[server.url for server in cluster.servers]) as nodes:
        alone = await cluster.leader_of("trioroom_relay")
        assert alone is not None
        others = [number for number, server in enumerate(cluster.servers) if server is not alone]
        async with open_flow([nodes[number] for number in others], ROOMS) as flow:
            alone.kill()
            await flow.becomes(False, within=1.0 + 2.0)
            await alone.restart()
            await flow.flows(ELECTED)
            await flow.becomes(True, within=PROBED)
        assert flow.noticed() == EVERYBODY


@pytest.mark.slow
@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.thorough)])
async def test_server_of_a_cluster_that_dies_is_replaced_by_another(times: int) -> None:
    async with open_nats_cluster() as cluster:
        urls = [f"{server.url}?replicas=3" for server in cluster.servers[:2]]
        async with open_nodes(*urls) as nodes, open_flow(nodes, ROOMS, failed_may_be_late=True) as flow:
            for _ in range(times):
                leader = await cluster.leader_of("trioroom_relay")
                assert leader is not None
                leader.kill()
                await flow.flows(ELECTED)
                await leader.restart()
                await cluster.wait_copied("trioroom_relay")
                await flow.flows(AGAIN)
            await flow.becomes(True, within=PROBED)
