"""Reading the PROXY header off a socket, and nothing of what follows it: that may be TLS."""

from __future__ import annotations

import socket

import trio

from trioroom._wire.proxy_protocol import MAX_HEADER_BYTES, ProxyHeader, ProxyHeaderParser


async def receive_proxy_header(sock: socket.socket, deadline: float) -> ProxyHeader:
    """The header that comes first on ``sock``, which is non-blocking.

    Raises:
        RemoteProtocolError: there is none.
        trio.TooSlowError: it was not whole by ``deadline``.
        OSError: the peer is gone.
    """
    parser = ProxyHeaderParser()
    while True:
        try:
            data = sock.recv(MAX_HEADER_BYTES, socket.MSG_PEEK)
        except BlockingIOError:
            with trio.fail_at(deadline):
                await trio.lowlevel.wait_readable(sock)
            continue
        if not data:
            raise ConnectionResetError("the proxy left before its header")
        header = parser.feed(data)
        sock.recv(parser.taken)  # what has been looked at is there
        if header is not None:
            return header
