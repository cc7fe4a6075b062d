"""A cluster that many tests can share."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread

import pytest
import trio

from tests.backplane.redis.servers import binaries, open_cluster


@pytest.fixture(scope="package")
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
