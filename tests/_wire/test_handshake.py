from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._wire.deflate import DeflateParameters
from trioroom._wire.handshake import Acceptance, Agreements, accept, accept_key
from trioroom._wire.http import HeadParser, Request
from trioroom.errors import HandshakeError

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ANSWER = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)
PROPER = {
    "host": "example.com",
    "upgrade": "websocket",
    "connection": "keep-alive, Upgrade",
    "sec-websocket-key": KEY,
    "sec-websocket-version": "13",
}


def request(*more: tuple[str, str], method: str = "GET", version: str = "1.1", **changed: str | None) -> Request:
    """A proper handshake, but for ``changed`` headers (None leaves one out) and ``more`` of them."""
    changes = {name.replace("_", "-"): value for name, value in changed.items()}
    headers = [(name, value) for name, value in {**PROPER, **changes}.items() if value is not None]
    return Request(method, "/", "/", "", (*headers, *more), version)


def refusal(wrong: Request, allowed_origins: Sequence[str] | None = None) -> HandshakeError:
    with pytest.raises(HandshakeError) as raised:
        accept(wrong, allowed_origins=allowed_origins)
    return raised.value


def test_key_of_the_rfc_is_answered_as_in_the_rfc() -> None:
    assert accept_key(KEY) == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_proper_handshake_is_accepted() -> None:
    assert accept(request()) == Acceptance(None, None, ANSWER + b"\r\n")


def test_tokens_are_read_in_any_case() -> None:
    assert accept(request(upgrade="h2c, WebSocket", connection="UPGRADE")).response == ANSWER + b"\r\n"


def test_other_method_is_refused_with_the_right_one() -> None:
    exc = refusal(request(method="POST"))
    assert (exc.status, exc.headers) == (405, (("Allow", "GET"),))
    assert str(exc) == "POST opens no WebSocket; send GET"


@pytest.mark.parametrize("upgrade", [None, "h2c", "websocket2"])
def test_missing_upgrade_is_asked_for(upgrade: str | None) -> None:
    exc = refusal(request(upgrade=upgrade))
    assert (exc.status, exc.headers) == (426, (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")))
    assert str(exc) == "this is a WebSocket; send Upgrade: websocket"


@pytest.mark.parametrize("version", [None, "8", "013", "", "13, 8"])
def test_other_version_is_refused_with_ours(version: str | None) -> None:
    exc = refusal(request(sec_websocket_version=version))
    assert (exc.status, exc.headers) == (426, (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")))
    assert str(exc) == f"Sec-WebSocket-Version is {version or ''!r}; send 13"


def test_two_versions_are_refused() -> None:
    assert refusal(request(("sec-websocket-version", "13"))).status == 426


def test_http_1_0_opens_no_websocket() -> None:
    exc = refusal(request(version="1.0"))
    assert exc.status == 505
    assert str(exc) == "HTTP/1.0 opens no WebSocket; send the request as HTTP/1.1"


@pytest.mark.parametrize("connection", [None, "close", "upgrades"])
def test_connection_must_name_the_upgrade(connection: str | None) -> None:
    exc = refusal(request(connection=connection))
    assert exc.status == 400
    assert str(exc) == f"Connection is {connection or ''!r}; send Connection: Upgrade"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "nonsense",
        KEY[:-1],
        KEY[:-2],
        KEY + "=",
        "AAAA" + KEY,
        KEY.replace("d", "*", 1),
        KEY.replace("d", "é", 1),
    ],
)
def test_key_that_is_not_16_bytes_in_base64_is_refused(key: str) -> None:
    exc = refusal(request(sec_websocket_key=key))
    assert exc.status == 400
    assert str(exc) == f"Sec-WebSocket-Key {key!r} is malformed; send 16 random bytes in base64"


def test_missing_and_second_keys_are_refused() -> None:
    missing = refusal(request(sec_websocket_key=None))
    second = refusal(request(("sec-websocket-key", KEY)))
    assert (missing.status, second.status) == (400, 400)
    assert str(missing) == "request has 0 Sec-WebSocket-Key headers; send exactly one"
    assert str(second) == "request has 2 Sec-WebSocket-Key headers; send exactly one"


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("example.com", "https://example.com"),
        ("example.com", "http://example.com"),
        ("Example.COM", "https://EXAMPLE.com"),
        ("example.com:443", "https://example.com"),
        ("example.com:80", "http://example.com"),
        ("example.com:", "https://example.com:443"),
        ("example.com:8000", "http://example.com:8000"),
        ("[::1]:8000", "http://[::1]:8000"),
        ("example.com", None),
    ],
)
def test_page_of_the_same_host_is_let_in(host: str, origin: str | None) -> None:
    accept(request(host=host, origin=origin))


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("example.com", "https://evil.example"),
        ("example.com", "https://example.com.evil.example"),
        ("example.com", "https://evil.example/example.com"),
        ("example.com", "https://example.com:8443"),
        ("example.com:80", "https://example.com"),
        ("example.com:8000", "http://example.com"),
        ("example.com", "app://example.com"),
        ("example.com", "https://user@example.com"),
        ("example.com", "null"),
        ("null", "null"),
        ("", "https://"),
        (None, "https://example.com"),
        ("example.com:" + "4" * 5000, "https://example.com:443"),
        ("example.com", "https://example.com:" + "4" * 5000),
    ],
)
def test_foreign_page_is_refused(host: str | None, origin: str) -> None:
    exc = refusal(request(host=host, origin=origin))
    assert exc.status == 403
    assert str(exc) == f"origin {origin[:80]!r} is not allowed; have it added to allowed_origins"


