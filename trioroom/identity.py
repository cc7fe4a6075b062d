"""What `App(authenticate=...)` is given, and what it answers: credentials and an identity."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs

from trioroom._core.info import check_user, decode_info, encode_info

if TYPE_CHECKING:
    from trioroom._wire.http import Request


def _check_user(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    check_user(value)


def _check_time(_: object, attribute: attrs.Attribute[float | None], value: object) -> None:
    if value is not None and (not isinstance(value, int | float) or isinstance(value, bool) or math.isnan(value)):
        raise TypeError(f"{attribute.name}={value!r} must be a Unix time in seconds, or None for never")


def _read_only(claims: Mapping[str, object]) -> Mapping[str, object]:
    return MappingProxyType(dict(claims))


@attrs.frozen
class Credentials:
    """What a peer shows of itself: in the opening handshake, or later by v1's ``auth``."""

    request: Request
    """The opening HTTP request, with its path, query and headers, cookies among them."""
    token: str | None = attrs.field(default=None, repr=False)
    """That of ``auth``, or of the handshake, in ``Authorization: Bearer`` or else as ``token`` in the query; None if
    there is none."""


@attrs.frozen
class Identity:
    """Who a peer is, as long as its credentials last."""

    user: str = attrs.field(validator=_check_user)
    """1 to 128 characters; what `Member.user` is, unless the room says otherwise."""
    _info: bytes = attrs.field(default=None, converter=encode_info, repr=False)
    expires_at: float | None = attrs.field(default=None, validator=_check_time)
    """Unix time at which the connection is closed with 4201, unless ``auth`` brings a fresh token; None is never."""
    claims: Mapping[str, object] = attrs.field(factory=dict[str, Any], converter=_read_only, repr=False, hash=False)
    """What else is known, such as the claims of a token, for `Room.authorize`; not to be changed."""

    @property
    def info(self) -> object:
        """What presence shows of the user, a JSON value of at most 1,024 bytes. `Member.info` is that at first."""
        return decode_info(self._info)


Authenticate: TypeAlias = Callable[[Credentials], Awaitable[Identity | None]]
"""Who shows these credentials; None lets the peer be anonymous.

Raises `trioroom.AuthenticationRefused` for credentials that are not good enough, none among them. Anything else that it
raises is a fault of the server's, and the peer told to come back.
"""
