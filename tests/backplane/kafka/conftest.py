"""Brokers that speak Kafka's protocol as fixtures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.backplane.kafka.mock_cluster import MockCluster, open_mock_cluster
from tests.backplane.kafka.servers import KafkaServer, NoidaServer, TansuServer, open_noida, open_tansu
from tests.backplane.observers import kept_open


@pytest.fixture(params=["noida", pytest.param("mock", marks=pytest.mark.thorough)], scope="module")
def broker(request: pytest.FixtureRequest) -> Iterator[KafkaServer | MockCluster]:
    """Of each kind, one for all tests of a module; not tansu, which loses a record now and then."""
    if request.param == "mock":
        with open_mock_cluster() as cluster:
            yield cluster
    else:
        with kept_open(open_noida) as server:
            yield server


@pytest.fixture
async def tansu() -> AsyncIterator[TansuServer]:
    async with open_tansu() as server:
        yield server


@pytest.fixture
async def noida() -> AsyncIterator[NoidaServer]:
    async with open_noida() as server:
        yield server


@pytest.fixture
def mock_cluster() -> Iterator[MockCluster]:
    """Three brokers."""
    with open_mock_cluster() as cluster:
        yield cluster
