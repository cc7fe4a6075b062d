from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trioroom._wire.http import HeadParser, Request, encode_head, encode_response
from trioroom.errors import HandshakeError

HEAD = b"GET /chat/a%20b?token=1 HTTP/1.1\r\nHost: example.com\r\nUpgrade: WebSocket\r\nX-A: one \r\nx-a: Two,\r\n\r\n"


def head(*lines: str, request_line: str = "GET / HTTP/1.1", host: str = "Host: a") -> bytes:
    return "\r\n".join([request_line, *([host] if host else []), *lines, "", ""]).encode("latin-1")


def parse(data: bytes, parser: HeadParser | None = None) -> Request:
    request = (parser or HeadParser()).feed(data)
    assert request is not None
    return request


def refusal(data: bytes, parser: HeadParser | None = None) -> HandshakeError:
    with pytest.raises(HandshakeError) as raised:
        (parser or HeadParser()).feed(data)
    return raised.value


def test_head_is_parsed() -> None:
    parser = HeadParser()
    assert parser.feed(HEAD) == Request(
        method="GET",
        target="/chat/a%20b?token=1",
        path="/chat/a b",
        query="token=1",
        headers=(("host", "example.com"), ("upgrade", "WebSocket"), ("x-a", "one"), ("x-a", "Two,")),
    )
    assert parser.trailing == b""


def test_headers_are_found_in_any_case() -> None:
    request = parse(HEAD)
    assert request.header("X-A") == "one"
    assert request.header("x-b") is None
    assert request.values("X-a") == ("one", "Two,")
    assert request.tokens("x-A") == ("one", "two")
    assert request.tokens("x-b") == ()


@pytest.mark.parametrize(
    ("upgrade", "wants"),
    [("h2c, WebSocket", True), ("websocket/13", False), ("websockets", False), ("", False)],
)
def test_upgrade_is_wanted_if_a_token_says_websocket(upgrade: str, wants: bool) -> None:
    assert parse(head(f"Upgrade: {upgrade}", "Connection: Upgrade")).wants_upgrade is wants


def test_request_without_upgrade_wants_none() -> None:
    assert not parse(head()).wants_upgrade


@given(trailing=st.binary(max_size=40), cuts=st.lists(st.integers(0, len(HEAD) + 40), max_size=12))
@example(trailing=b"\r\n\r\n", cuts=list(range(len(HEAD))))
@example(trailing=b" \n\x00", cuts=[])
def test_any_chunking_gives_the_same_request(trailing: bytes, cuts: list[int]) -> None:
    data = HEAD + trailing
    bounds = [0, *sorted(cuts), len(data)]
    parser = HeadParser()
    request = None
    for at, end in pairwise(bounds):
        if request is None:
            request = parser.feed(data[at:end])
            rest = data[end:]
    assert request == parse(HEAD)
    assert parser.trailing + rest == trailing


@given(st.binary() | st.text(alphabet="GET /:aH1.\r\n\t ").map(lambda text: text.encode()))
def test_any_bytes_are_a_request_a_part_of_one_or_refused(data: bytes) -> None:
    for junk in (data, b"GET / HTTP/1.1\r\n" + data, b"GET /" + data + b" HTTP/1.1\r\nHost: a\r\n\r\n"):
        try:
            assert isinstance(HeadParser().feed(junk), Request | None)
        except HandshakeError as exc:
            assert exc.status in (400, 414, 431, 505)  # noqa: PT017  # any outcome of these is right


def test_head_of_the_largest_size_passes_byte_by_byte_and_one_more_does_not() -> None:
    for size in (16_384, 16_385):
        filler = "X: " + "x" * (size - len(head("X: ")))
        data = head(filler)
        assert len(data) == size
        whole, parser = HeadParser(), HeadParser()
        if size == 16_384:
            expected = whole.feed(data + b"more" * 10_000)
            fed = [parser.feed(data[at : at + 1]) for at in range(size)]
            assert fed == [None] * (size - 1) + [expected]
        else:
            assert refusal(data, whole).status == 431
            assert [parser.feed(data[at : at + 1]) for at in range(16_383)] == [None] * 16_383
            assert refusal(data[16_383:16_384], parser).status == 431


def test_head_that_never_ends_is_refused_at_its_bound() -> None:
    exc = refusal(b"GET / HTTP/1.1\r\nX: " + b"x" * 100, HeadParser(max_head_bytes=100))
    assert exc.status == 431
    assert str(exc) == "request head exceeds max_head_bytes=100; send fewer or shorter headers"


