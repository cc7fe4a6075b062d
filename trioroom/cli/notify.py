"""Tells systemd how we are: the protocol of sd_notify(3), for services of ``Type=notify`` and ``notify-reload``.

A datagram to the socket that ``NOTIFY_SOCKET`` names; where that is not set nothing happens. Nobody waits for it.
"""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

READY = "READY=1"
STOPPING = "STOPPING=1"


def notify(state: str) -> None:
    """Tell ``state``, lines of the form ``NAME=VALUE``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(state.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)


def reloading() -> str:
    """The state while configuration is loaded anew, until `READY`; with the time that ``notify-reload`` asks for."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1_000}"
