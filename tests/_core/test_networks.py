from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.networks import Networks, parse_address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::0:1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", None),
        ("192.0.2.1:80", None),
        ("192.0.2", None),
        ("192.0.2.01", None),
        ("[::1]", None),
        (" ::1", None),
        ("1", None),
        ("", None),
        ("unknown", None),
    ],
)
def test_addresses_have_one_form(text: str, address: str | None) -> None:
    assert parse_address(text) == address


@given(st.text(max_size=50))
def test_any_text_is_an_address_or_none(text: str) -> None:
    address = parse_address(text)
    assert address is None or parse_address(address) == address


@given(st.ip_addresses())
def test_every_address_comes_back(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    parsed = parse_address(str(address))
    assert parsed is not None
    assert ipaddress.ip_address(parsed) in (address, getattr(address, "ipv4_mapped", None))


def test_networks_have_their_addresses_and_no_others() -> None:
    networks = Networks(["10.0.0.0/8", "192.0.2.1", "fd00::/8"])
    for _ in range(2):  # as it is found out, and as it is remembered
        for address in ("10.1.2.3", "::ffff:10.1.2.3", "192.0.2.1", "fd00::1"):
            assert address in networks
        for address in ("11.0.0.1", "192.0.2.2", "fe80::1%eth0", "::1", "::a00:1"):
            assert address not in networks
        assert None not in networks


@given(st.ip_addresses(), st.integers(0, 32), st.ip_addresses())
def test_networks_have_what_the_standard_library_says(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
    bits: int,
    other: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    network = ipaddress.ip_network(f"{other}/{bits}", strict=False)
    for one in (address, other):
        if getattr(one, "ipv4_mapped", None) is None:  # that one counts as IPv4
            assert (str(one) in Networks([str(network)])) is (one in network)


def test_no_networks_have_nobody() -> None:
    assert "10.0.0.1" not in Networks()
    assert None not in Networks()


def test_what_is_remembered_is_bounded() -> None:
    networks = Networks(["10.0.0.0/8"])
    for number in range(5_000):
        assert (str(ipaddress.IPv4Address(0x0AFFF800 + number)) in networks) is (number < 0x800)
    assert len(networks._known) <= 1_024
