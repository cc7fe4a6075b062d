"""A socket as a transport, over each readiness."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from trioroom._net import transport as transport_module
from trioroom._net.transport import RECEIVE_BYTES, SocketTransport

if TYPE_CHECKING:
    from trioroom._net.readiness import Readiness

Pair = tuple[socket.socket, socket.socket]


async def receive(transport: SocketTransport) -> bytes:
    with trio.fail_after(5):
        return await transport_module.receive(transport)


async def receive_all(transport: SocketTransport) -> bytes:
    """What comes until the peer's end."""
    received = b""
    while data := await receive(transport):
        received += data
    return received


async def send(client: socket.socket, data: bytes) -> None:
    """Send all, waiting for room as the peer reads; not closed afterwards."""
    rest = memoryview(data)
    with trio.fail_after(5):
        while rest:
            try:
                rest = rest[client.send(rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(client)


def reset(client: socket.socket) -> None:
    """Vanish, as a process that is killed with unread bytes does."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.fixture
def pair(tcp_pair: Pair, readiness: Readiness) -> tuple[SocketTransport, socket.socket]:
    """A transport over each readiness, and its peer."""
    server, client = tcp_pair
    return SocketTransport(server, readiness), client


Connected = tuple[SocketTransport, socket.socket]


# -- receiving -----------------------------------------------------------------------------------


async def test_bytes_that_are_there_are_received_without_waiting(pair: Connected) -> None:
    transport, client = pair
    client.send(b"early")
    assert await receive(transport) == b"early"


async def test_reader_waits_for_bytes_and_is_parked_meanwhile(pair: Connected, nursery: trio.Nursery) -> None:
    transport, client = pair
    received: list[bytes] = []

    async def read_twice() -> None:
        for _ in range(2):
            received.append(await receive(transport))

    nursery.start_soon(read_twice)
    for data in (b"one", b"two"):
        await wait_all_tasks_blocked()
        assert transport.parked
        client.send(data)
    await wait_all_tasks_blocked()
    assert received == [b"one", b"two"]
    assert not transport.parked


@pytest.mark.parametrize("parked", [False, True])
@pytest.mark.parametrize("size", [0, 1, RECEIVE_BYTES - 1, RECEIVE_BYTES, RECEIVE_BYTES + 1, 3 * RECEIVE_BYTES])
async def test_end_that_comes_with_the_last_bytes_is_seen(
    pair: Connected, nursery: trio.Nursery, parked: bool, size: int
) -> None:
    transport, client = pair
    received: list[bytes] = []

    async def read() -> None:
        received.append(await receive_all(transport))

    if parked:
        nursery.start_soon(read)
        await wait_all_tasks_blocked()
    await send(client, b"x" * size)
    client.shutdown(socket.SHUT_WR)
    if not parked:
        nursery.start_soon(read)
    with trio.fail_after(5):
        while not received:
            await wait_all_tasks_blocked()
    assert received == [b"x" * size]


async def test_read_of_exactly_the_largest_size_is_not_taken_for_the_end(pair: Connected) -> None:
    transport, client = pair
    received = bytearray()
    await send(client, b"x" * RECEIVE_BYTES)
    while len(received) < RECEIVE_BYTES:
        received += await receive(transport)
    with trio.move_on_after(0) as nothing_there:
        await receive(transport)
    assert nothing_there.cancelled_caught
    client.send(b"next")
    assert await receive(transport) == b"next"


async def test_stream_of_full_reads_arrives_whole(pair: Connected, nursery: trio.Nursery) -> None:
    transport, client = pair
    sent = bytes(range(256)) * 8192  # 2 MiB

    async def send_and_end() -> None:
        await send(client, sent)
        client.shutdown(socket.SHUT_WR)

    nursery.start_soon(send_and_end)
    assert await receive_all(transport) == sent


async def test_cancelled_reader_loses_nothing(pair: Connected, nursery: trio.Nursery) -> None:
    transport, client = pair
    async with trio.open_nursery() as inner:
        inner.start_soon(receive, transport)
        await wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
    assert not transport.parked
    client.send(b"one")
    await wait_all_tasks_blocked()
    assert await receive(transport) == b"one"
    with trio.CancelScope() as scope:
        scope.cancel()
        await receive(transport)
    assert scope.cancelled_caught
    client.send(b"two")
    assert await receive(transport) == b"two"


async def note_error(transport: SocketTransport, errors: list[Exception]) -> None:
    try:
        await receive(transport)
    except (OSError, trio.ClosedResourceError) as exc:
        errors.append(exc)


async def test_reset_of_the_peer_is_an_error_for_the_reader(pair: Connected, nursery: trio.Nursery) -> None:
    transport, client = pair
    errors: list[Exception] = []
    nursery.start_soon(note_error, transport, errors)
    await wait_all_tasks_blocked()
    reset(client)
    await wait_all_tasks_blocked()
    assert [type(exc) for exc in errors] == [ConnectionResetError]


async def test_closing_wakes_the_reader(pair: Connected, nursery: trio.Nursery) -> None:
    transport, client = pair
    errors: list[Exception] = []
    nursery.start_soon(note_error, transport, errors)
    await wait_all_tasks_blocked()
    await transport.aclose()
    await wait_all_tasks_blocked()
    assert len(errors) == 1
    assert client.recv(1) == b""


# -- sending -------------------------------------------------------------------------------------


MORE = b"y" * (1 << 24)
"""Than the kernel takes even when the peer's half has had time to take over what waits in ours."""


def fill(transport: SocketTransport) -> int:
    """Send until the kernel takes no more; how much it took."""
    taken = 0
    while True:
        try:
            sent = transport.send_nowait(b"x" * 65_536)
        except BlockingIOError:
            return taken
        if not sent:
            return taken
        taken += sent


async def test_what_the_kernel_takes_is_sent_at_once(pair: Connected) -> None:
    transport, client = pair
    assert transport.send_nowait(b"hello") == 5
    assert client.recv(10) == b"hello"


async def test_full_kernel_is_said_and_send_all_waits_for_it(pair: Connected, nursery: trio.Nursery) -> None:
    transport, client = pair
    taken = fill(transport)
    done = trio.Event()

    async def send_more() -> None:
        await transport.send_all(MORE)
        done.set()

    nursery.start_soon(send_more)
    await wait_all_tasks_blocked()
    assert not done.is_set()
    received = bytearray()
    with trio.fail_after(5):
        while len(received) < taken + len(MORE):
            try:
                received += client.recv(1 << 20)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(client)
        await done.wait()
    assert received == b"x" * taken + MORE


async def test_cancelled_send_all_gives_up(pair: Connected, nursery: trio.Nursery) -> None:
    transport, _ = pair
    fill(transport)
    async with trio.open_nursery() as inner:
        inner.start_soon(transport.send_all, MORE)
        await wait_all_tasks_blocked()
        inner.cancel_scope.cancel()


async def test_send_all_is_a_checkpoint(pair: Connected) -> None:
    transport, _ = pair
    with assert_checkpoints():
        await transport.send_all(b"x")


@pytest.mark.parametrize("waiting", [False, True])
async def test_sending_to_a_peer_that_has_gone_is_an_error(pair: Connected, waiting: bool) -> None:
    transport, client = pair
    if not waiting:
        reset(client)
        with pytest.raises(OSError):  # noqa: PT011  # which one is the platform's choice
            transport.send_nowait(b"x")
        return
    fill(transport)
    with pytest.RaisesGroup(OSError):
        async with trio.open_nursery() as inner:
            inner.start_soon(transport.send_all, MORE)
            await wait_all_tasks_blocked()
            reset(client)


async def test_end_of_our_side_leaves_the_other_open(pair: Connected) -> None:
    transport, client = pair
    transport.send_nowait(b"last")
    transport.send_eof()
    assert client.recv(10) == b"last"
    assert client.recv(10) == b""
    client.send(b"still here")
    assert await receive(transport) == b"still here"
    client.close()
    assert await receive(transport) == b""
    await transport.aclose()
    transport.send_eof()  # too late, and no error


async def test_closed_transport_sends_nothing_to_whoever_has_its_number_now(pair: Connected) -> None:
    transport, _ = pair
    number = transport.socket.fileno()
    await transport.aclose()
    one, other = socket.socketpair()
    with one, other:
        assert number in (one.fileno(), other.fileno())
        with pytest.raises(OSError):  # noqa: PT011  # any will end the connection
            transport.send_nowait(b"astray")
        one.setblocking(False)
        other.setblocking(False)
        for end in (one, other):
            with pytest.raises(BlockingIOError):
                end.recv(10)


# -- peers that do not read, and a server that does not -------------------------------------------


async def test_what_has_come_and_is_not_read_is_known(pair: Connected) -> None:
    transport, client = pair
    assert not transport.has_unread()
    client.send(b"pong")
    await trio.lowlevel.wait_readable(transport.socket)
    assert transport.has_unread()
    assert await receive(transport) == b"pong"
    assert not transport.has_unread()
    client.shutdown(socket.SHUT_WR)
    await trio.lowlevel.wait_readable(transport.socket)
    assert not transport.has_unread()  # an end is no sign of life
    await transport.aclose()
    assert not transport.has_unread()


@pytest.mark.parametrize("given_up", [False, True])
async def test_kernel_keeps_nothing_for_a_peer_that_is_given_up(pair: Connected, given_up: bool) -> None:
    transport, client = pair
    taken = fill(transport)
    if given_up:
        transport.give_up()
    await transport.aclose()
    received = 0
    with trio.fail_after(5):
        try:
            while data := await trio.socket.from_stdlib_socket(client).recv(1 << 20):
                received += len(data)
        except ConnectionResetError:
            assert given_up
            assert received < taken  # what it had got by then
        else:
            assert not given_up
            assert received == taken
    transport.give_up()  # too late, and no error
