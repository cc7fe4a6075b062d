"""The asking half of a link: a bounded queue of commands, sent in groups, each caller awaiting its own reply.

While one group is on its way the next one gathers, so that under load a system call and a wake-up on
either side carry many publications, and a single one waits for nobody.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from typing import NoReturn, TypeAlias

import attrs
import hiredis
import outcome
import trio
from redis.exceptions import ResponseError

from trioroom._core.meters import LinkMeters
from trioroom.backplane.redis.resp import LinkLost, RedisConnection, Reply, pack
from trioroom.errors import BackplaneUnavailable

_LOOKS_PER_TIMEOUT = 20  # so that a publication may wait a twentieth longer than it should
_GROUP_BYTES = 1 << 18  # of one system call; what waits beyond goes with the next
Command: TypeAlias = Callable[[bytes], tuple[str | bytes | int, ...]]
"""A command for the server of this incarnation; see `Publisher.call`. It may be asked for again, for another one."""


@attrs.define(eq=False)
class _Pending:
    """One command, until the broker has answered it."""

    packed: bytes
    since: float
    command: Command | None = None  # to be packed anew for another incarnation of the server
    publisher: trio.lowlevel.Task | None = None  # parked; None once it has been woken or cancelled


class Publisher:
    """Outlives connections: what was not sent waits for the next one; `run` has one at a time.

    Most commands are publications; the scripts that keep history and presence go the same way.
    """

    def __init__(
        self, command: bytes, timeout: float, max_queued: int, max_queued_bytes: int, meters: LinkMeters
    ) -> None:
        self._command = command
        self._timeout = timeout
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._meters = meters
        self._waiting: dict[_Pending, None] = {}  # not sent; a set that keeps its order
        self._sent: deque[_Pending] = deque()
        self._bytes = 0  # of both
        self._writer: trio.lowlevel.Task | None = None  # parked, as nothing waits
        self._full = trio.lowlevel.ParkingLot()
        self._down_since: float | None = trio.current_time()  # None while there is a connection
        self._given_up: Callable[[], Exception] | None = None
        self.incarnation = b""
        """Of the server that we are connected to, or were last: another one after each of its restarts."""
        self.trouble: str | None = None
        """Why there is no connection, where that is known; for the message to who waits for one."""

    @property
    def queued(self) -> int:
        """Publications the broker has not answered for."""
        return len(self._waiting) + len(self._sent)

    async def publish(self, channel: bytes, payload: bytes) -> None:
        """Returns when the broker has it; as `call` otherwise."""
        await self._ask(_Pending(pack((self._command, channel, payload)), trio.current_time()))

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
        return await self._ask(_Pending(pack(command(self.incarnation)), trio.current_time(), command))

    async def _ask(self, pending: _Pending) -> Reply:
        now = pending.since
        if self._down_since is not None and now - self._down_since > self._timeout:
            await self._refuse(now - self._down_since)
        if self._is_full:
            await self._wait_for_room()
        if self._given_up is not None:
            await trio.lowlevel.checkpoint()
            raise self._given_up()
        self._waiting[pending] = None
        self._bytes += len(pending.packed)
        if not self._is_full:
            self._full.unpark()  # the next one: a large publication may have kept out many small ones
        if self._writer is not None:
            trio.lowlevel.reschedule(self._writer)
            self._writer = None
        pending.publisher = trio.lowlevel.current_task()

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            pending.publisher = None
            if pending in self._waiting:
                del self._waiting[pending]
                self._release(pending)
            return trio.lowlevel.Abort.SUCCEEDED

        return await trio.lowlevel.wait_task_rescheduled(abort)

    async def _refuse(self, down: float) -> NoReturn:
        # A short outage is worth waiting for. In a long one each on_leave of a drain, say, would wait in vain.
        await trio.lowlevel.checkpoint()
        raise BackplaneUnavailable(f"the broker has been out of reach for {down:.1f} s{self._because}; retry later")

    @property
    def _because(self) -> str:
        return f" ({self.trouble})" if self.trouble else ""

    @property
    def _is_full(self) -> bool:
        return self.queued >= self._max_queued or (self.queued > 0 and self._bytes >= self._max_queued_bytes)

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(self._timeout):
            while self._is_full and self._given_up is None:
                await self._full.park()
            return
        raise BackplaneUnavailable(
            f"{self.queued} publications waited for the broker and left no room for another within "
            f"timeout={self._timeout:g} s; publish less, or see max_queued_publications"
        )

    async def expire(self) -> None:
        """Until cancelled, fail what has waited for longer than ``timeout``.

        A cancel scope for each publication would say the same and took a third of its time.
        """
        while True:
            await trio.sleep(self._timeout / _LOOKS_PER_TIMEOUT)
            self._expire(trio.current_time() - self._timeout)

    def _expire(self, oldest: float) -> None:
        within = f"within timeout={self._timeout:g} s{self._because}"
        error = partial(BackplaneUnavailable, f"the broker has not confirmed a publication {within}; retry later")
        for pending in list(takewhile(lambda pending: pending.since <= oldest, self._waiting)):
            del self._waiting[pending]
            self._resolve(pending, outcome.Error(error()))  # each its own, as each gets a traceback
        for pending in takewhile(lambda pending: pending.since <= oldest, self._sent):
            _wake(pending, outcome.Error(error()))  # its place stays: an answer may still come

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
            self._down_since = trio.current_time()
            while self._sent:
                lost = BackplaneUnavailable(
                    "the link to the broker broke while a publication was on its way; it may have gone out or not"
                )
                self._resolve(self._sent.popleft(), outcome.Error(lost))

    def _pack_anew(self) -> None:
        for pending in self._waiting:
            if pending.command is not None:
                self._bytes -= len(pending.packed)
                pending.packed = pack(pending.command(self.incarnation))
                self._bytes += len(pending.packed)

    def give_up(self, error: Callable[[], Exception]) -> None:
        """Fail what waits and what is still to come, for no connection will; the first who says so counts."""
        self._given_up = self._given_up or error
        self._full.unpark_all()
        for pending in list(self._waiting):
            del self._waiting[pending]
            self._resolve(pending, outcome.Error(error()))

    async def _write(self, connection: RedisConnection) -> None:
        try:
            while True:
                if not self._waiting:
                    self._writer = trio.lowlevel.current_task()
                    await trio.lowlevel.wait_task_rescheduled(self._forget_writer)
                await connection.send(self._take_group())
        finally:
            self._writer = None

    def _forget_writer(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _take_group(self) -> bytes:
        size = 0
        group: list[_Pending] = []
        for pending in self._waiting:
            group.append(pending)
            size += len(pending.packed)
            if size >= _GROUP_BYTES:
                break
        if len(group) == len(self._waiting):
            self._waiting.clear()
        else:
            for pending in group:
                del self._waiting[pending]
        self._meters.batches.observe(len(group))
        self._sent += group  # before it is sent: cancelled amid, some of it may have gone out
        return b"".join([pending.packed for pending in group])

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

    def _resolve(self, pending: _Pending, result: outcome.Outcome[Reply]) -> None:
        self._release(pending)
        _wake(pending, result)

    def _release(self, pending: _Pending) -> None:
        self._bytes -= len(pending.packed)
        if self._full:
            self._full.unpark()


def _wake(pending: _Pending, result: outcome.Outcome[Reply]) -> None:
    if pending.publisher is not None:
        trio.lowlevel.reschedule(pending.publisher, result)
        pending.publisher = None
