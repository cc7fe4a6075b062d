"""What the conformance suites run against; a test class takes one of these and a suite."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import pytest
import trio

from tests.backplane.history_node import KEPT, HistoryNode, hold
from tests.backplane.nats.servers import NatsCluster, NatsServer
from trioroom._core.history import History
from trioroom.backplane.base import Backplane
from trioroom.backplane.nats import NatsBackplane, NatsSettings, open_nats


@asynccontextmanager
async def open_nodes(*urls: str, settings: NatsSettings | None = None) -> AsyncIterator[Sequence[NatsBackplane]]:
    """A backplane for each URL, as if each were in a process of its own."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(open_nats(url, settings=settings)) for url in urls]


def open_node(
    url: str, history: History = KEPT, settings: NatsSettings | None = None, deadline: float = 30.0
) -> AbstractAsyncContextManager[HistoryNode[NatsBackplane]]:
    """A node that keeps ``history``, for so many seconds at most."""
    return hold(open_nats(url, settings=settings), history, deadline)


class OneNatsServer:
    """One server for all tests; each has names of its own there."""

    @pytest.fixture(autouse=True)
    def take_url(self, shared_nats_server: NatsServer, request: pytest.FixtureRequest) -> None:
        self.url = f"{shared_nats_server.url}?prefix={prefix_of(request)}"

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        async with open_nodes(*[self.url] * count) as nodes:
            yield nodes


class NatsClusterOfThree:
    """Each node on another server of a cluster, which has two copies of everything or all there are."""

    deadline = 30.0  # for what hangs: each write is three, which takes seconds where other tests write too

    @pytest.fixture(autouse=True)
    def take_urls(self, shared_nats_cluster: NatsCluster, request: pytest.FixtureRequest) -> Iterator[None]:
        query = f"?prefix={prefix_of(request)}&replicas=3&history_streams=2"  # each stream keeps all servers busy
        self.urls = [server.url + query for server in shared_nats_cluster.servers]
        shared_nats_cluster.check()
        yield
        shared_nats_cluster.check()
        trio.run(shared_nats_cluster.remove_streams)

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        async with open_nodes(*[self.urls[number % 3] for number in range(count)]) as nodes:
            yield nodes


def prefix_of(request: pytest.FixtureRequest) -> str:
    """The test's own, as classes share names; parameters may have what a name cannot."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", f"{request.cls.__name__}-{request.node.name}")
