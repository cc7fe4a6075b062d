"""What is believed of ``X-Forwarded-For`` and ``Forwarded``: nothing that a client could have put there itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.networks import Networks, parse_address
from trioroom._wire.forwarded import FORWARDED, Forwarded, Forwarding
from trioroom._wire.http import HeadParser, Request

PROXY = "10.0.0.1"
TRUSTED = Networks(["10.0.0.0/8", "fd00::/8"])
BY_LIST = Forwarding(TRUSTED)
BY_RFC = Forwarding(TRUSTED, FORWARDED)
SPOOFED = "203.0.113.66"


def request(*headers: tuple[str, str]) -> Request:
    return Request("GET", "/", "/", "", (("host", "inside"), *headers))


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        ([], PROXY),
        (["192.0.2.1"], "192.0.2.1"),
        (["2001:DB8::1"], "2001:db8::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["[2001:db8::1]:4711"], "2001:db8::1"),
        (["[2001:db8::1]"], "2001:db8::1"),
        ([f"{SPOOFED}, 192.0.2.1"], "192.0.2.1"),
        ([SPOOFED, "192.0.2.1"], "192.0.2.1"),
        ([f"{SPOOFED},192.0.2.1 ,10.0.0.2,fd00::1"], "192.0.2.1"),
        ([f"{SPOOFED}, unknown, 10.0.0.2"], "10.0.0.2"),
        (["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ([f"{SPOOFED}, "], PROXY),
        ([f"{SPOOFED}, unknown"], PROXY),
        ([f"{SPOOFED}, _hidden"], PROXY),
        ([f"{SPOOFED}, 192.0.2.1.5"], PROXY),
        ([f"{SPOOFED}, 192.0.2.1:"], PROXY),
        ([f"{SPOOFED}, 192.0.2.1:123456"], PROXY),
        ([f"{SPOOFED}, fe80::1%eth0"], PROXY),
        ([f"{SPOOFED}, 192.0.2.1 10.0.0.2"], PROXY),
        ([f'{SPOOFED}, "10.0.0.2"'], PROXY),
        ([""], PROXY),
        ([f"{SPOOFED}" + ", 10.0.0.2" * 40], "10.0.0.2"),
    ],
)
def test_rightmost_address_that_is_no_trusted_proxy_is_the_peer(lines: list[str], address: str) -> None:
    headers = [("x-forwarded-for", line) for line in lines]
    assert BY_LIST.read(request(*headers), PROXY) == Forwarded(address, None)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], Forwarded(PROXY, None)),
        (["for=192.0.2.1"], Forwarded("192.0.2.1", None)),
        (["For=192.0.2.1;Proto=HTTPS;Host=a.example"], Forwarded("192.0.2.1", "https", "a.example")),
        (
            ['for="192.0.2.1:4711"; proto="http" ;host="a.example:80"'],
            Forwarded("192.0.2.1", "http", "a.example:80"),
        ),
        (['for="[2001:db8::1]:4711"'], Forwarded("2001:db8::1", None)),
        (["for=192.0.2.1:4711"], Forwarded("192.0.2.1", None)),
        ([r'for="192.0.2.\1"'], Forwarded("192.0.2.1", None)),
        ([f"for={SPOOFED};proto=https, for=192.0.2.1;by=10.0.0.1"], Forwarded("192.0.2.1", None)),
        ([f"for={SPOOFED}", "for=192.0.2.1;proto=wss", "for=10.0.0.2;proto=http"], Forwarded("192.0.2.1", "https")),
        ([f"for={SPOOFED}, for=unknown, for=10.0.0.2;proto=https"], Forwarded("10.0.0.2", "https")),
        ([f"for={SPOOFED}, for=_hidden"], Forwarded(PROXY, None)),
        ([f"for={SPOOFED}, proto=https"], Forwarded(PROXY, None)),
        ([f'for={SPOOFED}, for="192.0.2.1'], Forwarded(PROXY, None)),
        ([f'x=", for={SPOOFED}', 'for=192.0.2.1;y="'], Forwarded(PROXY, None)),
        ([f'x=", for={SPOOFED}", for=192.0.2.1'], Forwarded("192.0.2.1", None)),
        ([f"for={SPOOFED};for=192.0.2.1"], Forwarded(PROXY, None)),
        ([f"for={SPOOFED}, for = 192.0.2.1"], Forwarded(PROXY, None)),
        ([f"for={SPOOFED} for=192.0.2.1"], Forwarded(PROXY, None)),
        ([f'for={SPOOFED};proto=gopher;host="a/b"'], Forwarded(SPOOFED, None)),
        (["for=192.0.2.1;x=" + "x" * 2_048], Forwarded(PROXY, None)),
        ([""], Forwarded(PROXY, None)),
    ],
)
def test_elements_of_rfc_7239_are_read_from_the_right(lines: list[str], expected: Forwarded) -> None:
    assert BY_RFC.read(request(*[("forwarded", line) for line in lines]), PROXY) == expected


def test_header_that_the_proxies_do_not_write_is_a_client_s_and_not_looked_at() -> None:
    both = request(("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.2"))
    assert BY_LIST.read(both, PROXY).address == "192.0.2.1"
    assert BY_RFC.read(both, PROXY).address == "192.0.2.2"


@pytest.mark.parametrize(
    ("proto", "host", "expected"),
    [
        ("https", "a.example", ("https", "a.example")),
        ("WSS", "a.example:8443", ("https", "a.example:8443")),
        ("http", "[::1]:80", ("http", "[::1]:80")),
        ("https, http", "a.example, inside", ("https", "a.example")),
        ("gopher", "a/b", (None, None)),
        ("", "", (None, None)),
    ],
)
def test_scheme_and_host_are_those_of_the_first_proxy(
    proto: str, host: str, expected: tuple[str | None, str | None]
) -> None:
    told = BY_LIST.read(request(("x-forwarded-proto", proto), ("x-forwarded-host", host)), PROXY)
    assert (told.scheme, told.host) == expected


@given(st.lists(st.text(alphabet=st.characters(max_codepoint=255), max_size=60), max_size=4))
def test_any_values_give_an_address_of_usual_form(values: list[str]) -> None:
    for forwarding in (BY_LIST, BY_RFC):
        told = forwarding.read(request(*[(forwarding.header, value) for value in values]), PROXY)
        assert told.address is not None
        assert parse_address(told.address) == told.address


@given(
    invented=st.text(alphabet='0123456789.,:;="[]abcdef for\\', max_size=60),
    client=st.ip_addresses().map(str).filter(lambda address: address not in TRUSTED),
)
def test_no_invention_of_a_client_hides_what_the_proxy_has_added(invented: str, client: str) -> None:
    told = BY_LIST.read(request(("x-forwarded-for", f"{invented}, {client}")), PROXY)
    assert told.address == parse_address(client)
    node = f'"[{client}]"' if ":" in client else client
    told = BY_RFC.read(request(("forwarded", f"{invented}, for={node}")), PROXY)
    assert told.address in (parse_address(client), PROXY), "malformed is malformed, and never believed"


# -- for peers that ask alike ----------------------------------------------------------------------


def head(*lines: str) -> bytes:
    return "\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, "X: y", "", ""]).encode()


def parse(data: bytes) -> Request:
    parsed = HeadParser().feed(data)
    assert parsed is not None
    return parsed


@pytest.mark.parametrize("name", ["X-Forwarded-For", "x-forwarded-for"])
def test_list_is_cut_out_and_tells_what_the_whole_head_does(name: str) -> None:
    value = f"{SPOOFED}, 192.0.2.1, 10.0.0.2"
    whole = head(f"{name}: {value}")
    rest, told = BY_LIST.cut(whole)
    assert (rest, told) == (head(), value)
    assert BY_LIST.was_cut(parse(whole), told)
    assert BY_LIST.client(PROXY, told) == BY_LIST.read(parse(whole), PROXY).address == "192.0.2.1"
    assert BY_LIST.strip(parse(whole)) == parse(head())


def test_proxy_that_tells_nothing_speaks_for_itself() -> None:
    assert BY_LIST.cut(head()) == (head(), None)
    assert BY_LIST.was_cut(parse(head()), None)
    assert BY_LIST.client(PROXY, None) == PROXY
    assert BY_LIST.strip(parse(head())) == parse(head())


@pytest.mark.parametrize(
    "lines",
    [
        ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"),
        ("X-Forwarded-For: 192.0.2.1", "x-forwarded-for:192.0.2.2"),
        ("X-Forwarded-For: unknown", "X-Forwarded-For: 192.0.2.2"),
        ("X-Forwarded-For:192.0.2.2",),
        ("X-Forwarded-For: unknown",),
        ("X-Forwarded-For: 192.0.2.2" + " " * 300,),
    ],
)
def test_what_is_not_all_cut_out_is_known_as_such(lines: tuple[str, ...]) -> None:
    """Else the head that is remembered would keep an address, and the next peer get it."""
    whole = head(*lines)
    _, told = BY_LIST.cut(whole)
    assert not BY_LIST.was_cut(parse(whole), told)


def test_what_comes_behind_the_head_is_no_header() -> None:
    """Else a client of a proxy that tells nothing could put it there, and have an address of its choice."""
    behind = head() + b"X-Forwarded-For: 192.0.2.2\r\n"
    assert BY_LIST.cut(behind) == (behind, None)


def test_elements_of_rfc_7239_are_not_cut_out() -> None:
    whole = head("Forwarded: for=192.0.2.1", "X-Forwarded-For: 192.0.2.2")
    assert BY_RFC.cut(whole) == (whole, None)
    assert not BY_RFC.was_cut(parse(whole), None)
    assert BY_RFC.strip(parse(whole)) == parse(head("X-Forwarded-For: 192.0.2.2"))
