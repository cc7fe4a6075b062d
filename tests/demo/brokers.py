"""A broker of each kind, which a test can kill and start again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import pytest

from tests.backplane.kafka.servers import open_tansu
from tests.backplane.nats.servers import open_nats_server
from tests.backplane.processes import ServerProcess
from tests.backplane.redis.servers import binaries, open_redis_server


@attrs.frozen
class Broker:
    """One that runs."""

    server: ServerProcess
    url: str
    keeps: bool
    """What it has confirmed outlives `ServerProcess.restart`."""


@asynccontextmanager
async def _valkey() -> AsyncIterator[Broker]:
    async with open_redis_server(binaries()["valkey"]) as server:
        yield Broker(server, server.url, keeps=False)


@asynccontextmanager
async def _nats() -> AsyncIterator[Broker]:
    async with open_nats_server() as server:
        yield Broker(server, server.url, keeps=True)


@asynccontextmanager
async def _tansu() -> AsyncIterator[Broker]:
    async with open_tansu() as server:
        yield Broker(server, f"{server.url}?fetch_wait=0.01", keeps=False)


KINDS: dict[str, Callable[[], AbstractAsyncContextManager[Broker]]] = {"redis": _valkey, "nats": _nats, "kafka": _tansu}
EACH = [pytest.param(name, marks=getattr(pytest.mark, name)) for name in KINDS]
"""For the fixture ``broker``."""
