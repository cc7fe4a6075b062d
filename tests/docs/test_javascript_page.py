"""The reference of the JavaScript client names what its types do, and nothing else."""

from __future__ import annotations

import re

import pytest

from tests.docs.named_tests import ROOT

PAGE = (ROOT / "docs" / "reference" / "javascript.md").read_text("utf-8")
TYPES = re.sub(r"/\*.*?\*/|//.*", "", (ROOT / "trioroom" / "web" / "trioroom.d.ts").read_text("utf-8"), flags=re.S)
FIRST_COLUMNS = " ".join(re.findall(r"^\| (`.*?) \|", PAGE, re.M))


def members_of(interface: str) -> set[str]:
    (body,) = re.findall(rf"^export interface {interface}\b[^{{]*{{\n(.*?)^}}", TYPES, re.M | re.S)
    return {*re.findall(r"^  (?:readonly )?(\w+)[?(:<]", body, re.M)}


@pytest.mark.parametrize(
    "interface", ["ConnectOptions", "JoinOptions", "Client", "ClientEvents", "Room", "RoomEvents", "Abortable"]
)
def test_page_has_each_member(interface: str) -> None:
    members = members_of(interface)
    assert members
    assert {name for name in members if not re.search(rf"\b{name}\b", FIRST_COLUMNS)} == set()


def test_page_has_each_error() -> None:
    errors = {*re.findall(r"^export class (\w+) extends TrioroomError", TYPES, re.M)}
    section = PAGE.partition("## Errors\n")[2].partition("\n## ")[0]
    assert {*re.findall(r"^\| `(\w+)` \|", section, re.M)} == errors


def test_page_names_nothing_else() -> None:
    named = {*re.findall(r"[a-zA-Z]+", " ".join(re.findall(r"`([^`]*)`", FIRST_COLUMNS)))}
    assert {
        name for name in named - {"for", "await", "const", "of", "room"} if not re.search(rf"\b{name}\b", TYPES)
    } == set()
