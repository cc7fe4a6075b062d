"""What breaks a link to one server: nothing is lost in silence, and mostly nothing at all."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from tests.backplane.kafka.apache import HOME, LastingServer, open_apache
from tests.backplane.kafka.brokers import PROMPT
from tests.backplane.kafka.servers import KafkaServer, NoidaServer, TansuServer, open_tansu
from tests.backplane.kafka.topics import add_partitions, make_topic, write
from tests.backplane.observers import SLACK, Flow, open_flow, open_nodes
from tests.backplane.processes import free_port
from tests.backplane.proxy import Proxy, open_proxy
from trioroom.backplane.base import Lost
from trioroom.backplane.kafka import link
from trioroom.backplane.kafka.records import HISTORY, ROOM, partition_of
from trioroom.errors import BackplaneUnavailable
from trioroom.testing.conformance import subscribed
from trioroom.testing.histories import history_of, listening

pytestmark = pytest.mark.kafka

ROOMS = ("chat/a", "chat/b", "chat/c", "chat/d")
NOTICED = 1.0 + 2.0  # probe_interval + probe_timeout
AGAIN = 4.0  # seconds from the server's return until traffic flows: max_backoff, connect_timeout, and 1


@asynccontextmanager
async def flow_through(server: KafkaServer) -> AsyncIterator[Flow]:
    """Between two nodes; one only on tansu, which loses records when several write at once."""
    urls = [f"{server.url}?{PROMPT}&partitions=4"] * (1 if isinstance(server, TansuServer) else 2)
    async with open_nodes(*urls) as nodes, open_flow(nodes, ROOMS, failed_may_be_late=True) as flow:
        yield flow


async def test_restarted_server_that_kept_the_log_costs_nothing(lasting: LastingServer) -> None:
    async with flow_through(lasting) as flow:
        lasting.end()
        await flow.becomes(False, within=0.5)
        down_since = trio.current_time()
        await trio.sleep(1)
        assert not any(flow.was_ready(node, down_since) for node in (0, 1))
        await lasting.restart()
        await flow.flows(AGAIN)
        await flow.becomes(True, within=0.5)
    assert flow.noticed() == set()


async def test_server_that_comes_back_empty_is_told(server: KafkaServer) -> None:
    async with flow_through(server) as flow:
        server.forget()
        await flow.becomes(False, within=0.5)
        await server.restart()
        await flow.flows(2 * AGAIN)
        await flow.becomes(True, within=0.5)
    assert flow.noticed() == set(flow.seen)


async def test_server_that_comes_back_empty_and_names_no_incarnation_is_told_to_all(noida: NoidaServer) -> None:
    async with flow_through(noida) as flow:
        noida.forget()
        await flow.becomes(False, within=0.5)
        await noida.restart()
        await flow.flows(2 * AGAIN)
        await flow.becomes(True, within=0.5)
    assert flow.noticed() == {(node, room) for node in (0, 1) for room in ROOMS}


def fill_anew(bootstrap: str) -> None:
    """The topic of the rooms, with more in each partition than there was; blocks."""
    make_topic(bootstrap, 4)
    for partition in range(4):
        write(bootstrap, *[b"x"] * 1_000, partition=partition)


async def test_log_that_is_another_one_and_has_grown_beyond_where_all_were_is_told_to_all(noida: NoidaServer) -> None:
    """Others were quicker to write to it, and the broker does not say that the topic was made anew."""
    async with flow_through(noida) as flow:
        async with trio.open_nursery() as nursery:
            with noida.hidden() as bootstrap:
                noida.forget()
                nursery.start_soon(noida.restart)  # which waits until it is not hidden any more
                await trio.to_thread.run_sync(fill_anew, bootstrap)
        await flow.flows(2 * AGAIN)
        await flow.becomes(True, within=0.5)
    assert flow.noticed() == {(node, room) for node in (0, 1) for room in ROOMS}


async def test_partitions_that_are_added_move_rooms_and_that_is_told(
    lasting: LastingServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "CHECK_SECONDS", 0.5)
    caplog.set_level(logging.WARNING, "trioroom.backplane")
    async with flow_through(lasting) as flow:
        await trio.to_thread.run_sync(add_partitions, lasting.bootstrap, 5)
        await flow.told(AGAIN)
        await flow.flows(AGAIN)
        await flow.becomes(True, within=0.5)
    assert any("has 5 partitions and had 4: what is written to it goes" in message for message in caplog.messages)


async def test_nodes_that_do_not_agree_on_the_partitions_tell_what_they_miss_of_each_other(
    lasting: LastingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One opens when partitions have been added, and the other has not noticed."""
    monkeypatch.setattr(link, "CHECK_SECONDS", 1.0)
    url = f"{lasting.url}?{PROMPT}&partitions=2"
    async with open_nodes(url) as (old,):
        await trio.to_thread.run_sync(add_partitions, lasting.bootstrap, 3)
        async with open_nodes(url) as (new,), open_flow((old, new), ROOMS, failed_may_be_late=True) as flow:
            await flow.told(AGAIN, nodes=[0])
            await flow.flows(AGAIN)
            await flow.becomes(True, within=0.5)


