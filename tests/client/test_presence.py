"""The list of who is here follows pages and pushes, whatever happens between them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trioroom._wire.envelopes import Ok, Presence, Present
from trioroom.client.events import PresenceDiff
from trioroom.client.presence import Ask, PresenceList
from trioroom.room import PresentUser

ANN, BOB, CID = (Present(name) for name in ("ann", "bob", "cid"))


def page(*members: Present, count: int = 0, more: bool = False) -> Ok:
    return Ok(1, members=list(members), count=count or len(members), more=more)


def push(joined: list[Present] | None, left: list[str] | None, count: int) -> Presence:
    return Presence("a", 1, count, joined, left)


def begin(presence: PresenceList) -> Ask:
    asked = presence.begin()
    assert asked is not None
    return asked


def listed(*members: Present) -> PresenceList:
    presence = PresenceList()
    everybody = tuple(PresentUser(member.user, member.info) for member in members)
    assert presence.page(begin(presence), page(*members)) == PresenceDiff(everybody, (), len(members))
    return presence


def test_first_list_is_told_and_so_are_changes() -> None:
    presence = listed(ANN)
    assert (presence.users, presence.count, presence.is_complete) == ({"ann": None}, 1, True)
    assert presence.push(push([BOB], [], 2)) == PresenceDiff((PresentUser("bob", None),), (), 2)
    assert presence.push(push([], ["ann"], 1)) == PresenceDiff((), ("ann",), 1)
    assert (presence.users, presence.count) == ({"bob": None}, 1)
    assert presence.push(push([], [], 1)) is None, "nothing to tell"


def test_pages_follow_each_other_and_pushes_count_between_them() -> None:
    presence = PresenceList()
    first = begin(presence)
    second = presence.page(first, page(ANN, BOB, count=3, more=True))
    assert second == Ask(first.listing, "bob")
    assert presence.push(push([], ["ann"], 2)) is None
    told = presence.page(second, page(CID, count=2))
    assert told == PresenceDiff((PresentUser("bob", None), PresentUser("cid", None)), (), 2)
    assert presence.users == {"bob": None, "cid": None}


def test_after_a_reconnect_the_difference_is_told() -> None:
    presence = listed(ANN, BOB, Present("cid", "old"))
    presence.stop()
    asked = begin(presence)
    assert presence.users.keys() == {"ann", "bob", "cid"}, "until it is known better"
    diff = presence.page(asked, page(ANN, Present("cid", "new"), Present("dan")))
    assert diff == PresenceDiff((PresentUser("cid", "new"), PresentUser("dan", None)), ("bob",), 3)


def test_same_list_after_a_reconnect_is_no_news() -> None:
    presence = listed(ANN)
    assert presence.page(begin(presence), page(ANN)) is None


def test_push_without_lists_has_the_list_asked_for_anew_and_old_pages_do_not_count() -> None:
    presence = PresenceList()
    old = presence.page(begin(presence), page(ANN, more=True))
    assert isinstance(old, Ask)
    new = presence.push(push(None, None, 1))
    assert isinstance(new, Ask)
    assert presence.page(old, page(BOB)) is None
    assert (presence.users, presence.is_complete) == ({}, False)
    assert presence.page(new, page(CID)) == PresenceDiff((PresentUser("cid", None),), (), 1)
    assert presence.users == {"cid": None}


def test_pushes_before_the_first_page_say_nothing_that_it_does_not() -> None:
    presence = PresenceList()
    asked = begin(presence)
    assert presence.push(push(None, None, 2)) is None, "it is asked for already"
    assert presence.push(push([BOB], ["ann"], 2)) is None
    assert presence.page(asked, page(BOB)) == PresenceDiff((PresentUser("bob", None),), (), 1)


def test_room_that_only_counts_tells_numbers() -> None:
    presence = PresenceList()
    begin(presence)
    assert presence.only_counts() is None
    assert presence.is_complete
    assert presence.push(push(None, None, 7)) == PresenceDiff((), (), 7)
    assert presence.push(push(None, None, 7)) is None
    assert (presence.begin(), presence.count) == (None, 7)


def test_number_that_was_pushed_before_the_room_said_that_it_only_counts_is_told() -> None:
    presence = PresenceList()
    begin(presence)
    assert presence.push(push(None, None, 3)) is None
    assert presence.only_counts() == PresenceDiff((), (), 3)


def test_pages_that_cannot_be_had_leave_the_list_as_it_was() -> None:
    presence = listed(ANN)
    asked = begin(presence)
    presence.stop()
    assert presence.page(asked, page(BOB)) is None
    assert presence.users == {"ann": None}


USERS = ("ann", "bob", "cid", "dan", "eve")


class Model:
    """A server answers pages in its present state, and pushes each change at once, in one order with them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.here: set[str] = set()
        self.told: set[str] = set()
        self.presence = PresenceList()
        self.asked: Ask | None = begin(self.presence)

    def take(self, news: Ask | PresenceDiff | None) -> None:
        if isinstance(news, Ask):
            self.asked = news
        elif news is not None:
            assert news.joined or news.left
            self.told = (self.told - set(news.left)) | {user.user for user in news.joined}

    def turn_page(self) -> None:
        if self.asked is None:
            return
        asked, self.asked = self.asked, None
        behind = sorted(user for user in self.here if asked.after is None or user > asked.after)
        members = [Present(user) for user in behind[: self.limit]]
        self.take(self.presence.page(asked, page(*members, count=len(self.here), more=len(behind) > self.limit)))

    def step(self, step: str) -> None:
        if step == "page":
            self.turn_page()
        elif step == "rejoin":
            self.presence.stop()
            self.take(self.presence.begin())
        elif step == "many":
            self.here ^= {"ann", "eve"}
            self.take(self.presence.push(push(None, None, len(self.here))))
        else:
            self.here ^= {step}
            joined, left = ([Present(step)], []) if step in self.here else ([], [step])
            self.take(self.presence.push(push(joined, left, len(self.here))))


@given(st.integers(1, 3), st.lists(st.sampled_from([*USERS, "page", "page", "rejoin", "many"]), max_size=60))
def test_list_and_what_was_told_agree_with_the_server(limit: int, course: list[str]) -> None:
    model = Model(limit)
    for step in course:
        model.step(step)
    while model.asked is not None:
        model.turn_page()
    assert set(model.presence.users) == model.here == model.told
    assert model.presence.count == len(model.here)
