from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trioroom._core.routes import Routes, fault_of_name


def make_routes(*patterns: str) -> Routes[str]:
    """Each pattern is its own target."""
    routes: Routes[str] = Routes()
    for pattern in patterns:
        routes.add(pattern, pattern)
    return routes


def test_no_routes_match_nothing() -> None:
    routes = make_routes()
    assert routes.match("chat") is None
    assert routes.patterns() == []


def test_literal_pattern_matches_its_own_name_only() -> None:
    routes = make_routes("chat/lobby")
    assert routes.match("chat/lobby") == ("chat/lobby", {})
    for other in (
        "chat/lobb",
        "chat/lobbyx",
        "xchat/lobby",
        "chat/lobby/",
        "/chat/lobby",
        "CHAT/LOBBY",
        "chat/lobby\n",
    ):
        assert routes.match(other) is None


def test_literal_pattern_is_no_regular_expression() -> None:
    routes = make_routes("a.b+(c)|d")
    assert routes.match("a.b+(c)|d") == ("a.b+(c)|d", {})
    assert routes.match("axb") is None
    assert routes.match("d") is None


def test_parameter_stands_for_one_segment_that_is_not_empty() -> None:
    routes = make_routes("chat/{name}")
    assert routes.match("chat/lobby") == ("chat/{name}", {"name": "lobby"})
    assert routes.match("chat/ä b\n{}") == ("chat/{name}", {"name": "ä b\n{}"})
    for other in ("chat/", "chat", "chat/a/b", "chat//a", "chat/a/"):
        assert routes.match(other) is None


def test_parameters_may_stand_anywhere() -> None:
    routes = make_routes("{game}/v{version}-{_1}/end")
    expected = {"game": "go", "version": "2", "_1": "xy"}
    assert routes.match("go/v2-xy/end") == ("{game}/v{version}-{_1}/end", expected)


def test_first_pattern_that_matches_wins() -> None:
    routes = make_routes("chat/lobby", "chat/{name}", "{any}/lobby")
    assert routes.match("chat/lobby") == ("chat/lobby", {})
    assert routes.match("chat/other") == ("chat/{name}", {"name": "other"})
    assert routes.match("game/lobby") == ("{any}/lobby", {"any": "game"})


def test_patterns_are_listed_in_their_order() -> None:
    assert make_routes("b", "a/{x}", "a").patterns() == ["b", "a/{x}", "a"]


@pytest.mark.parametrize("pattern", ["", "/", "/chat", "chat/", "/chat/"])
def test_pattern_without_a_clean_beginning_and_end_is_refused(pattern: str) -> None:
    message = f"route pattern {pattern!r} must not be empty nor start or end with '/'"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_routes(pattern)


def test_pattern_that_is_there_already_is_refused() -> None:
    routes = make_routes("chat/{name}")
    message = "route pattern 'chat/{name}' is there already; each pattern has one room class"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        routes.add("chat/{name}", "other")
    assert routes.match("chat/a") == ("chat/{name}", {"name": "a"})


def test_parameter_that_is_named_twice_is_refused() -> None:
    routes = make_routes()
    with pytest.raises(
        ValueError, match=r"^route pattern '\{a\}/\{b\}/\{a\}' names \{a\} twice; each needs a name of its own$"
    ):
        routes.add("{a}/{b}/{a}", "target")
    assert routes.patterns() == []


@pytest.mark.parametrize(
    "pattern",
    ["{", "}", "a{", "a}b", "{}", "{1}", "{a b}", "{ä}", "{a-b}", "{{a}", "{a}}", "{x}/a}", "a{/{x}", "a}/{x}", "}{x}"],
)
def test_brace_that_belongs_to_no_parameter_is_refused(pattern: str) -> None:
    message = f"route pattern {pattern!r} has a brace that is no {{parameter}}; write one as {{name}}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make_routes(pattern)


SEGMENTS = st.text(st.characters(exclude_characters="/{}"), min_size=1)


@given(st.lists(st.tuples(SEGMENTS, st.booleans()), min_size=1, max_size=6))
def test_name_made_from_a_pattern_matches_it_with_the_same_parameters(parts: list[tuple[str, bool]]) -> None:
    pattern = "/".join(f"{{p{at}}}" if is_parameter else text for at, (text, is_parameter) in enumerate(parts))
    name = "/".join(text for text, _ in parts)
    parameters = {f"p{at}": text for at, (text, is_parameter) in enumerate(parts) if is_parameter}
    assert make_routes(pattern).match(name) == (pattern, parameters)


@given(st.text(alphabet="{}ab_1/.\\("))
def test_any_text_is_a_pattern_or_a_value_error(pattern: str) -> None:
    routes = make_routes()
    try:
        routes.add(pattern, "target")
    except ValueError:
        assert routes.patterns() == []
    else:
        assert routes.patterns() == [pattern]


@pytest.mark.parametrize("name", ["", "a", "chat/lobby", "chat/Käse 🎉 日本", "x" * 20, "a:b@c?d#e%2F"])
def test_name_of_what_prints_may_be_one(name: str) -> None:
    assert fault_of_name(name, 30, ".*") is None


@pytest.mark.parametrize("character", ["\n", "\r", "\0", "\x1b", "\x7f", "\x85", "\u2028", "\u202e", "\ufeff", "\xa0"])
def test_name_with_what_does_not_print_may_not(character: str) -> None:
    fault = fault_of_name(f"chat/{character}", 30, ".*")
    assert fault == f"name {f'chat/{character}'!r} has a character that does not print; leave it out"
    assert fault.isprintable()


def test_length_of_a_name_is_counted_in_bytes() -> None:
    assert fault_of_name("ä" * 10, 20, ".*") is None
    fault = fault_of_name("ä" * 10, 19, ".*")
    assert fault == "name of 20 bytes exceeds max_room_name_bytes=19; choose a shorter one"


def test_pattern_is_for_the_whole_name() -> None:
    assert fault_of_name("chat/lobby-2", 30, "[a-z0-9/-]+") is None
    fault = fault_of_name("chat/Lobby", 30, "[a-z0-9/-]+")
    assert fault == "name 'chat/Lobby' does not match room_name_pattern='[a-z0-9/-]+'"
