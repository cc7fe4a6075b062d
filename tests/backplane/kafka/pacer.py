"""A relay before noida, which answers a fetch of nothing at once and is asked again at once.

That is 20,000 fetches a second for each idle reader, and most of a core for both ends. Here each fetch waits a moment
before it is passed on. A process of its own: ``python pacer.py PORT`` listens on 127.0.0.1 and has the same port of
127.0.0.2 behind it, whose address it exchanges for its own in what the broker says.

Threads and little else: there is one such process for each noida, and Trio would take most of the time that it needs.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread

HERE, BEHIND = "127.0.0.1", "127.0.0.2"
_PAUSE = 0.01  # seconds
_FETCH = b"\x00\x01"  # what a request is, the first thing in it (https://kafka.apache.org/protocol#protocol_api_keys)
_LENGTH = struct.Struct(">i")  # of what follows
_CHUNK = 65_536  # bytes


def frames(stream: socket.socket) -> Iterator[bytes]:
    """Requests or answers, with their length."""
    received = bytearray()
    while data := stream.recv(_CHUNK):
        received += data
        while len(received) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
            if len(received) < end:
                break
            yield bytes(received[:end])
            del received[:end]


def relay(client: socket.socket, port: int) -> None:
    """One connection, until either end closes it."""
    with client, suppress(OSError), socket.create_connection((BEHIND, port)) as broker:
        for end in (client, broker):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
        answers = Thread(target=until_either_ends, args=[answer, client, broker])
        answers.start()
        until_either_ends(ask, client, broker)
        answers.join()


def until_either_ends(
    each: Callable[[socket.socket, socket.socket], None], client: socket.socket, broker: socket.socket
) -> None:
    with suppress(OSError):
        each(client, broker)
    for end in (client, broker):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # wakes the other thread


def ask(client: socket.socket, broker: socket.socket) -> None:
    for request in frames(client):
        if request.startswith(_FETCH, _LENGTH.size):
            time.sleep(_PAUSE)
        broker.sendall(request)


def answer(client: socket.socket, broker: socket.socket) -> None:
    for reply in frames(broker):
        client.sendall(reply.replace(BEHIND.encode(), HERE.encode()))  # as long as the other


def main(port: int) -> None:
    with socket.create_server((HERE, port)) as listener:
        while True:
            client, _ = listener.accept()
            Thread(target=relay, args=[client, port], daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]))
