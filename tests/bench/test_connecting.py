from __future__ import annotations

import errno
import os
import socket

import pytest

from trioroom.bench.connecting import PORTS_OF_ADDRESS, Connector, cut_off, explain, outcome_of_connect, source_address
from trioroom.bench.options import Protocol
from trioroom.bench.poller import open_poller
from trioroom.bench.target import parse_target


def connector_to(port: int, first: int = 0) -> Connector:
    return Connector(parse_target([f"ws://127.0.0.1:{port}/"], Protocol.PLAIN), first, first + 1)


def test_connections_come_from_addresses_with_ports_left() -> None:
    addresses = {source_address(number) for number in range(0, 2_000_000, PORTS_OF_ADDRESS)}
    assert len(addresses) == 500
    assert source_address(PORTS_OF_ADDRESS - 1) == source_address(0)
    assert source_address(PORTS_OF_ADDRESS * 250).startswith("127.2.0.")


def test_connection_is_made_without_waiting_and_cut_with_a_reset() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        descriptor, _ = connector_to(server.getsockname()[1], first=PORTS_OF_ADDRESS).connect(0)
        poller = open_poller()
        poller.watch(descriptor, writing=True)
        assert [ready for ready, _ in poller.poll(5, 10)] == [descriptor]
        poller.close()
        outcome_of_connect(descriptor)
        accepted, (source, _) = server.accept()
        with accepted:
            if os.uname().sysname == "Linux":
                assert source == source_address(PORTS_OF_ADDRESS)
            cut_off(descriptor)
            with pytest.raises(ConnectionResetError):
                accepted.recv(1)


def test_refusal_is_raised_at_once_or_with_the_outcome() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def connect() -> None:
        descriptor, _ = connector_to(port).connect(0)
        try:
            outcome_of_connect(descriptor)
        finally:
            os.close(descriptor)

    with pytest.raises(ConnectionRefusedError):
        connect()


def test_limits_of_the_machine_are_named_with_what_lifts_them() -> None:
    assert explain(OSError(errno.EMFILE, "x")).startswith("met the limit of open files of a process: raise `ulimit -n`")
    assert "ip_local_port_range" in explain(OSError(errno.EADDRNOTAVAIL, "x"))
    assert explain(ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")) == "Connection refused"
