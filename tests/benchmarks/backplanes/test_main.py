"""The comparison of backplanes: what it prints, where it writes, and that nothing is lost unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks import redis_clients
from tests.benchmarks.backplanes import __main__ as comparison
from tests.benchmarks.backplanes.__main__ import main
from tests.benchmarks.backplanes.report import MARK
from tests.benchmarks.peers.report import END
from trioroom.backplane.memory import MemoryBackplane

SHORT = ("memory", "--rounds", "1", "--seconds", "0.02")


def test_tables_are_printed_and_written_between_their_marks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{MARK}\n\nold\n\n{END}\n\nafter\n")
    monkeypatch.setattr(comparison, "PAGE", page)
    assert main([*SHORT, "--docs"]) == 0
    written = page.read_text()
    assert written.startswith(f"before\n\n{MARK}\n\nMeasured on ")
    assert written.endswith(f"{END}\n\nafter\n")
    assert "old" not in written
    assert "| publications/s, 64 publishers, history |" in written
    assert written.count("| memory | ") == 2
    assert "Python " in written
    assert written.partition(MARK)[2].partition(END)[0].strip() in capsys.readouterr().out


def test_page_of_the_documentation_has_the_marks() -> None:
    assert MARK in comparison.PAGE.read_text("utf-8")
    assert END in comparison.PAGE.read_text("utf-8")


@pytest.mark.parametrize("times", [0, 2])
def test_what_is_not_heard_exactly_once_is_a_failure(
    times: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Careless(MemoryBackplane):
        _count = 0

        async def publish(self, room: str, payload: bytes, publication_id: str | None = None) -> None:
            self._count += 1
            for _ in range(times if self._count == 3 else 1):
                await super().publish(room, payload, publication_id)

    monkeypatch.setattr("trioroom.backplane.open.MemoryBackplane", Careless)
    monkeypatch.setattr(redis_clients, "STRAGGLERS", 0.1)
    assert main(list(SHORT)) == 1
    output = capsys.readouterr().out
    assert "- memory, publications/s, 1 publisher: PublicationsLost: " in output
    assert "history: PublicationsLost" not in output


def test_unknown_backplane_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["pigeon"])
    assert "no backplane is called 'pigeon'; there are memory, Redis" in capsys.readouterr().err
