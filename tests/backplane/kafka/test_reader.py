"""How far the reader is behind, before it has read anything."""

from __future__ import annotations

import pytest
import trio

from tests.backplane.processes import free_port
from trioroom.backplane.kafka.location import parse_location
from trioroom.backplane.kafka.reader import Reader
from trioroom.backplane.kafka.settings import KafkaSettings

pytestmark = pytest.mark.kafka


async def test_reader_that_has_started_knows_how_far_it_is_behind() -> None:
    """Else a node takes a long log for read, and then its first probe for lost."""
    reader = Reader(parse_location(f"kafka://127.0.0.1:{free_port()}", KafkaSettings()), {})  # where nobody answers
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            await nursery.start(reader.run, {0: 0, 1: 7}, {0: 300_000, 1: 7}, lambda error: None)
            assert reader.behind == 300_000
            nursery.cancel_scope.cancel()
