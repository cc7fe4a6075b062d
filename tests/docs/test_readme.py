"""The README leads to every page, and nowhere else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
LINKS = re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / "README.md").read_text("utf-8"))
DIRECTORIES = ("tutorial", "howto", "reference", "explanation")
PAGES = [page.relative_to(ROOT) for name in DIRECTORIES for page in sorted((ROOT / "docs" / name).glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_page_is_linked(page: Path) -> None:
    assert page.as_posix() in LINKS


def test_links_lead_to_what_there_is() -> None:
    assert [link for link in LINKS if not (ROOT / link).exists()] == []
