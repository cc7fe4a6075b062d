"""What a client does when it is not connected any more, as a table, and how its waits spread."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom.client.reconnect import AT_ONCE, FLOOR, Backoff, Ended, Reconnection
from trioroom.errors import ConnectionClosed, Disconnected, HandshakeError, RemoteProtocolError

CHANCES = st.floats(0, 1)
GIVE_UP = None
BACK_OFF = (FLOOR, 0.5)  # the first time
SOON = (0.0, AT_ONCE)


def handshake(status: int, *headers: tuple[str, str]) -> HandshakeError:
    return HandshakeError(status, f"HTTP {status}", headers)


CASES: list[tuple[Exception, tuple[float, float] | None]] = [
    *((ConnectionClosed(code), GIVE_UP) for code in (1000, 1002, 1003, 1005, 1007, 1008, 1009, 4000, 4001, 4005, 4099)),
    *((ConnectionClosed(code), BACK_OFF) for code in (1001, 1006, 1011, 1012, 1013, 4100, 4101, 4108, 4110, 4199)),
    *((ConnectionClosed(code), SOON) for code in (4200, 4299)),
    *((handshake(status), GIVE_UP) for status in (101, 200, 301, 400, 401, 403, 404, 407, 426)),
    *((handshake(status), BACK_OFF) for status in (408, 425, 429, 500, 502, 503, 504)),
    (handshake(503, ("Retry-After", "7")), (7.0, 14.0)),
    (handshake(429, ("retry-after", " 2 ")), (2.0, 4.0)),
    (handshake(503, ("Retry-After", "Fri, 31 Dec 1999 23:59:59 GMT")), BACK_OFF),
    (handshake(503, ("Retry-After", "9" * 400)), (86_400.0, 86_400.0)),
    (handshake(404, ("Retry-After", "7")), GIVE_UP),
    (RemoteProtocolError("what is this?", 4000), GIVE_UP),
    (ConnectionRefusedError(), BACK_OFF),
    (TimeoutError(), BACK_OFF),
    (Disconnected("no token"), BACK_OFF),
]


@pytest.mark.parametrize(("error", "expected"), CASES, ids=lambda value: str(value)[:40])
def test_what_ended_it_says_how_to_go_on(error: Exception, expected: tuple[float, float] | None) -> None:
    waits = [Reconnection().wait_after(Ended(error), chance) for chance in (0.0, 1.0)]
    assert waits == ([None, None] if expected is None else list(expected))


@pytest.mark.parametrize("chance", [0.0, 0.5, 1.0])
def test_bye_names_the_time_and_is_no_failure(chance: float) -> None:
    reconnection = Reconnection()
    said = Ended(ConnectionClosed(4101), 1.0, (0.8, 5.0))
    assert reconnection.wait_after(said, chance) == pytest.approx(0.8 + 4.2 * chance)
    assert reconnection.wait_after(Ended(ConnectionRefusedError()), 1.0) == 0.5


@pytest.mark.parametrize(
    ("said", "expected"),
    [((-5.0, -1.0), 0.0), ((math.nan, 1.0), 0.0), ((math.inf, math.inf), 0.0), ((1e300, 1e308), 86_400.0)],
)
def test_bye_that_makes_no_sense_does_no_harm(said: tuple[float, float], expected: float) -> None:
    assert Reconnection().wait_after(Ended(ConnectionClosed(4101), 1.0, said), 0.5) == expected


def test_bye_does_not_bring_back_whom_the_code_keeps_out() -> None:
    assert Reconnection().wait_after(Ended(ConnectionClosed(4001), 1.0, (0.8, 5.0)), 0.5) is None


def test_coming_back_at_once_is_not_repeated_until_a_connection_has_settled() -> None:
    reconnection = Reconnection()
    wanted = ConnectionClosed(4200)
    assert reconnection.wait_after(Ended(wanted), 1.0) == AT_ONCE
    assert reconnection.wait_after(Ended(wanted, 29.0), 1.0) == 0.5
    assert reconnection.wait_after(Ended(wanted, 30.0), 1.0) == AT_ONCE


def test_waits_grow_until_a_connection_has_settled() -> None:
    reconnection = Reconnection(Backoff(first=1.0, most=6.0, settled=10.0))
    lived = [0.0, 9.9, 0.0, 0.0, 10.0, 0.0]
    waits = [reconnection.wait_after(Ended(ConnectionClosed(1006), seconds), 1.0) for seconds in lived]
    assert waits == [1.0, 2.0, 4.0, 6.0, 1.0, 2.0]


@given(st.integers(0, 100_000), CHANCES)
def test_back_off_is_between_the_floor_and_its_bound(failures: int, chance: float) -> None:
    assert FLOOR <= Backoff().after(failures, chance) <= 30.0


@given(st.integers(0, 8), CHANCES)
def test_jitter_is_full(failures: int, chance: float) -> None:
    """The wait is as chance has it: nothing but the floor keeps clients together."""
    assert Backoff().after(failures, chance) == max(FLOOR, chance * min(30.0, 0.5 * 2**failures))


@pytest.mark.parametrize("name", ["first", "most", "settled"])
def test_back_off_wants_positive_seconds(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Backoff(**{name: 0})
