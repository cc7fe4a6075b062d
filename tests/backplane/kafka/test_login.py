"""TLS to a real broker, by a proxy before it, and what is told when it does not want us.

That a password is taken is for a broker that has one to be tried on: tansu keeps none in memory, and refuses all.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trustme

from tests.backplane import logins
from tests.backplane.kafka.brokers import PROMPT
from tests.backplane.kafka.servers import TansuServer, open_tansu
from tests.backplane.processes import free_port
from tests.backplane.proxy import open_proxy

pytestmark = pytest.mark.kafka
CLOSED = (
    "Disconnected: .*; a broker that closes connections at once may want TLS, kafka\\+tls://, a certificate, ssl_cert"
)
UNVERIFIED = (
    "certificate verify failed: .* ssl_ca_certs is .*; name who has signed its certificate by ssl_ca_certs, and"
)


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """Its certificate is in ``ca.pem``, and one of a client that it has signed, with its key, in ``client.pem``."""
    made = trustme.CA()
    made.cert_pem.write_to_path(tmp_path / "ca.pem")
    made.issue_cert("client").private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    return made


@asynccontextmanager
async def open_with_tls(authority: trustme.CA, name: str = "127.0.0.1", *, mutual: bool = False) -> AsyncIterator[str]:
    """The URL of a broker whose certificate has ``name``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(name).configure_cert(context)
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    port = free_port()
    async with open_proxy(port, context) as proxy, open_tansu(port, proxy.port):
        yield f"kafka+tls://127.0.0.1:{proxy.port}?{PROMPT}&partitions=1"


passes_on = partial(logins.passes_on, within=10)
refuses = partial(logins.refuses, within=10)


async def test_broker_with_tls_is_verified(authority: trustme.CA, tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    async with open_with_tls(authority) as url:
        await passes_on(f"{url}&ssl_ca_certs={tmp_path}/ca.pem")
        await passes_on(f"{url}&ssl_cert_reqs=none")
        await refuses(f"{url}&ssl_ca_certs={tmp_path}/other.pem", UNVERIFIED)
        await refuses(url, UNVERIFIED)
        await refuses(url.replace("kafka+tls", "kafka"), CLOSED)


async def test_name_of_the_broker_is_in_its_certificate(authority: trustme.CA, tmp_path: Path) -> None:
    async with open_with_tls(authority, "kafka.example") as url:
        await refuses(f"{url}&ssl_ca_certs={tmp_path}/ca.pem", UNVERIFIED)
        await passes_on(f"{url}&ssl_ca_certs={tmp_path}/ca.pem&ssl_check_hostname=false")


async def test_broker_that_wants_a_certificate_of_ours(authority: trustme.CA, tmp_path: Path) -> None:
    trustme.CA().issue_cert("client").private_key_and_cert_chain_pem.write_to_path(tmp_path / "stranger.pem")
    async with open_with_tls(authority, mutual=True) as plain:
        url = f"{plain}&ssl_ca_certs={tmp_path}/ca.pem"
        await passes_on(f"{url}&ssl_certfile={tmp_path}/client.pem&ssl_keyfile={tmp_path}/client.pem")
        await refuses(url, CLOSED)
        await refuses(f"{url}&ssl_certfile={tmp_path}/stranger.pem&ssl_keyfile={tmp_path}/stranger.pem", CLOSED)


@pytest.mark.parametrize("option", ["ssl_ca_certs", "ssl_certfile"])
async def test_files_that_are_not_there_are_told_by_the_option_that_names_them(option: str) -> None:
    await refuses(f"kafka+tls://127.0.0.1:1?{option}=missing.pem", f"{option} failed")


@pytest.fixture
async def locked() -> AsyncIterator[TansuServer]:
    """It wants a password, and has none that it would take."""
    async with open_tansu(None, None, "--authentication") as server:
        yield server


@pytest.mark.parametrize(
    ("mechanism", "why"),
    [
        ("PLAIN", "SASL PLAIN mechanism handshake failed: .*"),
        ("SCRAM-SHA-256", "SASL SCRAM authentication failed: broker responded with unknown-user .*"),
        ("SCRAM-SHA-512", "SASL SCRAM authentication failed: broker responded with unknown-user .*"),
    ],
)
async def test_password_that_is_refused(mechanism: str, why: str, locked: TansuServer) -> None:
    url = f"kafka://me:sesame@127.0.0.1:{locked.port}?sasl_mechanism={mechanism}"
    await refuses(url, f"{why}; check user, password and sasl_mechanism$")


async def test_broker_that_wants_a_password_and_is_given_none(locked: TansuServer) -> None:
    await refuses(locked.url, CLOSED)
