"""Options of TCP sockets: set once on a listening socket, and in force on all that it accepts."""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Iterator

import trio

from trioroom.settings import Settings

INHERITED = sys.platform == "linux"
"""Whether accepted sockets have the options of their listener (a test looks); elsewhere `set_options` for each."""
_PROBES = 3  # keepalive probes without an answer after which the peer is taken for gone; one may get lost

Option = tuple[int, int, int]


def set_options(sock: socket.socket, settings: Settings) -> None:
    """Set what ``settings`` say on ``sock``; call it before it listens, as the window is agreed on in the handshake.

    What the platform does not know is left out.
    """
    for level, name, value in _options(settings):
        sock.setsockopt(level, name, value)


def open_socket_stream(sock: socket.socket, settings: Settings) -> trio.SocketStream:
    """A stream over an accepted socket, whose options stay those of ``settings``.

    Raises:
        OSError: the peer is gone, where the platform minds.
    """
    stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
    # Trio has just set it to a number of its own; 0 is what the kernel begins with.
    for _, name, value in _tcp("TCP_NOTSENT_LOWAT", settings.socket_unsent_bytes or 0):
        stream.setsockopt(socket.IPPROTO_TCP, name, value)
    return stream


def _options(settings: Settings) -> Iterator[Option]:
    yield socket.IPPROTO_TCP, socket.TCP_NODELAY, 1  # what we send is whole messages: waiting for more only delays
    if settings.socket_send_bytes is not None:
        yield socket.SOL_SOCKET, socket.SO_SNDBUF, settings.socket_send_bytes
    if settings.socket_receive_bytes is not None:
        yield socket.SOL_SOCKET, socket.SO_RCVBUF, settings.socket_receive_bytes
    if settings.socket_unsent_bytes is not None:
        yield from _tcp("TCP_NOTSENT_LOWAT", settings.socket_unsent_bytes)
    if settings.tcp_user_timeout < math.inf:
        yield from _tcp("TCP_USER_TIMEOUT", math.ceil(settings.tcp_user_timeout * 1_000))
    if settings.tcp_keepalive_interval < math.inf:
        seconds = math.ceil(settings.tcp_keepalive_interval)
        yield socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1
        yield from _tcp("TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE", seconds)  # macOS
        yield from _tcp("TCP_KEEPINTVL", seconds)
        yield from _tcp("TCP_KEEPCNT", _PROBES)


def _tcp(name: str, value: int) -> Iterator[Option]:
    """The option called ``name``, if this platform has it."""
    if (option := getattr(socket, name, None)) is not None:
        yield socket.IPPROTO_TCP, option, value