@pytest.mark.parametrize("kind", [ROOM, HISTORY])
async def test_record_in_another_partition_than_its_rooms_is_told_as_lost(kind: bytes, lasting: LastingServer) -> None:
    """Of a node that does not know of all partitions: the room's own may be far ahead of the one it stands in."""
    await trio.to_thread.run_sync(make_topic, lasting.bootstrap, 2)
    key = kind + ROOMS[0].encode()
    right = partition_of(key, 2)
    await trio.to_thread.run_sync(partial(write, lasting.bootstrap, *[b"x"] * 100, partition=right))
    async with open_nodes(f"{lasting.url}?{PROMPT}") as (node,):
        room = ROOMS[0]
        async with subscribed(node, room, 16) if kind == ROOM else listening(history_of(node), room) as deliveries:
            await trio.to_thread.run_sync(partial(write, lasting.bootstrap, b"elsewhere", partition=1 - right, key=key))
            with trio.fail_after(AGAIN):
                assert isinstance(await deliveries.receive(), Lost)


async def test_stopped_server_costs_nothing(lasting: LastingServer) -> None:
    async with flow_through(lasting) as flow:
        lasting.stop()
        await flow.becomes(False, within=NOTICED)
        deaf_since = trio.current_time()
        await trio.sleep(3)
        assert not any(flow.was_ready(node, deaf_since) for node in (0, 1))
        lasting.resume()
        await flow.flows(AGAIN)
        await flow.becomes(True, within=0.5)
    assert flow.noticed() == set()


@pytest.fixture(params=[open_tansu] if HOME is None else [open_tansu, open_apache])
async def proxied(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Proxy, KafkaServer]]:
    """All clients come through the proxy: the broker says that it is there."""
    port = free_port()
    async with open_proxy(port) as proxy, request.param(port, proxy.port) as server:
        yield proxy, server


async def test_connections_that_the_network_resets_cost_nothing(proxied: tuple[Proxy, KafkaServer]) -> None:
    proxy, server = proxied
    async with flow_through(server) as flow:
        for _ in range(3):
            proxy.reset()
            await flow.flows(AGAIN)
            await flow.becomes(True, within=0.5)
        assert all(flow.failures(room) == 0 for room in ROOMS)
    assert flow.noticed() == set()


@pytest.mark.parametrize("seconds", [pytest.param(1.0, marks=pytest.mark.thorough), 4.0])
async def test_black_hole_costs_nothing_but_time(seconds: float, proxied: tuple[Proxy, KafkaServer]) -> None:
    proxy, server = proxied
    async with flow_through(server) as flow:
        proxy.black_hole()
        with trio.move_on_after(seconds):
            await flow.becomes(False, within=NOTICED)
            await trio.sleep_forever()
        proxy.heal()  # but the connections there were stay dead
        await flow.flows(NOTICED + AGAIN)
        await flow.becomes(True, within=0.5)
    assert flow.noticed() == set()


async def test_publishing_fails_in_time_while_the_server_is_away_and_at_once_when_that_is_known(
    server: KafkaServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "trioroom.backplane")
    async with open_nodes(f"{server.url}?{PROMPT}&timeout=2") as (node,):
        await node.publish("x", b"there")
        server.kill()
        for within in (2.0, 2.0, 0.0):
            # The second of them may be on its way while the client whose first one timed out is replaced.
            told = r"(retry later|may have gone out or not)$" if within else r"retry later$"
            with trio.fail_after(within + SLACK), pytest.raises(BackplaneUnavailable, match=told):
                await node.publish("x", b"away")
        assert not node.ready
        with pytest.raises(BackplaneUnavailable, match="out of reach"):
            async with subscribed(node, "x", 1):
                pass
        await trio.sleep(2)
    ours = [message for message in caplog.messages if "presence: " not in message]  # its link says the same
    assert len(ours) <= 3, "each reason once"


async def test_publishing_on_a_link_that_was_closed_raises(server: KafkaServer) -> None:
    async with open_nodes(f"{server.url}?{PROMPT}") as (node,):
        pass
    with trio.fail_after(1), pytest.raises(BackplaneUnavailable, match="closed"):
        await node.publish(ROOMS[0], b"x")
    assert not node.ready


async def test_nobody_to_be_reached_when_it_is_opened() -> None:
    with trio.fail_after(4), pytest.raises(BackplaneUnavailable, match=r"^cannot use the Kafka backplane: .*refused"):
        async with open_nodes(f"kafka://127.0.0.1:{free_port()}"):
            pass


async def test_room_whose_subscriber_does_not_read_holds_up_no_other(lasting: LastingServer) -> None:
    capacity, count = 8, 100
    async with flow_through(lasting) as flow, open_nodes(f"{lasting.url}?{PROMPT}") as (node,):
        async with subscribed(node, "slow", capacity) as deliveries:
            for number in range(count):
                await node.publish("slow", b"%d" % number)
            await flow.flows(AGAIN)
            first, *rest = [deliveries.receive_nowait() for _ in range(len(deliveries))]
            assert isinstance(first, Lost)
            assert first.reason == "overflow"
            assert first.count is not None
            assert rest == [b"%d" % number for number in range(first.count, count)]
    assert flow.noticed() == set()
