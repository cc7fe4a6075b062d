"""Options whose values are not for everybody: they can be read from a file, and are never shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

import click

from trioroom.cli.environment import FILE_SUFFIX

_HIDDEN = "***"
_SECRET_NAMES = re.compile("password|passphrase|secret|token|seed|jwt|pem")
"""Options in the query of a broker's URL whose values open something; those of files, such as ``keyfile``, do not."""


class SecretOption(click.Option):
    """A text that nobody is shown.

    Its variable with ``_FILE`` at the end may name a file that has the text, as Docker and Kubernetes give secrets.
    """

    @property
    def variable(self) -> str:
        """The variable that has it, or names the file that does."""
        return self._variable_of_file if os.environ.get(self._variable_of_file) else str(self.envvar)

    @property
    def variables(self) -> tuple[str, str]:
        """Both."""
        return str(self.envvar), self._variable_of_file

    @property
    def _variable_of_file(self) -> str:
        return f"{self.envvar}{FILE_SUFFIX}"

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """As click has it, or what the file holds."""
        value = super().resolve_envvar_value(ctx)
        if not (path := os.environ.get(self._variable_of_file)):
            return value
        if value is not None:
            raise self._wrong("is set, and so is " + str(self.envvar) + "; leave one of them out")
        try:
            text = Path(path).read_text("utf-8").rstrip("\r\n")  # which editors and echo put at the end
        except OSError as exc:
            raise self._wrong(f"cannot read {path}: {exc.strerror}") from exc
        except UnicodeDecodeError as exc:
            raise self._wrong(f"{path} is no text in UTF-8") from exc
        if not text:
            raise self._wrong(f"{path} is empty")
        return text

    def shown(self, value: str) -> str | None:
        """What may be shown of ``value``; None: nothing."""
        return None

    def _wrong(self, message: str) -> click.BadParameter:
        return click.BadParameter(message, param=self, param_hint=self._variable_of_file)


class SecretUrlOption(SecretOption):
    """A URL, which may have a password in it."""

    def shown(self, value: str) -> str:
        """All but user and password."""
        return redact_url(value)


def redact_url(url: str) -> str:
    """``url`` without its user and password, and those in its query; only its scheme if it is not clear what they are.

    A ``/``, ``?`` or ``#`` in a password ends the host for those who read the URL: it would be shown as a path.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url if url.isalnum() else _HIDDEN
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if authority.count("@") > 1 or "@" in rest[len(authority) :] or "#" in rest:
        return f"{scheme}://{_HIDDEN}"
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{scheme}://{_HIDDEN}"
    _, at, hosts = parts.netloc.rpartition("@")
    options = [
        (name, _HIDDEN if _SECRET_NAMES.search(name.lower()) else value) for name, value in parse_qsl(parts.query, True)
    ]
    query = f"?{urlencode(options, safe='*/:,')}" if options else ""
    return f"{scheme}://{_HIDDEN + at if at else ''}{hosts}{parts.path}{query}"
