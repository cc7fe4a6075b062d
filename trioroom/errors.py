"""The exceptions users may see; each says whose fault it is and what to do."""

from __future__ import annotations

from trioroom.closecodes import CloseCode, is_valid_on_wire, should_reconnect

_RETRY_STATUS = (408, 425, 429)  # of those that blame the client


class TrioroomError(Exception):
    """Base of every error trioroom raises on purpose."""

    retry: bool = False
    """Whether the same may succeed later."""


class ConnectionClosed(TrioroomError):
    """The connection is over. Nobody's fault as such: ``code`` and ``reason`` tell why it closed."""

    def __init__(self, code: int, reason: str = "", *, by_peer: bool = False) -> None:
        super().__init__(f"connection closed with {code}{': ' + reason if reason else ''}")
        self.code = code
        self.reason = reason
        self.by_peer = by_peer
        self.retry = should_reconnect(code)


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
    """The opening HTTP request cannot be served: a server answers with ``status`` and closes (RFC 6455 §4.2.2).

    To a client it says what the server, or the proxy, answered.
    """

    def __init__(self, status: int, message: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
        self.retry = status >= 500 or status in _RETRY_STATUS


class JoinRefused(TrioroomError):
    """Raised by ``Room.authorize`` to keep a member out; ``reason`` reaches the peer."""

    def __init__(self, reason: str = "not allowed", close_code: int = CloseCode.JOIN_REFUSED) -> None:
        if not is_valid_on_wire(close_code):
            raise ValueError(f"close_code={int(close_code)} cannot go over the wire; use 1008 or one from 3000 to 4999")
        super().__init__(reason)
        self.reason = reason
        self.close_code = int(close_code)


class AuthenticationRefused(TrioroomError):
    """Raised by ``App(authenticate=...)`` for credentials that are not good enough; ``reason`` reaches the peer.

    Without credentials, it says that there have to be some.
    """

    def __init__(self, reason: str = "not authenticated") -> None:
        super().__init__(reason)
        self.reason = reason


class AuthenticationUnavailable(TrioroomError):
    """Raised by ``App(authenticate=...)`` when it cannot tell now, such as for want of a database; peers come back.

    It is not logged for each of them: whoever raises it says so once for all.
    """

    retry = True


class BackplaneError(TrioroomError):
    """The link between the servers failed."""


class BackplaneUnavailable(BackplaneError):
    """The broker cannot be reached now; retry later."""

    retry = True


class PositionLost(TrioroomError):
    """The epoch differs or the history no longer holds the next offset; resynchronise."""


class RequestRefused(TrioroomError):
    """The server answered a client's request with an error; ``code`` is for programs, and listed with the protocol.

    A room raises it in ``on_message`` or ``on_call`` to answer so, with a code of its own. It is no failure: nothing is
    logged, and the connection stays. With ``retry`` our clients publish it again, a little later; calls they do not.

    With ``retry`` the same request may succeed later, after ``after`` seconds where that is known. Else the request is
    to be mended, or the user told.

    ``by_peer`` is for our clients to set: one that a hook lets through, which it got from another server, is no answer
    of this room but a failure.
    """

    def __init__(
        self, code: str, message: str, *, retry: bool = False, after: float | None = None, by_peer: bool = False
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.retry = retry
        self.after = after
        self.by_peer = by_peer


class Disconnected(TrioroomError):
    """The connection was lost before a client's request was answered. Try again what does no harm when done twice."""

    retry = True


class Unconfirmed(TrioroomError):
    """A client's publication was sent and not answered for too long: it may have gone out or not.

    Ask the room, by its history or a call, before you publish it again.
    """


class Kicked(TrioroomError):
    """The server has put a client out of a room; ``reason`` is for people. The client's other rooms stay."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"put out of the room with {code}{': ' + reason if reason else ''}")
        self.code = code
        self.reason = reason


def fresh(error: Exception) -> Exception:
    """A copy of ``error`` to raise, caused by it: one exception raised in several tasks mixes up their tracebacks."""
    copy = type(error).__new__(type(error), *error.args)
    copy.args = error.args
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error
    return copy
