"""The page on the architecture and the drawings name what there is: folders, modules, tasks, settings."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import attrs
import pytest

from tests.docs.named_tests import ROOT
from trioroom.backplane.redis import RedisSettings
from trioroom.settings import Settings

PACKAGE = ROOT / "trioroom"
EXPLANATION = ROOT / "docs" / "explanation"
PAGE = (EXPLANATION / "architecture.md").read_text("utf-8")
DRAWINGS = sorted((EXPLANATION / "drawings").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"


def texts(path: Path, cls: str) -> list[str]:
    """Of elements with this class."""
    return [element.text or "" for element in ElementTree.parse(path).iter(f"{SVG}text") if element.get("class") == cls]


def test_list_of_folders_and_modules_is_whole() -> None:
    table = PAGE.partition("Below `trioroom/`:\n")[2].partition("\n\nImports")[0]
    first_columns = " ".join(re.findall(r"^\| (`.*?) \|", table, re.M))
    named = {*re.findall(r"`(\w+(?:\.py|/))`", first_columns)}
    there = {path.name + "/" for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    there |= {path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")}
    assert named == there


def test_modules_that_are_named_exist() -> None:
    named = re.findall(r"`(_?\w+/[\w/]+\.py)`", PAGE)
    named += [f"{where}.py" for where in texts(EXPLANATION / "drawings" / "message.svg", "where") if "/" in where[:-1]]
    assert len(named) > 10
    assert [name for name in named if not (PACKAGE / name).is_file()] == []


def test_tasks_of_the_server_are_in_the_drawing() -> None:
    drawn = {*texts(EXPLANATION / "drawings" / "tasks.svg", "name")}
    for module in ("server.py", "_net/entrance.py", "_net/hub.py"):
        source = (PACKAGE / module).read_text("utf-8")
        started = {name.partition(" {")[0] for name in re.findall(r'name=f?"([\w {}]+)"\)', source)}
        assert started
        assert started <= drawn, f"{module} starts {started - drawn}"


def test_settings_in_the_drawing_exist() -> None:
    known = {field.name for cls in (Settings, RedisSettings) for field in attrs.fields(cls)}
    path = EXPLANATION / "drawings" / "backpressure.svg"
    named = {*re.findall(r"\b[a-z]+(?:_[a-z]+)+\b", " ".join(texts(path, "set") + texts(path, "memory")))}
    assert len(named) > 8
    assert named <= known


@pytest.mark.parametrize("path", DRAWINGS, ids=lambda path: path.stem)
def test_drawing_has_a_title_a_page_and_colours_for_the_dark(path: Path) -> None:
    title = ElementTree.parse(path).find(f"{SVG}title")
    assert title is not None
    assert title.text
    assert "prefers-color-scheme: dark" in path.read_text("utf-8")
    pages = [page.read_text("utf-8") for page in EXPLANATION.glob("*.md")]
    (told,) = [told for page in pages for told in re.findall(rf"!\[([^\]]*)\]\(drawings/{path.name}\)", page)]
    assert told, "say in words what it shows"
