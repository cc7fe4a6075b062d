"""``--check-config`` finds what a server would stumble over, and serves nobody."""

from __future__ import annotations

import socket
import sys
import tomllib
from pathlib import Path

import pytest
import trustme

from tests.backplane.processes import free_port
from tests.backplane.redis.servers import binaries, open_redis_server
from tests.cli.conftest import open_command, run
from trioroom.backplane.memory import MemoryBackplane
from trioroom.cli import check as checking

FINE = "The configuration is fine.\n"


@pytest.fixture
def certificates(tmp_path: Path) -> tuple[str, str, str]:
    """A certificate, its key, and the key of another one."""
    paths = []
    authority = trustme.CA()
    for name in ("ours", "other"):
        issued = authority.issue_cert("localhost")
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        paths += [str(tmp_path / f"{name}.pem"), str(tmp_path / f"{name}.key")]
    return paths[0], paths[1], paths[3]


def test_nothing_wrong_is_said_and_the_configuration_printed() -> None:
    result = run("demo", "--check-config")
    assert result.exit_code == 0
    assert result.stderr == FINE
    assert tomllib.loads(result.stdout)["port"] == 8000


def test_certificate_and_key_have_to_belong_together(certificates: tuple[str, str, str]) -> None:
    certificate, key, other = certificates
    assert run("demo", "--check-config", "--tls-cert", certificate, "--tls-key", key).exit_code == 0
    result = run("demo", "--check-config", "--tls-cert", certificate, "--tls-key", other)
    assert result.exit_code == 2
    assert "Error: cannot use" in result.stderr
    assert "MISMATCH" in result.stderr


def test_every_fault_is_found(certificates: tuple[str, str, str]) -> None:
    certificate, _, other = certificates
    result = run(
        "serve", "no_such_module_here:app", "--check-config", "--tls-cert", certificate, "--tls-key", other,
        "--workers", "3", "--port", "65534", "--port-per-worker", "--set", "backlog=0", "--log-level", "loud",
    )  # fmt: skip
    assert result.exit_code == 2
    assert FINE not in result.stderr
    for complaint in (
        "no module 'no_such_module_here'", "MISMATCH", "--workers 3 needs a backplane", "'backlog' must be > 0: 0",
        "--port 65534 leaves no port for 3 workers", "'loud' is not one of",
    ):  # fmt: skip
        assert complaint in result.stderr
    assert "# app is wrong" in result.stdout
    assert "# log-level is wrong" in result.stdout


def test_what_depends_on_a_wrong_value_is_not_told_besides(tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.touch()
    result = run("demo", "--check-config", "--tls-cert", "nowhere.pem", "--tls-key", str(key))
    assert result.exit_code == 2
    assert result.stderr.count("Error: ") == 1
    assert "nowhere.pem" in result.stderr


@pytest.mark.parametrize("source", ["import no_such_module_at_all", "1 / 0", "def"])
def test_application_that_cannot_be_imported_is_a_fault(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"broken_for_check_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    result = run("serve", name, "--check-config", "--port", "x")
    assert result.exit_code == 2
    assert f"importing '{name}' fails: " in result.stderr
    assert "'x' is not a valid integer" in result.stderr


# -- the backplane ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    ["pulsar://127.0.0.1", "redis://127.0.0.1:port", "redis://127.0.0.1?colour=red", "nats://127.0.0.1?colour=red"],
)
def test_url_that_is_none_is_a_fault(url: str) -> None:
    result = run("demo", "--check-config", "--backplane", url)
    assert result.exit_code == 2
    assert "Error: --backplane: " in result.stderr


@pytest.mark.parametrize(("scheme", "name"), [("redis", "Redis"), ("nats", "NATS")])
def test_broker_that_is_away_is_a_warning(scheme: str, name: str) -> None:
    result = run("demo", "--check-config", "--backplane", f"{scheme}://me:s3cret@127.0.0.1:{free_port()}")
    assert result.exit_code == 0
    assert f"Warning: cannot use the {name} backplane: " in result.stderr
    assert "refused; this would keep a server from starting" in result.stderr
    assert f'backplane = "{scheme}://***@127.0.0.1:' in result.stdout
    assert "s3cret" not in result.output


@pytest.mark.redis
async def test_broker_that_does_not_let_us_in_is_told() -> None:
    async with open_redis_server(binaries()["valkey"], "--requirepass", "right") as server:
        url = server.url.replace("://", "://:wrong-one@")
        async with open_command("demo", "--check-config", "--backplane", url) as command:
            assert await command.wait_ended() == 0
        assert "the server refused us" in command.output
        assert "wrong-one" not in command.output


@pytest.mark.redis
def test_embedded_one_is_tried() -> None:
    result = run("demo", "--check-config", "--backplane", "embedded", "--workers", "2")
    assert result.exit_code == 0
    assert result.stderr == FINE


def test_rooms_that_want_what_the_backplane_cannot_do_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of ours lacks anything, so one that does takes the place of memory."""

    class Forgetful(MemoryBackplane):
        history = None

    monkeypatch.setattr("trioroom.backplane.open.MemoryBackplane", Forgetful)
    result = run("demo", "--check-config")
    assert result.exit_code == 2
    assert "history needs a backplane that keeps publications" in result.stderr


def test_broker_that_never_answers_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_BACKPLANE_TIMEOUT", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}?connect_timeout=60"
        result = run("demo", "--check-config", "--backplane", url)
    assert result.exit_code == 0
    assert "Warning: no answer from the backplane within 0.1 s" in result.stderr
