"""Where accepted sockets come in, or are told that there is no place for them."""

from __future__ import annotations

import contextlib
import logging
import math
import resource
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from trioroom._core.admission import Admission, Verdict, reserved_descriptors
from trioroom._wire.http import encode_response

if TYPE_CHECKING:
    from trioroom._net.handshake import Greeter
    from trioroom._net.transport import Transport
    from trioroom.settings import Settings

log = logging.getLogger("trioroom.entrance")
_RETRY_AFTER = 5  # seconds a peer that is refused should wait
_BURST_GAP = 10.0  # seconds without a refusal after which the next one is worth a line in the log again


def open_admission(settings: Settings) -> Admission:
    """Nobody is in; the bounds are those of ``settings``, or what this process may open."""
    max_connections: float | None = settings.max_connections
    if max_connections is None:
        open_files = _open_files()
        max_connections = open_files - reserved_descriptors(open_files)
    return Admission(max_connections, settings.max_connections_per_address)


def _open_files() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if limit == resource.RLIM_INFINITY else limit


class Entrance:
    """Gives each accepted socket to the greeter, or turns it away; its tasks run in ``nursery``.

    Args:
        open_transport: a transport over an accepted socket.
        answers: whether one who is refused is told so in HTTP; over TLS that would take a handshake each.
    """

    def __init__(
        self,
        admission: Admission,
        greeter: Greeter,
        nursery: trio.Nursery,
        open_transport: Callable[[socket.socket], Transport],
        *,
        answers: bool,
    ) -> None:
        self._admission = admission
        self._greeter = greeter
        self._nursery = nursery
        self._open_transport = open_transport
        self._answers = answers
        self._lingering = 0
        self._max_lingering = reserved_descriptors(_open_files()) // 2
        self._last_refusal: dict[Verdict, float] = {}

    def take(self, sock: socket.socket, host: str) -> None:
        """Serve the peer at ``host``, or turn it away.

        Raises:
            OSError: it cannot be served, for want of something or as it is gone; the caller closes ``sock``.
        """
        verdict = self._admission.enter(host)
        if verdict is not Verdict.ADMITTED:
            self._refuse(sock, host, verdict)
            return
        leave = self._admission.leaver(host)
        try:
            transport = self._open_transport(sock)
        except OSError:
            leave()
            raise
        self._nursery.start_soon(self._greeter.serve, transport, leave, name="connection")

    def _refuse(self, sock: socket.socket, host: str, verdict: Verdict) -> None:
        self._log_refusal(host, verdict)
        if not self._answers:
            sock.close()
        elif self._lingering < self._max_lingering:
            transport = self._open_transport(sock)
            self._lingering += 1
            self._nursery.start_soon(self._turn_away, transport, _answer_of(verdict), name="refusal")
        else:  # so many are being told already: this one may miss the answer if its request comes after we closed
            with contextlib.suppress(OSError):
                sock.send(_answer_of(verdict))
            sock.close()

    async def _turn_away(self, transport: Transport, answer: bytes) -> None:
        try:
            await self._greeter.turn_away(transport, answer)
        finally:
            self._lingering -= 1

    def _log_refusal(self, host: str, verdict: Verdict) -> None:
        now = trio.current_time()
        if now - self._last_refusal.get(verdict, -math.inf) > _BURST_GAP:
            setting, limit = verdict.value, self._admission.limits[verdict]
            fields = {"address": host, "setting": setting, "limit": limit}
            log.warning("turning away %s and others that come now: %s=%d reached", host, setting, limit, extra=fields)
        self._last_refusal[verdict] = now


def _answer_of(verdict: Verdict) -> bytes:
    whose = "this server" if verdict is Verdict.FULL else "your address"
    return encode_response(
        503,
        f"{whose} has as many connections as {verdict.value} allows; try again later\n".encode(),
        headers=(("Retry-After", str(_RETRY_AFTER)),),
    )
