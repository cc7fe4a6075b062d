"""README fits a screen, leads to what there is, and says what CI runs; the index has every page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text("utf-8")
INDEX = (ROOT / "docs" / "index.md").read_text("utf-8")
LINKS = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)|(?:src|srcset)=\"([^\"]+)\"", README)
DIRECTORIES = ("tutorial", "howto", "reference", "explanation")
PAGES = [page for name in DIRECTORIES for page in sorted((ROOT / "docs" / name).glob("*.md"))]
MAX_LINES = 110  # a screen, with the picture, and one more to scroll; what is longer belongs into docs/
MAX_PICTURE_BYTES = 150_000


@pytest.mark.parametrize("page", [page.relative_to(ROOT / "docs") for page in PAGES], ids=str)
def test_page_is_in_the_index(page: Path) -> None:
    assert page.with_suffix("").as_posix() in INDEX.splitlines()  # as a line of a toctree


def test_readme_leads_to_what_there_is_and_to_the_index() -> None:
    links = ["".join(pair) for pair in LINKS]
    assert [link for link in links if not (ROOT / link).exists()] == []
    assert "docs/index.md" in links


def test_readme_is_short_and_its_pictures_are_light() -> None:
    assert len(README.splitlines()) <= MAX_LINES
    pictures = sorted((ROOT / "docs" / "images").glob("demo*.png"))
    assert [picture.name for picture in pictures] == ["demo-dark.png", "demo.png"]
    assert all(picture.stat().st_size < MAX_PICTURE_BYTES for picture in pictures)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = ROOT / ".ci" / "run"
    if not script.exists():
        pytest.skip("a source distribution has none")
    assert script.read_text("utf-8").splitlines()[-1] in re.findall(r"```sh\n(.+)\n```", README)
