"""Certificates of the command: what can be used, and what SIGHUP makes of new ones."""

from __future__ import annotations

import signal
import ssl
from pathlib import Path

import click
import pytest
import trio
import trustme

from tests.cli.conftest import DEADLINE, Command, open_command, run
from trioroom.cli.tls import TlsFiles, tls_files

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n"


class Pem:
    """Certificate and key as files that can be renewed."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.certificate = directory / "cert.pem"
        self.key = directory / "key.pem"
        self.options = ("--tls-cert", str(self.certificate), "--tls-key", str(self.key))
        self.renew("first.example")

    def issue(self, name: str) -> trustme.LeafCert:
        return self.authority.issue_cert(name, key_type=trustme.KeyType.ECDSA)

    def renew(self, name: str) -> None:
        issued = self.issue(name)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())

    def client(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context

    async def open(self, port: int, name: str) -> trio.SSLStream[trio.SocketStream]:
        """A connection to a server that shows a certificate for ``name``.

        Raises:
            trio.BrokenResourceError: it shows another one.
        """
        tcp = await trio.open_tcp_stream("127.0.0.1", port)
        stream = trio.SSLStream(tcp, self.client(), server_hostname=name, https_compatible=True)
        try:
            with trio.fail_after(DEADLINE):
                await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream

    async def shows(self, port: int, name: str) -> bool:
        try:
            await trio.aclose_forcefully(await self.open(port, name))
        except trio.BrokenResourceError:
            return False
        return True


@pytest.fixture
def pem(tmp_path: Path) -> Pem:
    return Pem(tmp_path)


async def hang_up(command: Command, pattern: str) -> str:
    """Send SIGHUP; what is then said that matches ``pattern``."""
    command.output = ""
    command.process.send_signal(signal.SIGHUP)
    return (await command.wait_said(pattern))[0]


def test_no_certificate_is_no_tls() -> None:
    assert tls_files(None, None) is None


def test_old_versions_of_tls_are_not_spoken(pem: Pem) -> None:
    assert TlsFiles(pem.certificate, pem.key).load().minimum_version == ssl.TLSVersion.TLSv1_2


def test_key_may_be_in_the_file_of_the_certificate(pem: Pem) -> None:
    both = pem.certificate.with_name("both.pem")
    both.write_bytes(pem.key.read_bytes() + pem.certificate.read_bytes())
    TlsFiles(both, None).load()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("no certificate", "NO_START_LINE|no start line|PEM lib|NO_CERTIFICATE"),
        ("no key", "NO_START_LINE|PEM lib|PEM_LIB|UNSUPPORTED|unsupported"),
        ("key of another", "KEY_VALUES_MISMATCH"),
        ("encrypted key", "the key is encrypted; store it without a passphrase"),
        ("file gone", "No such file or directory"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_line(pem: Pem, fault: str, reason: str) -> None:
    spoil(pem, fault)
    with pytest.raises(click.ClickException, match=reason) as raised:
        TlsFiles(pem.certificate, pem.key).load()
    message = raised.value.message
    assert message.startswith(f"cannot use {pem.certificate} with {pem.key} (")
    assert message.endswith("); give certificate and key as PEM")


def spoil(pem: Pem, fault: str) -> None:
    if fault == "no certificate":
        pem.certificate.write_text("none")
    elif fault == "no key":
        pem.key.write_text("none")
    elif fault == "key of another":
        pem.key.write_bytes(pem.issue("other.example").private_key_pem.bytes())
    elif fault == "encrypted key":
        pem.key.write_bytes(encrypted(pem.key.read_bytes()))
    else:
        pem.key.unlink()


def encrypted(key: bytes) -> bytes:
    from cryptography.hazmat.primitives import serialization

    loaded = serialization.load_pem_private_key(key, None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"passphrase"),
    )


def test_wrong_options_are_usage_errors_and_bad_files_are_not(pem: Pem) -> None:
    assert run("demo", "--tls-key", str(pem.key)).exit_code == 2
    spoil(pem, "key of another")
    bad = run("demo", *pem.options)
    assert bad.exit_code == 1
    assert bad.output.count("\n") == 1


async def test_new_connections_get_the_new_certificate_and_old_ones_stay(pem: Pem) -> None:
    async with open_command("demo", "--port", "0", *pem.options) as command:
        port = await command.wait_port()
        old = await pem.open(port, "first.example")
        pem.renew("second.example")
        assert await pem.shows(port, "first.example")
        await hang_up(command, r"INFO .*: new connections get the certificate that is in .*cert\.pem now")
        assert await pem.shows(port, "second.example")
        assert not await pem.shows(port, "first.example")
        await old.send_all(REQUEST)
        with trio.fail_after(DEADLINE):
            assert (await old.receive_some()).startswith(b"HTTP/1.1 200 ")
        await trio.aclose_forcefully(old)


@pytest.mark.parametrize("fault", ["no certificate", "no key", "key of another", "encrypted key", "file gone"])
async def test_bad_new_file_is_told_and_the_old_certificate_goes_on(pem: Pem, fault: str) -> None:
    async with open_command("demo", "--port", "0", *pem.options) as command:
        port = await command.wait_port()
        spoil(pem, fault)
        line = await hang_up(command, r"ERROR trioroom\.tls: .*\n")
        assert "; give certificate and key as PEM, and send SIGHUP again; the old certificate goes on serving" in line
        assert await pem.shows(port, "first.example")
        pem.renew("second.example")
        await hang_up(command, "INFO")
        assert await pem.shows(port, "second.example")


async def test_server_without_tls_has_nothing_to_read_again_and_goes_on() -> None:
    async with open_command("demo", "--port", "0") as command:
        port = await command.wait_port()
        await hang_up(command, "there is no certificate to read again; give one with --tls-cert")
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(REQUEST)
            with trio.fail_after(DEADLINE):
                assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        command.process.send_signal(signal.SIGTERM)
        assert await command.wait_ended() == 0
