"""What JetStream is asked for again, as its servers may be of another mind soon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import repeat

import pytest
import trio
from trio.testing import MockClock

from tests.backplane.nats.scenes import answer, open_requests
from trioroom.backplane.nats.requests import Requests
from trioroom.backplane.nats.streams import JetStreamError, JetStreamUnavailable, append, ensure_stream

# As a server that has just come is taken for gone for a moment, which happens in clusters that are new.
OFFLINE = b'{"error":{"code":400,"err_code":10005,"description":"no suitable peers for placement, peer offline"}}'
BUSY = b'{"error":{"code":400,"err_code":10164,"description":"wrong last sequence"}}'
WRONG = b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"}}'


@asynccontextmanager
async def answering(answers: Iterable[bytes]) -> AsyncIterator[Requests]:
    """Requests, each of which gets the next of these."""
    async with open_requests(timeout=2.0) as scene:
        peer = await scene.connect()

        async def serve() -> None:
            for told in answers:
                [inbox] = (await peer.published()).values()
                scene.requests.take([answer(inbox, told)])

        scene.nursery.start_soon(serve)
        yield scene.requests


async def test_stream_that_cannot_be_made_now_is_asked_for_again(autojump_clock: MockClock) -> None:
    async with answering([OFFLINE, OFFLINE, b'{"created":true}']) as requests:
        assert await ensure_stream(requests, {"name": "s"}) == {"created": True}


async def test_stream_that_cannot_be_made_for_long_is_told(autojump_clock: MockClock) -> None:
    async with answering(repeat(OFFLINE)) as requests:
        began = trio.current_time()
        with pytest.raises(JetStreamUnavailable, match=r"JetStream cannot do it now: no suitable peers .*"):
            await ensure_stream(requests, {"name": "s"})
        assert 1.8 < trio.current_time() - began <= 2.0


async def test_append_that_is_undecided_is_asked_for_again(autojump_clock: MockClock) -> None:
    async with answering([BUSY, BUSY, b'{"seq":4}', BUSY, WRONG]) as requests:
        assert await append(requests, "s", b"x") == {"seq": 4}
        with pytest.raises(JetStreamError, match="wrong last sequence: 3"):
            await append(requests, "s", b"x")


async def test_append_that_stays_undecided_is_told(autojump_clock: MockClock) -> None:
    async with answering(repeat(BUSY)) as requests:
        with trio.fail_after(2.1), pytest.raises(JetStreamError, match=r"wrong last sequence$"):
            await append(requests, "s", b"x")
