"""One connection: replies however they are chunked, logging in to real servers, and what is no server of ours."""

from __future__ import annotations

import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import hiredis
import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st
from redis.exceptions import ResponseError
from trio.testing import MockClock, assert_checkpoints, memory_stream_pair

from tests.backplane.redis.fake_server import OK, array, bulk, connect, error, integer, push
from tests.backplane.redis.servers import RedisServer
from trioroom.backplane.redis import resp
from trioroom.backplane.redis.location import Endpoint, Login
from trioroom.backplane.redis.resp import (
    CallRefused,
    RedisConnection,
    Reply,
    ask_incarnation,
    open_connection,
    pack,
)
from trioroom.backplane.supervision import LinkLost

TIMEOUT = 5.0

SIMPLE = st.one_of(
    st.binary(max_size=20).map(lambda data: (bulk(data), data)),
    st.integers(-(2**40), 2**40).map(lambda number: (integer(number), number)),
    st.just((b"_\r\n", None)),
    st.just((b"$-1\r\n", None)),
    st.just((OK, b"OK")),
)
REPLIES = st.one_of(
    SIMPLE,
    st.lists(SIMPLE, max_size=4).map(lambda parts: (array(*[p for p, _ in parts]), [reply for _, reply in parts])),
    st.binary(max_size=5).map(lambda name: (push(b"message", name, bulk(b"\r\n")), [b"message", name, b"\r\n"])),
)


async def receive_all(connection: RedisConnection) -> list[Reply]:
    """Until the connection is lost."""
    replies: list[Reply] = []
    try:
        while True:
            replies += await connection.receive()
    except LinkLost:
        return replies


async def log_in(endpoint: Endpoint, login: Login, tls: ssl.SSLContext | None = None) -> bytes:
    """The client's own line of CLIENT LIST, or how it was refused."""
    async with open_connection(endpoint, login, tls, TIMEOUT) as connection:
        info: bytes = await connection.call("CLIENT", "INFO")
        return info


@given(st.lists(REPLIES, max_size=6), st.lists(st.integers(0, 100)))
def test_any_chunking_gives_the_same_replies(replies: list[tuple[bytes, Reply]], cuts: list[int]) -> None:
    async def main() -> None:
        client, server = memory_stream_pair()
        connection = RedisConnection(client, Endpoint("fake", 1))
        data = b"".join(encoded for encoded, _ in replies)
        edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
        received: list[Reply] = []
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                received.extend(await receive_all(connection))

            nursery.start_soon(receive)
            for start, end in itertools.pairwise(edges):
                if start != end:
                    await server.send_all(data[start:end])
                    await trio.testing.wait_all_tasks_blocked()
            await server.aclose()
        assert received == [reply for _, reply in replies]

    trio.run(main)


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=5))
@example([b"%1\r\n*0\r\n+value\r\n"])  # a map whose key is a list
@example([b"(1x\r\n"])
def test_any_bytes_give_replies_or_a_lost_link(chunks: list[bytes]) -> None:
    async def main() -> None:
        connection, peer = connect()
        await peer.say(*chunks)
        await peer.close()
        await receive_all(connection)

    trio.run(main)


async def test_receive_counts_signs_of_life_and_returns_errors_and_pushes_in_order() -> None:
    connection, peer = connect()
    await peer.say(error("ERR no"), push(b"message", b"name", bulk(b"data")))
    with assert_checkpoints():
        refused, pushed = await connection.receive()
    assert isinstance(refused, ResponseError)
    assert str(refused) == "ERR no"
    assert isinstance(pushed, hiredis.PushNotification)
    assert connection.received == 1


