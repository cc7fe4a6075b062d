"""The fattest queue goes first, no more of them than needed, and the sum is right whatever happens."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from trioroom._core.budget import Budget


class Chunk:
    """Bytes that wait in one queue or in several."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.holders = 0


class Waiting:
    """A queue that does what `Budget` asks of one: it tells when the first holder comes and when the last has gone."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.chunks: list[Chunk] = []
        self.was_dropped = False
        budget.open(self, self.drop)

    @property
    def queued_bytes(self) -> int:
        return sum(chunk.size for chunk in self.chunks)

    def take(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        chunk.holders += 1
        if chunk.holders == 1:
            self.budget.add(chunk.size)

    def let_go(self) -> None:
        chunk = self.chunks.pop(0)
        chunk.holders -= 1
        if not chunk.holders:
            self.budget.remove(chunk.size)

    def drop(self) -> None:
        self.was_dropped = True
        while self.chunks:
            self.let_go()


def waiting(budget: Budget, *sizes: int) -> list[Waiting]:
    """A queue with one chunk for each size."""
    queues = [Waiting(budget) for _ in sizes]
    for queue, size in zip(queues, sizes, strict=True):
        queue.take(Chunk(size))
    return queues


def dropped(queues: Sequence[Waiting]) -> list[bool]:
    return [queue.was_dropped for queue in queues]


def test_fattest_queue_goes_first_and_the_others_stay() -> None:
    budget = Budget(100)
    queues = waiting(budget, 30, 41, 30)
    budget.relieve()
    assert dropped(queues) == [False, True, False]
    assert (budget.used, budget.dropped) == (60, 1)


def test_as_many_go_as_make_an_eighth_free() -> None:
    budget = Budget(80)
    queues = waiting(budget, *[9] * 9)
    budget.relieve()
    assert (budget.used, sum(dropped(queues))) == (63, 2)


def test_nobody_goes_while_there_is_room() -> None:
    budget = Budget(100)
    queues = waiting(budget, 50, 49)
    assert budget.fits(1)
    budget.relieve(1)
    assert not budget.fits(2)
    assert dropped(queues) == [False, False]


def test_room_is_made_for_what_is_to_come() -> None:
    budget = Budget(100)
    queues = waiting(budget, 50, 8)
    budget.relieve(90)
    assert budget.fits(90)
    assert dropped(queues) == [True, False]


def test_nobody_goes_for_what_never_fits() -> None:
    budget = Budget(100)
    queues = waiting(budget, 50, 50)
    budget.relieve(101)
    assert dropped(queues) == [False, False]


def test_shared_bytes_are_free_when_the_last_queue_has_let_them_go() -> None:
    budget, shared = Budget(100), Chunk(95)
    queues = waiting(budget, 1, 2, 3)
    for queue in queues[1:]:
        queue.take(shared)
    budget.relieve()
    assert dropped(queues) == [False, True, True]  # to drop one of the two frees 3 bytes
    assert budget.used == 1


def test_empty_queue_is_not_dropped_as_that_would_free_nothing() -> None:
    budget = Budget(100)
    empty = Waiting(budget)
    budget.add(101)  # of a queue that cannot be dropped
    budget.relieve()
    assert (empty.was_dropped, budget.dropped) == (False, 0)


def test_queue_that_has_closed_is_not_dropped() -> None:
    budget = Budget(100)
    queues = waiting(budget, 60, 50)
    budget.close(queues[0])
    budget.close(queues[0])
    budget.relieve()
    assert dropped(queues) == [False, True]


def test_caches_are_emptied_before_anybody_loses_a_queue_and_fill_again() -> None:
    budget = Budget(100)
    cache, other = Waiting(budget), Waiting(budget)
    for each in (cache, other):
        budget.close(each)
        budget.open_cache(each, each.drop)
    (queue,) = waiting(budget, 60)
    for _ in range(2):
        cache.take(Chunk(30))
        other.take(Chunk(5))
        budget.relieve(20)
        assert (queue.was_dropped, cache.queued_bytes, other.queued_bytes) == (False, 0, 5)
        other.drop()
    assert budget.dropped == 0
    budget.relieve(50)
    assert (queue.was_dropped, budget.dropped, budget.used) == (True, 1, 0)


def test_queue_may_close_others_while_it_is_dropped() -> None:
    budget = Budget(100)
    fat, thin = waiting(budget, 60, 50)

    def drop() -> None:
        fat.drop()
        thin.drop()
        budget.close(thin)

    budget.open(fat, drop)
    budget.add(100)  # of a queue that cannot be dropped, so all others are tried
    budget.relieve()
    assert (budget.used, budget.dropped) == (100, 1)


@pytest.mark.parametrize("size", [0, 1 << 60])
def test_no_bound(size: int) -> None:
    budget = Budget(math.inf)
    queues = waiting(budget, 1 << 50)
    budget.relieve(size)
    assert budget.fits(size)
    assert dropped(queues) == [False]


MAX_BYTES = 100


class QueuesUnderOneBudget(RuleBasedStateMachine):
    """Against a model that keeps no sums: it looks at every queue each time."""

    queues = Bundle("queues")
    chunks = Bundle("chunks")

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(MAX_BYTES)
        self.all: list[Waiting] = []
        self.droppable: list[Waiting] = []

    @rule(target=queues)
    def open_queue(self) -> Waiting:
        queue = Waiting(self.budget)
        self.all.append(queue)
        self.droppable.append(queue)
        return queue

    @rule(target=chunks, size=st.integers(0, MAX_BYTES // 2))
    def encode(self, size: int) -> Chunk:
        return Chunk(size)

    @rule(queue=queues, chunk=chunks)
    def take(self, queue: Waiting, chunk: Chunk) -> None:
        queue.take(chunk)

    @rule(queue=queues)
    def let_go(self, queue: Waiting) -> None:
        if queue.chunks:
            queue.let_go()

    @rule(queue=queues)
    def close(self, queue: Waiting) -> None:
        self.budget.close(queue)
        self.droppable = [each for each in self.droppable if each is not queue]

    @rule(size=st.integers(0, MAX_BYTES * 2))
    def relieve(self, size: int) -> None:
        before = {queue: queue.queued_bytes for queue in self.droppable}
        needed = self.held_bytes() + size > MAX_BYTES >= size
        self.budget.relieve(size)
        gone = [queue for queue in self.droppable if queue.was_dropped]
        self.droppable = [queue for queue in self.droppable if not queue.was_dropped]
        if not needed:
            assert not gone
        elif not self.budget.fits(size):
            assert not any(queue.queued_bytes for queue in self.droppable)
        if gone:
            leanest = min(before[queue] for queue in gone)
            assert leanest > 0
            assert all(before[queue] <= leanest for queue in self.droppable)

    def held_bytes(self) -> int:
        return sum(chunk.size for chunk in {chunk for queue in self.all for chunk in queue.chunks})

    @invariant()
    def sums_are_right(self) -> None:
        assert self.budget.used == self.held_bytes()
        assert self.budget.dropped == sum(queue.was_dropped for queue in self.all)


TestQueuesUnderOneBudget = pytest.mark.untraced(QueuesUnderOneBudget.TestCase)
