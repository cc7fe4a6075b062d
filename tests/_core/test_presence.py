"""Who is in a room: the table against a naive model, and the rules one by one."""

from __future__ import annotations

import math

import attrs
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from trioroom._core.presence import MAX_LISTED_BYTES, SETTLING, Diff, Presence, PresenceTable

USERS = st.sampled_from(["ann", "bob", "cid", "dot"])
SEATS = st.sampled_from(["s1", "s2", "s3"])
INFOS = st.sampled_from([b"1", b"2"])
ROWS = st.dictionaries(USERS, INFOS)


@attrs.define
class Client:
    """What a peer does: it applies pushes, and pages of `who`, in the order they come."""

    users: dict[str, bytes] = attrs.field(factory=dict)
    after: str | None = None  # the last page's end
    complete: bool = False

    def push(self, diff: Diff, named: bool) -> None:
        if not named:
            self.users, self.after, self.complete = {}, None, False
            return
        self.users.update(diff.joined)
        for user in diff.left:
            self.users.pop(user, None)

    def ask(self, table: PresenceTable, limit: int) -> None:
        page = table.page(limit, self.after)
        self.users.update(page.users)
        self.after = page.users[-1][0] if page.users else self.after
        self.complete = not page.more


class Tables(RuleBasedStateMachine):
    """One node's table; rows of other seats come as the store would tell of them."""

    def __init__(self) -> None:
        super().__init__()
        self.table = PresenceTable(Presence(interval=1.0, grace=2.0))
        self.now = 0.0
        self.connections: list[str] = []
        self.infos: dict[str, bytes] = {}  # of users of this node
        self.lingering: dict[str, float] = {}
        self.seats: dict[str, dict[str, bytes]] = {}
        self.doubts: dict[tuple[str, str], float] = {}
        self.announced: dict[str, bytes] = {}
        self.last_announcement = -math.inf
        self.version = 0
        self.clients = [Client()]

    # -- the model -----------------------------------------------------------------------------

    def truth(self) -> dict[str, set[bytes]]:
        """Users -> what they may show."""
        users: dict[str, set[bytes]] = {}
        for rows in self.seats.values():
            for user, info in rows.items():
                users.setdefault(user, set()).add(info)
        for user, info in self.infos.items():
            users[user] = {info}
        return users

    def drop(self, seat: str, user: str) -> None:
        self.seats.get(seat, {}).pop(user, None)
        self.doubts.pop((seat, user), None)

    # -- what happens --------------------------------------------------------------------------

    @rule(user=USERS, info=INFOS)
    def join(self, user: str, info: bytes) -> None:
        row_is_new = self.infos.get(user) != info
        assert self.table.join(user, info) is row_is_new
        self.connections.append(user)
        self.infos[user] = info
        self.lingering.pop(user, None)

    @precondition(lambda self: self.connections)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        user = data.draw(st.sampled_from(self.connections))
        self.connections.remove(user)
        self.table.leave(user, self.now)
        if user not in self.connections:
            self.lingering[user] = self.now + 2.0

    @rule(seat=SEATS, put=ROWS, removed=st.sets(USERS))
    def rows_changed(self, seat: str, put: dict[str, bytes], removed: set[str]) -> None:
        removed -= put.keys()
        self.table.rows_changed(seat, put, removed)
        self.seats.setdefault(seat, {}).update(put)
        for user in put:
            self.doubts.pop((seat, user), None)
        for user in removed:
            self.drop(seat, user)

    @rule(seat=SEATS)
    def seat_gone(self, seat: str) -> None:
        self.table.seat_gone(seat)
        for user in list(self.seats.get(seat, {})):
            self.drop(seat, user)

    @rule(seats=st.dictionaries(SEATS, ROWS))
    def resync(self, seats: dict[str, dict[str, bytes]]) -> None:
        self.table.resynced(seats, self.now)
        for seat, rows in self.seats.items():
            for user in rows:
                if user not in seats.get(seat, {}):
                    self.doubts.setdefault((seat, user), self.now + SETTLING)
        for seat, rows in seats.items():
            self.seats.setdefault(seat, {}).update(rows)
            for user in rows:
                self.doubts.pop((seat, user), None)

    @rule(seconds=st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        gone = [user for user, deadline in self.lingering.items() if deadline <= self.now]
        assert sorted(self.table.expire(self.now)) == sorted(gone)
        for user in gone:
            del self.lingering[user], self.infos[user]
        for (seat, user), deadline in list(self.doubts.items()):
            if deadline <= self.now:
                self.drop(seat, user)

    # -- what is told --------------------------------------------------------------------------

    @rule(named=st.booleans())
    def announce(self, named: bool) -> None:
        diff = self.table.announce(self.now)
        if diff is None:
            return
        assert self.now >= self.last_announcement + 1.0
        self.last_announcement = self.now
        self.version += 1
        truth = self.truth()
        for user, info in diff.joined.items():
            assert self.announced.get(user) != info
            assert info in truth[user]
        self.announced.update(diff.joined)
        for user in diff.left:
            del self.announced[user]
        assert (diff.version, diff.count) == (self.version, len(self.announced))
        assert self.announced.keys() == truth.keys()
        for client in self.clients:
            client.push(diff, named)

    @rule()
    def client_comes(self) -> None:
        if len(self.clients) < 4:
            self.clients.append(Client())

    @rule(limit=st.integers(1, 3), data=st.data())
    def client_asks(self, limit: int, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.clients)).ask(self.table, limit)

    @invariant()
    def client_that_has_paged_has_the_announced_state(self) -> None:
        for client in self.clients:
            if client.complete:
                assert client.users == self.announced

    @invariant()
    def it_wakes_for_whatever_is_due(self) -> None:
        wakes_at = self.table.wakes_at()
        assert wakes_at <= min([*self.lingering.values(), *self.doubts.values()], default=math.inf)
        if self.truth().keys() != self.announced.keys():
            assert wakes_at <= self.last_announcement + 1.0
        assert self.table.is_vacant is not bool(self.infos)


