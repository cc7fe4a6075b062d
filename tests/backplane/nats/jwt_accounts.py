"""An operator who signs accounts, which sign users: what `nsc` writes, made by hand.

See https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/jwt.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Final

import nkeys

_HEADER: Final = {"typ": "JWT", "alg": "ed25519-nkey"}
_UNBOUNDED: Final = dict.fromkeys(("subs", "data", "payload"), -1)
_JETSTREAM: Final = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
_ACCOUNT: Final = {**_UNBOUNDED, **dict.fromkeys(("imports", "exports", "conn", "leaf"), -1), "wildcards": True}


class Signer:
    """A key, and what it says of others."""

    def __init__(self, prefix: int) -> None:
        self.seed: bytes = nkeys.encode_seed(secrets.token_bytes(32), prefix)
        self._keys = nkeys.from_seed(bytearray(self.seed))
        self.public: str = self._keys.public_key.decode()

    def sign(self, subject: str, claims: Mapping[str, object], expires: float | None = None) -> str:
        """A JWT of ``subject``."""
        body = {
            "jti": secrets.token_hex(16),
            "iat": int(time.time()) - 3_600,
            "iss": self.public,
            "sub": subject,
            "nats": {**claims, "version": 2},
            **({} if expires is None else {"exp": int(expires)}),
        }
        text = f"{_encode(json.dumps(_HEADER).encode())}.{_encode(json.dumps(body).encode())}"
        return f"{text}.{_encode(self._keys.sign(text.encode()))}"


Operator = partial(Signer, nkeys.PREFIX_BYTE_OPERATOR)
Account = partial(Signer, nkeys.PREFIX_BYTE_ACCOUNT)
User = partial(Signer, nkeys.PREFIX_BYTE_USER)


def configuration(operator: Signer, account: Signer, revoked: Iterable[Signer] = (), *, jetstream: bool = True) -> str:
    """Of a server of ``operator`` that has ``account`` in its memory.

    Args:
        revoked: users whose JWTs of before now are of no use.
        jetstream: the account may have streams.
    """
    limits = _ACCOUNT | _JETSTREAM if jetstream else _ACCOUNT
    revocations = {user.public: int(time.time()) for user in revoked}
    system = Account()
    told = {
        account.public: {"type": "account", "limits": limits, "revocations": revocations},
        system.public: {"type": "account", "limits": _ACCOUNT},
    }
    preloaded = "\n".join(f"{key}: {operator.sign(key, claims)}" for key, claims in told.items())
    return (
        f"operator: {operator.sign(operator.public, {'type': 'operator', 'system_account': system.public})}\n"
        f"resolver: MEMORY\nresolver_preload {{\n{preloaded}\n}}\n"
    )


def credentials(account: Signer, user: Signer, expires: float | None = None) -> str:
    """A ``.creds`` file with which ``user`` of ``account`` logs in."""
    jwt = account.sign(user.public, {"type": "user", **_UNBOUNDED, "pub": {}, "sub": {}}, expires)
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "************************* IMPORTANT *************************\n"
        "NKEY Seed printed below can be used to sign and prove identity.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{user.seed.decode()}\n------END USER NKEY SEED------\n"
    )


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
