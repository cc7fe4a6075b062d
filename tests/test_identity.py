from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from trioroom import Credentials, Identity
from trioroom._wire.http import Request

REQUEST = Request("GET", "/a?token=s3cret", "/a", "token=s3cret", (("x-api-key", "s3cret"),))


def make(**fields: Any) -> Identity:  # Any: values that no type checker would let through
    return Identity(**{"user": "ann", **fields})


def test_identity_needs_no_more_than_a_user() -> None:
    identity = Identity("ann")
    assert (identity.user, identity.info, identity.expires_at, dict(identity.claims)) == ("ann", None, None, {})


@pytest.mark.parametrize("user", ["", "x" * 129, None, 7])
def test_user_is_a_short_text(user: object) -> None:
    with pytest.raises((TypeError, ValueError), match="user"):
        make(user=user)


@pytest.mark.parametrize("info", [{"name": "Ann"}, [1, None], "text", None])
def test_info_is_any_small_json_value(info: object) -> None:
    assert make(info=info).info == info


def test_info_is_as_it_was_then() -> None:
    info = {"name": "Ann"}
    identity = Identity("ann", info)
    info["name"] = "Bob"
    assert identity.info == {"name": "Ann"}


def test_info_of_any_size_is_refused() -> None:
    with pytest.raises(ValueError, match="info of"):
        make(info="x" * 2_000)


@pytest.mark.parametrize("expires_at", [0, 1.5, math.inf, None])
def test_end_is_a_time_or_none(expires_at: float | None) -> None:
    assert make(expires_at=expires_at).expires_at == expires_at


@pytest.mark.parametrize("expires_at", [math.nan, "1", True])
def test_end_that_is_no_time_is_refused(expires_at: object) -> None:
    with pytest.raises(TypeError, match="expires_at"):
        make(expires_at=expires_at)


def test_claims_are_read_only_and_its_own() -> None:
    claims: dict[str, object] = {"role": "admin"}
    identity = Identity("ann", claims=claims)
    claims["role"] = "guest"
    assert identity.claims == {"role": "admin"}
    with pytest.raises(TypeError):
        identity.claims["role"] = "guest"  # type: ignore[index]  # which is what is tested
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        identity.user = "bob"  # type: ignore[misc]  # as above


def test_identities_that_are_alike_are_equal_and_can_be_put_into_a_set() -> None:
    assert len({make(claims={"a": 1}), make(claims={"a": 1}), make(info=1)}) == 2


def test_no_repr_shows_a_secret() -> None:
    shown = repr([Credentials(REQUEST, "s3cret"), make(info="s3cret", claims={"phone": "s3cret"}), REQUEST])
    assert "s3cret" not in shown
    assert "x-api-key" in shown
