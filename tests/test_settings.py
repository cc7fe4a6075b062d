from __future__ import annotations

import math
from typing import Any

import attrs
import pytest

from trioroom.settings import Settings

DEFAULTS: dict[str, object] = {
    "handshake_timeout": 10.0,
    "auth_timeout": 10.0,
    "max_head_bytes": 16_384,
    "max_headers": 64,
    "max_request_bytes": 1_048_576,
    "public_metrics": False,
    "max_message_bytes": 65_536,
    "max_fragments": 64,
    "max_message_rate": 1_000.0,
    "message_burst": 1_000,
    "max_control_rate": 10.0,
    "control_burst": 100,
    "max_outbox_bytes": 1_048_576,
    "max_outbox_messages": 4_096,
    "max_rooms_per_connection": 128,
    "max_calls_per_connection": 16,
    "max_room_name_bytes": 255,
    "room_name_pattern": ".*",
    "max_members_per_room": 100_000,
    "room_channel_size": 1_024,
    "room_channel_bytes": 4_194_304,
    "max_queued_bytes": 268_435_456.0,
    "publish_timeout": 10.0,
    "ping_interval": 25.0,
    "ping_timeout": 10.0,
    "write_timeout": 20.0,
    "close_timeout": 5.0,
    "leave_timeout": 5.0,
    "drain_delay": 0.0,
    "drain_timeout": 10.0,
    "reconnect_rate": 1_000.0,
    "compression": False,
    "allowed_origins": None,
    "backlog": 4_096,
    "max_connections": None,
    "max_connections_per_address": math.inf,
    "max_handshake_rate": math.inf,
    "handshake_burst": 1_000,
    "max_handshake_rate_per_address": math.inf,
    "handshake_burst_per_address": 100,
    "trusted_proxies": (),
    "forwarded_header": "X-Forwarded-For",
    "proxy_protocol": False,
    "socket_unsent_bytes": 16_384,
    "socket_send_bytes": 65_536,
    "socket_receive_bytes": 65_536,
    "tcp_user_timeout": 30.0,
    "tcp_keepalive_interval": 60.0,
}
OPTIONAL = ["max_connections", "socket_unsent_bytes", "socket_send_bytes", "socket_receive_bytes"]
TIMES = [name for name in DEFAULTS if name.endswith(("_timeout", "_interval"))]
COUNTS = [name for name, value in DEFAULTS.items() if type(value) is int and name not in OPTIONAL]
DELAYS = ["drain_delay"]
AMOUNTS = [name for name, value in DEFAULTS.items() if type(value) is float and name not in TIMES + DELAYS]
"""What can be switched off, and rates."""
LIMITS = [*TIMES, *COUNTS, *AMOUNTS]


def make_settings(**changes: Any) -> Settings:  # Any: values that no type checker would let through
    return Settings(**changes)


def test_defaults() -> None:
    assert attrs.asdict(Settings()) == DEFAULTS


def test_times_and_counts_are_told_by_their_names() -> None:
    assert {type(DEFAULTS[name]) for name in TIMES} == {float}
    assert {name for name in DEFAULTS if name.startswith("max_")} <= {*COUNTS, *AMOUNTS, *OPTIONAL}


