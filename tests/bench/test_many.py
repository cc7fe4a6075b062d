"""The run of a million members, scaled down: as many as one machine of any size can have."""

from __future__ import annotations

import math
import resource
from pathlib import Path

import pytest

from tests.cli.test_bench import measured
from trioroom.bench.limits import OwnServer
from trioroom.cli.open_files import raise_limit_of_open_files


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.parametrize("members", [3_000, pytest.param(20_000, marks=pytest.mark.thorough)])
def test_all_stay_and_get_a_message(members: int, tmp_path: Path) -> None:
    raise_limit_of_open_files()
    open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    workers = max(2, math.ceil(members / OwnServer(1).capacity(open_files)))
    settings = ["--set", "ping_interval=10", "--set", "ping_timeout=9"]
    options = ["--members", str(members), "--workers", str(workers), "--duration", "8", "--messages", "1", *settings]
    read = measured(tmp_path, "idle", *options)
    counts = read["counts"]
    figures = {figure["name"]: figure["value"] for figure in read["figures"]}
    assert (counts["opened"], counts["failed"], counts["closed"], counts["sent"]) == (members, 0, 0, 1)
    assert counts["received"] >= members - 1  # nobody waits for the publisher
    assert counts["pings"] > members / 2
    assert figures["server memory per member"] < 8_192
