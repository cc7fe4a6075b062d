"""permessage-deflate (RFC 7692), with a fresh context for each message in both directions.

Without context takeover a connection holds no zlib state between messages (otherwise some 260 KB to
compress and 40 KB to inflate), and one compressed payload serves every member of a room.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence

import attrs

from trioroom.closecodes import CloseCode
from trioroom.errors import RemoteProtocolError

_TAIL = b"\x00\x00\xff\xff"  # of the empty block a flush ends with; the sender cuts it off (RFC 7692 §7.2.1)
_FINAL_BLOCK = b"\x03\x00"  # empty, with BFINAL set
_MAX_WINDOW_BITS = 15

# Possessive throughout: a quote that is never closed takes the rest of the header, and nothing is read twice.
_OFFER = re.compile(r'(?:[^",]++|"(?:[^"\\]++|\\.)*+"?)++', re.DOTALL)
_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PARAMETER = re.compile(rf'({_TOKEN})(?:[ \t]*=[ \t]*("?)({_TOKEN})\2)?')

_WINDOW_BITS = {str(bits): bits for bits in range(8, _MAX_WINDOW_BITS + 1)}  # no leading zeros (§7.1.2)
_ALLOWED_VALUES: dict[str, set[str | None]] = {
    "server_no_context_takeover": {None},
    "client_no_context_takeover": {None},
    # Not 8, though the RFC has it: zlib cannot write raw deflate with so small a window.
    "server_max_window_bits": {bits for bits in _WINDOW_BITS if bits != "8"},
    # We inflate with the largest window whatever the client uses, so no answer to this one is needed.
    "client_max_window_bits": {None, *_WINDOW_BITS},
}


@attrs.frozen
class DeflateParameters:
    """What was agreed on with one client."""

    server_max_window_bits: int = _MAX_WINDOW_BITS
    """Base-2 logarithm of the window we compress with, 9 to 15."""
    window_was_requested: bool = False
    """Whether the client named a window for us, so that the answer has to name it too (RFC 7692 §7.1.2.1)."""

    @property
    def response(self) -> str:
        """The value of the response's ``Sec-WebSocket-Extensions``."""
        response = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
        if self.window_was_requested:
            response += f"; server_max_window_bits={self.server_max_window_bits}"
        return response


def negotiate_deflate(offers: Sequence[str]) -> DeflateParameters | None:
    """Accept the first offer we can keep; None if there is none.

    Args:
        offers: raw values of ``Sec-WebSocket-Extensions``, each a list of offers in order of preference.

    Offers for other extensions, with unknown or repeated parameters, or with bad values are passed
    over, as RFC 7692 §7.1 asks. Never raises; takes time linear in the length of ``offers``.
    """
    for header in offers:
        for offer in _OFFER.finditer(header):
            if (accepted := _accept_offer(offer[0])) is not None:
                return accepted
    return None


def _accept_offer(offer: str) -> DeflateParameters | None:
    # A ";" inside quotes is split at too: no value that we take has one.
    name, *parts = (part.strip(" \t") for part in offer.split(";"))
    if name != "permessage-deflate":
        return None
    parameters: dict[str, str | None] = {}
    for key, value in _parse_parameters(parts):
        if key in parameters or value not in _ALLOWED_VALUES.get(key, ()):
            return None
        parameters[key] = value
    bits = parameters.get("server_max_window_bits")
    return DeflateParameters() if bits is None else DeflateParameters(_WINDOW_BITS[bits], True)


def _parse_parameters(parts: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    for part in parts:
        match = _PARAMETER.fullmatch(part)
        yield (match[1], match[3]) if match else ("", None)  # "" is no parameter's name, so it is refused


def compress(payload: bytes, window_bits: int = _MAX_WINDOW_BITS) -> bytes:
    """``payload`` as the payload of a message with RSV1 set (RFC 7692 §7.2.1).

    Args:
        payload: the message; empty is fine.
        window_bits: 9 to 15, what `DeflateParameters.server_max_window_bits` says.
    """
    deflater = zlib.compressobj(wbits=-window_bits)
    return (deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)).removesuffix(_TAIL)


def inflate(payload: bytes, max_bytes: int) -> bytes:
    """The message in ``payload``, a compressed message with its fragments joined (RFC 7692 §7.2.2).

    Raises:
        RemoteProtocolError: it holds more than ``max_bytes`` (1009), or is not deflate data (1007).

    Never holds more than ``max_bytes + 1`` bytes of output, however well ``payload`` was packed.
    """
    inflater = zlib.decompressobj(-_MAX_WINDOW_BITS)
    try:
        message = inflater.decompress(payload, max_bytes + 1)
        if len(message) > max_bytes:
            raise RemoteProtocolError(
                f"message inflates to more than max_message_bytes={max_bytes}; send it in smaller messages",
                CloseCode.MESSAGE_TOO_BIG,
            )
        if not _is_whole(inflater):
            raise _corrupt("it does not end where its last block does")
    except zlib.error as exc:
        raise _corrupt(str(exc)) from exc
    return message


def _is_whole(inflater: zlib._Decompress) -> bool:
    """Whether what ``inflater`` has read is a whole message: zlib itself says nothing of a cut off block."""
    if inflater.eof:  # a sender may end in a final block of its own and one zero byte (RFC 7692 §7.2.3.4)
        return inflater.unused_data in (b"", b"\x00")
    # After whole blocks the tail yields no data, and a final block of ours is seen as such. Or it ends a final block of
    # the sender's, an empty one of no compression; another that ends within the tail was cut off.
    ended = not inflater.decompress(_TAIL + _FINAL_BLOCK, 1) and inflater.eof
    return ended and inflater.unused_data in (b"", _FINAL_BLOCK)


def _corrupt(why: str) -> RemoteProtocolError:
    return RemoteProtocolError(
        f"compressed message cannot be inflated ({why}); compress it as in RFC 7692 section 7.2.1",
        CloseCode.INVALID_DATA,
    )
