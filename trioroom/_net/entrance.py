"""Where accepted sockets come in, or are told that there is no place for them.

Whatever can be decided is decided at accept, before a byte is read. With the PROXY protocol the address is known once
its header has come, and with headers such as ``X-Forwarded-For`` once the head has: see `handshake`.
"""

from __future__ import annotations

import contextlib
import logging
import math
import resource
import socket
from collections.abc import Awaitable
from typing import TYPE_CHECKING

import trio

from trioroom._core.admission import Admission, Place, Verdict, reserved_descriptors
from trioroom._core.meters import Outcome
from trioroom._net.arrival import Arrival
from trioroom._net.proxy_header import receive_proxy_header
from trioroom._net.refusals import encode_refusal
from trioroom.errors import HandshakeError, RemoteProtocolError

if TYPE_CHECKING:
    from trioroom._core.networks import Networks
    from trioroom._net.accepted import AcceptedSockets
    from trioroom._net.handshake import Greeter
    from trioroom._net.refusals import Refusals
    from trioroom._net.transport import Transport
    from trioroom.settings import Settings

log = logging.getLogger("trioroom.entrance")


def open_admission(settings: Settings) -> Admission:
    """Nobody is in; the bounds are those of ``settings``, or what this process may open."""
    max_connections: float | None = settings.max_connections
    if max_connections is None:
        open_files = _open_files()
        max_connections = open_files - reserved_descriptors(open_files)
    return Admission(
        max_connections,
        settings.max_connections_per_address,
        (settings.max_handshake_rate, settings.handshake_burst),
        (settings.max_handshake_rate_per_address, settings.handshake_burst_per_address),
    )


def _open_files() -> float:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return math.inf if limit == resource.RLIM_INFINITY else limit


class Entrance:
    """Gives each accepted socket to the greeter, or turns it away; its tasks run in ``nursery``.

    Args:
        proxies: addresses that may tell whom they speak for.
        accepted: opens a transport over each. If that speaks TLS, who is refused is not told so, as that would take a
            handshake each.
    """

    def __init__(
        self,
        settings: Settings,
        admission: Admission,
        refusals: Refusals,
        proxies: Networks,
        greeter: Greeter,
        nursery: trio.Nursery,
        accepted: AcceptedSockets,
    ) -> None:
        self._settings = settings
        self._admission = admission
        self._refusals = refusals
        self._proxies = proxies
        self._greeter = greeter
        self._nursery = nursery
        self._open_transport = accepted.open
        self._tls = accepted.ssl_context is not None
        self._scheme = "https" if self._tls else None
        self._direct = Arrival(admission.place(None), None, self._scheme)  # for all whose place is one object
        self._lingering = 0
        self._max_lingering = reserved_descriptors(_open_files()) // 2

    def take(self, sock: socket.socket, host: str) -> None:
        """Serve the peer at ``host``, or turn it away.

        Raises:
            OSError: it cannot be served, for want of something or as it is gone; the caller closes ``sock``.
        """
        is_proxy = host in self._proxies
        if self._settings.proxy_protocol and not is_proxy:
            self._refuse(sock, host, self._admission.refuse(Verdict.NOT_A_PROXY))
            return
        address = None if is_proxy else host
        verdict = self._admission.enter(address, trio.current_time())
        if verdict is not Verdict.ADMITTED:
            self._refuse(sock, host, verdict)
            return
        place = self._admission.place(address)
        if self._settings.proxy_protocol:
            self._nursery.start_soon(self._take_announced, sock, host, place, name="PROXY header")
            return
        if place is self._direct.place and not is_proxy:
            arrival = self._direct
        else:
            arrival = Arrival(place, host if is_proxy else None, self._scheme)
        try:
            self._serve(sock, arrival)
        except OSError:
            place.leave()
            raise

    def serve_transport(self, transport: Transport) -> Awaitable[None]:
        """Serve a peer that came by other ways than the listener, or turn it away; what is given is to be awaited."""
        try:
            arrival = self.let_in(transport.address())
        except HandshakeError as exc:
            return self._greeter.turn_away(transport, encode_refusal(exc))
        return self._greeter.serve(transport, arrival)

    def let_in(self, host: str | None) -> Arrival:
        """The place of a peer that came by other ways, from ``host`` if that is known.

        Raises:
            HandshakeError: there is none.
        """
        address = None if host in self._proxies else host
        verdict = self._admission.enter(address, trio.current_time())
        if verdict is not Verdict.ADMITTED:
            raise self._refusals.answer(verdict, host)
        return Arrival(self._admission.place(address), host)

    def _serve(self, sock: socket.socket, arrival: Arrival) -> None:
        transport = self._open_transport(sock)
        self._nursery.start_soon(self._greeter.serve, transport, arrival, name="connection")

    async def _take_announced(self, sock: socket.socket, proxy: str, place: Place) -> None:
        """Serve whoever ``proxy`` announces on ``sock``. This task ends with that: the connection has its own."""
        with contextlib.ExitStack() as undo:
            undo.callback(sock.close)
            undo.callback(place.leave)
            deadline = trio.current_time() + self._settings.handshake_timeout
            try:
                header = await receive_proxy_header(sock, deadline)
                address = header.source or proxy
                verdict = Verdict.ADMITTED
                if address not in self._proxies:  # else its headers may tell more
                    verdict = place.claim(address, trio.current_time())
                if verdict is Verdict.ADMITTED:
                    self._serve(sock, Arrival(place, address, self._scheme, deadline))
                else:
                    self._refuse(sock, address, verdict)
                    place.leave()
                undo.pop_all()
            except (RemoteProtocolError, trio.TooSlowError) as exc:
                self._admission.refuse(Verdict.NO_HEADER)
                self._refusals.log(Verdict.NO_HEADER, proxy, str(exc) or "its PROXY header did not come in time")
            except OSError as exc:
                self._greeter.meters.end_handshake(Outcome.FAILED)
                log.debug("%s: %s", proxy, exc, extra={"address": proxy})

    def _refuse(self, sock: socket.socket, host: str, verdict: Verdict) -> None:
        refusal = self._refusals.answer(verdict, host)
        if self._tls:
            sock.close()
        elif self._lingering < self._max_lingering:
            transport = self._open_transport(sock)
            self._lingering += 1
            self._nursery.start_soon(self._turn_away, transport, encode_refusal(refusal), name="refusal")
        else:  # so many are being told already: this one may miss the answer if its request comes after we closed
            with contextlib.suppress(OSError):
                sock.send(encode_refusal(refusal))
            sock.close()

    async def _turn_away(self, transport: Transport, answer: bytes) -> None:
        try:
            await self._greeter.turn_away(transport, answer)
        finally:
            self._lingering -= 1
