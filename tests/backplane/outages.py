"""Two nodes of which one is cut off, and what it left in a room that it closed meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Final

import attrs
import trio

from tests.backplane.brokers import Broker
from tests.backplane.observers import open_nodes
from tests.backplane.proxy import Proxy, open_proxy
from trioroom.backplane.base import Backplane, PresenceSeat
from trioroom.testing.presence_conformance import Watcher

ROOM: Final = "room/a"
STAYS: Final = "room/stays"
SETTINGS: Final = {"probe_interval": 0.2, "probe_timeout": 1.0, "max_backoff": 0.1, "timeout": 1.0}
"""With them a lease lasts 30 seconds. A busy machine takes half a second now and then for what a probe waits for."""
INTERVAL: Final = 0.02


def open_seat(node: Backplane, room: str, watcher: Watcher) -> AbstractAsyncContextManager[PresenceSeat]:
    assert node.presence is not None
    return node.presence.open(room, watcher, INTERVAL)


@attrs.frozen
class Scene:
    """Two nodes, of which one is behind a proxy."""

    behind: Backplane
    proxy: Proxy
    witness: Backplane

    @asynccontextmanager
    async def watched(self, room: str) -> AsyncIterator[Watcher]:
        """What the witness knows of the room."""
        watcher = Watcher()
        async with open_seat(self.witness, room, watcher):
            yield watcher

    async def close_in_an_outage(self, *rooms: str) -> None:
        """Open rooms behind the proxy, put a row there that the witness sees, and close them when it is too late."""
        async with AsyncExitStack() as watching:
            watchers = [await watching.enter_async_context(self.watched(room)) for room in rooms]
            async with trio.open_nursery() as nursery:
                for room, watcher in zip(rooms, watchers, strict=True):
                    await nursery.start(self._hold, room, watcher)
                self.proxy.black_hole()
                nursery.cancel_scope.cancel()

    async def _hold(self, room: str, watcher: Watcher, *, task_status: trio.TaskStatus[None]) -> None:
        async with open_seat(self.behind, room, Watcher()) as seat:
            seat.put("ghost", b"1")
            await watcher.wait_count(1)
            task_status.started()
            await trio.sleep_forever()


@asynccontextmanager
async def open_scene(broker: Broker, **settings: object) -> AsyncIterator[Scene]:
    """With `SETTINGS` but for ``settings``."""
    options = SETTINGS | settings
    with trio.fail_after(25):
        async with open_proxy(broker.server.port) as proxy:
            urls = broker.url(**options), broker.url(proxy.port, **options)
            async with open_nodes(*urls) as (witness, behind):
                yield Scene(behind, proxy, witness)
