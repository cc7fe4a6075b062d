"""From the broker to a room's channel, with what may happen on the way."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

import attrs
import trio

from trioroom._core.budget import Budget
from trioroom.backplane.base import Delivery, Lost
from trioroom.backplane.room_channel import RoomChannel

_OVERTAKEN_WITHIN = 1.0  # seconds after which one that waits to be overtaken goes on all the same


class Fault(Enum):
    """What may become of a publication between broker and node. A backplane's contract allows only the first."""

    DELAYED = "delayed"
    """It takes a while, and what comes behind it waits."""
    DROPPED = "dropped"
    """It is lost, and nobody is told."""
    DUPLICATED = "duplicated"
    """It comes twice."""
    REORDERED = "reordered"
    """It comes after the next one of its room; if there is none within a second, then."""


@attrs.frozen
class Course:
    """What is to become of one publication."""

    seconds: float = 0.0
    """How long it takes."""
    fault: Fault | None = None
    """What else happens to it."""


@attrs.define
class _InTransit:
    due: float
    delivery: Delivery


class FaultyDelivery:
    """Of one subscription: what comes for it goes into ``source``, and from there, as ``judge`` says, into ``channel``.

    As many publications as the channel has room for may be on their way, and as many again in ``source``, so that a
    channel that is full holds up publishers in the end.
    """

    def __init__(self, channel: RoomChannel, judge: Callable[[], Course]) -> None:
        self.source = RoomChannel(channel.max_publications, channel.max_bytes, Budget(math.inf))
        """For the backplane to fill; who runs it closes that."""
        self._channel = channel
        self._judge = judge
        self._transit: deque[_InTransit] = deque()
        self._overtaken: _InTransit | None = None
        self._is_cut = False
        self._cuts = 0
        self._changed = trio.Event()

    def cut(self) -> None:
        """What is on its way is lost, and so is what comes."""
        self._is_cut = True
        self._cuts += 1
        self._overtaken = None
        self._transit.clear()
        with suppress(trio.WouldBlock):
            while True:  # it may be mended before the task that receives has run
                self.source.receive_nowait()
        self._tell()

    def mend(self) -> None:
        """The channel is told that something may be missing, and gets what comes from now on."""
        self._is_cut = False
        self._append(Lost("backplane"), 0.0)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            nursery.start_soon(self._receive)
            nursery.start_soon(self._deliver)

    async def _receive(self) -> None:
        while True:
            delivery = await self.source.receive()
            cuts = self._cuts
            while len(self._transit) >= self._channel.max_publications:
                await self._changed.wait()
            if self._is_cut or self._cuts != cuts:
                continue
            if isinstance(delivery, Lost):  # from the broker: no fault of ours
                self._append(delivery, 0.0)
            else:
                self._send(delivery, self._judge())

    def _send(self, delivery: Delivery, course: Course) -> None:
        if course.fault is Fault.DROPPED:
            return
        self._append(delivery, course.seconds)
        if course.fault is Fault.DUPLICATED:
            self._append(delivery, course.seconds)
        elif course.fault is Fault.REORDERED and self._overtaken is None:
            self._overtaken = self._transit[-1]
            self._overtaken.due += _OVERTAKEN_WITHIN

    def _append(self, delivery: Delivery, seconds: float) -> None:
        due = trio.current_time() + seconds
        overtaken, self._overtaken = self._overtaken, None
        if overtaken is not None and self._transit and self._transit[-1] is overtaken:
            self._transit.pop()
            overtaken.due -= _OVERTAKEN_WITHIN
            self._put(delivery, due)
            self._put(overtaken.delivery, overtaken.due)
        else:
            self._put(delivery, due)
        self._tell()

    def _put(self, delivery: Delivery, due: float) -> None:
        """At the end, and not before what is ahead of it."""
        if self._transit:
            due = max(due, self._transit[-1].due)
        self._transit.append(_InTransit(due, delivery))

    async def _deliver(self) -> None:
        while True:
            if not self._transit:
                await self._changed.wait()
            elif (due := self._transit[0].due) > trio.current_time():
                with trio.move_on_at(due):
                    await self._changed.wait()  # it may be lost, or overtaken
            else:
                delivery = self._transit.popleft().delivery
                self._tell()
                await self._channel.put(delivery)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()
