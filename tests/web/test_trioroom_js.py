"""The JavaScript client: its own tests in Node, its types, and what it has in common with the Python package."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

import trioroom
from tests.browser import missing, program
from tests.web.conftest import HERE, WEB, run
from trioroom.closecodes import CloseCode, should_reconnect

TYPESCRIPT = "typescript@5"


SUITES = ("client", "msgpack", "player", "room", "transcripts")


@pytest.mark.parametrize("name", SUITES)
def test_its_own_tests_pass(node: str, name: str) -> None:
    run(node, "--test", f"{name}.test.mjs")


def test_each_file_of_tests_is_run() -> None:
    assert sorted(path.name.partition(".")[0] for path in HERE.glob("*.test.mjs")) == list(SUITES)


def test_close_codes_are_those_of_the_server(node: str) -> None:
    script = f"""
        import {{ CloseCode, shouldReconnect }} from {json.dumps((WEB / "trioroom.js").as_uri())};
        const codes = Array.from({{ length: 5000 }}, (_, code) => code).filter(shouldReconnect);
        console.log(JSON.stringify([CloseCode, codes]));
    """
    names, codes = json.loads(run(node, "--input-type=module", "--eval", script))
    assert names == {code.name: code.value for code in CloseCode}
    assert codes == [code for code in range(5000) if should_reconnect(code)]


def test_package_has_the_version_of_the_server() -> None:
    assert json.loads((WEB / "package.json").read_text("utf-8"))["version"] == trioroom.__version__


def test_types_name_all_that_is_exported() -> None:
    pattern = r"^export (?:async )?(?:function|class|const) (\w+)"
    exported = re.findall(pattern, (WEB / "trioroom.js").read_text("utf-8"), re.MULTILINE)
    typed = re.findall(pattern, (WEB / "trioroom.d.ts").read_text("utf-8"), re.MULTILINE)
    assert sorted(exported) == sorted(typed)


def test_package_holds_what_it_is_to_hold(node: str) -> None:
    packed = json.loads(run(program("TRIOROOM_NPM", "npm"), "pack", "--dry-run", "--json", cwd=WEB))
    [package] = packed if isinstance(packed, list) else packed.values()  # npm 12 is to give an object
    assert {file["path"] for file in package["files"]} == {"package.json", "README.md", "trioroom.js", "trioroom.d.ts"}


@pytest.mark.slow
def test_types_are_strict_and_fit_an_application(node: str, tmp_path: Path) -> None:
    modules = tmp_path / "node_modules"
    modules.mkdir()
    (modules / "trioroom").symlink_to(WEB, target_is_directory=True)
    shutil.copy(HERE / "example.ts", tmp_path)
    options = ("--strict", "--noUncheckedIndexedAccess", "--exactOptionalPropertyTypes", "--noEmit")
    language = ("--target", "es2022", "--lib", "es2022,esnext.disposable,dom", "--module", "nodenext")
    run(*compiler(tmp_path), *options, *language, "example.ts", cwd=tmp_path)


def compiler(folder: Path) -> tuple[str, ...]:
    """TypeScript's, from this machine or as npm brings it."""
    if tsc := shutil.which("tsc"):
        return (tsc,)
    npx = program("TRIOROOM_NPX", "npx")
    tsc_of_npm = (npx, "--yes", "--package", TYPESCRIPT, "tsc")
    try:
        run(*tsc_of_npm, "--version", cwd=folder)
    except AssertionError as exc:
        missing(f"tsc is not on PATH and npm does not bring it: {exc}")
    return tsc_of_npm
