"""The catalogue of close codes: registered ones (RFC 6455 §7.4.1) and trioroom's own (§7.4.2).

Ranges tell a client what to do: 4000-4099 do not reconnect, 4100-4199 reconnect with back-off,
4200-4299 reconnect at once.
"""

from __future__ import annotations

from enum import IntEnum

MAX_REASON_BYTES = 123
"""A close frame holds 125 bytes, two of them the code (RFC 6455 §5.5)."""


class CloseCode(IntEnum):
    """Why a connection ended."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005  # never on the wire: the peer's close frame had no code
    ABNORMAL = 1006  # never on the wire: the connection ended without a close frame
    INVALID_DATA = 1007
    POLICY_VIOLATION = 1008
    MESSAGE_TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013

    BAD_ENVELOPE = 4000
    JOIN_REFUSED = 4001
    KICKED = 4002
    UNAUTHENTICATED = 4003
    UNKNOWN_ROOM = 4004
    DISCONNECTED = 4005

    DRAIN = 4101
    SLOW_CONSUMER = 4108
    PING_TIMEOUT = 4110
    OVERLOAD = 4113

    TOKEN_EXPIRED = 4201


def is_valid_on_wire(code: int) -> bool:
    """Whether a close frame may carry ``code`` (RFC 6455 §7.4, IANA's registry)."""
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def should_reconnect(code: int) -> bool:
    """Whether a client that was closed with ``code`` gains by coming back."""
    if 4000 <= code <= 4999:
        return code >= 4100
    return code in (
        CloseCode.GOING_AWAY,
        CloseCode.ABNORMAL,
        CloseCode.INTERNAL_ERROR,
        CloseCode.SERVICE_RESTART,
        CloseCode.TRY_AGAIN_LATER,
    )


def clip_reason(reason: str) -> bytes:
    """``reason`` as UTF-8, cut at a character boundary to what a close frame holds."""
    return reason.encode(errors="replace")[:MAX_REASON_BYTES].decode(errors="ignore").encode()
