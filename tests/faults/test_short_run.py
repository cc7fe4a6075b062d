"""One short run of the whole suite, so that it does not rot; `nox -s faults` has the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.records import Received
from tests.faults.run import run_seed

SEED = 6
MINUTES = 0.15


@pytest.mark.redis
@pytest.mark.slow
async def test_faults_break_no_promise(tmp_path: Path) -> None:
    outcome = await run_seed(SEED, MINUTES, tmp_path, quiet=True)
    assert [str(violation) for violation in check(outcome.run)] == []
    deliveries = sum(isinstance(entry, Received) for record in outcome.run.records for entry in record.entries)
    assert deliveries > 500
    assert sum(count for what, count in outcome.counts.items() if what.startswith("fault: ")) >= 3
