"""Orders to all servers through a real broker, also when one of them, or the way to it, is stopped for a while."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from urllib.parse import urlencode

import attrs
import pytest
import trio

import trioroom
from tests.backplane.brokers import Broker, brokers
from tests.backplane.control_node import make_app
from tests.backplane.processes import until
from tests.backplane.proxy import open_proxy
from tests.backplane.redis.servers import binaries, open_cluster
from tests.conftest import closed_with
from trioroom import Revocation
from trioroom.backplane.base import Backplane
from trioroom.backplane.open import open_backplane
from trioroom.testing import Peer, open_test_server
from trioroom.testing.peer import _shake_hands

LEASE = 2.0
SETTINGS = {"probe_interval": 0.2, "probe_timeout": 1, "max_backoff": 0.1, "timeout": 2}
DEADLINE = 30.0


def url_of(broker: Broker, port: int | None = None) -> str:
    return broker.url(port, **SETTINGS)


@attrs.frozen
class Node:
    app: trioroom.App
    server: trioroom.Server
    backplane: Backplane


@asynccontextmanager
async def open_node(url: str, lease: float = LEASE) -> AsyncIterator[Node]:
    app = make_app()
    async with open_backplane(f"{url}&presence_lease={lease:g}") as backplane:
        async with open_test_server(app, backplane=backplane, tcp=True) as server:
            yield Node(app, server, backplane)


@asynccontextmanager
async def open_node_process(url: str, lease: float) -> AsyncIterator[tuple[trio.Process, int]]:
    """One that can be stopped, and its port."""
    command = [sys.executable, "-m", "tests.backplane.control_node", f"{url}&presence_lease={lease:g}"]
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(_run_process, command)
        assert process.stdout is not None
        yield process, int(await process.stdout.receive_some())
        process.kill()


async def _run_process(command: list[str], *, task_status: trio.TaskStatus[trio.Process]) -> None:
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    task_status.started(process)
    await process.wait()


@asynccontextmanager
async def peer_at(port: int, path: str) -> AsyncIterator[Peer]:
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        peer = Peer(stream)
        await _shake_hands(peer, path, None)
        assert await peer.receive() == "in"
        yield peer


async def all_known(node: Node, nodes: int) -> None:
    """Until ``node`` has heard of that many servers, itself included."""

    async def are_known() -> bool:
        try:
            return await node.app.disconnect(user="nobody") == Revocation(0, nodes, 0)
        except trioroom.BackplaneUnavailable:
            return False

    await until(are_known, f"{nodes} servers know each other")


@brokers("valkey", "nats", "kafka")
async def test_user_is_put_out_wherever_it_is(broker: Broker) -> None:
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as stack:
            nodes = [await stack.enter_async_context(open_node(url_of(broker))) for _ in range(3)]
            for node in nodes:
                await all_known(node, 3)
            peers = [await stack.enter_async_context(peer_at(node.server.port, "/club/a?ann")) for node in nodes]
            assert await nodes[1].app.disconnect(user="ann", reason="enough") == Revocation(3, 3, 0)
            assert [await closed_with(peer) for peer in peers] == [(4005, "enough")] * 3


@pytest.mark.redis
async def test_user_is_put_out_through_a_cluster() -> None:
    with trio.fail_after(DEADLINE):
        async with AsyncExitStack() as stack:
            cluster = await stack.enter_async_context(open_cluster(binaries()["valkey"]))
            url = f"{cluster.url}?{urlencode(SETTINGS)}"
            here, there = [await stack.enter_async_context(open_node(url)) for _ in range(2)]
            await all_known(here, 2)
            async with peer_at(there.server.port, "/club/a?ann") as ann:
                assert await here.app.disconnect(user="ann", reason="enough") == Revocation(1, 2, 0)
                assert await closed_with(ann) == (4005, "enough")


@brokers("valkey", "nats", by_hand="kafka")
async def test_stopped_server_is_told_and_does_it_when_it_goes_on(broker: Broker) -> None:
    with trio.fail_after(DEADLINE):
        async with open_node(url_of(broker)) as here, open_node_process(url_of(broker), 10) as (process, port):
            await all_known(here, 2)
            async with peer_at(port, "/club/a?ann") as ann:
                process.send_signal(signal.SIGSTOP)
                assert await here.app.disconnect(user="ann", reason="enough", timeout=1.0) == Revocation(0, 1, 1)
                process.send_signal(signal.SIGCONT)
                assert await closed_with(ann) == (4005, "enough")
                await all_known(here, 2)


@brokers("valkey", "nats")
async def test_server_that_was_cut_off_does_it_when_it_is_back(broker: Broker) -> None:
    """What the broker could not send it is read from the history of orders.

    Clients of Kafka go where the broker says that it is, and not through a proxy.
    """
    with trio.fail_after(DEADLINE):
        async with open_proxy(broker.server.port) as proxy, open_node(url_of(broker)) as here:
            async with open_node(url_of(broker, proxy.port)) as there:
                await all_known(here, 2)
                async with peer_at(there.server.port, "/club/a?ann") as ann:
                    proxy.black_hole()
                    while there.backplane.ready:  # noqa: ASYNC110  # what is published then goes to nobody
                        await trio.sleep(0.02)
                    told = await here.app.disconnect(user="ann", reason="enough", timeout=0.5)
                    assert (told.connections, told.nodes) == (0, 1)
                    with pytest.raises(trioroom.BackplaneUnavailable):
                        await there.app.disconnect(user="bob")
                    proxy.heal()
                    assert await closed_with(ann) == (4005, "enough")


@brokers("valkey", "nats", by_hand="kafka")
async def test_killed_server_is_silent_until_its_lease_ends(broker: Broker) -> None:
    with trio.fail_after(DEADLINE):
        async with open_node(url_of(broker)) as here:
            async with open_node_process(url_of(broker), LEASE) as (process, _):
                await all_known(here, 2)
                process.kill()
            assert await here.app.disconnect(user="ann", timeout=0.2) == Revocation(0, 1, 1)
            await all_known(here, 1)


@brokers("valkey", "nats", by_hand="kafka")
async def test_without_the_broker_it_happens_here_and_is_an_error(broker: Broker) -> None:
    with trio.fail_after(DEADLINE):
        async with open_node(url_of(broker)) as here, peer_at(here.server.port, "/club/a?ann") as ann:
            broker.server.kill()
            with pytest.raises(trioroom.BackplaneUnavailable):
                await here.app.disconnect(user="ann", reason="enough")
            assert await closed_with(ann) == (4005, "enough")
            await broker.server.restart()
            await all_known(here, 1)
