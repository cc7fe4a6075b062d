"""How long the hooks of an application take."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar, TypeVarTuple

from trioroom._core.meters import MESSAGES_PER_TIMING

if TYPE_CHECKING:
    from trioroom._core.histogram import Histogram
    from trioroom._core.meters import Meters
    from trioroom._wire.message import Message
    from trioroom.member import Member

T = TypeVar("T")
Args = TypeVarTuple("Args")


async def timed(histogram: Histogram, hook: Callable[[*Args], Awaitable[T]], *args: *Args) -> T:
    """What ``hook`` returns, or raises; either way ``histogram`` gets the seconds it took."""
    began = perf_counter()
    try:
        return await hook(*args)
    finally:
        histogram.observe(perf_counter() - began)


def hear(meters: Meters, member: Member, message: Message) -> Awaitable[None]:
    """`Room.on_message`, of which not every call is timed; ``message`` has been counted."""
    if meters.messages_received % MESSAGES_PER_TIMING:
        return member.room.on_message(member, message)
    return timed(meters.timings.hooks["on_message"], member.room.on_message, member, message)
