"""What the server answers over HTTP to who operates it: paths, each with a handler, that an API key opens."""

from __future__ import annotations

import binascii
import logging
from base64 import b64decode
from collections.abc import Awaitable, Callable, Sequence

import attrs
import trio

from trioroom._core.api_key import ApiKey
from trioroom._net.refusals import encode_refusal
from trioroom._wire.http import Request, without_body
from trioroom.errors import HandshakeError

log = logging.getLogger("trioroom.endpoints")

ReadBody = Callable[[], Awaitable[bytes]]
"""Gives the request's body; raises `HandshakeError` if it is too long, and `trio.TooSlowError`."""
Handler = Callable[[Request, ReadBody], Awaitable[bytes]]
"""Gives the whole response. A `HandshakeError` that it raises is an answer too."""

Refuse = Callable[[HandshakeError], bytes]
"""Makes the response that tells an error."""

_SAFE = ("GET", "HEAD")
_CHALLENGE = (("WWW-Authenticate", "Bearer"), ("WWW-Authenticate", 'Basic realm="trioroom"'))


@attrs.frozen
class Endpoint:
    """A path, or with a slash at its end all below it, and who answers there."""

    path: str
    handler: Handler
    methods: Sequence[str]
    public: bool
    """Whether it needs no key."""
    refuse: Refuse
    """How errors are told here."""

    def serves(self, path: str) -> bool:
        """Whether ``path`` is this one's to answer."""
        return path == self.path or (self.path.endswith("/") and path.startswith(self.path))


class Endpoints:
    """Those of one server.

    Args:
        api_key: what opens them; without one only public ones are there.
        timeout: seconds an answer may take, once the request has been read.
    """

    def __init__(self, api_key: ApiKey | None, timeout: float) -> None:
        self._api_key = api_key
        self._timeout = timeout
        self._endpoints: list[Endpoint] = []

    @property
    def has_key(self) -> bool:
        """Whether there is one that opens them."""
        return self._api_key is not None

    def add(
        self,
        path: str,
        handler: Handler,
        *,
        methods: Sequence[str] = _SAFE,
        public: bool = False,
        refuse: Refuse | None = None,
    ) -> None:
        """Have ``handler`` answer at ``path``; nobody does if there is no key to open it.

        Args:
            refuse: how errors are told, those of the handler too; by default in plain text.
        """
        if public or self.has_key:
            self._endpoints.append(Endpoint(path, handler, methods, public, refuse or encode_refusal))

    def find(self, target: str) -> Endpoint | None:
        """Who answers at a request target.

        Its path counts as it is written: a proxy that keeps these from the world may not decode it.
        """
        path = path_of(target)
        for endpoint in self._endpoints:
            if endpoint.serves(path):
                return endpoint
        return None

    async def respond(self, endpoint: Endpoint, request: Request, read_body: ReadBody) -> bytes:
        """The whole response; never raises but for `trio.TooSlowError` of ``read_body``.

        Whoever has no key is told so before the body is read.
        """
        try:
            self._check(endpoint, request)
            answer = await self._handle(endpoint, request, read_body)
        except HandshakeError as exc:
            answer = endpoint.refuse(exc)
        return without_body(answer) if request.method == "HEAD" else answer

    async def _handle(self, endpoint: Endpoint, request: Request, read_body: ReadBody) -> bytes:
        scope = trio.CancelScope()

        async def read() -> bytes:
            body = await read_body()
            scope.deadline = trio.current_time() + self._timeout
            return body

        try:
            scope.deadline = trio.current_time() + self._timeout
            with scope:
                return await endpoint.handler(request, read)
        except (HandshakeError, trio.TooSlowError):
            raise
        except Exception as exc:
            log.exception("%s %s failed; please report this", request.method, endpoint.path)
            raise HandshakeError(500, "this failed; the server's log tells more") from exc
        raise HandshakeError(504, f"no answer within {self._timeout:g} s; the server is behind")

    def _check(self, endpoint: Endpoint, request: Request) -> None:
        if not endpoint.public:
            self._check_key(request)
        if request.method not in endpoint.methods:
            allowed = ", ".join(endpoint.methods)
            raise HandshakeError(405, f"{request.method} means nothing here; send {allowed}", (("Allow", allowed),))

    def _check_key(self, request: Request) -> None:
        assert self._api_key is not None, "else the endpoint is not there"
        scheme, _, shown = (request.header("authorization") or "").partition(" ")
        if scheme.lower() == "basic" and request.method in _SAFE:  # a browser adds it to requests of foreign pages too
            shown = _password_of(shown)
        elif scheme.lower() != "bearer":
            raise HandshakeError(401, "this needs the API key; send Authorization: Bearer KEY", _CHALLENGE)
        if not self._api_key.opens(shown.strip()):
            raise HandshakeError(401, "the API key is another one; send Authorization: Bearer KEY", _CHALLENGE)


def path_of(target: str) -> str:
    """The path of a request target, which may be a whole URL, not decoded."""
    path = target.partition("?")[0]
    return path if path.startswith("/") else "/" + path.partition("://")[2].partition("/")[2]


def _password_of(credentials: str) -> str:
    """The password in what ``Authorization: Basic`` has (RFC 7617 §2); whatever the user is called."""
    try:
        return b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""
