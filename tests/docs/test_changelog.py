"""The changelog says each thing once, and under the headings that there are."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

TEXT = (Path(__file__).parent.parent.parent / "docs" / "changelog.md").read_text("utf-8")
KINDS = ["Added", "Changed", "Deprecated", "Removed", "Fixed"]


def test_no_line_is_there_twice() -> None:
    """As when two branches have moved it to different places."""
    lines = Counter(line for line in TEXT.splitlines() if line)
    headings = [*(f"### {kind}" for kind in KINDS)]  # of each version
    assert [line for line, count in lines.items() if count > 1 and line not in headings] == []


def test_kinds_of_changes_are_known_and_in_order() -> None:
    for version in re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (\w+)$", version, re.MULTILINE)
        assert kinds == [kind for kind in KINDS if kind in kinds]
