from __future__ import annotations

import inspect

import pytest

from trioroom import errors
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
    fresh,
)


def test_every_error_of_ours_has_the_same_base_and_tells_what_to_do() -> None:
    classes = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if cls.__module__ == errors.__name__]
    assert len(classes) == 16
    for cls in classes:
        assert issubclass(cls, TrioroomError)
        assert cls.__doc__


@pytest.mark.parametrize(
    ("cls", "parent"),
    [
        (TrioroomError, Exception),
        (ConnectionClosed, TrioroomError),
        (ProtocolError, TrioroomError),
        (LocalProtocolError, ProtocolError),
        (RemoteProtocolError, ProtocolError),
        (HandshakeError, ProtocolError),
        (JoinRefused, TrioroomError),
        (AuthenticationRefused, TrioroomError),
        (AuthenticationUnavailable, TrioroomError),
        (BackplaneError, TrioroomError),
        (BackplaneUnavailable, BackplaneError),
        (PositionLost, TrioroomError),
        *((of_clients, TrioroomError) for of_clients in (RequestRefused, Disconnected, Unconfirmed, Kicked)),
    ],
)
def test_error_is_caught_as_its_parent(cls: type[Exception], parent: type[Exception]) -> None:
    assert cls.__bases__ == (parent,)


def test_every_error_says_whether_to_try_again() -> None:
    worth = [
        ConnectionClosed(4101), HandshakeError(503, ""), HandshakeError(429, ""), BackplaneUnavailable(),
        Disconnected(), AuthenticationUnavailable(), RequestRefused("unavailable", "", retry=True),
    ]  # fmt: skip
    not_worth = [
        ConnectionClosed(4001), HandshakeError(404, ""), JoinRefused(), RequestRefused("denied", ""), Unconfirmed(),
        AuthenticationRefused(),
        Kicked(4002, ""), RemoteProtocolError(""), LocalProtocolError(""),
    ]  # fmt: skip
    assert [error.retry for error in worth] == [True] * len(worth)
    assert [error.retry for error in not_worth] == [False] * len(not_worth)


def test_errors_of_clients_tell_what_happened() -> None:
    refused = RequestRefused("room_full", "no place is left", retry=True, after=2.0)
    assert (str(refused), refused.after) == ("room_full: no place is left", 2.0)
    assert str(Kicked(4002, "be kind")) == "put out of the room with 4002: be kind"


@pytest.mark.parametrize("error", [ConnectionClosed(4001, "no", by_peer=True), Kicked(4002, "x"), OSError(5, "io")])
def test_copy_to_raise_is_the_same_but_for_its_traceback(error: Exception) -> None:
    copy = fresh(error)
    assert copy is not error
    assert (type(copy), str(copy), copy.__dict__, copy.__cause__) == (type(error), str(error), error.__dict__, error)


def test_connection_closed_tells_code_and_reason() -> None:
    closed = ConnectionClosed(4101, "the server stops", by_peer=True)
    assert (closed.code, closed.reason, closed.by_peer) == (4101, "the server stops", True)
    assert str(closed) == "connection closed with 4101: the server stops"


def test_connection_closed_without_reason_ends_with_its_code() -> None:
    closed = ConnectionClosed(1005)
    assert (closed.code, closed.reason, closed.by_peer) == (1005, "", False)
    assert str(closed) == "connection closed with 1005"


def test_remote_protocol_error_is_answered_with_1002_unless_it_says_otherwise() -> None:
    assert RemoteProtocolError("bad").close_code == 1002
    error = RemoteProtocolError("large", CloseCode.MESSAGE_TOO_BIG)
    assert str(error) == "large"
    assert error.close_code == 1009
    assert type(error.close_code) is int


def test_handshake_error_carries_its_http_answer() -> None:
    assert HandshakeError(400, "bad").headers == ()
    error = HandshakeError(426, "upgrade", (("Upgrade", "websocket"),))
    assert (error.status, str(error), error.headers) == (426, "upgrade", (("Upgrade", "websocket"),))


def test_refusal_reaches_the_peer_as_4001_unless_it_says_otherwise() -> None:
    refused = JoinRefused()
    assert (refused.reason, str(refused), refused.close_code) == ("not allowed", "not allowed", 4001)
    refused = JoinRefused("full", CloseCode.OVERLOAD)
    assert (refused.reason, str(refused), refused.close_code) == ("full", "full", 4113)
    assert type(refused.close_code) is int


@pytest.mark.parametrize("code", [999, 1006, 5000, 70_000])
def test_refusal_with_a_code_that_no_close_frame_may_carry_is_an_error_at_once(code: int) -> None:
    with pytest.raises(ValueError, match=str(code)):
        JoinRefused("no", code)
