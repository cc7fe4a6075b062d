"""The threat model names tests that exist, at least one for each fault it says is covered."""

from __future__ import annotations

import pytest

from tests.docs.named_tests import ROOT, check_named


def covered() -> list[str]:
    """The rows of the table, without its head."""
    page = (ROOT / "docs" / "explanation" / "threat-model.md").read_text("utf-8")
    section = page.partition("## Covered\n")[2].partition("\n## ")[0]
    return [line for line in section.splitlines() if line.startswith("| ")][1:]


def test_there_are_faults_to_speak_of() -> None:
    assert len(covered()) > 20


@pytest.mark.parametrize("row", covered(), ids=lambda row: row.split("|")[1].strip()[:50])
def test_fault_has_a_test(row: str) -> None:
    check_named(row.split("|")[3])
