"""The brokers that may link the nodes, each set up so that it keeps what it has confirmed, as far as it can."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, Protocol

import attrs

from tests.backplane.kafka import apache
from tests.backplane.kafka.servers import NoidaServer, open_noida
from tests.backplane.nats.servers import open_nats_server
from tests.backplane.redis.servers import binaries, open_redis_server

# Deadlines short enough for faults of some seconds to be longer.
_OPTIONS: Final = "timeout=3&connect_timeout=2&presence_lease=4"


class Server(Protocol):
    """What may befall a broker; see `tests.backplane.processes.ServerProcess`."""

    @property
    def port(self) -> int: ...

    @property
    def alive(self) -> bool: ...

    def kill(self) -> None: ...

    def stop(self) -> None: ...

    def resume(self) -> None: ...

    def forget(self) -> None:
        """Kill it if need be, and remove what it has kept."""

    async def restart(self) -> None: ...


@attrs.frozen
class Broker:
    """One that is running, and what can be expected of it."""

    server: Server
    scheme: str
    options: str = _OPTIONS
    dense: bool = True
    """Offsets go up by one."""
    end: Callable[[], None] | None = None
    """How it goes so that it keeps what it has confirmed; None is by SIGKILL."""
    forgetful: bool = True
    """It may be asked to forget all."""
    address: Callable[[int], bytes] | None = None
    """How it says in its answers on which port it is; None if it does not."""

    def url(self, port: int) -> str:
        """Through a proxy at ``port``."""
        return f"{self.scheme}://127.0.0.1:{port}?{self.options}"


@asynccontextmanager
async def _redis() -> AsyncIterator[Broker]:
    program = binaries()
    keeping = ("--appendonly", "yes", "--appendfsync", "always")
    async with open_redis_server(program.get("redis", program["valkey"]), *keeping) as server:
        yield Broker(server, "redis")


@asynccontextmanager
async def _nats() -> AsyncIterator[Broker]:
    async with open_nats_server() as server:
        yield Broker(server, "nats", dense=False)


@asynccontextmanager
async def _kafka() -> AsyncIterator[Broker]:
    """Apache Kafka where there is one."""
    opening = open_noida if apache.HOME is None else apache.open_apache
    async with opening() as server:
        # Topics of noida have no ids: who starts while it is empty cannot know that it was not always.
        end, forgetful = (server.end, False) if isinstance(server, NoidaServer) else (None, True)
        options = f"{_OPTIONS}&partitions=2"
        yield Broker(server, "kafka", options, dense=False, end=end, forgetful=forgetful, address=_kafka_address)


def _kafka_address(port: int) -> bytes:
    """In an answer to Metadata, where the port follows the host in every version."""
    return b"127.0.0.1" + struct.pack(">i", port)


BROKERS: Final[Mapping[str, Callable[[], AbstractAsyncContextManager[Broker]]]] = {
    "redis": _redis,
    "nats": _nats,
    "kafka": _kafka,
}
"""By name."""
