"""From a URL to an open backplane: what ``--backplane`` takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from trioroom.backplane.base import Backplane
from trioroom.backplane.memory import MemoryBackplane
from trioroom.errors import BackplaneError

OpenBackplane = Callable[[str], AbstractAsyncContextManager[Backplane]]


@asynccontextmanager
async def _open_memory(url: str) -> AsyncIterator[Backplane]:
    yield MemoryBackplane()


@asynccontextmanager
async def open_backplane(url: str) -> AsyncIterator[Backplane]:
    """The backplane that ``url`` names, open while the context is.

    ``memory`` links nothing and needs nothing. Redis and what speaks its protocol: ``redis://``, ``rediss://`` (TLS),
    ``unix://``, ``redis+sentinel://`` and ``redis+cluster://``; see `trioroom.backplane.redis.open_redis`. NATS:
    ``nats://`` and ``nats+tls://``; see `trioroom.backplane.nats.open_nats`. Kafka: ``kafka://`` and ``kafka+tls://``;
    see `trioroom.backplane.kafka.open_kafka`.

    Raises:
        ValueError: no such URL; the message says what to write.
        BackplaneUnavailable: the broker cannot be reached, or does not want us.
        BackplaneError: what we would reach it with is not installed; the message says which extra has it.
    """
    async with import_backplane(url)(url) as backplane:
        yield backplane


def import_backplane(url: str) -> OpenBackplane:
    """What opens the backplane that ``url`` names; its modules are imported here, as others have no need of them.

    Raises as `open_backplane` does of a URL that names none, and when something is not installed.
    """
    if url == "memory":
        return _open_memory
    scheme = url.partition("://")[0]
    match scheme.partition("+")[0]:
        case "redis" | "rediss" | "unix":
            from trioroom.backplane.redis import open_redis

            return open_redis
        case "nats":
            from trioroom.backplane.nats import open_nats

            return open_nats
        case "kafka":
            try:
                from trioroom.backplane.kafka import open_kafka
            except ImportError as exc:
                raise BackplaneError(
                    "the Kafka backplane needs confluent-kafka; pip install 'trioroom[kafka]'"
                ) from exc
            return open_kafka
    named = scheme if scheme.isalnum() else "that"  # a word only: of user:password@host it would be the password
    raise ValueError(
        f"no backplane is called {named!r}; write memory, or one of redis, rediss, unix, redis+sentinel, "
        "redis+cluster, nats, nats+tls, kafka and kafka+tls, with :// and where"
    )
