"""The ``trioroom`` command."""

from __future__ import annotations

import click

from trioroom import __version__
from trioroom.cli.bench import bench
from trioroom.cli.join import join
from trioroom.cli.publish import publish
from trioroom.cli.serve import demo, serve
from trioroom.cli.top import top


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="trioroom")
def main() -> None:
    """Real-time rooms over WebSocket."""


main.add_command(serve)
main.add_command(demo)
main.add_command(publish)
main.add_command(bench)
main.add_command(join)
main.add_command(top)
