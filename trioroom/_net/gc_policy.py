"""How the cyclic garbage collector runs in a process that is a server.

A connection is some sixty long-lived objects. With CPython's defaults the collector looks at the
young ones after every 700 of them, so that accepting 10,000 connections spent a fifth of its time in
the collector and the slowest handshakes waited for it (docs/decisions/0003). Reference counting frees
almost everything here; the collector can wait longer.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG_OBJECTS = 10_000
"""New objects before a young collection, which then takes about a millisecond."""


@contextmanager
def server_gc_policy() -> Iterator[None]:
    """While the context is open: modules and code are not looked at again, young objects less often.

    A program that has switched the collector off (a threshold of 0) or slowed it down more keeps that; and what one
    has frozen itself stays so afterwards, with what is frozen here: they cannot be told apart.
    """
    before = gc.get_threshold()
    thaw = not gc.get_freeze_count()
    gc.collect()
    gc.freeze()
    if 0 < before[0] < YOUNG_OBJECTS:
        gc.set_threshold(YOUNG_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if thaw:
            gc.unfreeze()
