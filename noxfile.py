"""What CI runs, and a few things to run by hand: ``nox --list``."""

from __future__ import annotations

import os
import shutil

import nox

nox.options.sessions = ["lint", "types", "docs", "tests"]
nox.options.default_venv_backend = "venv"
nox.options.reuse_venv = "yes"
nox.options.error_on_missing_interpreters = True

# Held to one release line: a newer formatter or checker comes with the commit that follows its advice.
RUFF = "ruff~=0.17.6"
MYPY = "mypy~=2.4"

SYSTEM_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin"))  # where Debian has daemons
KEEPING_BYTECODE = {"PYTHONDONTWRITEBYTECODE": None}  # tests start some hundred servers; each would compile all anew
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@nox.session
def lint(session: nox.Session) -> None:
    """Rules and format of the code."""
    session.install(RUFF)
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    session.install("-e", ".[tests]", MYPY, "nox")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as HTML in docs/_build/html; a warning is an error."""
    session.install("-e", ".[docs,jwt,kafka]")  # autodoc imports what it tells of
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests with coverage; with arguments, what pytest makes of those and no coverage."""
    session.install("-e", ".[tests]")
    provide_programs(session)
    session.run("pytest", *(session.posargs or ["--cov"]), env=KEEPING_BYTECODE)


@nox.session
def autobahn(session: nox.Session) -> None:
    """Every case of the Autobahn suite, the long ones included."""
    session.install("-e", ".[tests]")
    session.run("python", "tests/autobahn/run.py", *session.posargs)


@nox.session
def faults(session: nox.Session) -> None:
    """Faults at random on two nodes and their broker, and whether the guarantees hold: --seed N --minutes M."""
    session.install("-e", ".[tests]")
    session.run("python", "-m", "tests.faults", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """trioroom beside other libraries; with --docs the tables and plots of docs/explanation/performance.md."""
    session.install("-e", ".[bench]", "-r", "tests/benchmarks/peers/servers/requirements.txt")
    session.run("python", "-m", "tests.benchmarks.peers", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The demo as a user gets it, from an installed wheel."""
    session.install(".")
    session.run("trioroom", "demo", *session.posargs)


def provide_programs(session: nox.Session) -> None:
    """See that the programs are there that tests run and pip cannot bring; a CI machine of ours gets them installed."""
    missing = missing_programs()
    if missing and os.environ.get("CI") and os.geteuid() == 0 and shutil.which("apt-get"):
        anyway = range(256)  # without the packages the tests say what they lack, and the others still run
        session.run("apt-get", "update", external=True, success_codes=anyway)
        for package in missing:  # one by one: all of them would fail with the first that is not to be had
            session.run(
                *("apt-get", "install", "-y", "--no-install-recommends", package),
                env={"DEBIAN_FRONTEND": "noninteractive"},
                external=True,
                success_codes=anyway,
            )
    if missing := missing_programs():
        session.warn(
            f"not installed: {' '.join(missing)} (names of Debian's packages). Tests that need a browser, Node or "
            "a proxy skip, and in CI fail; those of Redis run on the Valkey that pip brings"
        )


def missing_programs() -> list[str]:
    """Debian's names of what the tests lack on this machine."""
    there = {
        "chromium": any(shutil.which(name) for name in BROWSERS),
        "chromium-driver": shutil.which("chromedriver"),
        "haproxy": shutil.which("haproxy", path=SYSTEM_PATH),
        "nginx": shutil.which("nginx", path=SYSTEM_PATH),
        "nodejs": shutil.which("node"),
        "npm": shutil.which("npm"),
        "redis-server": shutil.which("redis-server"),
    }
    return [package for package, found in there.items() if not found]
