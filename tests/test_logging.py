"""What holds for all log calls of the library: no secrets, and fields that operators can look up."""

from __future__ import annotations

import ast
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import trioroom
from trioroom.testing import open_peer, open_test_server, open_v1_peer

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "howto" / "read-the-logs.md"
SECRET = "s3cret-of-a-peer"


class Broken(trioroom.Room):
    async def authorize(self, member: trioroom.Member) -> None:
        if member.request.query.endswith("refused"):
            raise trioroom.JoinRefused(f"not with {member!r}")

    async def on_message(self, member: trioroom.Member, message: trioroom.Message) -> None:
        raise ValueError(f"cannot serve {member!r}, who asked {member.request.path}")


async def test_tokens_of_peers_are_never_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    app = trioroom.App()
    app.route("{name}", Broken)
    async with open_test_server(app) as server:
        for path in (f"/a?token={SECRET}", f"/a?token={SECRET}&refused"):
            async with open_peer(server, path) as peer:
                await peer.send("x")
                with pytest.raises(trioroom.ConnectionClosed):
                    await peer.receive()
        async with open_v1_peer(server) as v1:
            await v1.request("auth", token=SECRET)
            await v1.join("a")
            with pytest.raises(trioroom.ConnectionClosed):
                await v1.request("publish", room="a", data="x")
    assert "ValueError: cannot serve" in caplog.text
    assert "closed with" in caplog.text
    assert SECRET not in caplog.text


async def test_example_of_the_page_logs_fields_of_its_own(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "examples")
    from logged import app

    async with open_test_server(app) as server, open_peer(server, "/game") as peer:
        await peer.send("I win")
        with pytest.raises(trioroom.ConnectionClosed, match="cheating"):
            await peer.receive()
    (fields,) = [vars(record) for record in caplog.records if record.name == "game"]
    assert (fields["room"], fields["score"]) == ("game", 17)


# -- the fields ------------------------------------------------------------------------------------


def fields_of(tree: ast.AST) -> Iterator[str]:
    """Names in dicts that are, or become, what a log call gets as ``extra``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "extra" and isinstance(node.value, ast.Dict):
            yield from keys_of(node.value)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Dict):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and target.id == "fields":
                yield from keys_of(node.value)
        elif isinstance(node, ast.FunctionDef) and node.name == "fields":
            for inner in ast.walk(node):
                if isinstance(inner, ast.Dict):
                    yield from keys_of(inner)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
            yield from (keyword.arg for keyword in node.keywords if keyword.arg is not None)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tell":
            yield ast.literal_eval(node.args[-1])


def keys_of(node: ast.Dict) -> Iterator[str]:
    yield from (key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str))


def test_fields_are_found_however_they_are_given() -> None:
    source = """
log.info("x", extra={"a": 1})
fields = {"b": 1}
fields: dict[str, object] = {"c": 1}
say("x", d=1)
tell(log, "x", text, "g")
def fields(self): return {"e": 1}
other = {"f": 1}
"""
    assert set(fields_of(ast.parse(source))) == {"a", "b", "c", "d", "e", "g"}


def test_page_on_logs_has_a_row_for_each_field_and_no_other() -> None:
    used = {"time", "level", "logger", "message", "process", "exception", "stack"}
    for path in (ROOT / "trioroom").rglob("*.py"):
        source = path.read_text("utf-8")
        if re.search(r"^log = |\bsay\b", source, re.M) and path.name != "logs.py":
            used |= set(fields_of(ast.parse(source)))
    used |= {"exit_code"}  # which cli/logs.py adds
    table = PAGE.read_text("utf-8").partition("| field | what |")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.M)) == sorted(used)
