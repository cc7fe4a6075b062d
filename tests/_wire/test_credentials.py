from __future__ import annotations

import pytest

from trioroom._wire.credentials import token_of
from trioroom._wire.http import HeadParser, Request
from trioroom.errors import HandshakeError


def request(target: str = "/", *headers: str) -> Request:
    head = "\r\n".join([f"GET {target} HTTP/1.1", "Host: test", *headers, "", ""])
    parsed = HeadParser().feed(head.encode())
    assert parsed is not None
    return parsed


@pytest.mark.parametrize(
    ("asked", "token"),
    [
        (request(), None),
        (request("/", "Authorization: Bearer abc.def"), "abc.def"),
        (request("/", "Authorization: bearer   abc "), "abc"),
        (request("/", "Authorization: Bearer"), None),
        (request("/", "Authorization: Basic YTpi"), None),
        (request("/", "Authorization: Bearertoken"), None),
        (request("/?token=abc"), "abc"),
        (request("/?a=1&token=a%2Eb%3D&c"), "a.b="),
        (request("/?token="), None),
        (request("/?tokens=abc&atoken=abc"), None),
        (request("/?token=query", "Authorization: Bearer header"), "header"),
        (request("/?token=query", "Authorization: Basic YTpi"), "query"),
    ],
)
def test_token_is_where_it_is_usual(asked: Request, token: str | None) -> None:
    assert token_of(asked) == token


@pytest.mark.parametrize(
    "asked",
    [
        request("/", "Authorization: Bearer one", "Authorization: Bearer two"),
        request("/", "Authorization: Basic YTpi", "Authorization: Bearer two"),
        request("/?token=one&token=two"),
    ],
)
def test_several_are_refused_lest_a_proxy_has_looked_at_another(asked: Request) -> None:
    with pytest.raises(HandshakeError, match="send one") as refused:
        token_of(asked)
    assert refused.value.status == 400
    assert "two" not in str(refused.value)
