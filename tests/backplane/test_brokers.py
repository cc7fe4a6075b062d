"""Which brokers tests run against where one of them is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.backplane.brokers import parameters


@pytest.mark.parametrize(("ci", "names"), [("", ["redis", "valkey", "nats"]), ("true", ["valkey", "nats"])])
def test_redis_that_is_missing_is_skipped_and_in_ci_left_to_valkey(
    ci: str, names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", ci)
    found = parameters("redis", "valkey", "nats")
    assert [parameter.values for parameter in found] == [(name,) for name in names]
    marks = {parameter.values[0]: [mark.name for mark in parameter.marks] for parameter in found}
    assert marks["valkey"] == ["redis"]
    assert marks.get("redis", ["redis", "skipif"]) == ["redis", "skipif"]
