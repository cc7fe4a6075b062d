"""A command that is known before its module is imported: no command waits for what the others need."""

from __future__ import annotations

import importlib
from typing import Any

import click


class LateCommand(click.Command):
    """Stands in a group for the command ``name`` of a module, which is imported when the command is called.

    Args:
        short_help: what the group's help says of it.
    """

    def __init__(self, name: str, module: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self._module = module

    def load(self) -> click.Command:
        """The command itself."""
        command = getattr(importlib.import_module(self._module), str(self.name))
        assert isinstance(command, click.Command)
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The command's own: click invokes the command of the context, and completes its options."""
        return self.load().make_context(info_name, args, parent, **extra)