@pytest.mark.parametrize("step", [1, 2, 3, 1000])
@pytest.mark.parametrize("end", [b"\r\nHost: a\r\n\r\n", b"x" * 100])
def test_request_line_is_bounded(step: int, end: bytes) -> None:
    line = b"GET /" + b"x" * 50 + b" HTTP/1.1"

    def feed(max_bytes: int) -> None:
        parser = HeadParser(max_request_line_bytes=max_bytes)
        data = line + end
        for at in range(0, len(data), step):
            parser.feed(data[at : at + step])

    if end.startswith(b"\r\n"):
        feed(len(line))
    with pytest.raises(HandshakeError, match="request line exceeds max_request_line_bytes=63; send") as raised:
        feed(len(line) - 1)
    assert raised.value.status == 414


def test_headers_are_counted() -> None:
    lines = ["X: 1"] * 3
    parse(head(*lines), HeadParser(max_headers=4))
    exc = refusal(head(*lines), HeadParser(max_headers=3))
    assert exc.status == 431
    assert str(exc) == "4 headers exceed max_headers=3; send fewer"


@pytest.mark.parametrize("step", [1, 1000])
@pytest.mark.parametrize(
    "data",
    [
        head("X: a\x0bb"),
        head("X: a\x0cb"),
        head("X: a\x1cb"),
        head("X: a\x1db"),
        head("X: a\x1eb"),
        head("X: a\x85b"),
        head("X: a\x00b"),
        head("X: a\x7fb"),
        head("X: a\rb"),
        head("X: a\nb"),
        head("X: a", " folded"),
        head("X: a", "\tfolded"),
        head("X : a"),
        head("X"),
        head(": a"),
        head("Ä: a"),
        head(" X: a", host=""),
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        head(request_line="GET  / HTTP/1.1"),
        head(request_line="GET / HTTP/1.1 "),
        head(request_line="GET /"),
        head(request_line="GET / http/1.1"),
        head(request_line="GET / RTSP/1.0"),
        head(request_line="NONSENSE / HTTP/1.1"),
        head(request_line="GET /ä HTTP/1.1"),
        head(request_line="GET /#part HTTP/1.1"),
        head(request_line="GET ?query HTTP/1.1"),
        head(request_line="GET chat HTTP/1.1"),
        head(request_line="GET /%ff HTTP/1.1"),
        head(request_line="CONNECT a:80 HTTP/1.1"),
    ],
)
def test_malformed_head_is_refused(data: bytes, step: int) -> None:
    parser = HeadParser()

    def feed() -> None:
        for at in range(0, len(data), step):
            assert parser.feed(data[at : at + step]) is None

    with pytest.raises(HandshakeError) as raised:
        feed()
    assert raised.value.status == 400


def test_bare_line_feed_is_refused_before_the_head_is_whole() -> None:
    assert str(refusal(b"GET / HTTP/1.1\n")) == (
        "byte 0x0a at 14 of the request head is out of place; end lines with CR LF, fold none and send no control bytes"
    )


def test_tls_on_a_plain_port_is_named() -> None:
    assert "TLS" in str(refusal(b"\x16"))


@pytest.mark.parametrize("version", ["2.0", "1.2", "0.9", "9.9"])
def test_other_version_of_http_is_refused(version: str) -> None:
    exc = refusal(head(request_line=f"GET / HTTP/{version}"))
    assert exc.status == 505
    assert str(exc) == f"HTTP/{version} is not spoken here; send the request as HTTP/1.1"


def test_http2_preface_is_refused_as_another_version() -> None:
    assert refusal(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").status == 505


def test_http_1_0_needs_no_host() -> None:
    request = parse(head(request_line="GET / HTTP/1.0", host=""))
    assert request.version == "1.0"
    assert request.headers == ()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "request has 0 Host headers; send exactly one"),
        (["Host: a", "host: a"], "request has 2 Host headers; send exactly one"),
        (["Host: a/b"], "Host 'a/b' is malformed; send it as host or host:port"),
        (["Host: user@a"], "Host 'user@a' is malformed; send it as host or host:port"),
        (["Host: a:b"], "Host 'a:b' is malformed; send it as host or host:port"),
        (["Host: a, b"], "Host 'a, b' is malformed; send it as host or host:port"),
        (["Host: a:123456"], "Host 'a:123456' is malformed; send it as host or host:port"),
    ],
)
def test_host_must_be_one_and_well_formed(lines: list[str], message: str) -> None:
    exc = refusal(head(*lines, host=""))
    assert exc.status == 400
    assert str(exc) == message


