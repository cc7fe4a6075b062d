"""The page on configuration, and the file in it with everything."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click

from tests.cli.conftest import run
from tests.docs.write_configuration import PATH, explanations, written
from trioroom.cli.assignments import NAMES
from trioroom.cli.configuration import configurable
from trioroom.cli.serve import serve

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "reference" / "configuration.md").read_text("utf-8")
COMMANDS = (ROOT / "docs" / "reference" / "command.md").read_text("utf-8")


def test_file_with_everything_is_that_of_options_and_settings() -> None:
    assert PATH.read_text("utf-8") == written(), "run python -m tests.docs.write_configuration"


def test_file_with_everything_changes_nothing() -> None:
    taken = [
        tomllib.loads(run("serve", "trioroom.demo.app", "--check-config", *file).stdout)
        for file in ((), ("--config", str(PATH)))
    ]
    assert taken[0] == taken[1]
    assert set(explanations()) == set(taken[0]["settings"]) == {*NAMES}


def test_every_option_of_a_server_is_in_the_reference() -> None:
    table = COMMANDS.partition("## trioroom serve")[2].partition("\n## ")[0]
    for param in serve.params:
        if isinstance(param, click.Option) and not param.hidden:
            assert re.search(rf"`{param.opts[0]}\b", table), f"command.md lacks {param.opts[0]}"


def test_example_of_the_page_can_be_served(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    known = dict(configurable(serve))
    table = tomllib.loads(example)
    assert {*table} - {"settings"} <= {*known}
    assert {*table["settings"]} <= {*NAMES}
    path = tmp_path / "chat.toml"
    path.write_text(example.replace("chat:app", "trioroom.demo.app:app"))
    result = run("serve", "--check-config", "--config", str(path))
    complaints = [line for line in result.stderr.splitlines() if "Error" in line]
    assert all("does not exist" in line for line in complaints), complaints  # the files of TLS are not here
