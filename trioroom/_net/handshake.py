"""What happens on a byte stream before it is a connection: its HTTP head, and the answer to that."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING

import attrs
import trio

from trioroom._core.admission import Verdict
from trioroom._core.meters import Outcome
from trioroom._net.connection import GONE, Connection
from trioroom._net.drain import REASON
from trioroom._net.refusals import NoPlace, encode_refusal
from trioroom._net.session import PlainSession, V1Session, room_of
from trioroom._net.transport import discard
from trioroom._wire.codec import CODECS
from trioroom._wire.encoding import encoding_for
from trioroom._wire.forwarded import Forwarded, Forwarding
from trioroom._wire.frames import encode_close
from trioroom._wire.handshake import Acceptance, Agreements, accept
from trioroom._wire.http import HeadParser, Request, encode_response, length_of_body
from trioroom.closecodes import CloseCode
from trioroom.errors import HandshakeError

if TYPE_CHECKING:
    from trioroom._net.arrival import Arrival
    from trioroom._net.authentication import Judgement
    from trioroom._net.heartbeat import Heartbeat
    from trioroom._net.http import HttpResponder
    from trioroom._net.hub import Hub
    from trioroom._net.refusals import Refusals
    from trioroom._net.transport import Transport

log = logging.getLogger("trioroom.handshake")
_STATUS = slice(len("HTTP/1.1 "), len("HTTP/1.1 200"))  # where an answer has it
_LINGER_TIMEOUT = 1.0  # seconds a peer has to take an HTTP answer before its socket closes
_TOO_SLOW = encode_response(408, b"the request took too long; send it at once\n")
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"  # a client may wait for it before it sends a body (RFC 9110 §10.1.1)


_Asked = tuple[Request, Acceptance | None, bytes, str | None]
"""What a peer asks for, how to accept that (None: it wants no WebSocket), what came behind the head, and where the
peer is, if a proxy told that. A bare tuple, as there is one for each handshake."""
_Opened = tuple[Connection | None, bytes]
"""What came of a handshake, None if no connection; and what came right behind it."""


class Greeter:
    """Takes streams in: an HTTP answer for most, a connection for those that upgrade."""

    def __init__(
        self, hub: Hub, http: HttpResponder, heartbeat: Heartbeat, forwarding: Forwarding, refusals: Refusals
    ) -> None:
        self._hub = hub
        self._http = http
        self._heartbeat = heartbeat
        self._authentication = hub.authentication
        self._forwarding = forwarding
        self._refusals = refusals
        # What is agreed on depends on who is believed and on the scheme, besides the head.
        self._agreements: defaultdict[tuple[bool, str | None], Agreements] = defaultdict(
            partial(Agreements, authenticates=hub.authentication is not None)
        )
        self.meters = hub.limits.meters

    async def serve(self, transport: Transport, arrival: Arrival) -> None:
        """Serve one peer until it is gone, and give its place back; never raises for what the peer does."""
        # All of a connection's life passes in this coroutine and the few below it: what they keep
        # alive is kept a million times over, so the handshake's own values stay in `_open`. Each name
        # here, and each value that waits on its stack, is 16 bytes.
        connection, place = None, arrival.place
        try:
            connection, early = await self._open(transport, arrival)
            del arrival
            if connection is not None:
                await connection.run(early)
        except* GONE:
            pass
        except* Exception:  # a fault of our own: it must not end the other connections
            _log_fault(connection)
        finally:
            if connection is not None:
                self.forget(connection)
            place.leave()
            await transport.aclose()

    async def turn_away(self, transport: Transport, answer: bytes) -> None:
        """Give ``answer`` to a peer that is not served; never raises for what the peer does."""
        try:
            await _part_with(transport, answer)
        except* GONE:
            pass
        finally:
            await transport.aclose()

    def connect(
        self, transport: Transport, request: Request, acceptance: Acceptance, verdict: Judgement, address: str | None
    ) -> Connection:
        """The connection of a peer that has been accepted; run it and then `forget` it.

        Args:
            request: what it keeps of it.
            verdict: what `authenticate` says.
            address: where the peer is, if that is not what the transport says.
        """
        codec = CODECS.get(acceptance.subprotocol or "")
        window_bits = acceptance.deflate.server_max_window_bits if acceptance.deflate else None
        encoding = encoding_for(codec, window_bits)
        hub = self._hub
        connection = Connection(hub.new_id(), transport, request, encoding, hub.limits, address)
        hub.add(connection)
        if self._authentication is not None:
            self._authentication.begin(connection, verdict)
        self._heartbeat.add(connection)
        self.meters.open(connection.encoding.speaks)
        if log.isEnabledFor(logging.DEBUG):  # not where: the path and the query of v1 may hold anything
            fields = {"connection": connection.id, "address": connection.address}
            log.debug("%s: opened from %s", *fields.values(), extra=fields)
        connection.session = V1Session(hub, connection, codec) if codec else PlainSession(hub, connection)
        return connection

    def forget(self, connection: Connection) -> None:
        """The connection is over."""
        closing = connection.closing
        if log.isEnabledFor(logging.DEBUG) and closing is not None:
            fields = {"connection": connection.id, "code": closing.code, "reason": closing.reason}
            # The reason is quoted, as the peer may have written it.
            log.debug("%s: closed with %d %r", connection.id, closing.code, closing.reason, extra=fields)
        self._heartbeat.remove(connection)
        self._hub.remove(connection)
        self.meters.close(connection.encoding.speaks, CloseCode.ABNORMAL if closing is None else closing.code)

    def count_refusal(self, refusal: HandshakeError) -> None:
        """Somebody gets this for an answer."""
        if not isinstance(refusal, NoPlace):
            self.meters.end_handshake(Outcome.REFUSED, refusal.status)

    async def _open(self, transport: Transport, arrival: Arrival) -> _Opened:
        deadline = arrival.deadline or trio.current_time() + self._hub.settings.handshake_timeout
        try:
            first = await _receive(transport, deadline)
        except GONE:
            self.meters.end_handshake(Outcome.FAILED)
            raise
        except trio.TooSlowError:
            self.meters.end_handshake(Outcome.TIMED_OUT, 408)
            await _part_with(transport, _TOO_SLOW)
            return None, b""
        self._hub.begin_answer()
        try:
            return await self._answer(transport, arrival, first, deadline)
        finally:
            self._hub.end_answer()

    async def _answer(self, transport: Transport, arrival: Arrival, first: bytes, deadline: float) -> _Opened:
        try:
            request, acceptance, early, address = await self._read_request(transport, arrival, first, deadline)
            if acceptance is not None:
                verdict = None
                if self._authentication is not None:  # else not even a coroutine for it
                    verdict = await self.authenticate(request, acceptance.subprotocol, deadline)
                await _send(transport, acceptance.response, deadline)
                if not self._hub.draining:
                    return self.connect(transport, request, acceptance, verdict, address), early
                answer = encode_close(CloseCode.DRAIN, REASON)  # since we let it in
                self.meters.end_handshake(Outcome.REFUSED, 101)
            else:
                answer = await self._http.respond(
                    request, deadline, partial(self._read_body, transport, request, early, deadline)
                )
                self.meters.end_handshake(Outcome.HTTP, int(answer[_STATUS]))
        except HandshakeError as exc:
            self.count_refusal(exc)
            answer = encode_refusal(exc)
        except trio.TooSlowError:
            self.meters.end_handshake(Outcome.TIMED_OUT, 408)
            answer = _TOO_SLOW
        except GONE:
            self.meters.end_handshake(Outcome.FAILED)
            raise
        await _part_with(transport, answer)
        return None, b""

    async def _read_request(self, transport: Transport, arrival: Arrival, first: bytes, deadline: float) -> _Asked:
        forwarding, address = self._forwarding, arrival.address
        proxy = None if address is None or address not in forwarding.trusted else address
        head, told = (first, None) if proxy is None else forwarding.cut(first)
        agreements = self._agreements[proxy is not None, arrival.scheme]
        if (known := agreements.recall(head)) is not None:
            request, acceptance = known
            if proxy is not None:
                address = self._claim(arrival, forwarding.client(proxy, told))
            self.check_admission(request, acceptance.subprotocol)
            return request, acceptance, b"", address
        request, early = await self._read_head(transport, first, deadline)
        found = self.trace(request, arrival)
        if not (request.wants_upgrade or self._names_a_room(request)):
            return request, None, early, found.address
        acceptance = self.accept(request, found)
        kept = self.to_keep(request, acceptance, arrival)
        if not early and (proxy is None or forwarding.was_cut(request, told)):
            agreements.note(head, kept, acceptance)
        return kept, acceptance, early, found.address

    def trace(self, request: Request, arrival: Arrival) -> Forwarded:
        """Where ``request`` comes from: what the headers of a trusted proxy say, and else what is known anyway.

        Raises:
            HandshakeError: 503, too many come from there.
        """
        proxy, scheme = arrival.address, arrival.scheme
        if proxy is None or proxy not in self._forwarding.trusted:
            return Forwarded(proxy, scheme)
        told = self._forwarding.read(request, proxy)
        self._claim(arrival, told.address or proxy)
        return attrs.evolve(told, scheme=told.scheme or scheme)

    def to_keep(self, request: Request, acceptance: Acceptance, arrival: Arrival) -> Request:
        """What a connection keeps of ``request``: not what has been believed of a proxy, as that is in the address."""
        if arrival.address is not None and arrival.address in self._forwarding.trusted:
            request = self._forwarding.strip(request)
        return self._agreements[False, None].to_keep(request, acceptance)  # one is like another in that

    def _claim(self, arrival: Arrival, address: str) -> str:
        verdict = arrival.place.claim(address, trio.current_time())
        if verdict is not Verdict.ADMITTED:
            raise self._refusals.answer(verdict, address)
        return address

    def _names_a_room(self, request: Request) -> bool:
        return not self._http.owns(request) and self._hub.knows(room_of(request))

    async def _read_head(self, transport: Transport, data: bytes, deadline: float) -> tuple[Request, bytes]:
        settings = self._hub.settings
        parser = HeadParser(settings.max_head_bytes, max_headers=settings.max_headers)
        while (request := parser.feed(data)) is None:
            data = await _receive(transport, deadline)
        return request, parser.trailing

    async def authenticate(self, request: Request, subprotocol: str | None, deadline: float) -> Judgement:
        """Who the peer is, where the app asks; the last thing before it is let in.

        Raises:
            HandshakeError: it may not come in, or nobody can say now.
        """
        if self._authentication is None:
            return None
        return await self._authentication.check_handshake(request, deadline, can_auth=subprotocol is not None)

    async def _read_body(self, transport: Transport, request: Request, early: bytes, deadline: float) -> bytes:
        length = length_of_body(request, self._hub.settings.max_request_bytes)
        if len(early) < length and "100-continue" in request.tokens("expect"):
            await _send(transport, _CONTINUE, deadline)
        body = bytearray(early[:length])
        while len(body) < length:
            body += await _receive(transport, deadline)
        return bytes(body[:length])

    def accept(self, request: Request, found: Forwarded) -> Acceptance:
        """How to answer an upgrade that comes from where `trace` has found.

        Raises:
            HandshakeError: it is not well formed, not allowed, leads to no room, or comes too late.
        """
        settings = self._hub.settings
        acceptance = accept(
            request,
            subprotocols=tuple(CODECS),
            deflate=settings.compression,
            allowed_origins=settings.allowed_origins,
            scheme=found.scheme,
            host=found.host,
        )
        self.check_admission(request, acceptance.subprotocol)
        return acceptance

    def check_admission(self, request: Request, subprotocol: str | None) -> None:
        """Whether a peer may come in now: a plain one's path has to name a room.

        Raises:
            HandshakeError: 503, the server drains; 404, there is no such room.
        """
        if self._hub.draining:
            raise HandshakeError(503, "the server drains; connect again in a moment", (("Retry-After", "1"),))
        if subprotocol is None and not self._hub.knows(room_of(request)):
            rooms = ", ".join("/" + pattern for pattern in self._hub.routes.patterns())
            raise HandshakeError(404, f"no room at {request.path!r}; connect to {rooms or 'an app that has routes'}")


def _log_fault(connection: Connection | None) -> None:
    known = None if connection is None else connection.id
    log.exception("%s: failed; please report this", known or "handshake", extra={"connection": known})


async def _part_with(transport: Transport, answer: bytes) -> None:
    """Send ``answer`` and wait a moment for the peer to take it: see `discard`."""
    with trio.move_on_after(_LINGER_TIMEOUT):
        await _send(transport, answer, math.inf)
        transport.send_eof()
        await discard(transport)


async def _receive(transport: Transport, deadline: float) -> bytes:
    while (data := transport.receive_nowait()) is None:
        with trio.fail_at(deadline):  # only where it waits: a cancel scope costs as much as reading a head
            await transport.wait_readable()
    if not data:
        raise ConnectionResetError("the peer left during the handshake")
    return data


async def _send(transport: Transport, data: bytes, deadline: float) -> None:
    try:
        sent = transport.send_nowait(data)
    except BlockingIOError:
        sent = 0
    if sent < len(data):
        with trio.fail_at(deadline):
            await transport.send_all(data[sent:])
