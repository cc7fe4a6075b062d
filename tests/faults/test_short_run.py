"""One short run of the whole suite, so that it does not rot; `nox -s faults` has the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.__main__ import main
from tests.faults.records import Received, read_run

SEED = 6
MINUTES = 0.15


@pytest.mark.slow
@pytest.mark.parametrize(
    "broker",
    [
        pytest.param("redis", marks=pytest.mark.redis),
        pytest.param("nats", marks=[pytest.mark.nats, pytest.mark.thorough]),
        pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.thorough]),
    ],
)
def test_faults_break_no_promise(broker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([f"--broker={broker}", f"--seed={SEED}", f"--minutes={MINUTES}", f"--folder={tmp_path}"])
    told = capsys.readouterr().out
    assert not ended.value.code, told
    run = read_run(tmp_path / f"seed-{SEED}")
    assert sum(isinstance(entry, Received) for record in run.records for entry in record.entries) > 100, told
    assert told.count("fault: ") >= 3, told
