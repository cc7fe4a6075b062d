"""The asking half of a link: commands in a queue, each caller awaiting its own reply, which come in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeAlias

import attrs
import hiredis
import outcome
import trio
from redis.exceptions import ResponseError

from trioroom._core.meters import LinkMeters
from trioroom.backplane.pending import Pending, PendingQueue
from trioroom.backplane.redis.resp import RedisConnection, Reply, pack
from trioroom.backplane.supervision import LinkLost

Command: TypeAlias = Callable[[bytes], tuple[str | bytes | int, ...]]
"""A command for the server of this incarnation; see `Publisher.call`. It may be asked for again, for another one."""


@attrs.define(eq=False)
class _Asked(Pending):
    """One command, until the broker has answered it."""

    command: Command | None = None  # to be packed anew for another incarnation of the server


class Publisher(PendingQueue[_Asked]):
    """`run` has one connection at a time.

    Most commands are publications; the scripts that keep history and presence go the same way.
    """

    def __init__(
        self, command: bytes, timeout: float, max_queued: int, max_queued_bytes: int, meters: LinkMeters
    ) -> None:
        super().__init__(timeout, max_queued, max_queued_bytes, meters)
        self._command = command
        self._sent: deque[_Asked] = deque()
        self.incarnation = b""
        """Of the server that we are connected to, or were last: another one after each of its restarts."""

    def _on_their_way(self) -> Iterable[_Asked]:
        return self._sent  # also those that nobody waits for: they keep their places, as answers may still come

    async def publish(self, channel: bytes, payload: bytes) -> None:
        """Returns when the broker has it; as `call` otherwise."""
        await self._ask(_Asked(pack((self._command, channel, payload)), trio.current_time()))

    async def call(self, command: Command) -> Reply:
        """The broker's reply; always a checkpoint. Calls may overlap, and then share a round trip.

        Cancelled before it was sent, it never will be.

        Args:
            command: gets `incarnation`, of the server that will answer, and returns the words.
        Raises:
            ResponseError: the broker refused it.
            BackplaneUnavailable: no answer within ``timeout``, or the link broke: it may have gone out or not. At once
                when there has been no connection for so long already.
        """
        return await self._ask(_Asked(pack(command(self.incarnation)), trio.current_time(), command))

    async def run(
        self,
        connection: RedisConnection,
        incarnation: bytes = b"",
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Send and resolve until cancelled or the link is lost; then what was on its way has failed.

        Raises:
            LinkLost: the connection is over.
        """
        self._down_since = None
        if incarnation != self.incarnation:
            self.incarnation = incarnation
            self._pack_anew()
        task_status.started()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write, connection)
                await self._read(connection)
        finally:
            self._lose(self._sent)
            self._sent.clear()

    def _pack_anew(self) -> None:
        for pending in self._waiting:
            if pending.command is not None:
                self._bytes -= len(pending.packed)
                pending.packed = pack(pending.command(self.incarnation))
                self._bytes += len(pending.packed)

    async def _write(self, connection: RedisConnection) -> None:
        while True:
            group = await self._next_group()
            self._meters.batches.observe(len(group))
            self._sent += group  # before it is sent: cancelled amid, some of it may have gone out
            await connection.send(b"".join([pending.packed for pending in group]))

    async def _read(self, connection: RedisConnection) -> None:
        while True:
            replies = await connection.receive()
            if self._sent:  # once for all of them: a look at the clock for each would show
                self._meters.publishing.observe(trio.current_time() - self._sent[0].since)
            for reply in replies:
                if isinstance(reply, hiredis.PushNotification):
                    continue
                if not self._sent:
                    raise LinkLost(f"the server sent {reply!s:.80}, for which nobody asked")
                error = isinstance(reply, ResponseError)
                self._resolve(self._sent.popleft(), outcome.Error(reply) if error else outcome.Value(reply))
