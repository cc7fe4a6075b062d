"""Servers that many tests can share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.backplane.nats.servers import NatsCluster, NatsServer, open_nats_cluster, open_nats_server
from tests.backplane.observers import kept_open


@pytest.fixture
async def nats_server() -> AsyncIterator[NatsServer]:
    """One of the test's own."""
    async with open_nats_server() as server:
        yield server


@pytest.fixture(scope="package")
def shared_nats_server() -> Iterator[NatsServer]:
    """One for tests that leave it as it is; each takes a prefix of its own."""
    with kept_open(open_nats_server) as server:
        yield server


@pytest.fixture(scope="package")
def shared_nats_cluster() -> Iterator[NatsCluster]:
    """One for tests that leave it as it is, as it takes two seconds to form."""
    with kept_open(open_nats_cluster) as cluster:
        yield cluster
