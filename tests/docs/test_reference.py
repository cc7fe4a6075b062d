"""The reference page names what the facade exports, no more and no less."""

from __future__ import annotations

import re
from pathlib import Path

import trioroom
import trioroom.auth
import trioroom.client
import trioroom.debug
import trioroom.testing

REFERENCE = Path(__file__).parent.parent.parent / "docs" / "reference"
PLUGIN = REFERENCE.parent.parent / "pytest_trioroom.py"
DIRECTIVE = re.compile(r"^\.\. auto(?:class|data|exception|function):: trioroom\.([\w.]+)$", re.M)


def documented(page: str = "api.md") -> list[str]:
    return DIRECTIVE.findall((REFERENCE / page).read_text("utf-8"))


def test_reference_documents_every_public_name_once_and_no_other() -> None:
    shared = set(trioroom.__all__) - {"Message"}  # rooms have another one
    of_client = [f"client.{name}" for name in trioroom.client.__all__ if name not in shared]
    of_auth = [f"auth.{name}" for name in trioroom.auth.__all__]
    of_debug = [f"debug.{name}" for name in trioroom.debug.__all__]
    assert sorted(documented()) == sorted([*trioroom.__all__, *of_auth, *of_client, *of_debug])


def test_reference_of_the_test_kit_has_all_its_names_and_fixtures() -> None:
    names = [f"testing.{name}" for name in (*trioroom.testing.__all__, "nodes.ConformanceSuite")]
    assert sorted(documented("testing.md")) == sorted(names)
    fixtures = re.findall(r"^@pytest\.fixture\n(?:async )?def (trioroom_\w+)", PLUGIN.read_text("utf-8"), re.M)
    page = (REFERENCE / "testing.md").read_text("utf-8")
    assert sorted(re.findall(r"^\| `(\w+)` \|", page, re.M)) == sorted(fixtures)


def test_public_names_are_sorted() -> None:
    assert trioroom.__all__ == sorted(trioroom.__all__)
    assert trioroom.auth.__all__ == sorted(trioroom.auth.__all__)
    assert trioroom.client.__all__ == sorted(trioroom.client.__all__)
    assert trioroom.testing.__all__ == sorted(trioroom.testing.__all__)


def test_close_code_table_lists_the_catalogue() -> None:
    rows = re.findall(r"^\| (\d{4}) \| `(\w+)` \|", (REFERENCE / "close-codes.md").read_text("utf-8"), re.M)
    assert rows == [(str(code.value), code.name) for code in trioroom.CloseCode]
