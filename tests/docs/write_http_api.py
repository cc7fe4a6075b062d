"""Writes the tables of docs/reference/http-api.md from the document: ``python -m tests.docs.write_http_api``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from trioroom._wire.openapi import document

PATH = Path(__file__).parent.parent.parent / "docs" / "reference" / "http-api.md"
BEGIN, END = "<!-- operations -->\n", "<!-- end of operations -->\n"


def written(page: str) -> str:
    """``page`` as it should be."""
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}{''.join(line + chr(10) for line in operations())}{END}{after}"


def operations() -> Iterator[str]:
    """A section for each."""
    described = document("")
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield from section(f"{method.upper()} {path}", operation, described["components"]["schemas"])


def section(title: str, operation: dict[str, Any], schemas: dict[str, Any]) -> Iterator[str]:
    yield from ("", f"### `{title}`", "", operation["summary"], "")
    rows = [
        *((one["name"], one["in"], one["schema"], one["description"]) for one in operation.get("parameters", [])),
        *((*one, "") for one in body_of(operation.get("requestBody"), "body", schemas)),
        *((*one, "") for one in body_of(operation["responses"]["200"], "answer", schemas)),
    ]
    if rows:
        yield from ("| name | in | type | meaning |", "|---|---|---|---|")
        for name, where, schema, text in rows:
            meaning = text or described_by(schema, schemas)
            yield f"| `{name}` | {where} | {type_of(schema)}{default_of(schema)} | {meaning} |"
        yield ""
    errors = [status for status in operation["responses"] if status != "200"]
    yield f"Errors: {', '.join(errors)}."


def body_of(content: dict[str, Any] | None, where: str, schemas: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The fields of what is sent or answered."""
    if content is None:
        return
    reference = content["content"]["application/json"]["schema"].get("$ref")
    if reference is not None:
        for name, schema in schemas[name_of(reference)]["properties"].items():
            yield name, where, schema


def name_of(reference: str) -> str:
    return reference.rpartition("/")[2]


def described_by(schema: dict[str, Any], schemas: dict[str, Any]) -> str:
    reference = schema.get("$ref") or schema.get("items", {}).get("$ref")
    found = schema.get("description") or (schemas[name_of(reference)].get("description") if reference else "")
    return re.sub(r"\s+", " ", found or "").replace("|", "\\|")


def type_of(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return f"`{name_of(schema['$ref'])}`"
    if "anyOf" in schema:
        return " or ".join(type_of(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f'`"{value}"`' for value in schema["enum"])
    if schema.get("type") == "array":
        return f"array of {type_of(schema['items'])}"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if schema.get(key)]
    return " ".join([schema.get("type", "any"), *bounds])


def default_of(schema: dict[str, Any]) -> str:
    default = schema.get("default")
    return "" if default in (None, "") else f", {str(default).lower()} by default"


if __name__ == "__main__":
    PATH.write_text(written(PATH.read_text("utf-8")), "utf-8")
