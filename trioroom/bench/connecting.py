"""Sockets on their way to the server, from source addresses that have ports left."""

from __future__ import annotations

import errno
import os
import socket
import struct

import attrs

from trioroom.bench.target import Endpoint, Target

_IP_BIND_ADDRESS_NO_PORT = 24  # ip(7): the port is chosen at connect(2), when the four-tuple has to be unique
PORTS_OF_ADDRESS = 4_000
"""Connections from one 127.x.y.z to one port.

Linux has 28,232 ports for them. It tries those of one parity first, and only when all of these are taken the others:
from the 14,117th connection on each connect(2) looks at 14,116 ports in vain. Far below that it finds one at once.
"""
_PER_SECOND_BYTE = 250
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, and for no time


@attrs.define
class Connector:
    """Starts connections of one process; those to this machine come from many addresses, each with ports of its own."""

    target: Target
    first: int
    """The number of the process's first connection among all, so that no two processes use one address's ports."""
    members: int
    """How many there are in all processes."""

    def endpoint_of(self, number: int) -> Endpoint:
        """Where a member of this process connects."""
        return self.target.endpoint_of(self.first + number, self.members)

    def connect(self, number: int) -> tuple[int, bool]:
        """Start the connection of one member; its descriptor, and whether it is established already.

        Raises:
            OSError: refused, or some limit is met; `explain` says which.
        """
        endpoint = self.endpoint_of(number)
        sock = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if endpoint.loopback and os.uname().sysname == "Linux":
                sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
                sock.bind((source_address(self.first + number), 0))
            code = sock.connect_ex((endpoint.address, endpoint.port))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))
        except OSError:
            sock.close()
            raise
        return sock.detach(), code == 0  # bare descriptors: a socket object is 100 bytes more for each connection


def source_address(number: int) -> str:
    """Where a connection to this machine comes from: 127.1.0.1, and the next one after `PORTS_OF_ADDRESS`."""
    address = number // PORTS_OF_ADDRESS
    return f"127.{1 + address // _PER_SECOND_BYTE}.{address % _PER_SECOND_BYTE}.1"


def outcome_of_connect(descriptor: int) -> None:
    """Raise the error that a connection ended with that was on its way; what is there to be written is not one."""
    with socket.socket(fileno=os.dup(descriptor)) as sock:
        if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            raise OSError(code, os.strerror(code))


def cut_off(descriptor: int) -> None:
    """Close without a goodbye, as a network that is gone: the server gets a reset, and the port is free at once."""
    with socket.socket(fileno=descriptor) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


_LIMITS = {
    errno.EMFILE: "open files of a process: raise `ulimit -n`, or add --processes",
    errno.ENFILE: "open files of the machine: raise fs.file-max",
    errno.EADDRNOTAVAIL: "ports: widen net.ipv4.ip_local_port_range, or start the bench on several machines",
    errno.ENOBUFS: "kernel memory for sockets: raise net.ipv4.tcp_mem, or give --members less",
    errno.ENOMEM: "memory: give --members less",
}


def explain(exc: OSError) -> str:
    """Why there is no connection; where it is a limit of this machine, which one, and how to lift it."""
    if exc.errno in _LIMITS:
        return f"met the limit of {_LIMITS[exc.errno]}"
    return exc.strerror or str(exc)
