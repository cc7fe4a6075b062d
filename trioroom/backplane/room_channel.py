"""What is published to a room, on its way to the fan-out of this node: a queue bounded in publications and bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Self

import trio

from trioroom._core.history import Kept, Position
from trioroom.backplane.base import Delivery, Lost

if TYPE_CHECKING:
    from types import TracebackType

    from trioroom._core.budget import Budget

_ENTRY_BYTES = 48  # beside a payload: the head of the object is 33, its place in the queue 8, the rest is rounding
_KEPT_BYTES = 88  # and of the record around one that is kept, its offset included; the epoch is shared


def weight(delivery: Delivery) -> int:
    """The bytes that ``delivery`` counts for while it waits."""
    if isinstance(delivery, bytes):
        return len(delivery) + _ENTRY_BYTES
    return len(delivery.payload) + _KEPT_BYTES + _ENTRY_BYTES if isinstance(delivery, Kept) else _ENTRY_BYTES


class RoomChannel:
    """Of one subscription; who opens it closes it, and it is a context manager that does.

    It is full when one more would pass a bound of its own or the budget's; then the budget is first
    asked to drop somebody. But one always fits into an empty channel, however large, so that all get
    through in the end. A backplane with a broker has to `offer`; one that can keep its publishers
    waiting may `put`. Calls may overlap, but for `receive`, and nothing is taken or put by one that raises.
    Thousands of rooms have one each that is mostly empty: what it needs while something waits comes with that.
    """

    __slots__ = (
        "_budget", "_closed", "_deliveries", "_putters", "_receiver", "max_bytes", "max_publications", "queued_bytes",
    )  # fmt: skip

    def __init__(self, max_publications: int, max_bytes: float, budget: Budget) -> None:
        self.max_publications = max_publications
        """How many may wait, losses counted."""
        self.max_bytes = max_bytes
        """How many bytes may wait, 48 added to each entry; ``math.inf`` is no bound."""
        self.queued_bytes = 0
        """How many do."""
        self._budget = budget
        self._closed = False
        self._deliveries: (
            deque[Delivery] | tuple[()]
        ) = ()  # a deque while something waits: an empty one takes 760 bytes
        self._putters: dict[trio.lowlevel.Task, Delivery] | None = None  # the first one first; None for nobody
        self._receiver: trio.lowlevel.Task | None = None

    def __len__(self) -> int:
        return len(self._deliveries)

    # -- for the backplane -----------------------------------------------------------------------

    def offer(self, delivery: Delivery) -> None:
        """Take ``delivery`` at once; never fails. What is full loses its backlog and is told how much that was."""
        if not self.put_nowait(delivery):
            lost = self._drop_backlog(delivery)
            self._append(lost, weight(lost))

    def _drop_backlog(self, latest: Delivery) -> Lost:
        # The old goes rather than the new: who is behind is best served by what is true now, and told
        # at once, in front of what follows.
        count: int | None = 0
        dropped: dict[str, Position] = {}
        for delivery in (*self._take_all(), latest):
            if isinstance(delivery, Lost):
                dropped.update({position.epoch: position for position in delivery.dropped})
            elif isinstance(delivery, Kept):
                dropped[delivery.epoch] = Position(delivery.epoch, delivery.offset)
            more = delivery.count if isinstance(delivery, Lost) else 1
            count = None if count is None or more is None else count + more
        return Lost("overflow", count, tuple(dropped.values()))

    def _take_all(self) -> Iterator[Delivery]:
        while self._deliveries:
            yield self.receive_nowait()

    def put_nowait(self, delivery: Delivery) -> bool:
        """Take ``delivery`` if there is room and nobody waits for it; a closed channel takes all and keeps nothing."""
        if self._closed:
            return True
        size = weight(delivery)
        if self._putters or not self._has_room(size):
            return False
        self._append(delivery, size)
        return True

    async def put(self, delivery: Delivery) -> None:
        """Await room for ``delivery``, first come, first served. Closing the channel lets all go who wait."""
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.put_nowait(delivery):
            return await trio.lowlevel.cancel_shielded_checkpoint()
        task = trio.lowlevel.current_task()
        if self._putters is None:
            self._putters = {}
        self._putters[task] = delivery

        def abort(_: object) -> trio.lowlevel.Abort:
            assert self._putters is not None, "the task is in it"
            del self._putters[task]
            self._admit()  # who comes next may be smaller
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def _admit(self) -> None:
        """Let in who waits, as far as there is room: whoever comes later cannot take it from them."""
        while self._putters:
            task, delivery = next(iter(self._putters.items()))
            size = weight(delivery)
            if not self._has_room(size):
                return
            del self._putters[task]
            self._append(delivery, size)
            trio.lowlevel.reschedule(task)
        self._putters = None

    def _has_room(self, size: int) -> bool:
        if not self._deliveries:
            return True
        if len(self._deliveries) >= self.max_publications or self.queued_bytes + size > self.max_bytes:
            return False
        if not self._budget.fits(size):
            self._budget.relieve(size)
            return self._budget.fits(size)
        return True

    def _append(self, delivery: Delivery, size: int) -> None:
        if self._deliveries:
            self._deliveries.append(delivery)
        else:
            self._deliveries = deque((delivery,))
        self.queued_bytes += size
        self._budget.add(size)
        self._wake_receiver()

    def _wake_receiver(self) -> None:
        if self._receiver is not None:
            task, self._receiver = self._receiver, None
            trio.lowlevel.reschedule(task)

    # -- for the fan-out -------------------------------------------------------------------------

    async def receive(self) -> Delivery:
        """The oldest delivery, awaited if there is none.

        Raises:
            trio.ClosedResourceError: the channel is closed, maybe while we waited.
            trio.BusyResourceError: another task waits already.
        """
        if self._receiver is not None:
            raise trio.BusyResourceError("another task receives from this room channel")
        if self._deliveries or self._closed:
            await trio.lowlevel.checkpoint()
        while not (self._deliveries or self._closed):
            self._receiver = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._stop_receiving)
        return self.receive_nowait()

    def _stop_receiving(self, _: object) -> trio.lowlevel.Abort:
        self._receiver = None
        return trio.lowlevel.Abort.SUCCEEDED

    def receive_nowait(self) -> Delivery:
        """The oldest delivery.

        Raises:
            trio.WouldBlock: there is none.
            trio.ClosedResourceError: the channel is closed.
        """
        if not self._deliveries:
            if self._closed:
                raise trio.ClosedResourceError("this room channel is closed")
            raise trio.WouldBlock
        delivery = self._deliveries.popleft()
        if not self._deliveries:
            self._deliveries = ()
        size = weight(delivery)
        self.queued_bytes -= size
        self._budget.remove(size)
        if self._putters:
            self._admit()
        return delivery

    def close(self) -> None:
        """Drop what waits; may be called again. Putters go on as if theirs had been taken."""
        self._closed = True
        self._budget.remove(self.queued_bytes)
        self.queued_bytes = 0
        self._deliveries = ()
        for task in self._putters or ():
            trio.lowlevel.reschedule(task)
        self._putters = None
        self._wake_receiver()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
