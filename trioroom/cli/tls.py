"""TLS of ``trioroom serve``: certificate and key come from PEM files, and are read again on SIGHUP.

Each reading makes a context of its own, which replaces the old one once it is whole. Loading into the context that
serves would not do: OpenSSL takes the new certificate first and drops the old key with it, so that a key that does
not match would leave a server that can greet nobody.
"""

from __future__ import annotations

import logging
import signal
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import click

from trioroom.server import Server

log = logging.getLogger("trioroom.tls")


@attrs.frozen
class TlsFiles:
    """Where certificate and key are."""

    certificate: Path
    """With its intermediates behind it."""
    key: Path | None
    """None if it is in the file of the certificate too."""

    def load(self) -> ssl.SSLContext:
        """What these files say now, for TLS 1.2 and newer.

        Raises:
            click.ClickException: they cannot be used, as said in one line.
        """
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, _EncryptedKey) as exc:
            files = str(self.certificate) if self.key is None else f"{self.certificate} with {self.key}"
            message = f"cannot use {files} ({_describe(exc)}); give certificate and key as PEM"
            raise click.ClickException(message) from exc
        return context


class _EncryptedKey(Exception):
    pass


def _no_password() -> str:
    """OpenSSL would ask for it on the terminal, amid serving."""
    raise _EncryptedKey("the key is encrypted; store it without a passphrase")


def _describe(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return error.reason or str(error)
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def tls_files(certificate: Path | None, key: Path | None) -> TlsFiles | None:
    """What ``--tls-cert`` and ``--tls-key`` ask for; None is no TLS.

    Raises:
        click.UsageError: a key without a certificate.
    """
    if certificate is None:
        if key is not None:
            raise click.UsageError("--tls-key needs --tls-cert")
        return None
    return TlsFiles(certificate, key)


async def reload_at_hangups(server: Server, files: TlsFiles | None, wait_hangup: Callable[[], Awaitable[None]]) -> None:
    """Until cancelled: with each SIGHUP ``server`` greets new peers with what ``files`` say then."""
    while True:
        await wait_hangup()
        if files is None:
            log.info("SIGHUP: there is no certificate to read again; give one with --tls-cert")
            continue
        try:
            server.ssl_context = files.load()
        except click.ClickException as exc:
            log.error("SIGHUP: %s, and send SIGHUP again; the old certificate goes on serving", exc.message)
        else:
            log.info("SIGHUP: new connections get the certificate that is in %s now", files.certificate)


def survive_hangups() -> None:
    """Have SIGHUP do nothing here: a worker gets it too when a service manager sends it to all processes.

    A handler and not SIG_IGN, which what the application starts would inherit.
    """
    signal.signal(signal.SIGHUP, lambda *_: None)
