"""Transports over the sockets that a listener accepts: bare ones, or TLS."""

from __future__ import annotations

import socket
import ssl

import trio

from trioroom._net.readiness import Readiness
from trioroom._net.tcp import INHERITED, open_socket_stream, set_options
from trioroom._net.transport import SocketTransport, StreamTransport, Transport
from trioroom.settings import Settings


class AcceptedSockets:
    """How those of one server are opened."""

    def __init__(self, settings: Settings, readiness: Readiness, ssl_context: ssl.SSLContext | None) -> None:
        self.ssl_context = ssl_context
        """That of the next ones; it may be exchanged. None is no TLS."""
        self._settings = settings
        self._readiness = readiness

    def open(self, sock: socket.socket) -> Transport:
        """A transport over ``sock``, which it closes in the end.

        Raises:
            OSError: the peer is gone, or the kernel lacks something; the caller closes ``sock``.
        """
        if not INHERITED:
            set_options(sock, self._settings)
        if self.ssl_context is None:
            return SocketTransport(sock, self._readiness)
        stream = open_socket_stream(sock, self._settings)
        return StreamTransport(trio.SSLStream(stream, self.ssl_context, server_side=True, https_compatible=True))
