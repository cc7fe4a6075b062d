"""trioroom: real-time rooms over WebSocket, on Trio.

Subclass `Room`, route a pattern to it, and run the `App` with `serve` or `open_server`.
"""

from __future__ import annotations

from trioroom._core.history import History, Position
from trioroom._core.overflow import Overflow
from trioroom._core.presence import Presence
from trioroom._core.revocation import Revocation
from trioroom._core.statistics import Deliveries, Lag, RoomStatistics, ServerStatistics
from trioroom._wire.message import Data, Message
from trioroom.app import App
from trioroom.backplane.open import open_backplane
from trioroom.client import connect
from trioroom.closecodes import CloseCode
from trioroom.errors import (
    AuthenticationRefused,
    AuthenticationUnavailable,
    BackplaneError,
    BackplaneUnavailable,
    ConnectionClosed,
    Disconnected,
    HandshakeError,
    JoinRefused,
    Kicked,
    LocalProtocolError,
    PositionLost,
    ProtocolError,
    RemoteProtocolError,
    RequestRefused,
    TrioroomError,
    Unconfirmed,
)
from trioroom.identity import Credentials, Identity
from trioroom.member import Member
from trioroom.room import HistoryPage, KeptMessage, PresencePage, PresentUser, Room
from trioroom.server import Server, open_server, serve
from trioroom.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "App",
    "AuthenticationRefused",
    "AuthenticationUnavailable",
    "BackplaneError",
    "BackplaneUnavailable",
    "CloseCode",
    "ConnectionClosed",
    "Credentials",
    "Data",
    "Deliveries",
    "Disconnected",
    "HandshakeError",
    "History",
    "HistoryPage",
    "Identity",
    "JoinRefused",
    "KeptMessage",
    "Kicked",
    "Lag",
    "LocalProtocolError",
    "Member",
    "Message",
    "Overflow",
    "Position",
    "PositionLost",
    "Presence",
    "PresencePage",
    "PresentUser",
    "ProtocolError",
    "RemoteProtocolError",
    "RequestRefused",
    "Revocation",
    "Room",
    "RoomStatistics",
    "Server",
    "ServerStatistics",
    "Settings",
    "TrioroomError",
    "Unconfirmed",
    "connect",
    "open_backplane",
    "open_server",
    "serve",
]
