"""Lua that the server runs as one step; all of it that a room needs is at the one server that has its keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from redis.exceptions import ResponseError

from trioroom.backplane.redis.publisher import Command
from trioroom.backplane.redis.resp import Reply
from trioroom.backplane.redis.topology import Topology


class Script:
    """Called by its hash, which is all that travels once the server has seen it.

    See https://redis.io/docs/latest/commands/evalsha/.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def run(
        self, topology: Topology, keys: Sequence[bytes], args: Callable[[bytes], Sequence[bytes | int | str]]
    ) -> Reply:
        """What it returns; as `trioroom.backplane.redis.publisher.Publisher.call` otherwise.

        Args:
            keys: all that it touches, at least one and of one slot.
            args: what else it gets; called with the incarnation of the server that will run it.
        """

        def command(*head: str) -> Command:
            return lambda incarnation: (*head, len(keys), *keys, *args(incarnation))

        try:
            return await topology.call(keys[0], command("EVALSHA", self._sha))
        except ResponseError as exc:
            if not str(exc).startswith("NOSCRIPT"):
                raise
        return await topology.call(keys[0], command("EVAL", self._source))  # the server keeps it from now on
