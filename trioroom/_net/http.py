"""Plain HTTP on the same port: health, readiness and static files. GET and HEAD, one request each."""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from trioroom._wire.http import Request, encode_response

_READERS = 8  # threads that read files; the default ones are for the application


class HttpResponder:
    """Answers whatever is no WebSocket handshake."""

    def __init__(self, static: list[tuple[str, Path]], ready: Callable[[], bool]) -> None:
        self._static = static
        self._ready = ready
        self._readers = trio.CapacityLimiter(_READERS)

    async def respond(self, request: Request) -> bytes:
        """The whole response to ``request``."""
        if request.method not in ("GET", "HEAD"):
            return encode_response(405, b"only GET and HEAD are served here\n", headers=(("Allow", "GET, HEAD"),))
        respond = partial(encode_response, head_only=request.method == "HEAD")
        if request.path == "/healthz":
            return respond(200, b"ok\n")
        if request.path == "/readyz":
            return respond(200, b"ready\n") if self._ready() else respond(503, b"not ready: the backplane is down\n")
        found = await trio.to_thread.run_sync(self._read, request.path, limiter=self._readers)
        if found is None:
            return respond(404, b"nothing here; rooms are reached by WebSocket\n")
        body, content_type = found
        return respond(200, body, content_type=content_type, headers=(("Cache-Control", "no-cache"),))

    def _read(self, path: str) -> tuple[bytes, str] | None:
        for prefix, directory in self._static:
            if not path.startswith(prefix):
                continue
            name = path[len(prefix) :] or "index.html"
            try:
                # Resolved first, so neither ".." nor a link leads out of the directory.
                file = (directory / name).resolve()
                if file.is_relative_to(directory) and file.is_file():
                    return file.read_bytes(), _content_type(file)
            except (OSError, RuntimeError, ValueError):
                pass  # too long a name, a loop of links, a NUL byte, not ours to read, or gone just now
        return None


def _content_type(file: Path) -> str:
    guessed, compression = mimetypes.guess_type(file.name)
    if guessed is None or compression is not None:  # page.html.gz is no HTML to one who unpacks nothing
        return "application/octet-stream"
    return f"{guessed}; charset=utf-8" if guessed.startswith("text/") else guessed
