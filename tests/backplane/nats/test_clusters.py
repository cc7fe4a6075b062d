"""Clusters without a leader, and those that tests run against: they leave each other alone on one machine."""

from __future__ import annotations

import logging

import pytest
import trio

from tests.backplane.nats.servers import NatsCluster, open_nats_cluster
from trioroom.backplane.nats import backplane, open_nats
from trioroom.backplane.nats.backplane import _ELECTION
from trioroom.errors import BackplaneUnavailable

pytestmark = pytest.mark.nats


async def test_cluster_has_a_name_of_its_own_so_that_others_servers_cannot_join_it(
    shared_nats_cluster: NatsCluster,
) -> None:
    async with open_nats_cluster() as other:
        told = [await server.monitor("varz") for server in (*other.servers, *shared_nats_cluster.servers)]
    names = [each["cluster"]["name"] for each in told]
    assert (len({*names[:3]}), len({*names})) == (1, 2)


@pytest.mark.slow
async def test_opening_waits_until_a_cluster_has_a_leader_again(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "trioroom.backplane")
    async with open_nats_cluster() as cluster:
        leader = await cluster.leader()
        other = next(server for server in cluster.servers if server is not leader)
        leader.kill()
        with trio.fail_after(_ELECTION + 5):
            async with open_nats(f"{other.url}?replicas=3") as node:
                assert node.ready
    assert caplog.messages[0].startswith(f"nats: 127.0.0.1:{other.port}: JetStream has not answered within 2 s; in a")
    assert caplog.messages[-1].endswith("is up, 0 rooms subscribed")


async def test_cluster_that_has_lost_most_of_its_servers_is_told_when_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backplane, "_ELECTION", 1.0)
    async with open_nats_cluster() as cluster:
        for server in cluster.servers[1:]:
            server.kill()
        with trio.fail_after(10), pytest.raises(BackplaneUnavailable, match="more than half of the servers have to be"):
            async with open_nats(f"{cluster.servers[0].url}?replicas=3&connect_timeout=0.5"):
                pytest.fail("nobody leads it")
