"""Writes docs/reference/protocol-v1.schema.json from the envelopes: ``python -m tests.docs.write_schema``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from trioroom._wire.envelopes import FromServer, Request

PATH = Path(__file__).parent.parent.parent / "docs" / "reference" / "protocol-v1.schema.json"
REF = "#/$defs/{name}"


def schema() -> dict[str, Any]:
    """The JSON Schema of protocol v1 in JSON."""
    unions, components = msgspec.json.schema_components([Request, FromServer], schema_hook=_any_json, ref_template=REF)
    request, from_server = ({"anyOf": union["anyOf"]} for union in unions)  # OpenAPI's discriminator is left behind
    defs = {
        "Request": {"description": "An envelope of a client.", **request},
        "FromServer": {"description": "An envelope of a server.", **from_server},
        "ClientFrame": _frame_of("Request"),
        "ServerFrame": _frame_of("FromServer"),
        **{name: _with_plain_texts(component) for name, component in components.items()},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "trioroom protocol v1",
        "description": "One frame of trioroom.v1.json, of a client or a server. Further fields are ignored.",
        "anyOf": [{"$ref": "#/$defs/ClientFrame"}, {"$ref": "#/$defs/ServerFrame"}],
        "$defs": defs,
    }


def written() -> str:
    """The file as it should be."""
    return msgspec.json.format(msgspec.json.encode(schema()), indent=2).decode() + "\n"


def _frame_of(envelope: str) -> dict[str, Any]:
    one = {"$ref": f"#/$defs/{envelope}"}
    return {"anyOf": [one, {"type": "array", "items": one}]}


def _any_json(annotation: type) -> dict[str, Any]:
    """What our records call ``object``."""
    if annotation is object:
        return {"description": "Any JSON value."}
    raise NotImplementedError


def _with_plain_texts(component: dict[str, Any]) -> dict[str, Any]:
    """Its docstring as one paragraph, without the marks of reStructuredText."""
    if text := component.get("description"):
        component["description"] = re.sub(r"\s+", " ", text).replace("``", "`")
    return component


if __name__ == "__main__":
    PATH.write_text(written(), "utf-8")
