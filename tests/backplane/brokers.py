"""The brokers that tests of many of them run against, each a server that is the test's own.

Such a test takes the fixture ``broker``, and says by `brokers` which it means.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final
from urllib.parse import urlencode

import attrs
import pytest

from tests.backplane.kafka import apache
from tests.backplane.kafka.servers import open_noida
from tests.backplane.nats.servers import NatsServer, open_nats_server
from tests.backplane.processes import ServerProcess
from tests.backplane.redis.servers import RedisServer, binaries, open_redis_server

NO_REDIS: Final = "redis-server is not on PATH; on Debian: apt-get install redis-server"


@attrs.frozen
class Broker:
    """A server, and how to reach and to hurt it."""

    server: ServerProcess
    scheme: str

    def url(self, port: int | None = None, /, **options: object) -> str:
        """``port`` is that of a proxy, if any; ``options`` are settings."""
        query = f"?{urlencode(options)}" if options else ""
        return f"{self.scheme}://127.0.0.1:{port or self.server.port}{query}"

    async def kick_clients(self) -> None:
        """Close the connections that listen, as an operator may."""
        if isinstance(self.server, NatsServer):
            await self.server.kick_clients()
        else:
            assert isinstance(self.server, RedisServer)
            await self.server.command("CLIENT", "KILL", "TYPE", "pubsub")


_OPENING: Final[Mapping[str, tuple[str, Callable[[], AbstractAsyncContextManager[ServerProcess]]]]] = {
    "redis": ("redis", lambda: open_redis_server(binaries()["redis"])),
    "valkey": ("redis", lambda: open_redis_server(binaries()["valkey"])),
    "nats": ("nats", open_nats_server),
    "kafka": ("kafka", open_noida),
    "apache": ("kafka", apache.open_apache),
}


@asynccontextmanager
async def open_broker(name: str) -> AsyncIterator[Broker]:
    scheme, opening = _OPENING[name]
    async with opening() as server:
        yield Broker(server, scheme)


def brokers(*names: str, by_hand: str | None = None) -> pytest.MarkDecorator:
    """Have the fixture ``broker`` be each of these, and in `nox -s thorough` also ``by_hand``."""
    more = [pytest.param(by_hand, marks=[getattr(pytest.mark, by_hand), pytest.mark.thorough])] if by_hand else []
    return pytest.mark.parametrize("broker", [*parameters(*names), *more], indirect=True)


def parameters(*names: str) -> list[Any]:
    """One for each; Redis is skipped where it is missing, or left to Valkey in CI, where nothing is skipped.

    Where there is an Apache Kafka it goes with "kafka".
    """
    if "kafka" in names and apache.HOME is not None:
        names = (*names, "apache")
    redis_is_there = "redis" in binaries()
    skip = pytest.mark.skipif(not redis_is_there, reason=NO_REDIS)
    return [
        pytest.param(name, marks=[getattr(pytest.mark, _OPENING[name][0]), *([skip] if name == "redis" else [])])
        for name in names
        if name != "redis" or redis_is_there or not os.environ.get("CI")
    ]
