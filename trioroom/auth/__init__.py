"""Ready-made authentication: `JWTAuthenticator` for JSON Web Tokens (RFC 7519). Needs the extra ``jwt``."""

from __future__ import annotations

try:
    import cryptography as _cryptography  # noqa: F401  # what PyJWT verifies RS256 and ES256 with
    import jwt as _jwt  # noqa: F401
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        f"trioroom.auth needs PyJWT and cryptography, and there is no {exc.name}; pip install 'trioroom[jwt]'"
    ) from exc

from trioroom.auth.jwks import JwksFile, JwksUrl
from trioroom.auth.tokens import JWTAuthenticator

__all__ = ["JWTAuthenticator", "JwksFile", "JwksUrl"]
