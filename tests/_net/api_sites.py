"""Servers with the HTTP API, alone or linked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import attrs

import trioroom
from tests._net.api_client import KEY, ApiClient
from trioroom.backplane.base import Backplane
from trioroom.backplane.memory import MemoryBackplane

SETTINGS = trioroom.Settings(close_timeout=1.0, leave_timeout=1.0, drain_timeout=2.0)


class Chat(trioroom.Room):
    history = trioroom.History(100)
    presence = True

    async def authorize(self, member: trioroom.Member) -> None:
        member.user = member.token or member.request.query or "nobody"
        member.info = {"name": member.user.title()}


def make_app() -> trioroom.App:
    app = trioroom.App()
    app.route("chat/{name}", Chat)
    app.route("chat/{name}/publish", Chat)
    app.route("plain/{name}", trioroom.Room)
    return app


@attrs.frozen
class Site:
    app: trioroom.App
    server: trioroom.Server
    api: ApiClient


@asynccontextmanager
async def open_site(backplane: Backplane | None = None, **changes: float) -> AsyncIterator[Site]:
    app = make_app()
    chosen = attrs.evolve(SETTINGS, **changes)  # type: ignore[arg-type]  # mypy: a float is no int
    async with trioroom.open_server(app, port=0, settings=chosen, backplane=backplane, api_key=KEY) as server:
        yield Site(app, server, ApiClient(server))


@asynccontextmanager
async def open_two_sites() -> AsyncIterator[Sequence[Site]]:
    """They are linked."""
    backplane = MemoryBackplane()
    async with open_site(backplane) as here, open_site(backplane) as there:
        yield here, there
