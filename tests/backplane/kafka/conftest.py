"""Brokers that speak Kafka's protocol as fixtures; Apache Kafka is among them where ``KAFKA_HOME`` names it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Final

import pytest

from tests.backplane.kafka.apache import HOME, LastingServer, open_apache
from tests.backplane.kafka.mock_cluster import MockCluster, open_mock_cluster
from tests.backplane.kafka.servers import KafkaServer, NoidaServer, TansuServer, open_noida, open_tansu
from tests.backplane.observers import kept_open

_LASTING: Final[Mapping[str, Callable[[], AbstractAsyncContextManager[LastingServer]]]] = {
    "noida": open_noida,
    "apache": open_apache,
}
_APACHE: Final = [] if HOME is None else ["apache"]
collect_ignore = ["test_apache.py"] if HOME is None else []


@pytest.fixture(params=["noida", *_APACHE, pytest.param("mock", marks=pytest.mark.thorough)], scope="module")
def broker(request: pytest.FixtureRequest) -> Iterator[KafkaServer | MockCluster]:
    """Of each kind, one for all tests of a module; not tansu, which loses a record now and then."""
    if request.param == "mock":
        with open_mock_cluster() as cluster:
            yield cluster
    else:
        with kept_open(_LASTING[request.param]) as server:
            yield server


@pytest.fixture(params=["noida", *_APACHE])
async def lasting(request: pytest.FixtureRequest) -> AsyncIterator[LastingServer]:
    """One of the test's own, whose log outlives a restart and leaves out nothing of what several write at once."""
    async with _LASTING[request.param]() as server:
        yield server


@pytest.fixture(params=["tansu", *_APACHE])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[KafkaServer]:
    """One of the test's own, for what any does."""
    async with open_apache() if request.param == "apache" else open_tansu() as opened:
        yield opened


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
