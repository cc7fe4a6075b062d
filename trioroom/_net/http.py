"""Plain HTTP on the same port, one request each: health, readiness, static files and our browser client.

What is for operators only is in `endpoints`.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Callable
from functools import partial
from pathlib import Path

import attrs
import trio

from trioroom._net.endpoints import Endpoints, ReadBody
from trioroom._wire.http import Request, encode_head, encode_response, split_list

CLIENT = Path(__file__).parent.parent / "web"
"""Where the package has its browser client."""

_READERS = 8  # threads that read files; the default ones are for the application
_CLIENT_TYPES = {
    "/trioroom.js": "text/javascript; charset=utf-8",  # RFC 9239; what mimetypes says depends on the machine
    "/trioroom.d.ts": "text/plain; charset=utf-8",  # the registered type of .ts is a video
}
_OWN = frozenset(("/healthz", "/readyz", *_CLIENT_TYPES))


@attrs.frozen
class _File:
    content: bytes
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()

    def validators(self) -> tuple[tuple[str, str], ...]:
        """Headers by which a cache may keep the file, and asks whether it is still the same (RFC 9111 §4.3)."""
        return ("Cache-Control", "no-cache"), ("ETag", f'"{hashlib.sha256(self.content).hexdigest()[:32]}"')


class HttpResponder:
    """Answers whatever is no WebSocket handshake.

    Args:
        endpoints: what there is besides, which goes before files.
        unready: why the server is not ready; None if it is.
        client: the directory of the browser client.
    """

    def __init__(
        self,
        static: list[tuple[str, Path]],
        unready: Callable[[], str | None],
        endpoints: Endpoints,
        client: Path = CLIENT,
    ) -> None:
        self._static = static
        self._unready = unready
        self._endpoints = endpoints
        self._client = client
        self._readers = trio.CapacityLimiter(_READERS)

    def owns(self, request: Request) -> bool:
        """Whether a GET of its path is for us, though a room may be called so."""
        return request.path in _OWN or self._endpoints.find(request.target) is not None

    async def respond(self, request: Request, deadline: float, read_body: ReadBody) -> bytes:
        """The whole response to ``request``; reading a file ends at ``deadline``.

        Raises:
            trio.TooSlowError: it was not there in time.
        """
        if (endpoint := self._endpoints.find(request.target)) is not None:
            return await self._endpoints.respond(endpoint, request, read_body)
        with trio.fail_at(deadline):
            return await self._respond(request)

    async def _respond(self, request: Request) -> bytes:
        if request.method not in ("GET", "HEAD"):
            return encode_response(405, b"only GET and HEAD are served here\n", headers=(("Allow", "GET, HEAD"),))
        respond = partial(encode_response, head_only=request.method == "HEAD")
        if request.path == "/healthz":
            return respond(200, b"ok\n")
        if request.path == "/readyz":
            unready = self._unready()
            return respond(200, b"ready\n") if unready is None else respond(503, f"not ready: {unready}\n".encode())
        found = await trio.to_thread.run_sync(self._find, request, limiter=self._readers)
        return respond(404, b"nothing here; rooms are reached by WebSocket\n") if found is None else found

    def _find(self, request: Request) -> bytes | None:
        """The response that holds the file of this path, or says that the client has it; None if there is none."""
        file = self._read_static(request.path) or self._read_client(request.path)
        if file is None:
            return None
        headers = (*file.validators(), *file.headers)
        if _has_it(request, dict(headers)["ETag"]):
            return encode_head(304, (*headers, ("Connection", "close")))
        head_only = request.method == "HEAD"
        return encode_response(200, file.content, content_type=file.content_type, headers=headers, head_only=head_only)

    def _read_static(self, path: str) -> _File | None:
        for prefix, directory in self._static:
            if not path.startswith(prefix):
                continue
            name = path[len(prefix) :] or "index.html"
            try:
                # Resolved first, so neither ".." nor a link leads out of the directory.
                file = (directory / name).resolve()
                if file.is_relative_to(directory) and file.is_file():
                    return _File(file.read_bytes(), _content_type(file))
            except (OSError, RuntimeError, ValueError):
                pass  # too long a name, a loop of links, a NUL byte, not ours to read, or gone just now
        return None

    def _read_client(self, path: str) -> _File | None:
        if (content_type := _CLIENT_TYPES.get(path)) is None:
            return None
        try:
            content = (self._client / path.removeprefix("/")).read_bytes()
        except OSError:
            return None  # a package that was built without it
        # There is nothing of a user in it, so a page of any origin may import it.
        return _File(content, content_type, (("Access-Control-Allow-Origin", "*"),))


def _has_it(request: Request, etag: str) -> bool:
    """Whether one of the versions that the client has is this one; by weak comparison (RFC 9110 §13.1.2)."""
    known = split_list(request.values("if-none-match"))
    return "*" in known or any(tag.removeprefix("W/") == etag for tag in known)


def _content_type(file: Path) -> str:
    guessed, compression = mimetypes.guess_type(file.name)
    if guessed is None or compression is not None:  # page.html.gz is no HTML to one who unpacks nothing
        return "application/octet-stream"
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed
