"""The pages on the HTTP API: their commands run, their tables are those of the document, and that is a proper one."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import trio

import trioroom
from tests._net.api_client import KEY
from tests.docs.write_http_api import PATH, operations, written
from trioroom._net.http_api import _CODES, HttpApi
from trioroom._net.operator import Operator
from trioroom._wire.api import PREFIX
from trioroom._wire.openapi import OPERATIONS, document, errors_of
from trioroom.backplane.memory import MemoryBackplane

ROOT = Path(__file__).parent.parent.parent
HOWTO = ROOT / "docs" / "howto" / "use-the-http-api.md"
EXAMPLES = ROOT / "docs" / "examples"
CURL = [block for block in re.findall(r"```sh\n(.*?)```", HOWTO.read_text("utf-8"), re.DOTALL) if "curl" in block]


def request_of(command: str, port: int) -> urllib.request.Request:
    """What curl would send."""
    words = shlex.split(command.replace("\\\n", " ").replace("$TRIOROOM_API_KEY", KEY).replace(":8000/", f":{port}/"))
    assert words.pop(0) == "curl"
    url, *options = words
    given = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for name, value in given if name == "-H")
    data = next((value.encode() for name, value in given if name == "-d"), None)
    assert {name for name, _ in given} <= {"-H", "-d"}
    return urllib.request.Request(url, data, headers)


def ask(request: urllib.request.Request) -> Any:
    with urllib.request.urlopen(request, timeout=10) as answer:
        return msgspec.json.decode(answer.read())


def run_curl(command: str, port: int) -> Any:
    done = subprocess.run(
        ["sh", "-c", command.replace(":8000/", f":{port}/").replace("curl ", "curl -sS --fail-with-body ")],
        env={**os.environ, "TRIOROOM_API_KEY": KEY},
        capture_output=True,
        check=True,
        timeout=10,
    )
    return msgspec.json.decode(done.stdout)


@pytest.mark.parametrize("command", CURL, ids=range(len(CURL)))
async def test_command_of_the_page_is_served(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
    from running_chat import app

    async with trioroom.open_server(app, port=0, api_key=KEY) as server:
        answer = await trio.to_thread.run_sync(ask, request_of(command, server.port))
        assert answer
        assert all("error" not in result for result in answer.get("results", ()))
        if shutil.which("curl"):  # the same again, by what people type; urllib is there everywhere
            assert (await trio.to_thread.run_sync(run_curl, command, server.port)).keys() == answer.keys()


def test_page_has_an_example_of_every_operation() -> None:
    paths = {request_of(command, 1).selector.partition("?")[0].replace("chat%2Flobby", "{room}") for command in CURL}
    assert paths == {PREFIX + operation.path for operation in OPERATIONS}


def test_tables_of_the_reference_are_those_of_the_document() -> None:
    page = PATH.read_text("utf-8")
    assert page == written(page), "run python -m tests.docs.write_http_api"
    assert "".join(operations()) != ""


def test_codes_of_errors_are_in_the_reference() -> None:
    sources = (ROOT / "trioroom" / "_net").glob("*api*.py")
    raised = {code for path in sources for code in re.findall(r'\b\d{3}, "(\w+)"', path.read_text("utf-8"))}
    raised |= set(_CODES.values())
    assert set(re.findall(r"^\| `(\w+)` \| \d{3}", PATH.read_text("utf-8"), re.M)) == raised


async def test_every_operation_is_served_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    async with trio.open_nursery() as nursery:
        from trioroom._core.routes import Routes
        from trioroom._net.entrance import open_admission
        from trioroom._net.hub import Hub
        from trioroom._net.overview import Overview

        hub = Hub(Routes(), MemoryBackplane(), trioroom.Settings(), nursery)
        api = HttpApi(Operator(Overview(hub, open_admission(hub.settings)), None))
    assert api._handlers.keys() == {operation.id for operation in OPERATIONS}


def test_document_is_what_openapi_asks_for() -> None:
    """Structure of OpenAPI 3.1 §4.8, as far as this document uses it; its schemas are JSON Schema 2020-12."""
    whole = document("1.2.3")
    assert whole["openapi"] == "3.1.0"
    assert whole["info"].keys() >= {"title", "version"}
    ids = [operation["operationId"] for methods in whole["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids)) == len(OPERATIONS)
    for path, methods in whole["paths"].items():
        assert path.startswith("/")
        for operation in methods.values():
            check_operation(path, operation)
    for schema in whole["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    check_references(whole, whole)


def check_operation(path: str, operation: dict[str, Any]) -> None:
    parameters = operation.get("parameters", [])
    in_path = [one["name"] for one in parameters if one["in"] == "path"]
    assert in_path == re.findall(r"{(\w+)}", path)
    for one in parameters:
        assert one.keys() <= {"name", "in", "required", "description", "schema"}
        assert one["in"] != "path" or one["required"] is True
        jsonschema.Draft202012Validator.check_schema(one["schema"])
    assert all(re.fullmatch("[1-5][0-9]{2}", status) for status in operation["responses"])
    for response in operation["responses"].values():
        assert response["description"]
        assert response["content"].keys() == {"application/json"}


def check_references(value: Any, whole: dict[str, Any]) -> None:
    """Each leads somewhere, and every component is led to."""
    if isinstance(value, dict):
        if isinstance(reference := value.get("$ref"), str):
            assert reference.rpartition("/")[2] in whole["components"]["schemas"], reference
        for item in value.values():
            check_references(item, whole)
    elif isinstance(value, list):
        for item in value:
            check_references(item, whole)


def test_statuses_of_the_document_are_those_that_the_operation_names() -> None:
    for operation in OPERATIONS:
        described = document("1")["paths"][PREFIX + operation.path][operation.method.lower()]
        assert [int(status) for status in described["responses"]] == [200, *errors_of(operation)]
