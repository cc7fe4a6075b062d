"""Who the peers are: the app's ``authenticate`` is asked in the handshake and by v1's ``auth``, and says until when."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, TypeAlias

import trio

from trioroom._core.causes import first_of
from trioroom._core.histogram import SECONDS, Histogram
from trioroom._net.expiry import Expiry
from trioroom._net.timing import timed
from trioroom._wire.credentials import token_of
from trioroom._wire.envelopes import Auth, Error, Ok
from trioroom.closecodes import CloseCode
from trioroom.errors import AuthenticationRefused, AuthenticationUnavailable, HandshakeError
from trioroom.identity import Authenticate, Credentials, Identity

if TYPE_CHECKING:
    from trioroom._net.connection import Connection
    from trioroom._wire.http import Request

log = logging.getLogger("trioroom.authentication")
_RETRY_AFTER = 5  # seconds after which a peer may come back that could not be judged
_EXPIRED = "the token has expired; come back with a fresh one"

Judgement: TypeAlias = Identity | AuthenticationRefused | None
"""Who the peer is; or why nobody knows; or that it may be anonymous."""


class HookFailed(Exception):
    """``authenticate`` has raised, or took too long; that has been logged."""


class Authentication:
    """One per server whose app authenticates; `run` is a task of the server's nursery.

    A connection is in one of three states: identified (`Connection.identity`), anonymous, or waiting for ``auth``.
    """

    def __init__(self, hook: Authenticate, timeout: float) -> None:
        self._hook = hook
        self._timeout = timeout
        self.timing = Histogram(SECONDS)
        """How long ``authenticate`` takes; the hub has its own."""
        self._waiting: set[Connection] = set()
        self._expiry = Expiry(self._expire)

    async def run(self) -> None:
        """End those that do not authenticate themselves in time, or whose time is over; until cancelled."""
        await self._expiry.run()

    async def check_handshake(self, request: Request, deadline: float, *, can_auth: bool) -> Judgement:
        """Whether the peer may come in; a refusal means that it has to ``auth``.

        Args:
            can_auth: it speaks v1, so it may come without a token and bring one later.
        Raises:
            HandshakeError: 401, it may not; 400, it shows several tokens; 503, nobody can say now.
        """
        token = token_of(request)
        try:
            verdict = await self._ask(Credentials(request, token), deadline)
        except HookFailed as exc:
            later = (("Retry-After", str(_RETRY_AFTER)),)
            raise HandshakeError(503, "credentials cannot be checked now; try again later", later) from exc
        if isinstance(verdict, AuthenticationRefused) and not (can_auth and token is None):
            log.debug("handshake refused: %s", verdict.reason)
            raise _unauthorized(verdict, token)
        return verdict

    def begin(self, connection: Connection, verdict: Judgement) -> None:
        """The connection is open, with this verdict of its handshake; until `forget`."""
        if isinstance(verdict, AuthenticationRefused):
            self._waiting.add(connection)
            self._expiry.watch(connection, trio.current_time() + self._timeout)
        elif verdict is not None:
            self._identify(connection, verdict)

    def forget(self, connection: Connection) -> None:
        """It is over."""
        self._waiting.discard(connection)
        self._expiry.forget(connection)

    def admits(self, connection: Connection) -> bool:
        """Whether its peer may join rooms."""
        return connection not in self._waiting

    async def answer(self, request: Auth, connection: Connection) -> Ok | Error:
        """The answer to an ``auth``. What the connection was before it stays so unless that is an ``ok``."""
        try:
            verdict = await self._ask(
                Credentials(connection.request, request.token), trio.current_time() + self._timeout
            )
        except HookFailed:
            return Error(request.id, "failed", "the token cannot be checked now; try again later", retry=True)
        if isinstance(verdict, AuthenticationRefused):
            log.debug("%s: auth refused: %s", connection.id, verdict.reason, extra={"connection": connection.id})
            return Error(request.id, "unauthenticated", verdict.reason)
        known = connection.identity
        if known is not None and (verdict is None or verdict.user != known.user):
            return Error(
                request.id, "other_user", "the token is of somebody else than this connection; connect anew with it"
            )
        self._waiting.discard(connection)
        self._expiry.forget(connection)
        expires_in = None if verdict is None else self._identify(connection, verdict)
        return Ok(request.id, expires_in=expires_in)

    def _identify(self, connection: Connection, identity: Identity) -> float | None:
        """Seconds that it lasts; None is for ever."""
        connection.identity = identity
        if identity.expires_at is None or identity.expires_at == math.inf:
            return None
        expires_in = identity.expires_at - time.time()
        self._expiry.watch(connection, trio.current_time() + expires_in)
        return round(expires_in, 3)

    def _expire(self, connection: Connection) -> None:
        if connection in self._waiting:
            reason = f"no auth within auth_timeout={self._timeout:g} s; send it right after hello"
            connection.close(CloseCode.UNAUTHENTICATED, reason)
        else:
            connection.close(CloseCode.TOKEN_EXPIRED, _EXPIRED)

    async def _ask(self, credentials: Credentials, deadline: float) -> Judgement:
        """Raises `HookFailed`."""
        verdict: Judgement = None
        failed = False
        scope = trio.CancelScope(deadline=deadline)
        try:
            with scope:
                verdict = _checked(await timed(self.timing, self._hook, credentials))
        except* AuthenticationRefused as refusals:  # a hook may have a nursery
            refusal = first_of(refusals)
            assert isinstance(refusal, AuthenticationRefused)
            verdict = refusal
        except* AuthenticationUnavailable as error:
            log.debug("authenticate cannot tell now: %s", first_of(error))  # who raised it has said so once for all
            failed = True
        except* Exception as error:
            log.error("authenticate failed", exc_info=error)
            failed = True
        if scope.cancelled_caught:
            log.error("authenticate was not done in time; its peer has been told to come back")
            failed = True
        if failed:
            raise HookFailed
        return verdict


def _checked(identity: Identity | None) -> Identity | None:
    found: object = identity  # the type checker trusts who writes a hook; we do not
    if not (found is None or isinstance(found, Identity)):
        raise TypeError(f"authenticate returned a {type(found).__name__}; it has to be a trioroom.Identity, or None")
    if identity is not None and identity.expires_at is not None and identity.expires_at <= time.time():
        raise AuthenticationRefused(_EXPIRED)
    return identity


def _unauthorized(refusal: AuthenticationRefused, token: str | None) -> HandshakeError:
    """RFC 6750 §3."""
    challenge = "Bearer" if token is None else 'Bearer error="invalid_token"'
    advice = "send Authorization: Bearer TOKEN, or where headers cannot be set ?token=TOKEN"
    return HandshakeError(401, f"{refusal.reason}; {advice}", (("WWW-Authenticate", challenge),))
