"""A client that comes back by itself: `connect` to a server, `Client.join` its rooms."""

from __future__ import annotations

from trioroom.client.client import Client
from trioroom.client.events import ClientState, Event, Gap, Message, PresenceDiff, Rejoined
from trioroom.client.inbox import FullInbox
from trioroom.client.opening import connect
from trioroom.client.reconnect import Backoff
from trioroom.client.room import ClientRoom

__all__ = [
    "Backoff",
    "Client",
    "ClientRoom",
    "ClientState",
    "Event",
    "FullInbox",
    "Gap",
    "Message",
    "PresenceDiff",
    "Rejoined",
    "connect",
]
