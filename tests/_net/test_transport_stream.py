"""Any stream as a transport."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from trioroom._net.transport import StreamTransport, receive


async def test_stream_gives_bytes_and_its_end() -> None:
    ours, theirs = memory_stream_pair()
    transport = StreamTransport(theirs)
    await ours.send_all(bytearray(b"abc"))
    received = await receive(transport)
    assert (received, type(received)) == (b"abc", bytes)
    await ours.send_eof()
    assert await receive(transport) == b""
    await transport.send_all(b"answer")
    assert await ours.receive_some() == b"answer"


async def test_stream_takes_nothing_at_once() -> None:
    _, theirs = memory_stream_pair()
    assert StreamTransport(theirs).send_nowait(b"x") == 0


async def test_reader_of_a_stream_is_parked_while_it_waits(nursery: trio.Nursery) -> None:
    ours, theirs = memory_stream_pair()
    transport = StreamTransport(theirs)
    assert not transport.parked
    nursery.start_soon(receive, transport)
    await wait_all_tasks_blocked()
    assert transport.parked
    await ours.send_all(b"x")
    await wait_all_tasks_blocked()
    assert not transport.parked
    with trio.CancelScope() as scope:
        scope.cancel()
        await receive(transport)
    assert not transport.parked


async def test_broken_stream_is_an_error_as_of_a_socket() -> None:
    class Broken(trio.abc.ReceiveStream):
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            await trio.lowlevel.checkpoint()
            raise trio.BrokenResourceError("certificate expired")

        async def aclose(self) -> None:
            await trio.lowlevel.checkpoint()

    ours, _ = memory_stream_pair()
    transport = StreamTransport(trio.StapledStream(ours, Broken()))
    with pytest.raises(ConnectionResetError) as raised:
        await receive(transport)
    assert isinstance(raised.value.__cause__, trio.BrokenResourceError)


async def test_closing_a_stream_is_not_polite() -> None:
    class Slow(trio.abc.HalfCloseableStream):
        closed = "no"

        async def send_all(self, data: bytes | bytearray | memoryview) -> None: ...
        async def wait_send_all_might_not_block(self) -> None: ...
        async def send_eof(self) -> None: ...
        async def receive_some(self, max_bytes: int | None = None) -> bytes:
            return b""

        async def aclose(self) -> None:
            self.closed = "politely"
            try:
                await trio.sleep_forever()
            finally:
                self.closed = "at once"

    stream = Slow()
    transport = StreamTransport(stream)
    transport.send_eof()
    with trio.fail_after(1):
        await transport.aclose()
    assert stream.closed == "at once"
