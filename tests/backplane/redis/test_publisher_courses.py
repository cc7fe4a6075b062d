"""The publisher against a naive model: whatever happens, each publication comes to its own end."""

from __future__ import annotations

import itertools
from contextlib import suppress

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from tests.backplane.redis.fake_server import Peer, error, integer
from tests.backplane.redis.scenes import LOST, PublisherScene, open_publisher, payloads


class _Model:
    """A server that may be away, and what each publication is to come to."""

    def __init__(self, scene: PublisherScene) -> None:
        self._scene = scene
        self._peer: Peer | None = None
        self.unanswered: list[bytes] = []
        self.sent: list[bytes] = []
        self.never: set[bytes] = set()
        """Cancelled before it was sent."""
        self.expected: dict[bytes, str] = {}

    @property
    def connected(self) -> bool:
        return self._peer is not None

    async def connect(self) -> None:
        if self._peer is None:
            self._peer = await self._scene.connect()
            self._scene.nursery.start_soon(self._read, self._peer)

    async def _read(self, peer: Peer) -> None:
        with suppress(trio.ClosedResourceError):
            while new := payloads(await peer.read()):
                self.unanswered += new
                self.sent += new

    async def disconnect(self) -> None:
        if self._peer is not None:
            await self._peer.close()
            self._peer = None
            self.expected = dict.fromkeys(self.unanswered, LOST) | self.expected
            self.unanswered.clear()

    async def answer(self, reply: bytes, result: str) -> None:
        if self._peer is not None and self.unanswered:
            self.expected.setdefault(self.unanswered.pop(0), result)
            await self._peer.say(reply)

    def cancel(self, payload: bytes) -> None:
        self._scene.scopes[payload].cancel()
        self.expected[payload] = "cancelled"
        if payload not in self.sent:
            self.never.add(payload)


ACTIONS = st.lists(
    st.one_of(st.just("publish"), st.sampled_from(["answer", "refuse", "connect", "disconnect", "cancel"])), max_size=40
)


@given(ACTIONS, st.integers(1, 5), st.integers(1, 200), st.data())
def test_any_course_of_events_gives_each_publisher_its_own_outcome(
    actions: list[str], count: int, size: int, data: st.DataObject
) -> None:
    async def main() -> None:
        async with open_publisher(count, size) as scene:
            publisher, model, numbers = scene.publisher, _Model(scene), itertools.count()
            await model.connect()
            for action in actions:
                pending = [payload for payload, result in scene.results.items() if result == "pending"]
                if action == "publish":
                    await scene.publish(b"%d:%s" % (next(numbers), b"x" * data.draw(st.integers(0, 100))))
                elif action == "cancel" and pending:
                    model.cancel(data.draw(st.sampled_from(pending)))
                elif action == "answer":
                    await model.answer(integer(1), "done")
                elif action == "refuse":
                    await model.answer(error("NO"), "NO")
                elif action == "connect":
                    await model.connect()
                elif action == "disconnect":
                    await model.disconnect()
                await wait_all_tasks_blocked()
                assert {p: r for p, r in scene.results.items() if r != "pending"} == model.expected
                assert len(model.unanswered) <= publisher.queued <= count
                assert len(model.unanswered) == publisher.queued or not model.connected
            await model.connect()
            await wait_all_tasks_blocked()
            while model.unanswered:
                await model.answer(integer(1), "done")
                await wait_all_tasks_blocked()
            assert scene.results == model.expected
            assert (publisher.queued, publisher._bytes) == (0, 0)
            assert len(model.sent) == len(set(model.sent))
            assert not model.never & set(model.sent)

    trio.run(main)
