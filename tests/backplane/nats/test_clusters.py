"""The clusters that tests run against leave each other alone, as tests on one machine share its ports."""

from __future__ import annotations

import pytest

from tests.backplane.nats.servers import NatsCluster, open_nats_cluster

pytestmark = pytest.mark.nats


async def test_cluster_has_a_name_of_its_own_so_that_others_servers_cannot_join_it(
    shared_nats_cluster: NatsCluster,
) -> None:
    async with open_nats_cluster() as other:
        told = [await server.monitor("varz") for server in (*other.servers, *shared_nats_cluster.servers)]
    names = [each["cluster"]["name"] for each in told]
    assert (len({*names[:3]}), len({*names})) == (1, 2)