@pytest.mark.parametrize("name", LIMITS + OPTIONAL)
@pytest.mark.parametrize("value", [0, -1])
def test_limit_that_is_not_positive_is_refused(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        make_settings(**{name: value})


@pytest.mark.parametrize("name", TIMES)
@pytest.mark.parametrize("value", [-0.1, math.nan, -math.inf])
def test_time_that_does_not_pass_is_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        make_settings(**{name: value})


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("value", [None, "10"])
def test_limit_that_is_no_number_is_refused(name: str, value: object) -> None:
    with pytest.raises(TypeError):
        make_settings(**{name: value})


@pytest.mark.parametrize("value", [1.5, math.inf, math.nan])
def test_count_that_is_no_whole_number_is_refused(value: float) -> None:
    """Infinity switches deadlines off, not bounds: zlib, listen(2) and slices want an integer when it is too late."""
    accepted = []
    for name in COUNTS:
        try:
            make_settings(**{name: value})
        except (TypeError, ValueError):
            continue
        accepted.append(name)
    assert accepted == []


@pytest.mark.parametrize("name", OPTIONAL)
def test_count_may_be_left_to_the_system(name: str) -> None:
    assert getattr(make_settings(**{name: None}), name) is None
    with pytest.raises(TypeError, match=name):
        make_settings(**{name: math.inf})


@pytest.mark.parametrize("name", ["max_connections_per_address"])
def test_bound_may_be_switched_off_and_is_else_a_whole_number(name: str) -> None:
    assert getattr(make_settings(**{name: math.inf}), name) == math.inf
    assert getattr(make_settings(**{name: 3.0}), name) == 3
    for value in (1.5, math.nan, -math.inf):
        with pytest.raises(ValueError, match=name):
            make_settings(**{name: value})


@pytest.mark.parametrize("name", COUNTS + OPTIONAL)
def test_smallest_count_is_one(name: str) -> None:
    assert getattr(make_settings(**{name: 1}), name) == 1


@pytest.mark.parametrize("name", sorted(set(TIMES) - {"ping_interval"}))
def test_time_may_be_a_fraction_of_a_second(name: str) -> None:
    assert getattr(make_settings(**{name: 0.001}), name) == 0.001


@pytest.mark.parametrize("name", sorted(set(TIMES) - {"ping_timeout"}))
def test_deadline_may_be_switched_off(name: str) -> None:
    assert getattr(make_settings(**{name: math.inf}), name) == math.inf


@pytest.mark.parametrize("name", DELAYS)
def test_delay_may_be_none_at_all_and_ends(name: str) -> None:
    assert getattr(make_settings(**{name: 0}), name) == 0
    for value in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=name):
            make_settings(**{name: value})


@pytest.mark.parametrize("name", AMOUNTS)
def test_rate_and_what_is_for_all_may_be_switched_off(name: str) -> None:
    assert getattr(make_settings(**{name: math.inf}), name) == math.inf


@pytest.mark.parametrize("pattern", ["(", "[a-", None, 1])
def test_pattern_that_is_no_regular_expression_is_refused(pattern: object) -> None:
    with pytest.raises(ValueError, match=r"room_name_pattern=.* is no regular expression"):
        make_settings(room_name_pattern=pattern)


@pytest.mark.parametrize(("timeout", "interval"), [(9.9, 10.0), (0.1, 0.2), (30.0, math.inf), (math.inf, math.inf)])
def test_verdict_on_a_ping_may_come_any_time_before_the_next_ping(timeout: float, interval: float) -> None:
    settings = Settings(ping_timeout=timeout, ping_interval=interval)
    assert (settings.ping_timeout, settings.ping_interval) == (timeout, interval)


@pytest.mark.parametrize(("timeout", "interval"), [(10.0, 10.0), (10.1, 10.0), (math.inf, 25.0)])
def test_ping_timeout_must_be_below_ping_interval(timeout: float, interval: float) -> None:
    with pytest.raises(ValueError, match="ping") as raised:
        Settings(ping_timeout=timeout, ping_interval=interval)
    assert str(raised.value) == (
        f"ping_timeout={timeout:g} must be below ping_interval={interval:g}: the verdict on a ping comes before the "
        "next one"
    )


def test_default_ping_timeout_counts_too() -> None:
    with pytest.raises(ValueError, match="ping_timeout=10 must be below ping_interval=5"):
        Settings(ping_interval=5.0)


@pytest.mark.parametrize("origins", ["https://a.example", "https://*.a.example", "*"])
def test_origins_given_as_one_string_are_refused(origins: str) -> None:
    """A string is a sequence too: its characters would be the origins, and a star in it lets everyone in."""
    with pytest.raises((TypeError, ValueError), match="allowed_origins"):
        make_settings(allowed_origins=origins)


