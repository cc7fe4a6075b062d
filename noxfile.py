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

PYTHONS = ("3.11", "3.12", "3.13")
NEAR_THE_LIBRARIES = ("tests/_wire", "tests/_core", "tests/_net", "tests/client", "tests/cli/test_configuration.py")

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
    for package in () if session.posargs else ("_core", "_wire"):  # each by itself: all else would hide a hole in them
        session.run("coverage", "report", f"--include=trioroom/{package}/*", "--fail-under=95")


@nox.session
def thorough(session: nox.Session) -> None:
    """What would make the tests longer and says little that is new: more members, seeds, combinations and examples."""
    session.install("-e", ".[tests]")
    provide_programs(session)
    which = ("-m", "thorough or hypothesis", "--hypothesis-profile=thorough")
    session.run("pytest", *which, *session.posargs, env=KEEPING_BYTECODE)


@nox.session
def autobahn(session: nox.Session) -> None:
    """Every case of the Autobahn suite, the long ones included."""
    session.install("-e", ".[tests]")
    session.run("python", "tests/autobahn/run.py", *session.posargs)


@nox.session(python=PYTHONS)
def package(session: nox.Session) -> None:
    """The wheel and the sdist, built and tried as users get them, on each Python; with one: nox -s package-3.11."""
    session.install("build", "twine")
    session.run("python", "tests/package/check.py")


@nox.session
def oldest(session: nox.Session) -> None:
    """A part of the tests with the oldest releases that pyproject.toml allows."""
    session.install("-e", ".[tests]", *oldest_releases())
    session.run("pytest", *(session.posargs or NEAR_THE_LIBRARIES), env=KEEPING_BYTECODE)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Coverage-guided fuzzing of what comes over the wire, a minute for each target; see tests/fuzz/__main__.py."""
    session.install("-e", ".[fuzz]")
    session.run("python", "-m", "tests.fuzz", *session.posargs)


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


def oldest_releases() -> list[str]:
    """What pip is to install of our dependencies, such as ``trio==0.31``."""
    dependencies: list[str] = nox.project.load_toml("pyproject.toml")["project"]["dependencies"]
    return [dependency.replace(">=", "==") for dependency in dependencies]


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
