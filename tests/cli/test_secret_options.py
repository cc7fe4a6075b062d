"""Secrets come from files too, and are never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import run
from trioroom.cli.secret_options import redact_url

KEY = "0123456789abcdef-only-for-tests"
SECRET = "s3cret"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("memory", "memory"),
        ("redis://redis.internal:6379/0", "redis://redis.internal:6379/0"),
        ("redis://:s3cret@redis", "redis://***@redis"),
        ("rediss://chat:s3cret@a,b:1/2?prefix=shop", "rediss://***@a,b:1/2?prefix=shop"),
        ("redis://redis?username=chat&password=s3cret", "redis://redis?username=chat&password=***"),
        ("redis+sentinel://s1,s2/mymaster?sentinel_password=s3cret", "redis+sentinel://s1,s2/mymaster?sentinel_password=***"),
        ("unix://:s3cret@/run/redis.sock", "unix://***@/run/redis.sock"),
        ("unix:///run/redis.sock?db=1", "unix:///run/redis.sock?db=1"),
        ("redis://:s3/cret@redis", "redis://***"),
        ("redis://:s3?cret@redis", "redis://***"),
        ("redis://:s3#cret@redis", "redis://***"),
        ("redis://:s3@cret@redis", "redis://***"),
        ("redis://[s3cret@redis", "redis://***"),
        ("chat:s3cret@redis", "***"),
        ("nats://nats.internal:4222", "nats://nats.internal:4222"),
        ("nats://s3cret@nats.internal", "nats://***@nats.internal"),
        ("nats+tls://chat:s3cret@a:4222,b?prefix=shop", "nats+tls://***@a:4222,b?prefix=shop"),
        ("nats://chat:s3cret@a,chat:s3cret@b", "nats://***"),
        ("nats://nats?token=s3cret&nkey_seed=s3cret", "nats://nats?token=***&nkey_seed=***"),
        ("nats://nats?Jwt=s3cret&credentials=/run/chat.creds", "nats://nats?Jwt=***&credentials=/run/chat.creds"),
        ("kafka://a:9092,b:9092?topic=shop", "kafka://a:9092,b:9092?topic=shop"),
        ("kafka+tls://chat:s3cret@a:9092,b", "kafka+tls://***@a:9092,b"),
        ("kafka+tls://a?sasl_password=s3cret&topic=shop", "kafka+tls://a?sasl_password=***&topic=shop"),
        ("kafka+tls://a?sasl.password=s3cret&oauthbearer.token=s3cret", "kafka+tls://a?sasl.password=***&oauthbearer.token=***"),
        ("kafka+tls://a?tls_key_pem=s3cret&tls_keyfile=/run/a.key", "kafka+tls://a?tls_key_pem=***&tls_keyfile=/run/a.key"),
        ("kafka://chat:s3/cret@a:9092", "kafka://***"),
    ],
)  # fmt: skip
def test_url_is_shown_without_what_opens_it(url: str, shown: str) -> None:
    assert redact_url(url) == shown
    assert "cret" not in redact_url(url)


def test_configuration_tells_that_there_are_secrets_and_not_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIOROOM_API_KEY", KEY)
    monkeypatch.setenv("TRIOROOM_BACKPLANE", "redis://:s3cret@127.0.0.1:1")
    output = run("demo", "--check-config").output
    assert "# api-key is set " in output
    assert 'backplane = "redis://***@127.0.0.1:1"' in output
    assert KEY not in output
    assert "s3cret" not in output


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_secret_may_be_in_a_file_that_a_variable_names(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "backplane"
    path.write_text(f"redis://redis.internal{end}")
    monkeypatch.setenv("TRIOROOM_BACKPLANE_FILE", str(path))
    lines = run("demo", "--check-config").output.splitlines()
    (line,) = [line for line in lines if line.startswith("backplane")]
    assert line.split() == ["backplane", "=", '"redis://redis.internal"', "#", "TRIOROOM_BACKPLANE_FILE"]


def test_file_with_a_secret_is_checked_as_the_secret_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_text("short-secret")
    monkeypatch.setenv("TRIOROOM_API_KEY_FILE", str(path))
    result = run("demo")
    assert result.exit_code == 2
    assert "Invalid value for TRIOROOM_API_KEY_FILE: an API key of 12 characters can be guessed" in result.output
    assert "short-secret" not in result.output


def test_unusable_file_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty, odd = tmp_path / "empty", tmp_path / "odd"
    empty.write_text("\n")
    odd.write_bytes(b"\xff" * 20)
    for path, complaint in (
        (tmp_path / "none", "No such file or directory"), (empty, "is empty"), (odd, "is no text in UTF-8"),
    ):  # fmt: skip
        monkeypatch.setenv("TRIOROOM_API_KEY_FILE", str(path))
        result = run("demo")
        assert result.exit_code == 2
        assert "Invalid value for TRIOROOM_API_KEY_FILE: " in result.output
        assert complaint in result.output


def test_secret_in_two_places_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    path.write_text(KEY)
    monkeypatch.setenv("TRIOROOM_API_KEY_FILE", str(path))
    monkeypatch.setenv("TRIOROOM_API_KEY", KEY)
    result = run("demo")
    assert result.exit_code == 2
    assert "is set, and so is TRIOROOM_API_KEY; leave one of them out" in result.output
    assert KEY not in result.output
