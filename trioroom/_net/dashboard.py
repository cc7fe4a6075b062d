"""The dashboard: a page under ``/_/``, and as JSON the figures that it draws."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import trio

from trioroom._core.node_reports import NodeReports
from trioroom._wire.http import encode_response
from trioroom.errors import HandshakeError

if TYPE_CHECKING:
    from trioroom._core.snapshot import Snapshot
    from trioroom._net.endpoints import Endpoints, ReadBody
    from trioroom._wire.http import Request

Gather = Callable[[], Awaitable[Sequence["Snapshot"]]]
"""Asks all nodes, for a second at most, and gives what those say that answer."""

_MIN_AGE = 0.5  # seconds for which what the nodes have said is told to others too
PREFIX = "/_/"
PAGE = Path(__file__).parent.parent / "dashboard"
_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
_HEADERS = (
    # The names of rooms are anybody's text: should one ever get into the page as markup, nothing of it runs.
    ("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cache-Control", "no-store"),  # it is behind a key, and small
)


class Dashboard:
    """Of one server; what it shows is of all that ``gather`` knows."""

    def __init__(self, gather: Gather) -> None:
        self._gather = gather
        self._reports = NodeReports()
        self._lock = trio.Lock()
        self._told = b""
        self._next = -math.inf  # when the nodes are to be asked again

    def add_to(self, endpoints: Endpoints) -> None:
        """Answer at ``/_/``, to who shows the key."""
        endpoints.add(PREFIX, self._answer)
        endpoints.add(PREFIX.rstrip("/"), _redirect)

    async def _answer(self, request: Request, read_body: ReadBody) -> bytes:
        name = request.path.removeprefix(PREFIX)
        if name == "nodes.json":
            return encode_response(200, await self._tell_all(), content_type="application/json", headers=_HEADERS)
        files = await trio.to_thread.run_sync(_read_files)
        if (body_of_file := files.get(name or "index.html")) is None:
            raise HandshakeError(404, f"the dashboard has no {name!r}; it is at {PREFIX}")
        content_type = f"{_TYPES[Path(name or 'index.html').suffix]}; charset=utf-8"
        return encode_response(200, body_of_file, content_type=content_type, headers=_HEADERS)

    async def _tell_all(self) -> bytes:
        """All nodes, asked once for all who want to know within a moment."""
        async with self._lock:
            if trio.current_time() >= self._next:
                answers = await self._gather()
                self._told = msgspec.json.encode(self._reports.update(trio.current_time(), answers))
                self._next = trio.current_time() + _MIN_AGE
            return self._told


@cache
def _read_files() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in PAGE.iterdir() if path.suffix in _TYPES}


async def _redirect(request: Request, read_body: ReadBody) -> bytes:
    """The page names its parts by their place beside it; so does this, for a proxy may serve us under a prefix."""
    await trio.lowlevel.checkpoint()
    return encode_response(308, b"the dashboard is at _/\n", headers=(("Location", "_/"),))
