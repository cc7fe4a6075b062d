"""What many missed is encoded once, in memory that is counted and bounded, whatever offsets peers come with."""

from __future__ import annotations

import math

import trioroom
from trioroom._core.budget import Budget
from trioroom._core.history import History, Kept
from trioroom._core.overflow import Feed, Overflow, Tally
from trioroom._core.window import Window
from trioroom._net.replay import Replay
from trioroom._wire.codec import JSON
from trioroom._wire.encoding import encoding_for
from trioroom._wire.publication import encode_publication

ENCODING = encoding_for(JSON, None)
FEED = Feed(Overflow.DISCONNECT, Tally(), lambda lost: b"")


class Scene:
    def __init__(self, publications: int = 100) -> None:
        self.budget = Budget(math.inf)
        room = trioroom.Room()
        room.name = "room/a"
        self.window = Window(History(1_000), self.budget)
        kept = [Kept("", number, encode_publication(number)) for number in range(1, publications + 1)]
        self.window.append(kept, 0.0)
        self.replay = Replay(room, self.window, self.budget)

    def after(self, offset: int, member: str = "m") -> bytes:
        batch = self.replay.after(offset, FEED, ENCODING, member)
        return b"" if batch is None else batch.data


def test_those_who_missed_the_same_share_a_batch() -> None:
    scene = Scene()
    batch = scene.replay.after(50, FEED, ENCODING, "a")
    assert batch is not None
    assert len(batch.ends) == 50
    assert scene.replay.after(50, FEED, ENCODING, "b") is batch
    assert scene.after(98) == b"".join(ENCODING.message("room/a", number, None, number) for number in (99, 100))
    assert scene.after(100) == b""


def test_what_it_keeps_is_charged_and_bounded_whatever_is_asked_for() -> None:
    scene = Scene()
    window_bytes = scene.budget.used
    scene.after(0)
    kept = [scene.replay.queued_bytes]
    for offset in range(100):
        scene.after(offset)
        kept.append(scene.replay.queued_bytes)
    assert scene.budget.used == window_bytes + kept[-1]
    assert max(kept) < 18 * len(scene.after(0)) + 100 * 400
    scene.replay.forget()
    assert (scene.replay.queued_bytes, scene.budget.used) == (0, window_bytes)


def test_reaching_further_back_counts_what_is_encoded_once() -> None:
    scene, other = Scene(), Scene()
    later = scene.after(90)
    scene.after(10)
    other.after(10)
    assert scene.replay.queued_bytes == other.replay.queued_bytes + len(later)
