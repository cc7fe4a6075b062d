"""From a URL to an open backplane: what ``--backplane`` takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trioroom.backplane.base import Backplane
from trioroom.backplane.memory import MemoryBackplane


@asynccontextmanager
async def open_backplane(url: str) -> AsyncIterator[Backplane]:
    """The backplane that ``url`` names, open while the context is.

    ``memory`` links nothing and needs nothing. Redis and what speaks its protocol: ``redis://``, ``rediss://`` (TLS),
    ``unix://``, ``redis+sentinel://`` and ``redis+cluster://``; see `trioroom.backplane.redis.open_redis`.

    Raises:
        ValueError: no such URL; the message says what to write.
        BackplaneUnavailable: the broker cannot be reached, or does not want us.
    """
    if url == "memory":
        yield MemoryBackplane()
        return
    scheme = url.partition("://")[0]
    if scheme in ("kafka", "kafkas"):
        from trioroom.backplane.kafka import open_kafka  # an extra

        async with open_kafka(url) as kafka:
            yield kafka
        return
    if scheme.partition("+")[0] not in ("redis", "rediss", "unix"):
        named = scheme if scheme.isalnum() else "that"  # a word only: of user:password@host it would be the password
        raise ValueError(
            f"no backplane is called {named!r}; write memory, or one of redis, rediss, unix, redis+sentinel and "
            "redis+cluster, with :// and where"
        )
    from trioroom.backplane.redis import open_redis  # a server without a broker has no need of it

    async with open_redis(url) as backplane:
        yield backplane
