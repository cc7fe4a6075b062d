"""Logging in with a ``.creds`` file to a server whose accounts an operator has signed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import trio

from tests.backplane.logins import passes_on
from tests.backplane.nats.jwt_accounts import Account, Operator, User, configuration, credentials
from tests.backplane.nats.servers import NatsServer, open_nats_server
from tests.backplane.nats.test_login import at
from tests.backplane.processes import until
from trioroom.backplane.nats import open_nats
from trioroom.errors import BackplaneUnavailable

pytestmark = pytest.mark.nats


LIFETIME = 2.0  # seconds; it expires with a whole one


async def refuses(server: NatsServer, file: Path, why: str) -> None:
    """It is told ``why``, and the file."""
    with trio.fail_after(5), pytest.raises(BackplaneUnavailable, match=why) as raised:
        async with open_nats(url_of(server, file)):
            pytest.fail("it should be refused")
    assert str(file) in str(raised.value)


def url_of(server: NatsServer, file: Path) -> str:
    return at(server, "", f"?credentials_file={file}&probe_interval=0.1")


def put(file: Path, text: str) -> None:
    file.write_text(text)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "app.creds"


async def test_user_of_an_account_that_the_operator_has_signed(file: Path) -> None:
    account, user = Account(), User()
    async with open_nats_server(configuration(Operator(), account)) as server:
        for expires in (None, time.time() + 600):
            put(file, credentials(account, user, expires))
            await passes_on(url_of(server, file))
        put(file, credentials(account, user, 1_000_000_000))
        await refuses(
            server, file, r"Authorization Violation; the JWT in .* has expired, on 2001-09-09 at 01:46:40 UTC;"
        )
        put(file, credentials(Account(), user))
        await refuses(
            server, file, "Authorization Violation; the JWT in .* or of an account that the server does not have"
        )
        put(file, credentials(account, user).replace(user.seed.decode(), User().seed.decode()))
        await refuses(server, file, "Authorization Violation; the JWT in .* or its key is another one")


async def test_user_who_is_revoked(file: Path) -> None:
    operator, account, user, other = Operator(), Account(), User(), User()
    async with open_nats_server(configuration(operator, account, revoked=[user])) as server:
        put(file, credentials(account, user))
        await refuses(server, file, "Authorization Violation; the JWT in .* is revoked, or")
        put(file, credentials(account, other))
        await passes_on(url_of(server, file))


async def test_account_without_limits_for_jetstream(file: Path) -> None:
    account, user = Account(), User()
    put(file, credentials(account, user))
    async with open_nats_server(configuration(Operator(), account, jetstream=False)) as server:
        with pytest.raises(BackplaneUnavailable, match="the account that we log in to is without JetStream"):
            async with open_nats(url_of(server, file)):
                pytest.fail("it has no order for all")


async def test_jwt_that_expires_is_replaced_while_the_link_is_up(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    account, user = Account(), User()
    put(file, credentials(account, user, time.time() + LIFETIME))
    async with open_nats_server(configuration(Operator(), account)) as server, open_nats(url_of(server, file)) as node:
        with trio.fail_after(LIFETIME + 5):
            while not any("has expired" in message for message in caplog.messages):  # noqa: ASYNC110  # a log has no event
                await trio.sleep(0.05)
        assert caplog.messages[0].endswith("the server says: User Authentication Expired; trying again")
        put(file, credentials(account, user))

        async def ready() -> bool:
            return node.ready

        await until(ready, "the link is up")
