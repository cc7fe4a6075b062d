"""The contract of backplanes, on real servers: Redis, Valkey, and a cluster of three."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from threading import Event, Thread

import pytest
import trio

from tests.backplane.conftest import servers
from tests.backplane.servers import binaries, open_cluster, open_redis_server
from trioroom.backplane.base import Backplane
from trioroom.backplane.redis import open_redis
from trioroom.testing import BackplaneConformance

pytestmark = pytest.mark.redis


@asynccontextmanager
async def open_nodes_at(url: str, count: int) -> AsyncIterator[Sequence[Backplane]]:
    async with AsyncExitStack() as nodes:
        yield [await nodes.enter_async_context(open_redis(url)) for _ in range(count)]


@pytest.mark.parametrize("binary", servers(), scope="class")
class TestOneServer(BackplaneConformance):
    @pytest.fixture(autouse=True)
    def take_binary(self, binary: str) -> None:
        self.binary = binaries()[binary]

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        async with open_redis_server(self.binary) as server, open_nodes_at(server.url, count) as nodes:
            yield nodes


@pytest.fixture(scope="module")
def cluster_url() -> Iterator[str]:
    """One for all tests, as it takes two seconds to form: a thread keeps it, for a test's Trio ends with the test."""
    urls: list[str] = []
    formed, done = Event(), Event()

    async def keep() -> None:
        async with open_cluster(binaries()["valkey"]) as cluster:
            urls.append(cluster.url)
            formed.set()
            await trio.to_thread.run_sync(done.wait)

    thread = Thread(target=trio.run, args=[keep])
    thread.start()
    assert formed.wait(30)
    yield urls[0]
    done.set()
    thread.join()


class TestCluster(BackplaneConformance):
    @pytest.fixture(autouse=True)
    def take_url(self, cluster_url: str) -> None:
        self.url = cluster_url

    @asynccontextmanager
    async def open_nodes(self, count: int) -> AsyncIterator[Sequence[Backplane]]:
        async with open_nodes_at(self.url, count) as nodes:
            yield nodes