TestTables = Tables.TestCase


# -- one by one --------------------------------------------------------------------------------------


def table_with(**settings: float) -> PresenceTable:
    table = PresenceTable(Presence(**settings))  # type: ignore[arg-type]  # the numbers among them
    table.join("ann", b"1")
    assert table.announce(0.0) == Diff(1, 1, {"ann": b"1"}, [])
    return table


def test_first_change_is_told_at_once_and_what_follows_together() -> None:
    table = table_with(interval=1.0)
    table.join("bob", b"2")
    table.join("cid", b"3")
    assert table.announce(0.9) is None
    assert table.wakes_at() == 1.0
    assert table.announce(1.0) == Diff(2, 3, {"bob": b"2", "cid": b"3"}, [])
    assert table.wakes_at() == math.inf, "nothing changes, so nothing wakes it"


def test_reconnect_within_grace_shows_nothing() -> None:
    table = table_with(grace=2.0)
    table.leave("ann", 5.0)
    assert (table.wakes_at(), table.expire(6.9), table.is_vacant) == (7.0, [], False)
    assert table.join("ann", b"1") is False
    assert (table.wakes_at(), table.announce(8.0)) == (math.inf, None)


def test_user_without_grace_is_gone_at_once() -> None:
    table = table_with(grace=0.0)
    table.leave("ann", 5.0)
    assert table.expire(5.0) == ["ann"]
    assert table.announce(5.0) == Diff(2, 0, {}, ["ann"])


def test_user_that_goes_on_elsewhere_shows_nothing_but_what_is_shown_there() -> None:
    table = table_with()
    table.rows_changed("s1", {"ann": b"other"}, ())
    assert table.announce(5.0) is None
    table.leave("ann", 5.0)
    assert table.expire(7.0) == ["ann"]
    assert table.announce(7.0) == Diff(2, 1, {"ann": b"other"}, [])


def test_rows_that_a_resync_lacks_are_kept_while_it_settles() -> None:
    table = table_with()
    table.rows_changed("s1", {"bob": b"2", "cid": b"3"}, ())
    table.rows_changed("s2", {"dot": b"4"}, ())
    assert table.announce(5.0) is not None
    table.resynced({}, 10.0)
    table.rows_changed("s1", {"bob": b"2"}, ())  # its node has written it again
    table.seat_gone("s2")  # and this one is known to be dead
    table.expire(10.0 + SETTLING - 0.1)
    assert table.announce(14.9) == Diff(3, 3, {}, ["dot"])
    table.resynced({"s1": {"bob": b"2"}}, 14.9)  # another one gives no new delay
    table.expire(10.0 + SETTLING)
    assert table.announce(16.0) == Diff(4, 2, {}, ["cid"])


def test_page_ends_by_count_or_bytes() -> None:
    table = PresenceTable(Presence())
    for number in range(10):
        table.join(f"user{number}", b"x" * (MAX_LISTED_BYTES // 3))
    assert table.page(10, None).users == []
    table.announce(0.0)
    page = table.page(2, "user0")
    assert [user for user, _ in page.users] == ["user1", "user2"]
    assert (page.count, page.version, page.more) == (10, 1, True)
    assert len(table.page(10, None).users) == 2
    assert [table.page(10, after).more for after in ("user7", "user8", "user9", "zoe")] == [False] * 4


@pytest.mark.parametrize(
    ("joined", "left", "fits"),
    [(2, 1, True), (2, 2, False), (0, 4, False), (3, 0, True)],
)
def test_diff_is_named_up_to_so_many_users(joined: int, left: int, fits: bool) -> None:
    diff = Diff(1, 0, {str(number): b"" for number in range(joined)}, [str(number) for number in range(left)])
    assert diff.fits(3) is fits


def test_diff_is_named_up_to_so_many_bytes() -> None:
    assert Diff(1, 1, {"a": b"x" * (MAX_LISTED_BYTES - 1)}, []).fits(1000)
    assert not Diff(1, 1, {"a": b"x" * MAX_LISTED_BYTES}, []).fits(1000)


@pytest.mark.parametrize(
    "wrong",
    [{"interval": 0}, {"interval": math.inf}, {"grace": -1}, {"grace": math.inf}, {"max_listed": 0}],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Presence(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_settings_of_the_wrong_type_are_refused() -> None:
    with pytest.raises(TypeError):
        Presence(count_only=1)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(TypeError):
        Presence(max_listed=1.5)  # type: ignore[arg-type]  # wrong on purpose
