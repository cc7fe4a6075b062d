"""The code blocks of the documentation, and the commands in them."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator

import attrs

from tests.docs.named_tests import ROOT

_BLOCK = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.M | re.S)
_PAGES = (ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts))


@attrs.frozen
class Snippet:
    """A block between fences that stands in a page itself, and not in a file that the page includes."""

    place: str
    """Page and line."""
    language: str
    text: str

    def commands(self) -> Iterator[list[str]]:
        """What a shell would run, word by word; in a console the lines behind a ``$``."""
        text = self.text.replace("\\\n", " ")
        if self.language == "console":
            text = "\n".join(re.findall(r"^\$ (.*)", text, re.M))
        for line in text.splitlines():
            yield from _commands_of(line)


def snippets() -> Iterator[Snippet]:
    """Of README and documentation; directives of Sphinx, which begin with a brace, are none."""
    for page in _PAGES:
        text = page.read_text("utf-8")
        for block in _BLOCK.finditer(text):
            if not block[2].startswith("{"):
                line = text.count("\n", 0, block.start()) + 1
                yield Snippet(f"{page.relative_to(ROOT)}:{line}", block[2], textwrap.dedent(block[3]))


def _commands_of(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    command: list[str] = []
    skip = False
    for word in lexer:
        if skip:  # where output goes
            skip = False
        elif set(word) & set("<>") and set(word) <= set("<>&|"):
            skip = True
            if command and command[-1].isdigit():
                command.pop()
        elif set(word) <= set("();|&"):
            yield from _without_variables(command)
            command = []
        else:
            command.append(word)
    yield from _without_variables(command)


def _without_variables(command: list[str]) -> Iterator[list[str]]:
    while command and re.match(r"[A-Z_]+=", command[0]):
        command = command[1:]
    if command:
        yield command
