"""Settings as text."""

from __future__ import annotations

import math

import attrs
import pytest

from trioroom.cli.assignments import parse_settings
from trioroom.settings import Settings


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("max_message_bytes=1048576", 1_048_576),
        ("handshake_timeout=2.5", 2.5),
        ("handshake_timeout=inf", math.inf),
        ("compression=true", True),
        ("compression=false", False),
        ("allowed_origins=https://a.example,https://b.example", ("https://a.example", "https://b.example")),
        ("allowed_origins=none", None),
        ("trusted_proxies=", ()),
        ("trusted_proxies=10.0.0.0/8,::1", ("10.0.0.0/8", "::1")),
        ("allowed_origins=", ()),
        ("max_connections=500", 500),
        ("max_connections=none", None),
        ("max_connections_per_address=20", 20),
        ("max_connections_per_address=inf", math.inf),
        ("socket_send_bytes=32768", 32_768),
        ("socket_unsent_bytes=none", None),
        ("socket_receive_bytes=none", None),
        ("tcp_user_timeout=inf", math.inf),
        ("tcp_keepalive_interval=5", 5.0),
    ],
)
def test_value_reads_as_its_setting_wants_it(assignment: str, value: object) -> None:
    settings = parse_settings([assignment])
    assert getattr(settings, assignment.partition("=")[0]) == value


def test_every_setting_can_be_given_its_default() -> None:
    assignments = []
    for name, value in attrs.asdict(Settings()).items():
        text = str(value).lower() if value is None or isinstance(value, bool) else str(value)
        if isinstance(value, tuple):
            text = ",".join(value)
        assignments.append(f"{name}={text}")
    assert parse_settings(assignments) == Settings()


def test_last_one_counts() -> None:
    assert parse_settings(["backlog=1", "backlog=2"]).backlog == 2
    assert parse_settings([]) == Settings()


@pytest.mark.parametrize(
    ("assignment", "complaint"),
    [
        ("foo=1", "no setting is called 'foo'; there are: .*max_connections"),
        ("handshake_timeout", "handshake_timeout: could not convert"),
        ("max_headers=inf", "max_headers: invalid literal"),
        ("max_headers=none", "max_headers: invalid literal"),
        ("max_connections=0", "max_connections"),
        ("max_connections_per_address=0.5", "max_connections_per_address"),
        ("max_connections_per_address=nan", "max_connections_per_address"),
        ("compression=maybe", "compression: 'maybe' is neither true nor false"),
    ],
)
def test_what_cannot_be_is_an_error_that_names_the_setting(assignment: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_settings([assignment])
