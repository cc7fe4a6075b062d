"""To wait for what other processes do, and not for ever."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio

LOOK_INTERVAL: Final = 0.5


async def comes_true(condition: Callable[[], Awaitable[bool]], timeout: float, interval: float = LOOK_INTERVAL) -> bool:
    """Whether ``condition`` has held within ``timeout`` seconds, looked at again and again."""
    with trio.move_on_after(timeout):
        while True:
            if await condition():
                return True
            await trio.sleep(interval)
    return False
