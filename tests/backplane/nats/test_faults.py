"""What breaks a link that is then noticed at once: nothing is lost in silence, and traffic flows again soon."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator

import pytest
import trio

from tests.backplane.nats.brokers import open_nodes
from tests.backplane.nats.servers import NatsServer, open_nats_cluster, open_nats_server
from tests.backplane.observers import SLACK, Flow, open_flow
from tests.backplane.proxy import open_proxy
from trioroom.backplane.base import Lost
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.conformance import subscribed

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


async def test_restarted_server(nats_server: NatsServer, flow: Flow) -> None:
    nats_server.kill()
    await flow.becomes(False, within=0.5)
    down_since = trio.current_time()
    await trio.sleep(1)
    assert not any(flow.was_ready(node, down_since) for node in (0, 1))
    await nats_server.restart()
    await flow.flows(AGAIN)
    await flow.becomes(True, within=0.5)
    assert flow.noticed() == EVERYBODY


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


async def test_wrong_password_after_a_restart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "trioroom.backplane")
    async with open_nats_server("authorization { user: app, password: sesame }") as server:
        url = server.url.replace("://", "://app:sesame@") + "?timeout=1"
        async with open_nodes(url, url) as nodes, open_flow(nodes, ROOMS) as flow:
            server.configure("authorization { user: app, password: changed }")
            await server.restart()
            refused_since = trio.current_time()
            errors: list[BackplaneUnavailable] = []

            async def publish() -> None:
                with pytest.raises(BackplaneUnavailable, match=r"retry later$") as raised:
                    await nodes[0].publish(ROOMS[0], b"x")
                errors.append(raised.value)

            with trio.fail_after(1 + SLACK):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(publish)
                    nursery.start_soon(publish)
            assert errors[0] is not errors[1], "they would grow each other's tracebacks"
            await trio.sleep_until(refused_since + 2)  # several attempts
            with trio.fail_after(1 + SLACK):
                await publish()
            assert not any(flow.was_ready(node, refused_since) for node in (0, 1))
            assert all(flow.failures(room) > 0 for room in ROOMS)
            refusals = [message for message in caplog.messages if "Authorization Violation" in message]
            assert len(refusals) == len(nodes), refusals
            for message in refusals:
                assert message.endswith("; check the user and password, token or key that the URL names; trying again")
            assert "sesame" not in caplog.text
            server.configure("authorization { user: app, password: sesame }")
            await server.restart()
            await flow.flows(AGAIN)
            await flow.becomes(True, within=0.5)
        assert flow.noticed() == EVERYBODY


async def test_reset_by_the_network_hits_only_who_is_behind_it(nats_server: NatsServer) -> None:
    async with open_proxy(nats_server.port) as proxy:
        async with open_nodes(f"nats://127.0.0.1:{proxy.port}", nats_server.url) as nodes:
            async with open_flow(nodes, ROOMS) as flow:
                for _ in range(3):
                    proxy.reset()
                    await flow.becomes(False, within=0.5, nodes=[0])
                    await flow.flows(AGAIN)
                    await flow.becomes(True, within=0.5)
            assert flow.noticed() == {(0, room) for room in ROOMS}
            assert flow.always_ready(1)


async def test_room_whose_subscriber_does_not_read_holds_up_no_other(nats_server: NatsServer, flow: Flow) -> None:
    capacity, count = 8, 100
    async with open_nodes(nats_server.url) as (node,), subscribed(node, "slow", capacity) as deliveries:
        for number in range(count):
            await node.publish("slow", b"%d" % number)
        async with subscribed(node, "other", 1) as after:
            await node.publish("other", b"x")
            await after.receive()
        first, *rest = [deliveries.receive_nowait() for _ in range(len(deliveries))]
        assert isinstance(first, Lost)
        assert first.reason == "overflow"
        assert first.count is not None
        assert rest == [b"%d" % number for number in range(first.count, count)]
        await node.publish("slow", b"heard again")
        with trio.fail_after(1):
            assert await deliveries.receive() == b"heard again"
    assert flow.noticed() == set()
    assert flow.always_ready(0)
    assert flow.always_ready(1)


async def test_publishing_on_a_link_that_was_closed_raises(nats_server: NatsServer) -> None:
    async with open_nodes(nats_server.url) as (node,):
        pass
    with trio.fail_after(1), pytest.raises(BackplaneUnavailable):
        await node.publish(ROOMS[0], b"x")
    assert not node.ready


async def test_20000_subscriptions_are_restored_in_batches_and_all_are_told(nats_server: NatsServer) -> None:
    count, deadline = 20_000, 10.0  # seconds for each step, after the first
    live: set[int] = set()
    told: set[int] = set()
    heard: set[int] = set()

    async def observe(number: int) -> None:
        async with subscribed(node, f"room/{number}", 4) as deliveries:
            live.add(number)
            assert await deliveries.receive() == Lost("backplane")
            told.add(number)
            assert await deliveries.receive() == b"%d" % number
            heard.add(number)

    async def until_all(done: set[int], what: str, deadline: float = deadline) -> None:
        start = trio.current_time()
        with trio.move_on_after(deadline):
            while len(done) < count:  # noqa: ASYNC110  # an event at each would be counted too
                await trio.sleep(0.01)
        print(f"{count} {what}: {trio.current_time() - start:.2f} s")
        assert len(done) == count, f"{len(done)} of {count} are {what} after {deadline} s"

    async with open_nodes(f"{nats_server.url}?timeout=30") as (node,), trio.open_nursery() as nursery:
        for number in range(count):
            nursery.start_soon(observe, number)
        await until_all(live, "live", 30.0)
        await nats_server.kick_clients()
        await until_all(told, "told")
        for start in range(0, count, 1_000):
            async with trio.open_nursery() as publishing:
                for number in range(start, start + 1_000):
                    publishing.start_soon(node.publish, f"room/{number}", b"%d" % number)
        await until_all(heard, "heard")
        assert node.ready


async def test_lame_duck_is_left_for_another_server_before_it_closes() -> None:
    async with open_nats_cluster() as cluster:
        leaving, *_ = cluster.servers
        urls = [f"{server.url}?replicas=3" for server in cluster.servers[:2]]
        async with open_nodes(*urls) as nodes, open_flow(nodes, ROOMS) as flow:
            leaving.enter_lame_duck_mode()
            await flow.becomes(False, within=1.0, nodes=[0])
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
async def test_server_of_a_cluster_that_dies_is_replaced_by_another() -> None:
    async with open_nats_cluster() as cluster:
        urls = [f"{server.url}?replicas=3" for server in cluster.servers[:2]]
        async with open_nodes(*urls) as nodes, open_flow(nodes, ROOMS, failed_may_be_late=True) as flow:
            for _ in range(2):
                leader = await cluster.leader_of("trioroom_relay")
                assert leader is not None
                leader.kill()
                await flow.flows(ELECTED)
                await leader.restart()
                await cluster.wait_copied("trioroom_relay")
                await flow.flows(AGAIN)
            await flow.becomes(True, within=PROBED)