@pytest.mark.parametrize("make", [list, tuple, set, frozenset, iter])
def test_texts_may_come_in_whatever_has_items(make: type) -> None:
    settings = make_settings(allowed_origins=make(["https://a.example"]), trusted_proxies=make(["10.0.0.0/8"]))
    assert settings == Settings(allowed_origins=("https://a.example",), trusted_proxies=("10.0.0.0/8",))
    assert hash(settings) == hash(attrs.evolve(settings))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"allowed_origins": "*"}, "allowed_origins='*' must be several texts; write allowed_origins=['*']"),
        ({"trusted_proxies": None}, "trusted_proxies=None must be several texts; write trusted_proxies=['...', '...']"),
        ({"allowed_origins": [1]}, "allowed_origins=(1,) must be several texts; write allowed_origins=['...', '...']"),
        ({"backlog": "10"}, "backlog='10' must be a whole number"),
        ({"backlog": True}, "backlog=True must be a whole number"),
        ({"max_connections": 1.5}, "max_connections=1.5 must be a whole number"),
        ({"ping_timeout": "5"}, "ping_timeout='5' must be a number"),
        ({"drain_delay": None}, "drain_delay=None must be a number"),
        ({"max_connections_per_address": "3"}, "max_connections_per_address='3' must be a number"),
        ({"compression": "false"}, "compression='false' must be True or False"),
        ({"public_metrics": "false"}, "public_metrics='false' must be True or False"),
        ({"forwarded_header": "x"}, "forwarded_header='x' must be one of 'X-Forwarded-For', 'Forwarded'"),
    ],
)
def test_what_is_wrong_is_told_with_what_to_write(changes: dict[str, object], told: str) -> None:
    with pytest.raises((TypeError, ValueError)) as raised:
        make_settings(**changes)
    assert str(raised.value) == told


@pytest.mark.parametrize("origins", [None, (), ("*",), ("https://a.example", "http://localhost:8000")])
def test_origins_are_kept(origins: tuple[str, ...] | None) -> None:
    assert Settings(allowed_origins=origins).allowed_origins == origins


def test_compression_can_be_switched_on() -> None:
    assert Settings(compression=True).compression is True


def test_settings_are_given_by_name_and_stay_as_they_are() -> None:
    with pytest.raises(TypeError):
        Settings(5.0)  # type: ignore[call-arg]  # which is what is tested
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Settings().backlog = 1  # type: ignore[misc]  # as above


def test_changed_copy_is_checked_again() -> None:
    with pytest.raises(ValueError, match="ping_timeout"):
        attrs.evolve(Settings(), ping_interval=5.0)


@pytest.mark.parametrize("networks", [(), ("10.0.0.0/8", "fd00::/8"), ("192.0.2.1", "2001:db8::1")])
def test_proxies_are_networks_or_addresses(networks: tuple[str, ...]) -> None:
    assert Settings(trusted_proxies=networks).trusted_proxies == networks


@pytest.mark.parametrize("network", ["*", "", "10.0.0.1/8", "10.0.0.0/33", "proxy.example", "10.0.0.0/8 "])
def test_proxy_that_is_no_network_is_refused(network: str) -> None:
    with pytest.raises(ValueError, match=r"trusted_proxies='.*' is no network such as 10\.0\.0\.0/8: "):
        Settings(trusted_proxies=(network,))


def test_proxies_given_as_one_string_are_refused() -> None:
    with pytest.raises(TypeError, match="trusted_proxies"):
        make_settings(trusted_proxies="10.0.0.0/8")


@pytest.mark.parametrize("header", ["X-Real-IP", "x-forwarded-for", "", None])
def test_header_that_proxies_tell_by_is_one_of_two(header: object) -> None:
    with pytest.raises(ValueError, match="forwarded_header"):
        make_settings(forwarded_header=header)


def test_proxy_protocol_without_proxies_is_refused() -> None:
    assert Settings(proxy_protocol=True, trusted_proxies=("10.0.0.1",)).proxy_protocol
    with pytest.raises(ValueError, match="proxy_protocol=True needs trusted_proxies: without them nobody may connect"):
        Settings(proxy_protocol=True)