@pytest.mark.parametrize(
    "host", ["", "a", "a.example:8000", "127.0.0.1:80", "[::1]", "[::1]:8000", "xn--bcher-kva.example"]
)
def test_hosts_of_every_form_pass(host: str) -> None:
    assert parse(head(host=f"Host: {host}")).header("host") == host


@pytest.mark.parametrize("line", ["Content-Length: 1", "Transfer-Encoding: chunked", "Content-Length: 0, 5"])
def test_body_is_refused(line: str) -> None:
    assert refusal(head(line)).status == 400


def test_announced_body_is_named() -> None:
    exc = refusal(head("Content-Length: 5") + b"hello")
    assert str(exc) == "request announces a body and none is read here; send no body"


def test_body_of_no_bytes_passes() -> None:
    assert parse(head("Content-Length: 0")).method == "GET"


def test_body_of_another_method_is_left_to_who_refuses_that() -> None:
    assert parse(head("Content-Length: 5", request_line="POST / HTTP/1.1") + b"hello").method == "POST"


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a?b?c", "/a", "b?c"),
        ("/%C3%A4", "/ä", ""),
        ("/a%2Fb%3F?x=%20", "/a/b?", "x=%20"),
        ("/100%", "/100%", ""),
        ("//a", "//a", ""),
        ("http://a/b?c", "/b", "c"),
        ("HTTPS://a", "/", ""),
        ("http://a?b", "/", "b"),
        ("*", "*", ""),
    ],
)
def test_target_is_split(target: str, path: str, query: str) -> None:
    request = parse(head(request_line=f"OPTIONS {target} HTTP/1.1"))
    assert (request.target, request.path, request.query) == (target, path, query)


def test_values_keep_bytes_beyond_ascii() -> None:
    assert parse(head("X: \xa0\xe9 ")).header("x") == "\xa0\xe9"


def test_error_shows_no_more_than_a_part_of_what_was_sent() -> None:
    assert len(str(refusal(head(host="Host: " + "/" * 10_000)))) < 200


def test_connections_that_ask_alike_keep_one_request_without_the_key() -> None:
    first, second = (parse(head("User-Agent: a", f"Sec-WebSocket-Key: {key}")).to_keep() for key in "xy")
    assert first is second
    assert first.headers == (("host", "a"), ("user-agent", "a"))
    other = parse(head("User-Agent: b", "Sec-WebSocket-Key: x")).to_keep()
    assert other.header("user-agent") == "b"


@pytest.mark.parametrize(
    "own", [head("Cookie: a=1"), head("Authorization: a"), head(request_line="GET /?token=1 HTTP/1.1")]
)
def test_what_came_with_credentials_is_kept_for_its_connection_alone(own: bytes) -> None:
    first, second = parse(own).to_keep(), parse(own).to_keep()
    assert first == second == parse(own)
    assert first is not second


def test_request_shows_no_values_that_may_be_secret() -> None:
    request = parse(head("X-Api-Key: s3cret", "Authorization: Bearer s3cret", request_line="GET /a?x=s3cret HTTP/1.1"))
    assert repr(request) == "<Request GET '/a' with a query, headers host, x-api-key, authorization>"


def test_response_closes_and_forbids_guessing_its_type() -> None:
    assert encode_response(200, b"ok\n", headers=[("Cache-Control", "no-cache")]) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\nConnection: close\r\n"
        b"X-Content-Type-Options: nosniff\r\nCache-Control: no-cache\r\n\r\nok\n"
    )


def test_response_to_head_tells_the_length_of_the_body_it_leaves_out() -> None:
    response = encode_response(200, b"<p>", content_type="text/html", head_only=True)
    assert b"Content-Type: text/html\r\n" in response
    assert b"Content-Length: 3\r\n" in response
    assert response.endswith(b"\r\n\r\n")


def test_response_that_names_an_upgrade_lists_it_in_connection() -> None:
    response = encode_response(426, headers=[("Upgrade", "websocket")])
    assert b"\r\nConnection: close, Upgrade\r\n" in response
    assert b"\r\nUpgrade: websocket\r\n" in response


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nb", "a\rb", "\u2028"])
def test_header_that_would_break_the_head_is_an_error(value: str) -> None:
    with pytest.raises(ValueError, match=r"line break|latin-1"):
        encode_head(200, [("X", value)])
