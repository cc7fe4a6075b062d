"""Where a request has its token (RFC 6750 §2)."""

from __future__ import annotations

from urllib.parse import unquote_plus

from trioroom._wire.http import Request
from trioroom.errors import HandshakeError


def token_of(request: Request) -> str | None:
    """That of ``Authorization: Bearer``, else of ``token`` in the query: a page cannot set headers.

    Raises:
        HandshakeError: 400, there are several, and whoever is before us may have looked at another one.
    """
    headers = request.values("authorization")
    if len(headers) > 1:
        raise HandshakeError(400, f"request has {len(headers)} Authorization headers; send one")
    if headers:
        scheme, _, token = headers[0].partition(" ")
        if scheme.lower() == "bearer" and (token := token.strip()):
            return token
    pairs = [pair.partition("=") for pair in request.query.split("&")]
    tokens = [unquote_plus(value) for name, _, value in pairs if name == "token" and value]
    if len(tokens) > 1:
        raise HandshakeError(400, f"the query has {len(tokens)} tokens; send one")
    return tokens[0] if tokens else None
