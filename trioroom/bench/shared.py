"""What generator processes tell each other while they measure one room: memory that they share, and a bell.

The publisher has to know when a message has reached the last member, and the others when it was sent. Through the
parent that would take a millisecond each way; here it is a number written and a byte in a pipe.
"""

from __future__ import annotations

import os
from collections.abc import MutableSequence
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import cast

import attrs

NOT_WARM = -1


@attrs.frozen
class Shared:
    """Handed to each process when it starts."""

    sent: MutableSequence[float]
    """When the messages in flight were sent, by their number modulo ``in_flight``; the publisher's."""
    completed: MutableSequence[int]
    """How many messages have reached all members of a process, by its number; `NOT_WARM` before the load."""
    _published: MutableSequence[int]
    _heard: Connection
    _bell: Connection

    @property
    def published(self) -> int:
        """Messages sent; the publisher's."""
        return self._published[0]

    def publish(self, count: int) -> None:
        """So many messages are sent, or will be in a moment."""
        self._published[0] = count

    @property
    def ended(self) -> bool:
        """No more will be; the publisher's."""
        return bool(self._published[1])

    def end(self) -> None:
        """Publish no more."""
        self._published[1] = 1

    @property
    def slowest(self) -> int:
        """Messages that have reached all members of all processes."""
        return min(self.completed)

    @property
    def descriptor(self) -> int:
        """To be read when it has rung."""
        return self._heard.fileno()

    def ring(self) -> None:
        """Wake the publisher."""
        try:
            os.write(self._bell.fileno(), b"!")
        except BlockingIOError:
            pass  # it has not heard the others yet, so it will look

    def advance(self) -> None:
        """The publisher has heard; see `Pending`."""
        try:
            os.read(self.descriptor, 4_096)
        except BlockingIOError:
            pass


def open_shared(context: BaseContext, processes: int, in_flight: int) -> Shared:
    """For so many processes."""
    heard, bell = context.Pipe(duplex=False)
    for end in (heard, bell):
        os.set_blocking(end.fileno(), False)
    return Shared(
        cast("MutableSequence[float]", context.RawArray("d", in_flight)),
        cast("MutableSequence[int]", context.RawArray("q", [NOT_WARM] * processes)),
        cast("MutableSequence[int]", context.RawArray("q", 2)),
        heard,
        bell,
    )
