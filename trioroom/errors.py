"""The exceptions users may see; each says whose fault it is and what to do."""

from __future__ import annotations

from trioroom.closecodes import CloseCode, is_valid_on_wire


class TrioroomError(Exception):
    """Base of every error trioroom raises on purpose."""


class ConnectionClosed(TrioroomError):
    """The connection is over. Nobody's fault as such: ``code`` and ``reason`` tell why it closed."""

    def __init__(self, code: int, reason: str = "", *, by_peer: bool = False) -> None:
        super().__init__(f"connection closed with {code}{': ' + reason if reason else ''}")
        self.code = code
        self.reason = reason
        self.by_peer = by_peer


class ProtocolError(TrioroomError):
    """A rule of the WebSocket protocol or of trioroom's own was broken."""


class LocalProtocolError(ProtocolError):
    """Your call asked for something the protocol does not allow; mend the calling code."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; answer with ``close_code`` and give the connection up."""

    def __init__(self, message: str, close_code: int = CloseCode.PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.close_code = int(close_code)


class HandshakeError(ProtocolError):
    """The opening HTTP request cannot be served; answer with ``status`` and close (RFC 6455 §4.2.2)."""

    def __init__(self, status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


class JoinRefused(TrioroomError):
    """Raised by ``Room.authorize`` to keep a member out; ``reason`` reaches the peer."""

    def __init__(self, reason: str = "not allowed", close_code: int = CloseCode.JOIN_REFUSED) -> None:
        if not is_valid_on_wire(close_code):
            raise ValueError(f"close_code={int(close_code)} cannot go over the wire; use 1008 or one from 3000 to 4999")
        super().__init__(reason)
        self.reason = reason
        self.close_code = int(close_code)


class BackplaneError(TrioroomError):
    """The link between the servers failed."""


class BackplaneUnavailable(BackplaneError):
    """The broker cannot be reached now; retry later."""


class PositionLost(TrioroomError):
    """The epoch differs or the history no longer holds the next offset; resynchronise."""
