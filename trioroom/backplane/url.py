"""What the URLs of brokers have in common: where, settings and options for TLS in the query, secrets no error names."""

from __future__ import annotations

import ssl
from collections.abc import Collection, Mapping
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

import attrs

TLS_OPTIONS = {
    "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname",
}  # fmt: skip
"""As redis-py calls them."""
Settings = TypeVar("Settings", bound=attrs.AttrsInstance)


@attrs.frozen
class Endpoint:
    """One server or broker."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def split(url: str, schemes: Collection[str], broker: str, example: str) -> SplitResult:
    """The parts of ``url``, whose scheme is one of these; the rest is for the message of the ValueError."""
    try:
        parts = urlsplit(url)
    except ValueError:  # its message may have the password
        raise ValueError("this is no URL; in user and password write [ as %5B and ] as %5D, for example") from None
    if "://" not in url:
        raise ValueError(f"this is no URL of {broker}: it has no ://; write {example}")
    if parts.scheme not in schemes:
        raise ValueError(f"{parts.scheme!r} is no scheme of a {broker} URL; write {example}")
    _refuse_torn(parts)
    return parts


def _refuse_torn(parts: SplitResult) -> None:
    # Before anything of it is named: a /, ? or # in a password ends the host and what is before it.
    path = "" if parts.scheme == "unix" else parts.path
    if parts.fragment or "@" in path or ("@" in parts.query and "@" not in parts.netloc):
        raise ValueError(
            "the URL has a # or @ where none can stand; in user and password write / as %2F, ? as %3F, # as %23"
        )


def split_hosts(text: str) -> list[str]:
    """Those between commas; of several none is empty, for that would be this machine, which gets the password too."""
    hosts = text.split(",")
    if len(hosts) > 1 and "" in hosts:
        raise ValueError("the URL has a comma too many between hosts; one alone that is not named is 127.0.0.1")
    return hosts


def host_and_port(text: str, default_port: int) -> tuple[str, int]:
    """What is between two commas of the hosts says; without a host it is this machine."""
    try:
        parts = urlsplit(f"//{text}")
        return unquote(parts.hostname or "127.0.0.1"), parts.port or default_port
    except ValueError:  # what follows the colon may be a password: its @host was forgotten
        host = text.partition(":")[0]
        raise ValueError(f"what begins with {host!r} is no host and port; write host:{default_port}") from None


def take_settings(options: dict[str, str], settings: Settings) -> Settings:
    """``settings`` with those that stand in ``options``, which are taken out."""
    chosen: dict[str, Any] = {}
    for name, field in attrs.fields_dict(type(settings)).items():
        if (text := options.pop(name, None)) is not None:
            kind: Any = type(field.default)
            try:
                chosen[name] = kind(text)
            except ValueError as exc:
                raise ValueError(f"{name}={text!r} is no number") from exc
    try:
        return attrs.evolve(settings, **chosen)  # type: ignore[misc]  # mypy's plugin wants a class, not a variable
    except ValueError as exc:
        raise ValueError(exc.args[0]) from exc  # a validator of attrs may add the field with all that it knows of it


def refuse_unknown(options: Mapping[str, str], known: set[str], tls_scheme: str | None) -> None:
    """What is left of the query has names that are known; those for TLS need a URL for it.

    Args:
        tls_scheme: what the URL would have to begin with; None: it does.
    """
    if unknown := options.keys() - known - TLS_OPTIONS:
        name = repr(min(unknown)) if min(unknown).isidentifier() else "in the query"  # else it may be of a password
        raise ValueError(f"option {name} is not known; there are {', '.join(sorted(known | TLS_OPTIONS))}")
    if tls_scheme is not None and (misplaced := options.keys() & TLS_OPTIONS):
        raise ValueError(f"option {min(misplaced)!r} is for TLS; write {tls_scheme}")


def tls_context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """As redis-py's ``SSLConnection`` would make it: the peer is verified unless ``ssl_cert_reqs=none``."""
    try:
        context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"), capath=options.get("ssl_ca_path"))
        if (certfile := options.get("ssl_certfile")) is not None:
            context.load_cert_chain(certfile, options.get("ssl_keyfile"), options.get("ssl_password"))
    except OSError as exc:
        raise ValueError(f"cannot use the certificates that the URL names: {exc}") from exc
    requirement = options.get("ssl_cert_reqs", "required")
    if requirement not in ("none", "optional", "required"):
        raise ValueError(f"ssl_cert_reqs={requirement!r} is neither none, optional nor required")
    context.check_hostname = options.get("ssl_check_hostname", True) and requirement != "none"
    context.verify_mode = ssl.VerifyMode[f"CERT_{requirement.upper()}"]
    return context
