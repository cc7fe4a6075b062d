"""What a broker was asked and has not answered: a bounded queue with deadlines, sent in groups.

While one group is on its way the next one gathers, so that under load a system call and a wake-up on
either side carry many publications, and a single one waits for nobody.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any, Final, Generic, NoReturn, TypeVar

import attrs
import outcome
import trio

from trioroom._core.meters import LinkMeters
from trioroom.errors import BackplaneUnavailable

_LOOKS_PER_TIMEOUT: Final = 20  # so that a question may wait a twentieth longer than it should
_GROUP_BYTES: Final = 1 << 18  # of one system call; what waits beyond goes with the next


class Unanswered(BackplaneUnavailable):
    """The broker has said nothing in time; what was asked may have been done or not."""


@attrs.define(eq=False)
class Pending:
    """One question, until it has been answered."""

    packed: bytes
    since: float
    asker: trio.lowlevel.Task | None = attrs.field(default=None, init=False)
    """Parked; None once it has been woken or cancelled."""

    def wake(self, result: outcome.Outcome[Any]) -> None:
        """Give it to who asked, who still waits for it or does not."""
        if self.asker is not None:
            trio.lowlevel.reschedule(self.asker, result)
            self.asker = None


Kind = TypeVar("Kind", bound=Pending)


class PendingQueue(ABC, Generic[Kind]):
    """Outlives connections: what was not sent waits for the next one.

    Who derives from it sends what `_next_group` gives, keeps that until it is answered, and then calls `_resolve`.
    """

    def __init__(self, timeout: float, max_queued: int, max_queued_bytes: int, meters: LinkMeters) -> None:
        """The bounds are those of the broker's settings."""
        self.timeout = timeout
        """Seconds for an answer."""
        self.trouble: str | None = None
        """Why there is no connection, where that is known; for the message to who waits for one."""
        self._max_queued = max_queued
        self._max_queued_bytes = max_queued_bytes
        self._meters = meters
        self._waiting: dict[Kind, None] = {}  # not sent; a set that keeps its order
        self._queued = 0  # also what was sent
        self._bytes = 0  # of the same
        self._writer: trio.lowlevel.Task | None = None  # parked, as nothing waits
        self._full = trio.lowlevel.ParkingLot()
        self._down_since: float | None = trio.current_time()  # None while there is a connection
        self._given_up: Callable[[], Exception] | None = None

    @property
    def queued(self) -> int:
        """What the broker has not answered, sent or not."""
        return self._queued

    @abstractmethod
    def _on_their_way(self) -> Iterable[Kind]:
        """Those that were sent and are not answered."""

    def _abandon(self, pending: Kind) -> None:
        """Nobody waits for it any more. What was not sent never will be."""
        if pending in self._waiting:
            del self._waiting[pending]
            self._release(pending)

    # -- for who asks ----------------------------------------------------------------------------

    async def _ask(self, pending: Kind) -> Any:
        """What it was resolved with; always a checkpoint. Cancelled before it was sent, it never will be."""
        if self._down_since is not None and pending.since - self._down_since > self.timeout:
            await self._refuse(pending.since - self._down_since)
        if self._is_full:
            await self._wait_for_room()
        if self._given_up is not None:
            await trio.lowlevel.checkpoint()
            raise self._given_up()
        self._waiting[pending] = None
        self._queued += 1
        self._bytes += len(pending.packed)
        if not self._is_full:
            self._full.unpark()  # the next one: a large publication may have kept out many small ones
        if self._writer is not None:
            trio.lowlevel.reschedule(self._writer)
            self._writer = None
        pending.asker = trio.lowlevel.current_task()

        def abort(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            pending.asker = None
            self._abandon(pending)
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
        return self._queued >= self._max_queued or self._bytes >= self._max_queued_bytes

    async def _wait_for_room(self) -> None:
        with trio.move_on_after(self.timeout):
            while self._is_full and self._given_up is None:
                await self._full.park()
            return
        raise BackplaneUnavailable(
            f"{self._queued} publications waited for the broker and left no room for another within "
            f"timeout={self.timeout:g} s; publish less, or see max_queued_publications"
        )

    # -- for the link ----------------------------------------------------------------------------

    async def expire(self) -> None:
        """Until cancelled, fail what has waited for longer than ``timeout``.

        A cancel scope for each publication would say the same and take a third of its time.
        """
        while True:
            await trio.sleep(self.timeout / _LOOKS_PER_TIMEOUT)
            self._expire(trio.current_time() - self.timeout)

    def _expire(self, oldest: float) -> None:
        within = f"within timeout={self.timeout:g} s{self._because}"
        error = partial(Unanswered, f"the broker has not confirmed a publication {within}; retry later")
        # All of them, as who has waited for room may stand behind who came later.
        for pending in [each for each in chain(self._waiting, self._on_their_way()) if each.since <= oldest]:
            self._abandon(pending)
            pending.wake(outcome.Error(error()))  # each its own, as each gets a traceback

    def give_up(self, error: Callable[[], Exception]) -> None:
        """Fail what waits and what is still to come, for no connection will; the first who says so counts."""
        self._given_up = self._given_up or error
        self._full.unpark_all()
        for pending in self._waiting:
            self._resolve(pending, outcome.Error(error()))
        self._waiting.clear()

    # -- for who sends ---------------------------------------------------------------------------

    async def _next_group(self) -> list[Kind]:
        """What waits, as soon as something does; no checkpoint when it does already."""
        while not self._waiting:  # again, when who woke us was cancelled or expired in the same moment
            self._writer = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._forget_writer)
        size = 0
        group: list[Kind] = []
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
        return group

    def _forget_writer(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        self._writer = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _resolve(self, pending: Kind, result: outcome.Outcome[Any]) -> None:
        self._release(pending)
        pending.wake(result)

    def _lose(self, sent: Iterable[Kind]) -> None:
        """The link broke with these on their way."""
        self._down_since = trio.current_time()
        for pending in sent:
            lost = "the link to the broker broke while a publication was on its way; it may have gone out or not"
            self._resolve(pending, outcome.Error(BackplaneUnavailable(lost)))

    def _release(self, pending: Kind) -> None:
        self._queued -= 1
        self._bytes -= len(pending.packed)
        if self._full:
            self._full.unpark()
