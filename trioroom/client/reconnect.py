"""Whether a client goes on after its connection has ended or could not be made, and how long it waits first."""

from __future__ import annotations

import attrs

from trioroom._core.checks import POSITIVE
from trioroom.closecodes import should_reconnect
from trioroom.errors import ConnectionClosed, HandshakeError, RemoteProtocolError, TrioroomError

FLOOR = 0.05
"""Seconds that a try waits at least: chance may say none at all."""
AT_ONCE = 0.05
"""Seconds within which a client comes back that is asked to do so at once."""
_LONGEST = 86_400.0  # seconds that a server may keep a client away, whatever it says
_RETRY_AFTER_STATUS = (429, 503)


@attrs.frozen
class Backoff:
    """How long a client waits between its tries: with full jitter, so that many who fell together come back spread."""

    first: float = attrs.field(default=0.5, validator=POSITIVE)
    """Before the second try it waits up to so many seconds; up to twice as many before each further one."""
    most: float = attrs.field(default=30.0, validator=POSITIVE)
    """Seconds it never goes beyond."""
    settled: float = attrs.field(default=30.0, validator=POSITIVE)
    """Seconds after which a connection was a success, and the waits begin at ``first`` again."""

    def after(self, failures: int, chance: float) -> float:
        """Seconds to wait after so many failures before this one; ``chance`` is from 0 to 1."""
        longest = min(self.most, self.first * 2.0 ** min(failures, 32))  # 32: far beyond any bound, no overflow
        return max(FLOOR, longest * chance)


@attrs.frozen
class Ended:
    """How a try to be connected ended."""

    error: Exception
    """Why."""
    lived: float = 0.0
    """Seconds that the connection was open."""
    bye: tuple[float, float] | None = None
    """Between how many seconds the server wants its peer back."""


@attrs.define
class Reconnection:
    """Decides; owned by the client."""

    backoff: Backoff = attrs.field(factory=Backoff)
    _failures: int = attrs.field(default=0, init=False)
    _came_at_once: bool = attrs.field(default=False, init=False)

    def wait_after(self, ended: Ended, chance: float) -> float | None:
        """Seconds until the next try; None when there is to be none.

        Args:
            chance: from 0 to 1, drawn by the caller.
        """
        if ended.lived >= self.backoff.settled:
            self._failures, self._came_at_once = 0, False
        if not is_worth_a_try(ended.error):
            return None
        if ended.bye is not None:
            first, last = ended.bye
            return _bounded(first + (last - first) * chance)
        if _wants_back_at_once(ended.error) and not self._came_at_once:
            self._came_at_once = True
            return AT_ONCE * chance
        if (asked := _retry_after(ended.error)) is not None:
            self._failures += 1
            return _bounded(asked * (1 + chance))
        self._failures += 1
        return self.backoff.after(self._failures - 1, chance)


def _bounded(seconds: float) -> float:
    return min(max(0.0, seconds), _LONGEST)  # in this order, which makes 0 of what is no number


def is_worth_a_try(error: Exception) -> bool:
    """Whether a client that met ``error`` gains by coming back."""
    if isinstance(error, RemoteProtocolError):
        return should_reconnect(error.close_code)
    return error.retry if isinstance(error, TrioroomError) else True  # the network is worth many


def _wants_back_at_once(error: Exception) -> bool:
    return isinstance(error, ConnectionClosed) and 4200 <= error.code <= 4299


def _retry_after(error: Exception) -> float | None:
    """The seconds of a ``Retry-After`` (RFC 9110 §10.2.3); its other form, a date, is not worth a clock of its own."""
    if not isinstance(error, HandshakeError) or error.status not in _RETRY_AFTER_STATUS:
        return None
    for name, value in error.headers:
        if name.lower() == "retry-after" and value.strip().isdecimal():
            return float(value)
    return None
