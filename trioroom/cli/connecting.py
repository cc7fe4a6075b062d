"""What commands that are clients of a server share: whether it is there, and how they say that it is not."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from trioroom._core.causes import root_of
from trioroom.errors import ConnectionClosed, HandshakeError, Kicked, RequestRefused

if TYPE_CHECKING:
    from trioroom.client import Client


async def wait_connected(client: Client) -> None:
    """Until the first try has led to a connection; raises why it has not: a command does not wait for a server."""
    async for state in client.states():
        if state.error is not None:
            raise state.error
        if state.name == "open":
            return


def reason_of(error: BaseException) -> str:
    """Why there is no connection, without the address, which Trio's words for a refusal have once more."""
    root = root_of(error)
    if isinstance(root, ssl.SSLError) and root.reason == "WRONG_VERSION_NUMBER":  # so OpenSSL takes what is no TLS
        return "no TLS is spoken there; write ws:// or http://"
    return os.strerror(root.errno) if isinstance(root, ConnectionError) and root.errno else str(root)


@contextmanager
def errors_of_client(url: str) -> Iterator[None]:
    """What ends a client, as one line."""
    try:
        yield
    except (OSError, HandshakeError) as exc:
        raise click.ClickException(f"cannot reach {url}: {reason_of(exc)}; is the server running there?") from exc
    except (ConnectionClosed, Kicked) as exc:
        raise click.ClickException(f"the server parted with us: {exc}") from exc
    except RequestRefused as exc:
        raise click.ClickException(f"the server refused: {exc.message}") from exc
