"""What the URLs of brokers have in common: settings in the query, options for TLS, and secrets that no error names."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import SplitResult

import attrs

TLS_OPTIONS = {
    "ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_cert_reqs", "ssl_check_hostname",
}  # fmt: skip
"""As redis-py calls them."""
Settings = TypeVar("Settings", bound=attrs.AttrsInstance)


def refuse_torn(parts: SplitResult) -> None:
    """Before anything of it is named: a ``/``, ``?`` or ``#`` in a password ends the host and what is before it."""
    path = "" if parts.scheme == "unix" else parts.path
    if parts.fragment or "@" in path or ("@" in parts.query and "@" not in parts.netloc):
        raise ValueError(
            "the URL has a # or @ where none can stand; in user and password write / as %2F, ? as %3F, # as %23"
        )


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
    return attrs.evolve(settings, **chosen)  # type: ignore[misc]  # mypy's plugin wants a class, not a variable


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