def test_two_origins_are_refused() -> None:
    twice = request(("origin", "https://example.com"), ("origin", "https://example.com"))
    assert refusal(twice).status == 403
    assert refusal(twice, ["https://example.com"]).status == 403


@pytest.mark.parametrize("origin", ["https://example.org", "https://EXAMPLE.org:443", "http://localhost:8000"])
def test_listed_origin_is_let_in(origin: str) -> None:
    accept(request(origin=origin), allowed_origins=["https://Example.org", "http://localhost:8000"])


@pytest.mark.parametrize("origin", ["http://example.org", "https://example.com", "https://example.org:444", "null"])
def test_unlisted_origin_is_refused_even_from_the_same_host(origin: str) -> None:
    assert refusal(request(origin=origin), ["https://example.org"]).status == 403


def test_empty_list_lets_in_only_what_is_no_browser() -> None:
    accept(request(), allowed_origins=[])
    assert refusal(request(origin="https://example.com"), []).status == 403


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "nonsense"])
def test_star_lets_any_origin_in(origin: str) -> None:
    accept(request(origin=origin), allowed_origins=["*"])


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["b, a"], "b"),
        (["x", "a , b"], "a"),
        (["x,y"], None),
        (["A"], None),
        ([", ,"], None),
        ([], None),
    ],
)
def test_first_choice_of_the_client_that_we_know_is_chosen(offered: list[str], chosen: str | None) -> None:
    acceptance = accept(request(*(("sec-websocket-protocol", value) for value in offered)), subprotocols=["a", "b"])
    assert acceptance.subprotocol == chosen
    header = f"Sec-WebSocket-Protocol: {chosen}\r\n".encode() if chosen else b""
    assert acceptance.response == ANSWER + header + b"\r\n"


def test_compression_is_agreed_on_only_when_switched_on() -> None:
    offer = request(sec_websocket_extensions="permessage-deflate; server_max_window_bits=10")
    assert accept(offer).deflate is None
    acceptance = accept(offer, deflate=True)
    assert acceptance.deflate == DeflateParameters(10, True)
    assert acceptance.response == (
        ANSWER + b"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; "
        b"client_no_context_takeover; server_max_window_bits=10\r\n\r\n"
    )


def test_declined_compression_leaves_no_header() -> None:
    acceptance = accept(request(sec_websocket_extensions="x-other"), deflate=True)
    assert acceptance == Acceptance(None, None, ANSWER + b"\r\n")


TEXT = st.text(alphabet=st.characters(max_codepoint=255))


@given(
    headers=st.dictionaries(
        st.sampled_from([*PROPER, "origin", "sec-websocket-protocol", "sec-websocket-extensions"]), TEXT
    ),
    allowed=st.none() | st.lists(TEXT),
)
def test_any_headers_are_accepted_or_refused(headers: dict[str, str], allowed: list[str] | None) -> None:
    wild = request(**{name.replace("-", "_"): value for name, value in headers.items()})
    try:
        acceptance = accept(wild, subprotocols=["a"], deflate=True, allowed_origins=allowed)
    except HandshakeError as exc:
        assert exc.status in (400, 403, 426)  # noqa: PT017  # either outcome is right
    else:
        assert acceptance.response.endswith(b"\r\n\r\n")


# -- peers that ask alike --------------------------------------------------------------------------

OTHER_KEY = "AAAAAAAAAAAAAAAAAAAAAA=="


def head(key: str = KEY, *lines: str, target: str = "/", key_name: str = "Sec-WebSocket-Key") -> bytes:
    """A browser's."""
    proper = ("Host: example.com", f"{key_name}: {key}", "Sec-WebSocket-Version: 13")
    upgrade = ("Upgrade: websocket", "Connection: Upgrade")
    return "\r\n".join([f"GET {target} HTTP/1.1", *proper, *upgrade, *lines, "", ""]).encode()


def agree(agreements: Agreements, head: bytes) -> tuple[Request, Acceptance]:
    """Read and accept ``head``, and have it noted."""
    request = HeadParser().feed(head)
    assert request is not None
    acceptance = accept(request, subprotocols=["a"], deflate=True)
    kept = agreements.to_keep(request, acceptance)
    agreements.note(head, kept, acceptance)
    return kept, acceptance


