"""A subject that this node listens to, and what becomes of the messages that come on it."""

from __future__ import annotations

import attrs

from trioroom.backplane.base import Lost
from trioroom.backplane.channel import Channel
from trioroom.backplane.nats.protocol import Message


@attrs.define(eq=False)
class NatsChannel(Channel):
    """One subject. Who needs more of a message than its payload makes a subclass with a `take` of its own."""

    sid: int = 0
    """The subscription's number at the server; another one each time that it is asked for."""

    def confirm_at(self, number: int) -> None:
        """Live from here on: all that the relay numbered up to ``number`` was published before that."""
        self.confirm()

    def pass_over(self, message: Message) -> None:
        """A message has come before this is live."""

    def take(self, message: Message) -> None:
        """A message has come while this is live: `deliver` to the listeners what it means."""
        self.deliver(message.payload)

    def drop(self, message: Message) -> None:
        """The same of one that is larger than it may be."""
        self.deliver(Lost("backplane", 1))
