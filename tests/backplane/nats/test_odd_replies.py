"""What answers on the port is no NATS server, or one that says odd things: it is told, and never crashes a node."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import pytest
import trio
from hypothesis import example, given
from hypothesis import strategies as st

from trioroom.backplane.nats import NatsSettings, open_nats
from trioroom.backplane.nats.connection import parse_info
from trioroom.backplane.nats.protocol import BadProtocol, Message
from trioroom.backplane.nats.streams import JetStreamError, parse_answer
from trioroom.errors import BackplaneError, BackplaneUnavailable

INFO = {"max_payload": 1_000, "headers": True, "server_name": "odd"}
Serve = Callable[[trio.SocketStream], Awaitable[None]]


def info(**changes: object) -> bytes:
    return b"INFO %b\r\n" % json.dumps({**INFO, **changes}).encode()


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """Its URL."""

    async def quietly(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):  # the client has dropped it
            await serve(stream)

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, host="127.0.0.1"), quietly, 0)
        yield f"nats://127.0.0.1:{listener.socket.getsockname()[1]}?connect_timeout=0.3"
        nursery.cancel_scope.cancel()


async def failure_of(serve: Serve) -> str:
    """What is told when a backplane is opened there."""
    async with listening(serve) as url:
        with trio.fail_after(5), pytest.raises(BackplaneUnavailable) as raised:
            async with open_nats(url):
                pytest.fail("that is no server")
    return str(raised.value).partition(": ")[2].partition(": ")[2]


def saying(*pieces: bytes) -> Serve:
    """One after each thing that is heard."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            for piece in pieces:
                await stream.send_all(piece)
                if not await stream.receive_some():
                    return
            await trio.sleep_forever()

    return serve


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], "what answers there is no NATS server: it sent b'HTTP/1.1 400 Bad"),
        ([b"+OK\r\n"], "what answers there is no NATS server"),
        ([b"INFO {}\r\n"], "what answers there is no NATS server: its INFO is b'{}'"),
        ([b"INFO []\r\n"], "what answers there is no NATS server: its INFO is b'[]'"),
        ([b"INFO " + b"[" * 60_000 + b"\r\n"], "what answers there is no NATS server: its INFO is b'[["),
        ([info(max_payload=float("inf"))], "what answers there is no NATS server: its INFO is b'{"),
        ([info() + b"PING\r\n"], "what answers there is no NATS server: it began with Control(word=b'INFO', argument"),
        ([b"x" * 70_000], "what answers there is no NATS server: a line is longer than"),
        ([b"-ERR 'maximum connections exceeded'\r\n"], "the server refused us: maximum connections exceeded"),
        ([info(headers=False)], "the server has headers turned off"),
        ([info(), b"-ERR 'Authorization Violation'\r\n"], "the server refused us: Authorization Violation; check the"),
        ([info()], "no answer within connect_timeout=0.3 s"),
        ([b""], "no answer within connect_timeout=0.3 s"),
        ([info(), b"PONG\r\nMSG a 1 -5\r\n"], "what answers there is no NATS server: b'MSG a 1 -5' begins no message"),
        ([info(), b"-ERR 'a\x1b[31m\nb'\r\n"], "the server refused us: a?[31m?b"),
        ([info(), b"PONG\r\n-ERR 'Stale Connection'\r\n"], "the server says: Stale Connection"),
        (
            [info(), b"PONG\r\n"],
            "JetStream has not answered within 0.3 s; in a cluster more than half of the",
        ),
    ],
)
async def test_what_is_no_server_is_told(pieces: list[bytes], reason: str) -> None:
    assert (await failure_of(saying(*pieces))).startswith(reason)


async def test_server_that_closes_at_once_is_told() -> None:
    async def close(stream: trio.SocketStream) -> None:
        await stream.aclose()

    assert await failure_of(close) in ("the server closed the connection", "the connection broke")


async def test_what_the_server_says_is_told_in_part_where_it_is_long() -> None:
    assert len(await failure_of(saying(info(), b"-ERR '" + b"x" * 50_000 + b"'\r\n"))) < 5_000


async def test_api_that_answers_nonsense_is_told() -> None:
    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(info())
        async for data in stream:
            for line in bytes(data).split(b"\r\n"):
                if line == b"PING":
                    await stream.send_all(b"PONG\r\n")
                elif line.startswith(b"PUB $JS.API"):
                    await stream.send_all(b"MSG %b 2 4\r\nwhat\r\n" % line.split()[2])

    assert (await failure_of(serve)).startswith("the broker answered b'what', which is not JetStream's")


@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps),
        st.dictionaries(st.sampled_from(["code", "err_code", "description"]), st.floats()).map(json.dumps),
    )
)
@example('{"code":1e400}')
def test_answers_are_answers_or_errors(payload: bytes | str) -> None:
    data = payload if isinstance(payload, bytes) else payload.encode()
    for each in (data, b'{"error":%b}' % data):
        try:
            assert isinstance(parse_answer(Message(b"a", 1, None, b"", each)), dict)
        except BackplaneError:
            pass


@given(
    st.one_of(
        st.binary(max_size=60),
        st.dictionaries(
            st.sampled_from([*INFO, "connect_urls", "ldm"]),
            st.text() | st.integers() | st.floats() | st.lists(st.integers()),
        ).map(lambda told: json.dumps(told).encode()),
    )
)
def test_info_is_what_it_says_or_no_nats(argument: bytes) -> None:
    try:
        assert parse_info(argument).max_payload is not None
    except BadProtocol:
        pass


def test_errors_of_jetstream_say_what_the_server_said() -> None:
    def answer(text: str) -> Message:
        return Message(b"a", 1, None, b"", text.encode())

    with pytest.raises(JetStreamError, match="JetStream refuses: wrong last sequence: 3") as raised:
        parse_answer(answer('{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"}}'))
    assert raised.value.err_code == 10071
    with pytest.raises(BackplaneUnavailable, match="JetStream cannot do it now: no quorum; retry later"):
        parse_answer(answer('{"error":{"code":503,"description":"no quorum"}}'))
    with pytest.raises(BackplaneUnavailable, match="JetStream cannot do it now: no suitable peers"):
        parse_answer(answer('{"error":{"code":400,"err_code":10005,"description":"no suitable peers"}}'))


NOISE = st.lists(
    st.sampled_from(
        [
            b"PING\r\n", b"PONG\r\n", b"+OK\r\n", info(), info(ldm=True), info(connect_urls=["x:y", "127.0.0.1:1"]),
            b"MSG nobody 99 2\r\nhi\r\n", b"MSG x 1 0\r\n\r\n", b"MSG _INBOX.x 2 1\r\n1\r\n",
            b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n",
            b"-ERR 'Permissions Violation for Subscription to \"y\"'\r\n",
            b"HMSG x 1 12 12\r\nNATS/1.0\r\n\r\n\r\n", b"-ERR\r\n", b"MSG a\r\n", b"\xff\xfe\r\n",
        ]
    ),
    max_size=8,
)  # fmt: skip


@given(NOISE)
def test_noise_ends_in_an_error_that_says_why(noise: list[bytes]) -> None:
    async def main() -> None:
        async with listening(saying(info(), b"PONG\r\n" + b"".join(noise))) as url:
            with trio.fail_after(5), pytest.raises(BackplaneUnavailable, match="cannot use the NATS backplane: "):
                async with open_nats(url.partition("?")[0], settings=NatsSettings(connect_timeout=0.05)):
                    pytest.fail("that is no server")

    trio.run(main)