@pytest.mark.parametrize(
    "lines", [(), ("Sec-WebSocket-Protocol: b, a", "Sec-WebSocket-Extensions: permessage-deflate"), ("X: y",)]
)
@pytest.mark.parametrize("key_name", ["Sec-WebSocket-Key", "sec-websocket-key"])
def test_who_asks_like_another_gets_what_it_would_have_got(lines: tuple[str, ...], key_name: str) -> None:
    agreements = Agreements()
    kept, _ = agree(agreements, head(KEY, *lines, key_name=key_name))
    recalled = agreements.recall(head(OTHER_KEY, *lines, key_name=key_name))
    assert recalled == agree(Agreements(), head(OTHER_KEY, *lines, key_name=key_name))
    assert recalled[0] is kept


@pytest.mark.parametrize(
    "other",
    [
        head(OTHER_KEY, "X: y"),
        head(OTHER_KEY, target="/other"),
        head(OTHER_KEY[1:]),
        head(OTHER_KEY, f"Sec-WebSocket-Key: {KEY}"),
        head(OTHER_KEY)[:-2],
        head(OTHER_KEY) + b"\x81",
        b"",
    ],
)
def test_who_asks_otherwise_is_read_anew(other: bytes) -> None:
    agreements = Agreements()
    agree(agreements, head())
    assert agreements.recall(other) is None


@pytest.mark.parametrize(
    "own",
    [
        head(KEY, "Cookie: session=1"),
        head(KEY, "Authorization: Bearer secret"),
        head(target="/?token=secret"),
        head(KEY, "X: " + "y" * 2_048),
    ],
)
def test_heads_with_credentials_and_long_ones_are_not_kept(own: bytes) -> None:
    agreements = Agreements()
    agree(agreements, own)
    assert agreements.recall(own) is None


@pytest.mark.parametrize(
    "own",
    [
        head(KEY, "X-Api-Key: secret"),
        head(KEY, "Cookie: session=1"),
        head(KEY, "Authorization: Bearer secret"),
        head(KEY, "Proxy-Authorization: Basic secret"),
        head(target="/?token=secret"),
        head(KEY, "Sec-WebSocket-Protocol: a, secret"),
        head(KEY, "Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: secret"),
        head(KEY, "Sec-WebSocket-Protocol: secret"),
    ],
)
def test_heads_that_an_application_may_know_a_peer_by_are_not_kept(own: bytes) -> None:
    agreements = Agreements(authenticates=True)
    kept, _ = agree(agreements, own)
    assert agreements.recall(own) is None
    again, _ = agree(agreements, own)
    assert kept == again
    assert kept is not again


@pytest.mark.parametrize(
    "lines", [(), ("Sec-WebSocket-Protocol: a", "User-Agent: x", "Origin: http://example.com", "Pragma: no-cache")]
)
def test_heads_that_nobody_is_known_by_are_kept_where_an_application_looks_too(lines: tuple[str, ...]) -> None:
    agreements = Agreements(authenticates=True)
    kept, _ = agree(agreements, head(KEY, *lines))
    recalled = agreements.recall(head(OTHER_KEY, *lines))
    assert recalled is not None
    assert recalled[0] is kept


@pytest.mark.parametrize("line", [f"Sec-WebSocket-Key:{OTHER_KEY}", f"Sec-WebSocket-Key:  {OTHER_KEY}"])
def test_heads_whose_key_is_written_in_an_odd_way_are_read_each_time(line: str) -> None:
    odd = head(KEY).replace(f"Sec-WebSocket-Key: {KEY}".encode(), line.encode())
    agreements = Agreements()
    agree(agreements, odd)
    assert agreements.recall(odd) is None


def test_only_so_many_kinds_of_heads_are_kept() -> None:
    agreements = Agreements()
    heads = [head(target=f"/{number}") for number in range(300)]
    for one in heads:
        agree(agreements, one)
    kept = [one for one in heads if agreements.recall(one) is not None]
    assert 0 < len(kept) <= 256
    assert kept[-1] == heads[-1]


# -- what the peer connected to, when a proxy stands before us -------------------------------------


@pytest.mark.parametrize(
    ("scheme", "host", "origin", "allowed"),
    [
        ("https", None, "https://example.com", True),
        ("https", None, "http://example.com", False),
        ("http", None, "https://example.com", False),
        (None, None, "http://example.com", True),
        ("https", "shown.example", "https://shown.example", True),
        ("https", "shown.example", "https://example.com", False),
        (None, "shown.example:8443", "https://shown.example:8443", True),
        (None, "shown.example:8443", "https://shown.example", False),
    ],
)
def test_page_is_of_the_same_host_as_the_peer_sees_it(
    scheme: str | None, host: str | None, origin: str, allowed: bool
) -> None:
    try:
        accept(request(origin=origin), scheme=scheme, host=host)
    except HandshakeError as exc:
        assert exc.status == 403  # noqa: PT017  # either outcome is right, for some
        assert not allowed
    else:
        assert allowed


def test_listed_origins_count_whatever_the_scheme_is() -> None:
    accept(request(origin="http://a.example"), allowed_origins=["http://a.example"], scheme="https")
