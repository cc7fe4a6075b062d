"""What a client shows of itself: its token, called for before each connection, and anew before that one expires."""

from __future__ import annotations

import inspect
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias

import trio

from trioroom._wire.envelopes import Auth, Ok
from trioroom.client.link import Answer, Asked, refusal
from trioroom.errors import Disconnected, RequestRefused

if TYPE_CHECKING:
    from trioroom.client.link import Link

log = logging.getLogger("trioroom.client")

Token: TypeAlias = str | Callable[[], str | Awaitable[str | None] | None] | None
"""Who the client is; a function is called before each connection, and before the token expires."""

_SPENT = (0.8, 0.9)  # of a token's time, when another one is called for: not all clients at once
_LEAST = 10.0  # seconds between two calls; a token that lasts no longer is not renewed, its connection ends with 4201


class Tokens:
    """Of one client; `renew` is a task of each of its connections."""

    def __init__(self, token: Token) -> None:
        self.token = token
        """What brings them."""
        self._renew_at = math.inf
        self._changed = trio.Event()

    async def call(self) -> str | None:
        """The token to show now; raises what the function raises."""
        if not callable(self.token):
            return self.token
        token = self.token()
        return await token if inspect.isawaitable(token) else token

    async def call_to_connect(self) -> str | None:
        """As `call`.

        Raises:
            Disconnected: the function failed.
        """
        try:
            return await self.call()
        except Exception as exc:  # the application's: it may need the network too, and that may come back
            log.warning("the function that brings the token failed; trying again later", exc_info=exc)
            raise Disconnected(f"the function that brings the token failed: {exc!r}") from exc

    def first(self, token: str) -> Asked:
        """What begins a connection. If the token is refused, the reader of the answer gets that as an error."""

        def take(answer: Answer) -> None:
            if isinstance(answer, Ok):
                self.taken(answer)
            elif answer is not None:
                raise refusal(answer)

        self._renew_in(math.inf)
        return (lambda id: Auth(id, token)), take

    async def show(self, link: Link, token: str) -> None:
        """Show another one over a connection that goes on; raises as `Link.ask` does."""
        self.taken(await link.ask(lambda id: Auth(id, token)))

    def taken(self, answer: Ok) -> None:
        """The server has taken a token."""
        lasts = answer.expires_in
        least, most = _SPENT
        wait = math.inf if lasts is None else lasts * (least + (most - least) * random.random())
        self._renew_in(max(wait, _LEAST) if lasts is not None and lasts > _LEAST else math.inf)

    def _renew_in(self, seconds: float) -> None:
        self._renew_at = trio.current_time() + seconds
        self._changed.set()

    async def renew(self, link: Link) -> None:
        """Show a fresh token before the one that is known expires, as long as the connection lasts."""
        while True:
            await self._wait_due()
            self._renew_at = math.inf
            if not callable(self.token):
                continue
            try:
                token = await self.call()
            except Exception as exc:  # the application's, as above; it has until the server closes with 4201
                log.warning("the function that brings the token failed; trying again in %g s", _LEAST, exc_info=exc)
                self._renew_in(_LEAST)
            else:
                if token is not None:
                    await self._show_again(link, token)

    async def _show_again(self, link: Link, token: str) -> None:
        try:
            await self.show(link, token)
        except RequestRefused as exc:
            log.warning("the server does not take the fresh token: %s", exc)
            if exc.retry:
                self._renew_in(_LEAST)
        except Disconnected:
            pass  # the next connection begins with one

    async def _wait_due(self) -> None:
        while self._renew_at > trio.current_time():
            self._changed = trio.Event()
            with trio.move_on_at(self._renew_at):
                await self._changed.wait()
