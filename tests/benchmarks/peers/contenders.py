"""Who is compared: each contender's server, what it needs, and how it is started."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import attrs

SERVERS = Path(__file__).with_name("servers")
_NPM_TIMEOUT = 300.0


class Missing(Exception):
    """A contender cannot be measured here; says what it lacks."""


@attrs.frozen(kw_only=True)
class Contender:
    """A library as its user would serve a room with it."""

    name: str
    server: str
    """File in ``servers``; what it is written in is told by its suffix."""
    packages: tuple[str, ...] = ()
    """Whose versions are told: distributions, or packages of npm."""
    options: tuple[str, ...] = ()
    """Of the server, behind its port."""
    socketio: bool = False
    """It speaks Socket.IO, so that the load has to do so too."""

    def path(self, scenario: str) -> str:
        """The room for a scenario; Socket.IO has one address for all and tells events apart."""
        if self.socketio:
            return "/socket.io/?EIO=4&transport=websocket"
        return "/echo" if scenario == "echo" else "/all"


_ALL = (
    Contender(name="trioroom", server="", packages=("trioroom", "trio")),
    Contender(name="websockets", server="websockets_server.py", packages=("websockets",)),
    Contender(
        name="websockets+uvloop",
        server="websockets_server.py",
        packages=("websockets", "uvloop"),
        options=("uvloop",),
    ),
    Contender(name="trio-websocket", server="trio_websocket_server.py", packages=("trio-websocket", "trio")),
    Contender(name="aiohttp", server="aiohttp_server.py", packages=("aiohttp",)),
    Contender(name="aiohttp+uvloop", server="aiohttp_server.py", packages=("aiohttp", "uvloop"), options=("uvloop",)),
    Contender(name="picows", server="picows_server.py", packages=("picows", "uvloop")),
    Contender(
        name="python-socketio",
        server="python_socketio_server.py",
        packages=("python-socketio", "aiohttp"),
        socketio=True,
    ),
    Contender(name="ws", server="ws.js", packages=("ws",)),
    Contender(name="socket.io", server="socketio.js", packages=("socket.io",), socketio=True),
    Contender(name="send loop", server="send_loop.c"),
)
CONTENDERS: Mapping[str, Contender] = {contender.name: contender for contender in _ALL}
"""By name. The others are compared with the first one; the last one is no library but what the kernel allows."""


@attrs.frozen
class Ready:
    """A contender that can be started."""

    contender: Contender
    command: tuple[str, ...]
    """With ``{port}`` where the port goes."""
    environment: Mapping[str, str] = attrs.field(factory=dict)
    versions: str = ""

    def command_on(self, port: int) -> list[str]:
        """How to start it."""
        return [part.format(port=port) for part in self.command]


def prepare(contender: Contender, cache: Path) -> Ready:
    """See that everything is there; installs packages of npm and compiles C into ``cache``.

    Raises:
        Missing: something is not.
    """
    server = SERVERS / contender.server
    if not contender.server:
        return Ready(contender, _trioroom_command(), versions=distributions(contender.packages))
    command = (str(server), "{port}", *contender.options)
    if server.suffix == ".py":
        return Ready(contender, (sys.executable, *command), versions=distributions(contender.packages))
    if server.suffix == ".js":
        modules = _node_modules(cache)
        versions = f"{_packages(contender.packages, modules)}, node {_output('node', '--version').lstrip('v')}"
        return Ready(contender, ("node", *command), {"NODE_PATH": str(modules)}, versions)
    return Ready(contender, (str(_compiled(server, cache)), "{port}"), versions=_output("gcc", "--version", lines=1))


def _trioroom_command() -> tuple[str, ...]:
    """As a user starts it; the room of the bench's own server, of which one member may publish all there is."""
    return (
        *(sys.executable, "-m", "trioroom", "serve", "trioroom.bench.app:app", "--port", "{port}"),
        *("--log-level", "error", "--set=max_message_rate=inf", "--set=max_members_per_room=1000000"),
    )


def distributions(names: tuple[str, ...]) -> str:
    """What of Python is installed, with its versions; `Missing` if one is not."""
    try:
        told = [f"{name} {importlib.metadata.version(name)}" for name in names]
    except importlib.metadata.PackageNotFoundError as exc:
        raise Missing(f"{exc.name} is not installed; nox -s bench brings it") from exc
    return ", ".join((*told, f"Python {platform.python_version()}"))


def _packages(names: tuple[str, ...], modules: Path) -> str:
    versions = {name: json.loads((modules / name / "package.json").read_text())["version"] for name in names}
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _node_modules(cache: Path) -> Path:
    """Packages of the versions in ``package.json``, installed unless they are there."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not on PATH")
    wanted = (SERVERS / "package.json").read_text()
    project = cache / "npm"
    installed = project / "installed"
    if not installed.exists() or installed.read_text() != wanted:
        project.mkdir(parents=True, exist_ok=True)
        (project / "package.json").write_text(wanted)
        _output("npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", cwd=project)
        installed.write_text(wanted)
    return project / "node_modules"


def _compiled(source: Path, cache: Path) -> Path:
    if shutil.which("gcc") is None:
        raise Missing("gcc is not on PATH")
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / source.stem
    _output("gcc", "-O2", "-o", str(program), str(source))
    return program


def _output(*command: str, lines: int | None = None, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=_NPM_TIMEOUT)
    except (OSError, subprocess.SubprocessError) as exc:
        said = getattr(exc, "stderr", None) or str(exc)
        raise Missing(f"{command[0]} failed: {said.strip()}") from exc
    return "\n".join(done.stdout.strip().splitlines()[:lines])
