"""What is the same in the URLs of all brokers; the rest is with each of them."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trioroom.backplane.kafka import location as kafka
from trioroom.backplane.kafka.settings import KafkaSettings
from trioroom.backplane.nats import location as nats
from trioroom.backplane.nats.settings import NatsSettings
from trioroom.backplane.redis import location as redis
from trioroom.backplane.url import Endpoint, split_hosts, take_settings


def test_endpoint_reads_as_it_is_written() -> None:
    assert str(Endpoint("host", 1)) == "host:1"
    assert str(Endpoint("::1", 1)) == "[::1]:1"


@pytest.mark.parametrize(
    ("settings", "options", "text"),
    [
        (NatsSettings(), {"replicas": "9"}, "replicas=9 must be one of 1, 2, 3, 4, 5"),
        (NatsSettings(), {"storage": "disk"}, "storage='disk' must be one of 'file', 'memory'"),
        (NatsSettings(), {"timeout": "0"}, "'timeout' must be > 0: 0.0"),
        (KafkaSettings(), {"retention": "1"}, "retention=1 is shorter than publication_id_ttl="),
    ],
)
def test_setting_that_is_refused_is_told_in_one_sentence(
    settings: NatsSettings | KafkaSettings, options: dict[str, str], text: str
) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011  # the text is compared below
        take_settings(options, settings)
    assert str(refused.value).startswith(text)
    assert "validator" not in str(refused.value)


def test_host_that_is_left_out_between_others_is_not_taken_for_this_machine() -> None:
    assert split_hosts("") == [""]
    assert split_hosts("a,b") == ["a", "b"]
    for text in (",", "a,", ",a", "a,,b"):
        with pytest.raises(ValueError, match="a comma too many between hosts"):
            split_hosts(text)


# -- nothing secret in any message -----------------------------------------------------------------

Location = kafka.Location | nats.Location | redis.Location
SECRET = "hunter2"
REDIS = ["redis://", "rediss://", "unix://", "redis+sentinel://", "redis+cluster://"]
KINDS = st.sampled_from([*REDIS, "nats://", "nats+tls://", "kafka://", "kafka+tls://"])


def parse(url: str) -> Location:
    """By the broker that the scheme names; Redis for what names none."""
    parsing: Callable[[str], Location] = redis.parse_location
    if url.startswith(("nats", "kafka")):
        parsing = nats.parse_location if url.startswith("nats") else kafka.parse_location
    return parsing(url)


def password_of(location: Location) -> str:
    return str(location.access["sasl.password"] if isinstance(location, kafka.Location) else location.login.password)


def texts_of(exc: BaseException | None) -> str:
    """All that a traceback would show."""
    return "" if exc is None else f"{exc!s} {exc!r} {texts_of(exc.__cause__ or _context_of(exc))}"


def _context_of(exc: BaseException) -> BaseException | None:
    return None if exc.__suppress_context__ else exc.__context__


@given(
    KINDS,
    st.text(alphabet="/?#[]@:%&=\u2100\uff20 .x", max_size=4),
    st.sampled_from(["@host", "@h:x/y", "@host?x=1"]),
)
@example("redis://", "\u2100", "@host")  # NFKC makes a/c of it, which urllib refuses with the whole host part
@example("kafka://", "\u2100", "@host")
@example("redis://", "[]", "@host")
@example("nats://", "[", "@host")
@example("nats://", "?", "@host")
@example("kafka://", "/", "@host")
def test_password_that_is_written_wrongly_is_never_named(kind: str, special: str, rest: str) -> None:
    url = f"{kind}user:{SECRET}{special}{SECRET}{rest}" + ("/rooms" if kind in REDIS else "")
    try:
        location = parse(url)
    except ValueError as exc:
        assert SECRET not in texts_of(exc)  # noqa: PT017  # other text is a Location
    else:
        if not url.startswith("unix://") or "/" not in special:  # which then begins the socket's path
            assert SECRET not in repr(location)


@pytest.mark.parametrize("kind", ["redis://", "rediss+sentinel://", "redis+cluster://", "nats://", "kafka://"])
def test_password_is_not_named_when_the_host_was_forgotten(kind: str) -> None:
    with pytest.raises(ValueError, match="'user' is no host and port") as refused:
        parse(f"{kind}user:{SECRET}/rooms/1" if "sentinel" in kind else f"{kind}user:{SECRET}")
    assert SECRET not in texts_of(refused.value)


def test_half_of_a_password_without_a_host_is_not_taken_for_a_path_and_named() -> None:
    with pytest.raises(ValueError, match="the path is no number of a database"):
        parse("redis://user:1234/hunter2")


@given(KINDS, st.text(min_size=1), st.text(), st.text(max_size=20))
def test_password_is_named_in_no_error_and_no_repr(kind: str, user: str, password: str, rest: str) -> None:
    secret = f"{SECRET}{password}{SECRET}"
    try:
        location = parse(f"{kind}{quote(user, safe='')}:{quote(secret, safe='')}@host{rest}")
    except ValueError as exc:
        assert SECRET not in texts_of(exc)  # noqa: PT017  # other text is a Location
    else:
        assert password_of(location).startswith(secret)  # the rest may have an @ too
        assert SECRET not in repr(location)


@given(st.text(), st.sampled_from(["@host", "@a,b"]))
def test_token_of_nats_is_not_named(token: str, rest: str) -> None:
    secret = f"{SECRET}{token}{SECRET}"
    assert SECRET not in repr(parse(f"nats://{quote(secret, safe='')}{rest}"))


@given(st.one_of(st.text(), st.builds("{}{}".format, KINDS, st.text(alphabet="ah1@:/?#[]%,&=;.+ \\\n\0é"))))
def test_any_text_gives_a_location_or_a_value_error(text: str) -> None:
    try:
        location = parse(text)
    except ValueError:
        return
    assert isinstance(location, Location)
    assert all(isinstance(endpoint, Endpoint) for endpoint in location.endpoints)
