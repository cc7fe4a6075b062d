"""The checker finds each kind of violation in records made by hand, and nothing in good ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.hand_made import END, KEPT, LATEST, PASSING, placed, promises_broken, published, received, record
from tests.faults.records import (
    NOT_STARTED,
    Ended,
    Entry,
    Hook,
    Joined,
    Life,
    Moved,
    PresenceSeen,
    Received,
    Record,
    Remains,
    Restart,
    Run,
    Told,
    read_hooks,
    read_run,
    write_run,
)
from tests.faults.rooms import KINDS
from trioroom._core.history import Position


@pytest.mark.parametrize("room", [f"{kind}/a" for kind in KINDS])
def test_good_records_are_no_violation(room: str) -> None:
    has_history = KINDS[room.partition("/")[0]].history is not None
    got = placed(1, 2, 3) if has_history else received(1, 2, 3)
    run = Run(
        publications=published(room, 3),
        records=[record(room, *got, END), record(room, *got, END, who="ben")],
        lives=[
            Life(0, 0, "killed", [Hook("open", room), Hook("join", room, "m")]),
            Life(0, 1, NOT_STARTED),
            Life(
                0,
                2,
                "exit 0",
                [Hook("open", room), Hook("join", room, "m"), Hook("leave", room, "m"), Hook("close", room)],
            ),
        ],
        presence=[PresenceSeen(room, 0, "who", ["anna", "ben"], ["anna", "ben"])],
        remains=[Remains(0, idle_metrics(), 29, 29, 60 << 20, 55 << 20)],
    )
    assert check(run) == []


def idle_metrics(**changed: float) -> dict[str, float]:
    """Of a node without members."""
    names = ("members", "rooms", "queued_bytes", "deliveries_queued")
    return {**{f"trioroom_{name}": 0.0 for name in names}, **changed}


# -- order -------------------------------------------------------------------------------------------


def test_two_members_that_see_two_orders() -> None:
    publications = published(PASSING, 2, "a") + published(PASSING, 2, "b")
    one = received(1, publisher="a") + received(1, publisher="b")
    run = Run(publications=publications, records=[record(PASSING, *one), record(PASSING, *reversed(one), who="ben")])
    assert promises_broken(run) == {"one order"}
    assert "a:1" in check(run)[0].what


def test_order_that_only_three_members_together_contradict() -> None:
    a, b, c = (received(1, publisher=name) for name in "abc")
    several = [record(PASSING, *one, *other) for one, other in ((a, b), (b, c), (c, a))]
    assert promises_broken(Run(records=several)) == {"one order"}


def test_order_across_a_gap_is_no_other_one() -> None:
    one = [*received(1), Told(1.5, "backplane"), *received(3)]
    other = [*received(3), Told(3.5, "backplane"), *received(1)]
    assert "one order" in promises_broken(Run(records=[record(PASSING, *one), record(PASSING, *other)]))


def test_between_keys_of_which_the_latest_is_kept_there_is_no_order() -> None:
    one = received(1, publisher="a") + received(1, publisher="b")
    assert check(Run(records=[record(LATEST, *one), record(LATEST, *reversed(one))])) == []
    wrong = record(LATEST, *received(2, 1, publisher="a"))
    assert promises_broken(Run(records=[wrong, record(LATEST, *received(1, 2, publisher="a"))])) == {"one order"}


# -- losses ------------------------------------------------------------------------------------------


def test_loss_in_silence() -> None:
    run = Run(publications=published(PASSING, 3), records=[record(PASSING, *received(1, 3), END)])
    [violation] = check(run)
    assert violation.promise == "no silent loss"
    assert "pub:2 missing" in violation.what


@pytest.mark.parametrize("excuse", [Told(2.9, "overflow", 1), Joined(2.9, recovered=False)])
def test_loss_that_is_told_in_its_place(excuse: Entry) -> None:
    run = Run(publications=published(PASSING, 3), records=[record(PASSING, *received(1), excuse, *received(3), END)])
    assert check(run) == []


def test_gap_in_another_place_excuses_nothing() -> None:
    early = [Told(0.5, "overflow"), *received(1, 3)]
    late = [*received(1, 3), Told(3.5, "overflow")]
    for entries in (early, late):
        run = Run(publications=published(PASSING, 3), records=[record(PASSING, *entries, END)])
        assert promises_broken(run) == {"no silent loss"}


def test_gap_excuses_nothing_that_was_published_after_it() -> None:
    run = Run(publications=published(PASSING, 4), records=[record(PASSING, *received(1), Told(2.5, "overflow"), END)])
    [violation] = check(run)
    assert violation.what.startswith("pub:3, pub:4 never came")


def test_gap_excuses_nothing_behind_the_next_message() -> None:
    """Also if it is read late, such as by who was slow: then all of it had been published before."""
    for last, broken in ((4, {"no silent loss"}), (3, set())):
        entries = [*received(1), Told(9.0, "overflow"), *received(2, last, late=8.0)]
        run = Run(publications=published(PASSING, last), records=[record(PASSING, *entries, END)])
        assert promises_broken(run) == broken


def test_recovery_excuses_nothing() -> None:
    entries = [*placed(1), Joined(2.9, recovered=True), *placed(3)]
    run = Run(publications=published(KEPT, 3), records=[record(KEPT, *entries, END)])
    assert promises_broken(run) == {"no silent loss", "positions"}


def test_tail_that_never_came_to_who_was_there_to_the_end() -> None:
    run = Run(publications=published(PASSING, 3), records=[record(PASSING, *received(1, 2), END)])
    assert promises_broken(run) == {"no silent loss"}
    run.records = [record(PASSING, *received(1, 2), Ended(2.5, "4108"))]
    assert check(run) == []


def test_what_was_not_acknowledged_may_be_missing_and_may_come() -> None:
    publications = published(PASSING, 3)
    publications[1].acknowledged = None
    run = Run(publications=publications, records=[record(PASSING, *received(1, 3), END)])
    run.records.append(record(PASSING, *received(1, 2, 3), END, who="ben"))
    assert check(run) == []


def test_who_joins_later_need_not_have_what_was_before() -> None:
    late = Record("late", 0, PASSING, "raw", [Joined(1.9), *received(2, 3), END])
    assert check(Run(publications=published(PASSING, 3), records=[late])) == []
    late.entries = [Joined(1.9), *received(3), END]
    assert promises_broken(Run(publications=published(PASSING, 3), records=[late])) == {"no silent loss"}


def test_where_the_latest_is_kept_only_the_last_has_to_come() -> None:
    run = Run(publications=published(LATEST, 3), records=[record(LATEST, *received(3), END)])
    assert check(run) == []
    run.records = [record(LATEST, *received(1, 2), END)]
    assert promises_broken(run) == {"no silent loss"}


# -- duplicates and positions --------------------------------------------------------------------------


def test_twice() -> None:
    run = Run(publications=published(PASSING, 2), records=[record(PASSING, *received(1, 2, 2), END)])
    assert promises_broken(run) == {"no duplicates"}


def test_twice_is_excused_when_the_broker_forgot_it_before_the_publisher_was_told() -> None:
    run = Run(publications=published(PASSING, 2), records=[record(PASSING, *received(1, 2, 2), END)])
    run.restarts = [Restart(2.1, 2.3, forgot=True)]
    assert check(run) == []
    run.restarts = [Restart(2.6, 2.8, forgot=True)]  # it had been told
    assert promises_broken(run) == {"no duplicates"}


def test_step_of_two_without_a_gap() -> None:
    entries = [*placed(1), Received(2.2, "pub:2", Position("e", 3))]
    run = Run(publications=published(KEPT, 2), records=[record(KEPT, *entries, END)])
    assert promises_broken(run) == {"positions"}


def test_gap_that_tells_another_number() -> None:
    for lost, broken in ((1, set()), (2, {"positions"})):
        entries = [*placed(1), Told(2.9, "overflow", lost), *placed(3)]
        assert promises_broken(Run(publications=published(KEPT, 3), records=[record(KEPT, *entries, END)])) == broken


def test_first_message_that_does_not_follow_the_position_of_the_join() -> None:
    raw = Record("raw", 0, KEPT, "raw", [Joined(0.0, position=Position("e", 0)), *placed(1, 2, ahead=5)])
    assert promises_broken(Run(records=[raw])) == {"positions"}
    raw.entries = [Joined(0.0, position=Position("e", 5)), *placed(1, 2, ahead=5)]
    assert check(Run(records=[raw])) == []


def test_offsets_that_rooms_share_may_jump_and_never_go_back() -> None:
    ahead = [*placed(1), *placed(2, ahead=5)]
    assert promises_broken(Run(records=[record(KEPT, *ahead)])) == {"positions"}
    assert check(Run(records=[record(KEPT, *ahead)], dense=False)) == []
    back = [*placed(1, ahead=5), *placed(2)]
    assert promises_broken(Run(records=[record(KEPT, *back)], dense=False)) == {"positions"}


def test_offsets_go_on_in_an_epoch_that_follows_another() -> None:
    entries = [*placed(1), Moved(1.5, Position("f", 1)), *placed(2, epoch="f")]
    assert check(Run(records=[record(KEPT, *entries)])) == []
    entries = [*placed(1), Moved(1.5, Position("f", 0)), *placed(2, epoch="f")]
    assert promises_broken(Run(records=[record(KEPT, *entries)])) == {"positions"}


def test_one_place_that_two_members_know_as_two_publications() -> None:
    one, other = placed(1), [Received(1.2, "pub:2", Position("e", 1))]
    assert promises_broken(Run(records=[record(KEPT, *one), record(KEPT, *other)])) == {"positions"}


def test_one_publication_in_two_places() -> None:
    one, other = placed(1), placed(1, ahead=1)
    run = Run(publications=published(KEPT, 1), records=[record(KEPT, *one), record(KEPT, *other)])
    assert promises_broken(run) == {"positions"}


def test_message_without_a_position_in_a_room_with_a_history() -> None:
    assert promises_broken(Run(records=[record(KEPT, *received(1))])) == {"positions"}


def test_gap_although_the_broker_has_all() -> None:
    entries = [*placed(1), Told(30.0, "backplane"), Received(30.1, "pub:2", Position("e", 2))]
    run = Run(publications=published(KEPT, 2), records=[record(KEPT, *entries)])
    assert promises_broken(run) == {"no needless gaps"}
    run.restarts = [Restart(20.0, 21.0, forgot=False)]
    assert promises_broken(run) == {"no needless gaps"}
    run.restarts.append(Restart(22.0, 23.0, forgot=False))
    assert check(run) == []
    run.restarts = [Restart(20.0, 21.0, forgot=True)]
    assert check(run) == []
    run.restarts = [Restart(31.0, 32.0, forgot=True)]  # afterwards
    assert promises_broken(run) == {"no needless gaps"}


def test_gap_for_who_joined_where_it_was_not_known_yet_that_the_broker_forgot() -> None:
    for joined, broken in ((50.0, set()), (90.0, {"no needless gaps"})):
        raw = Record("raw", 0, KEPT, "raw", [Joined(joined, position=Position("e", 1)), Told(joined + 1, "backplane")])
        assert promises_broken(Run(records=[raw], restarts=[Restart(20.0, 21.0, forgot=True)])) == broken


@pytest.mark.parametrize(
    ("room", "epoch", "offset", "broken"),
    [
        (KEPT, "e", 8, {"no needless gaps"}),
        (KEPT, "e", 8 + 50, {"no needless gaps"}),
        (KEPT, "e", 8 + 51, set()),  # more than fits
        (KEPT, "f", 8, set()),  # the broker forgot
        ("short/a", "e", 8 + 21, set()),
    ],
)
def test_who_is_not_recovered_although_the_broker_has_all(room: str, epoch: str, offset: int, broken: set[str]) -> None:
    joined = Joined(0.0, None, Position(epoch, offset), recovered=False, asked=Position("e", 8))
    assert promises_broken(Run(records=[Record("raw", 0, room, "raw", [joined])])) == broken


# -- what nodes tell ----------------------------------------------------------------------------------

OPEN, JOIN, LEAVE, CLOSE = (
    Hook("open", KEPT),
    Hook("join", KEPT, "m"),
    Hook("leave", KEPT, "m"),
    Hook("close", KEPT),
)


@pytest.mark.parametrize(
    ("hooks", "broken"),
    [
        ([OPEN, JOIN, CLOSE], {"hooks", "one leave per join"}),
        ([OPEN, JOIN, LEAVE, LEAVE, CLOSE], {"hooks"}),
        ([OPEN, LEAVE, CLOSE], {"hooks"}),
        ([OPEN, JOIN, JOIN, LEAVE, CLOSE], {"hooks"}),
        ([JOIN, LEAVE], {"hooks"}),
        ([OPEN, OPEN, JOIN, LEAVE, CLOSE], {"hooks"}),
        ([OPEN, JOIN, LEAVE, CLOSE, CLOSE], {"hooks"}),
        ([OPEN, JOIN, LEAVE], {"hooks"}),
        ([OPEN, JOIN], {"hooks", "one leave per join"}),
    ],
)
def test_hooks_that_do_not_pair(hooks: list[Hook], broken: set[str]) -> None:
    assert promises_broken(Run(lives=[Life(0, 0, "exit 0", hooks)])) == broken


def test_who_was_killed_owes_no_leave_but_may_not_run_it_twice() -> None:
    assert check(Run(lives=[Life(0, 0, "killed", [OPEN, JOIN])])) == []
    assert promises_broken(Run(lives=[Life(0, 0, "killed", [OPEN, JOIN, LEAVE, LEAVE])])) == {"hooks"}


def test_member_without_on_join() -> None:
    run = Run(records=[Record("raw", 0, PASSING, "raw", [Joined(0.0, "m")])])
    assert promises_broken(run) == {"hooks"}
    run.lives = [Life(0, 0, "killed", [Hook("open", PASSING), Hook("join", PASSING, "m")])]
    assert check(run) == []


def test_presence_that_does_not_agree() -> None:
    [violation] = check(Run(presence=[PresenceSeen(KEPT, 1, "who", ["anna", "ghost"], ["anna", "ben"])]))
    assert violation.promise == "presence agrees"
    assert violation.what == "1 missing: ben; 1 who are not there: ghost"


@pytest.mark.parametrize(
    ("remains", "broken"),
    [
        (Remains(0, idle_metrics(), 30, 29, 1, 1), "no orphan tasks"),
        (Remains(0, idle_metrics(trioroom_members=1.0), 29, 29, 1, 1), "nothing remains"),
        (Remains(0, idle_metrics(trioroom_queued_bytes=1.0), 29, 29, 1, 1), "nothing remains"),
        (Remains(0, {}, 29, 29, 1, 1), "nothing remains"),
        (Remains(0, idle_metrics(), 29, 29, 200 << 20, 60 << 20), "bounded memory"),
    ],
)
def test_what_is_left_when_all_have_gone(remains: Remains, broken: str) -> None:
    assert promises_broken(Run(remains=[remains])) == {broken}


def test_exit_codes_and_errors() -> None:
    assert promises_broken(Run(lives=[Life(0, 0, "exit 1")])) == {"exit codes"}
    assert promises_broken(Run(lives=[Life(0, 0, "exit 0", errors=["Traceback"])])) == {"no errors"}
    assert promises_broken(Run(troubles=["closed with 1011"])) == {"seen"}


# -- files ----------------------------------------------------------------------------------------------


def test_run_that_is_written_can_be_judged_again(tmp_path: Path) -> None:
    run = Run(
        publications=published(KEPT, 3),
        records=[record(KEPT, *placed(1, 3), Moved(1.5, Position("f", 1)), Told(2.0, "overflow", 1), END)],
        lives=[Life(0, 0, "exit 0", [OPEN, JOIN])],
        restarts=[Restart(1.0, 2.0, forgot=True)],
    )
    write_run(run, tmp_path)
    assert read_run(tmp_path) == run
    assert check(read_run(tmp_path)) == check(run)


def test_line_that_is_torn_by_sigkill_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "journal").write_bytes(b'{"hook":"open","room":"kept/a"}\n{"hook":"jo')
    assert read_hooks(tmp_path / "journal") == [Hook("open", "kept/a")]
    assert read_hooks(tmp_path / "none") == []