async def test_call_passes_over_pushes_and_raises_errors() -> None:
    connection, peer = connect()
    await peer.say(push(b"invalidate", b"x"))

    async def answer() -> None:
        await trio.testing.wait_all_tasks_blocked()
        await peer.say(push(b"invalidate", b"x"), OK, push(b"invalidate", b"x"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        assert await connection.call("GET", b"key", 1) == b"OK"
    assert await peer.read() == [[b"GET", b"key", b"1"]]
    await peer.say(error("ERR no"))
    with pytest.raises(CallRefused, match="ERR no"):
        await connection.call("GET", "key")


async def test_broken_connection_is_a_lost_link() -> None:
    connection, peer = connect()
    await peer.close()
    with pytest.raises(LinkLost, match="the connection broke"):
        await connection.send(pack((b"PING",)))
    broken = RedisConnection(_Broken(), Endpoint("fake", 1))
    with pytest.raises(LinkLost, match="the connection broke"):
        await broken.receive()


class _Broken(trio.abc.Stream):
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        raise trio.BrokenResourceError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise trio.BrokenResourceError

    async def aclose(self) -> None:
        pass


# -- what is no server of ours ---------------------------------------------------------------------


@asynccontextmanager
async def open_other_server(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncIterator[Endpoint]:
    async with trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield Endpoint("127.0.0.1", listener.socket.getsockname()[1])
        nursery.cancel_scope.cancel()


async def hear_and_say(reply: bytes, stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some()
        await stream.send_all(reply)


async def test_server_that_is_no_redis_is_told_by_what_it_says() -> None:
    async with open_other_server(partial(hear_and_say, b"HTTP/1.1 400 Bad Request\r\n\r\n")) as endpoint:
        with pytest.raises(LinkLost, match="Protocol error"):
            await log_in(endpoint, Login())
        with pytest.raises(LinkLost, match=r"TLS failed: .*WRONG_VERSION_NUMBER"):
            await log_in(endpoint, Login(), ssl.create_default_context())
    async with open_other_server(partial(hear_and_say, b"")) as endpoint:
        with pytest.raises(LinkLost, match="the server closed the connection"):
            await log_in(endpoint, Login())


async def in_memory(
    script: list[tuple[list[bytes], bytes]], login: Login, monkeypatch: pytest.MonkeyPatch
) -> list[list[bytes]]:
    """Log in to one that answers each expected command so; what came beyond."""
    connection, peer = connect()

    async def to_the_peer(*_: object) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        return connection._stream

    async def answer() -> None:
        for expected, reply in script:
            assert await peer.read() == [expected]
            await peer.say(reply)

    monkeypatch.setattr(resp, "_connect", to_the_peer)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        async with open_connection(connection.endpoint, login, None, TIMEOUT):
            pass
    return await peer.read()


@pytest.mark.parametrize("refusal", ["ERR unknown command 'HELLO'", "NOPROTO unsupported protocol version"])
async def test_server_without_resp3_is_spoken_to_in_resp2(refusal: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = [
        ([b"HELLO", b"3", b"AUTH", b"default", b"pw", b"SETNAME", b"trioroom"], error(refusal)),
        ([b"AUTH", b"pw"], OK),
        ([b"CLIENT", b"SETNAME", b"trioroom"], OK),
        ([b"SELECT", b"4"], OK),
    ]
    assert await in_memory(script, Login(password="pw", db=4), monkeypatch) == []


async def test_silence_while_logging_in_ends_at_connect_timeout(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, peer = connect()

    async def to_the_peer(*_: object) -> trio.abc.Stream:
        await trio.sleep(3)
        return connection._stream

    monkeypatch.setattr(resp, "_connect", to_the_peer)
    for timeout in (2.0, 5.0):  # before and after it is connected
        begin = trio.current_time()
        with pytest.raises(LinkLost, match=f"^no answer within connect_timeout={timeout:g} s$"):
            async with open_connection(connection.endpoint, Login(), None, timeout):
                pytest.fail("nobody has answered")
        assert trio.current_time() - begin == pytest.approx(timeout)
    assert await peer.read() == [[b"HELLO", b"3", b"SETNAME", b"trioroom"]]
    assert await peer.read() == []  # closed


@pytest.mark.parametrize("tls", [False, True])
async def test_silence_of_a_real_socket_ends_too_and_leaves_none_behind(tls: bool) -> None:
    gone = trio.Event()

    async def hear_until_reset(stream: trio.SocketStream) -> None:
        async with stream:
            with pytest.raises(trio.BrokenResourceError, match="reset by peer"):  # what is unsent is not to come later
                async for _ in stream:
                    pass
        gone.set()

    async with open_other_server(hear_until_reset) as endpoint:
        with pytest.raises(LinkLost, match=r"no answer within connect_timeout=0.1 s"):
            async with open_connection(endpoint, Login(), ssl.create_default_context() if tls else None, 0.1):
                pytest.fail("nobody has answered")
        with trio.fail_after(TIMEOUT):
            await gone.wait()


# -- which server it is ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "incarnation"),
    [
        (bulk(b"# Server\r\nredis_version:7.0.15\r\nrun_id:abc\r\ntcp_port:1\r\n"), b"abc"),
        (bulk(b"# Server\r\n"), b""),
        (b"$-1\r\n", b""),
        (OK, b""),  # of a proxy that says so to all it does not know
        (error("NOPERM this user has no permissions to run the 'info' command"), b""),
    ],
)
async def test_incarnation_is_what_the_server_calls_its_run_if_it_tells(reply: bytes, incarnation: bytes) -> None:
    connection, peer = connect()
    await peer.say(reply)
    assert await ask_incarnation(connection) == incarnation
    assert await peer.read() == [[b"INFO", b"server"]]


@pytest.mark.parametrize("reply", [integer(1), array(integer(1))])
async def test_incarnation_that_makes_no_sense_is_a_lost_link(reply: bytes) -> None:
    connection, peer = connect()
    await peer.say(reply)
    with pytest.raises(LinkLost, match="the reply to INFO"):
        await ask_incarnation(connection)


@pytest.mark.redis
async def test_incarnation_is_another_after_a_restart(redis_server: RedisServer) -> None:
    incarnations: list[bytes] = []
    for _ in range(2):
        for _ in range(2):
            endpoint = Endpoint("127.0.0.1", redis_server.port)
            async with open_connection(endpoint, Login(), None, TIMEOUT) as connection:
                incarnations.append(await ask_incarnation(connection))
        await redis_server.restart()
    assert incarnations[0] == incarnations[1] != incarnations[2] == incarnations[3]
    assert b"" not in incarnations
