"""Looking at the leases: not more often than it tells something."""

from __future__ import annotations

import trio
import trio.testing

from trioroom.backplane.leases import Leases


class Counted(Leases):
    """One that lives for ever, and takes a second to learn that."""

    broker = "test"
    looks = 0

    async def renew(self) -> bool:
        self.looks += 1
        await trio.sleep(1)
        self.held = True
        self.live = {self.node: trio.current_time() + self.lease}
        return True


async def test_those_who_look_at_the_same_time_share_a_look(autojump_clock: trio.testing.MockClock) -> None:
    leases = Counted(30.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(leases.look)
        await trio.sleep(0.5)
        for _ in range(10):
            nursery.start_soon(leases.look, trio.current_time())  # the one under way has begun before that
    assert leases.looks == 2
    assert trio.current_time() == 2.0


async def test_who_has_seen_something_later_looks_again(autojump_clock: trio.testing.MockClock) -> None:
    leases = Counted(30.0)
    await leases.look()
    await leases.look(trio.current_time())
    await leases.look(trio.current_time())
    await leases.look()
    assert leases.looks == 4


async def test_lease_is_held_without_a_look_while_it_lasts(autojump_clock: trio.testing.MockClock) -> None:
    leases = Counted(30.0)
    await leases.hold()
    await trio.sleep(29)
    await leases.hold()
    assert leases.looks == 1
    await trio.sleep(2)
    await leases.hold()
    assert leases.looks == 2
