"""The inbox keeps order and its bound, and accounts for every message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.history import Position
from trioroom.client.events import Event, Gap, Message, PresenceDiff, Rejoined
from trioroom.client.inbox import FullInbox, Inbox

NOISE = (PresenceDiff((), ("bob",), 1), Rejoined(True))


def drain(inbox: Inbox) -> list[Event]:
    events: list[Event] = []
    while (event := inbox.take()) is not None:
        events.append(event)
    return events


def test_gap_stands_in_place_of_the_oldest_with_the_position_of_the_last_one() -> None:
    inbox = Inbox(2, FullInbox.DROP_OLDEST)
    messages = [Message(offset, None, Position("e", offset)) for offset in range(1, 6)]
    for message in messages:
        inbox.put(message)
    assert len(inbox) == 3
    assert drain(inbox) == [Gap("inbox", 3, Position("e", 3)), *messages[3:]]


def test_dropped_gap_of_unknown_size_makes_the_number_unknown() -> None:
    inbox = Inbox(1, FullInbox.DROP_OLDEST)
    for event in (Message(1), Gap("reconnect"), Message(2), Message(3)):
        inbox.put(event)
    assert drain(inbox) == [Gap("inbox", None), Message(3)]


def test_dropped_news_of_presence_are_no_loss() -> None:
    inbox = Inbox(1, FullInbox.DROP_OLDEST)
    for event in (*NOISE, Message(1)):
        inbox.put(event)
    assert drain(inbox) == [Message(1)]


def test_waiting_inbox_is_full_at_its_bound_and_drops_at_twice_that() -> None:
    inbox = Inbox(2, FullInbox.WAIT)
    inbox.put(Message(1))
    assert not inbox.is_full
    for number in (2, 3, 4):
        inbox.put(Message(number))
        assert inbox.is_full
    inbox.put(Message(5))
    assert drain(inbox) == [Gap("inbox", 1), *map(Message, (2, 3, 4, 5))]


def test_cleared_inbox_is_empty() -> None:
    inbox = Inbox(1, FullInbox.DROP_OLDEST)
    inbox.put(Message(1))
    inbox.put(Message(2))
    inbox.clear()
    assert (len(inbox), inbox.take()) == (0, None)


@given(
    st.integers(1, 5),
    st.sampled_from(FullInbox),
    st.lists(st.sampled_from(["message", "gap", "noise", "take"]), max_size=60),
)
def test_every_message_is_taken_or_counted_in_its_place(bound: int, policy: FullInbox, steps: list[str]) -> None:
    inbox, number, taken = Inbox(bound, policy), 0, list[Event]()
    for step in steps:
        match step:
            case "message":
                number += 1
                inbox.put(Message(number))
            case "gap":
                inbox.put(Gap("overflow", 10))
            case "noise":
                inbox.put(NOISE[0])
            case _ if (event := inbox.take()) is not None:
                taken.append(event)
        assert len(inbox) <= 2 * bound + 1
    expected, told = 1, 0
    for event in [*taken, *drain(inbox)]:
        if isinstance(event, Gap):
            assert event.lost is not None
            told += event.lost
        elif isinstance(event, Message):
            assert isinstance(event.data, int)
            assert event.data >= expected, "in order, none twice"
            told -= event.data - expected
            expected = event.data + 1
            assert told >= 0, "a loss is told before what follows it"
    told -= number - expected + 1
    assert told == 10 * steps.count("gap"), "what is missing has been told, as have the server's own gaps"
