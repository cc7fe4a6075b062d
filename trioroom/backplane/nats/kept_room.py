"""A room with a history, as its publications are delivered: each says what it follows."""

from __future__ import annotations

import attrs

from trioroom._core.history import Kept
from trioroom.backplane.base import Lost
from trioroom.backplane.nats.channel import NatsChannel
from trioroom.backplane.nats.epochs import Epochs
from trioroom.backplane.nats.history_stream import MARK
from trioroom.backplane.nats.protocol import Message


@attrs.define(eq=False)
class KeptRoom(NatsChannel):
    """Publications of a room with a history, as the stream has numbered them."""

    epochs: Epochs = attrs.field(kw_only=True)
    latest: int = 0
    """The offset of what came last; 0 is none since it has been live, or in this epoch."""
    epoch: str = ""
    mark: tuple[int, int] = (0, 0)
    """The latest mark that came, and what it follows."""

    def confirm(self) -> None:
        """What came before does not count any more, and is told to be lost."""
        self.latest = 0
        super().confirm()

    def take(self, message: Message) -> None:
        """What comes; where something that was there before is not there any more a loss, so that it is read."""
        headers = message.headers
        try:
            offset, follows = int(headers["Nats-Sequence"]), int(headers["Nats-Last-Sequence"])
        except (KeyError, ValueError):
            return  # not from the stream, so that it has no place in the order
        if not self.epochs.settled:
            return self.deliver(Lost("backplane"))  # who reads it settles that
        if self.epoch != self.epochs.current.name:  # who reads the room sees what that means for what came before
            self.epoch, self.latest = self.epochs.current.name, 0
        if self.latest and (offset <= self.latest or 0 < follows < self.latest):
            self.epochs.doubt |= offset > self.latest  # else it may come twice, from two leaders of a cluster
            self.deliver(Lost("backplane"))
        self.latest = offset
        if MARK in headers:
            self.mark = (offset, follows)
            return
        if follows == self.mark[0]:
            follows = self.mark[1]
        self.epochs.confirm(offset)
        self.deliver(Kept(self.epoch, offset, message.payload, 0.0, None if follows == offset - 1 else follows))
