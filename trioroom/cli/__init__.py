"""The ``trioroom`` command."""

from __future__ import annotations

import click

from trioroom import __version__
from trioroom.cli.late_command import LateCommand


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="trioroom")
def main() -> None:
    """Real-time rooms over WebSocket."""


main.add_command(LateCommand("serve", "trioroom.cli.serve", "Serve an app, as in: trioroom serve chat:app."))
main.add_command(LateCommand("demo", "trioroom.cli.serve", "Serve the demo, a chat with a page."))
main.add_command(LateCommand("publish", "trioroom.cli.publish", "Put one message into a room."))
main.add_command(LateCommand("bench", "trioroom.cli.bench", "Put load on a server and say what it bore."))
main.add_command(LateCommand("join", "trioroom.cli.join", "Hear and speak in a room from the terminal."))
main.add_command(LateCommand("top", "trioroom.cli.top", "Watch a server and all that are linked to it."))
