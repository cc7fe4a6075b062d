"""What CONNECT says of who we are: user and password, a token, or a signature by a key that stays here.

See https://docs.nats.io/running-a-nats-service/configuration/securing_nats/auth_intro/nkey_auth.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from trioroom.backplane.nats.location import Login
from trioroom.backplane.supervision import LinkLost

if TYPE_CHECKING:
    from nkeys import KeyPair

_MAX_BYTES: Final = 1 << 16  # of a file that has a key
# In a .creds file, between lines of dashes that say which it is (https://docs.nats.io/using-nats/developer/connecting/creds).
_JWT: Final = re.compile(rb"-+BEGIN NATS USER JWT-+\s+(\S+)\s+-+END")
_SEED: Final = re.compile(rb"(?:^|\n)\s*(S[A-Z2-7]{50,})\s*(?:\n|$)")


def credentials_of(login: Login, nonce: str) -> dict[str, str]:
    """For CONNECT; files are read anew each time, as they may have been replaced.

    Raises:
        LinkLost: a file cannot be read or has no key; nothing of what it has is named.
    """
    told = {"user": login.user, "pass": login.password, "auth_token": login.token}
    known = {name: value for name, value in told.items() if value is not None}
    if login.nkey_file is not None:
        keys = _keys_in(_read(login.nkey_file), login.nkey_file)
        known |= {"nkey": keys.public_key.decode(), "sig": _sign(keys, nonce)}
    if login.credentials_file is not None:
        text = _read(login.credentials_file)
        if (jwt := _JWT.search(text)) is None:
            raise LinkLost(f"{login.credentials_file} has no user JWT; write credentials_file=, with a .creds file")
        known |= {"jwt": jwt[1].decode(), "sig": _sign(_keys_in(text, login.credentials_file), nonce)}
    return known


def advice_on(login: Login) -> str:
    """What to do when a server does not want it, which tells nobody why."""
    file = login.credentials_file
    if file is None:
        return "check the user and password, token or key that the URL names"
    expired = _expiry_in(_read(file))
    if expired is not None and expired < datetime.now(UTC):
        return f"the JWT in {file} has expired, on {expired:%Y-%m-%d at %H:%M:%S UTC}; replace the file"
    return f"the JWT in {file} is revoked, or of an account that the server does not have, or its key is another one"


def _expiry_in(text: bytes) -> datetime | None:
    """When the user's JWT of a ``.creds`` file ends, which is in the second of its three parts."""
    if (jwt := _JWT.search(text)) is None:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(jwt[1].split(b".")[1] + b"=="))
        return datetime.fromtimestamp(claims["exp"], UTC)
    except (LookupError, TypeError, ValueError, OverflowError, OSError, RecursionError):
        return None  # it has none, or is no JWT


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MAX_BYTES)
    except OSError as exc:
        raise LinkLost(f"cannot read {path}: {exc.strerror}") from exc


def _keys_in(text: bytes, path: str) -> KeyPair:
    import nkeys  # of the extra; `parse_location` has seen that it is there

    found = _SEED.search(text)
    try:
        if found is not None:
            return nkeys.from_seed(bytearray(found[1]))
    except Exception:  # its errors have no base of their own, and what they say may have the key
        pass
    raise LinkLost(f"{path} has no seed of a key, which is a line that begins with S")


def _sign(keys: KeyPair, nonce: str) -> str:
    return base64.urlsafe_b64encode(keys.sign(nonce.encode(errors="replace"))).rstrip(b"=").decode()
