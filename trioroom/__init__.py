"""trioroom: real-time rooms over WebSocket, on Trio.

Subclass `Room`, route a pattern to it, and run the `App` with `serve` or `open_server`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trioroom._core.history import History, Position
from trioroom._core.overflow import Overflow
from trioroom._core.presence import Presence
from trioroom._core.revocation import Revocation
from trioroom._core.statistics import Deliveries, Lag, RoomStatistics, ServerStatistics
from trioroom._wire.message import Data, Message
from trioroom.app import App
from trioroom.backplane.open import open_backplane
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

if TYPE_CHECKING:
    from trioroom.client import connect
else:  # not for type checkers, which would take it that there is any name

    def __getattr__(name: str) -> object:
        """The client, when it is first asked for (PEP 562): it is a sixth of what there is to load, and no server's."""
        if name not in ("client", "connect"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import trioroom.client

        globals()["connect"] = trioroom.client.connect
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__, "client"})


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
