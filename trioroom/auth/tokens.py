"""`JWTAuthenticator`: identities from JSON Web Tokens (RFC 7519), by the advice of RFC 8725."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import jwt
import trio

from trioroom.auth.keys import ALGORITHMS, FixedKeys, KeySource, parse_key
from trioroom.errors import AuthenticationRefused
from trioroom.identity import Credentials, Identity

Keys: TypeAlias = str | bytes | Sequence[str | bytes] | KeySource
# What PyJWT lets through besides its own, for what no issuer would have written: endless nesting, numbers beyond all.
_UNREADABLE = (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError)
_MALFORMED = "the token is malformed"
_REASONS: dict[type[Exception], str] = {
    jwt.ExpiredSignatureError: "the token has expired",
    jwt.ImmatureSignatureError: "the token is not valid yet",
    jwt.InvalidAudienceError: "the token is for another audience",
    jwt.InvalidIssuerError: "the token is of another issuer",
}


class JWTAuthenticator:
    """For ``App(authenticate=...)``: who a signed token says that its bearer is, until it expires.

    Args:
        keys: a secret of 32 bytes or more (HS256), a public key or certificate in PEM (RS256, ES256), several of them
            while one takes over from another, a `JwksFile` or a `JwksUrl`.
        algorithms: those that may be used, of HS256, RS256 and ES256. A token does not choose: each key has one.
        audience: ``aud`` has to be this, or one of these. None: tokens that have one are refused, as they are for
            somebody else.
        issuer: ``iss`` has to be this, or one of these; None does not look.
        leeway: seconds by which the clocks of issuer and server may differ.
        user_claim: what `trioroom.Identity.user` is.
        info_claim: what `trioroom.Identity.info` is, such as ``name``; None: nothing is shown.
        require: claims that have to be there. Without ``exp`` among them there may be tokens that last for ever.
        allow_anonymous: whether peers without a token come in, as nobody. One that is wrong is refused all the same.
        max_token_bytes: longer ones are not looked at.
    Raises:
        ValueError: an algorithm is none of these, has no key, or is not the one of a key; or a key is too short.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        algorithms: Sequence[str],
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway: float = 10.0,
        user_claim: str = "sub",
        info_claim: str | None = None,
        require: Sequence[str] = ("exp",),
        allow_anonymous: bool = False,
        max_token_bytes: int = 8_192,
    ) -> None:
        self._algorithms = _check_algorithms(algorithms)
        self._keys = _open_keys(keys, self._algorithms)
        self._audience = audience
        self._issuer = issuer
        self._leeway = leeway
        self._user_claim = user_claim
        self._info_claim = info_claim
        self._require = list(require)
        self._allow_anonymous = allow_anonymous
        self._max_token_bytes = max_token_bytes

    async def __call__(self, credentials: Credentials) -> Identity | None:
        """Who shows this token.

        Raises:
            AuthenticationRefused: it is not good, or there is none.
            AuthenticationUnavailable: the keys cannot be had now.
        """
        await trio.lowlevel.checkpoint()
        if credentials.token is None:
            if self._allow_anonymous:
                return None
            raise AuthenticationRefused("there is no token")
        return self._identify(await self._verify(credentials.token))

    async def _verify(self, token: str) -> Mapping[str, Any]:
        """The claims of ``token``."""
        if len(token) > self._max_token_bytes:
            raise AuthenticationRefused(f"the token exceeds {self._max_token_bytes} bytes")
        algorithm, key_id = self._read_header(token)
        for key in await self._keys.find(algorithm, key_id):
            try:
                return jwt.decode(
                    token,
                    key.material,
                    algorithms=[algorithm],
                    audience=self._audience,
                    issuer=self._issuer,
                    leeway=self._leeway,
                    options={"require": self._require},
                )
            except jwt.InvalidSignatureError:
                continue
            except _UNREADABLE as exc:
                raise AuthenticationRefused(_reason(exc)) from exc
        raise AuthenticationRefused("the token is signed with no key that is known here")

    def _read_header(self, token: str) -> tuple[str, str | None]:
        """``alg``, one of ours, and ``kid``: all that is looked at before the signature."""
        try:
            header = jwt.get_unverified_header(token)
        except _UNREADABLE as exc:
            raise AuthenticationRefused(_MALFORMED) from exc
        algorithm, key_id = header.get("alg"), header.get("kid")
        if algorithm not in self._algorithms:
            raise AuthenticationRefused(f"the token has to be signed with {' or '.join(self._algorithms)}")
        if "crit" in header or not (key_id is None or isinstance(key_id, str)):  # RFC 7515 §4.1.11: we know none
            raise AuthenticationRefused(_MALFORMED)
        return algorithm, key_id

    def _identify(self, claims: Mapping[str, Any]) -> Identity:
        info = None if self._info_claim is None else claims.get(self._info_claim)
        try:
            expires_at = claims.get("exp")
            until = None if expires_at is None else float(expires_at) + self._leeway
            if until is not None and not math.isfinite(until):
                raise ValueError("exp is no time")
            return Identity(claims.get(self._user_claim), info, until, claims)  # type: ignore[arg-type]  # it looks itself
        except _UNREADABLE as exc:  # those of `float` and of `Identity` are among them
            raise AuthenticationRefused(f"{self._user_claim}, exp or info of the token is not as it should be") from exc


def _check_algorithms(algorithms: Sequence[str]) -> tuple[str, ...]:
    wrong = [name for name in algorithms if name not in ALGORITHMS] if not isinstance(algorithms, str) else [algorithms]
    if wrong or not algorithms:
        raise ValueError(f"algorithms={algorithms!r} has to be a list of some of {', '.join(ALGORITHMS)}")
    return tuple(algorithms)


def _open_keys(keys: Keys, algorithms: tuple[str, ...]) -> KeySource:
    if not isinstance(keys, str | bytes | Sequence):
        return keys
    parsed = [parse_key(key) for key in ([keys] if isinstance(keys, str | bytes) else keys)]
    for key in parsed:
        if key.algorithm not in algorithms:
            raise ValueError(f"a key is one for {key.algorithm}, which algorithms={algorithms} does not have")
    if idle := set(algorithms) - {key.algorithm for key in parsed}:
        raise ValueError(f"there is no key for {', '.join(sorted(idle))}; take it out of algorithms, or add one")
    return FixedKeys(parsed)


def _reason(error: Exception) -> str:
    """For the peer, in words of ours: those of others might repeat what is in the token."""
    if isinstance(error, jwt.MissingRequiredClaimError):
        return f"the token has no {error.claim}"
    return _REASONS.get(type(error), _MALFORMED)
