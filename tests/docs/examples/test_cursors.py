"""Live cursors."""

from __future__ import annotations

import trio

from tests.docs.examples.running import DEADLINE
from trioroom.testing import open_peer, open_test_server


async def test_cursors_keep_the_latest_of_each_and_previews_are_for_who_can_take_them() -> None:
    from cursors import app

    rounds, text = 300, "x" * 20_000  # 12 MB: more than the kernel's part
    with trio.fail_after(DEADLINE):
        async with (
            open_test_server(app) as server,
            open_peer(server, "/cursors/1", tcp=True) as slow,
            open_peer(server, "/cursors/1") as one,
            open_peer(server, "/cursors/1") as two,
        ):
            for number in range(rounds):
                for mover, other in ((one, two), (two, one)):
                    await mover.send(f"{number} {text}")
                    assert await other.receive() == f"{number} {text}"
            seen: list[int] = []
            while seen.count(rounds - 1) < 2:
                seen.append(int(str(await slow.receive()).partition(" ")[0]))
            assert len(seen) < rounds  # of 600
        async with open_test_server(app) as server, open_peer(server, "/preview") as watcher:
            pictures = [await watcher.receive() for _ in range(3)]
            first, *others = [picture[-1] for picture in pictures if isinstance(picture, bytes)]
            assert others == [first + 1, first + 2]
