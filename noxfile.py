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
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-n", "-b", "html", "docs", "docs/_build/html", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests with coverage; with arguments, what pytest makes of those and no coverage."""
    session.install("-e", ".[tests]")
    provide_browser(session)
    session.run("pytest", *(session.posargs or ["--cov"]))


@nox.session
def autobahn(session: nox.Session) -> None:
    """Every case of the Autobahn suite, the long ones included."""
    session.install("-e", ".[tests]")
    session.run("python", "tests/autobahn/run.py", *session.posargs)


@nox.session
def demo(session: nox.Session) -> None:
    """The demo as a user gets it, from an installed wheel."""
    session.install(".")
    session.run("trioroom", "demo", *session.posargs)


def provide_browser(session: nox.Session) -> None:
    """See that Chromium and its driver are there; a CI machine of ours gets them installed."""
    if missing_for_browser() and os.environ.get("CI") and os.geteuid() == 0 and shutil.which("apt-get"):
        anyway = range(256)  # without the packages the browser tests say so, and the others still run
        session.run("apt-get", "update", external=True, success_codes=anyway)
        session.run(
            *("apt-get", "install", "-y", "--no-install-recommends", "chromium", "chromium-driver"),
            env={"DEBIAN_FRONTEND": "noninteractive"},
            external=True,
            success_codes=anyway,
        )
    if missing := missing_for_browser():
        session.warn(
            f"not on PATH: {' and '.join(missing)}; browser tests skip (in CI they fail). "
            "On Debian: apt-get install chromium chromium-driver"
        )


def missing_for_browser() -> list[str]:
    """What the browser tests lack on this machine."""
    missing = [] if any(shutil.which(name) for name in BROWSERS) else [f"a browser ({', '.join(BROWSERS)})"]
    return missing if shutil.which("chromedriver") else [*missing, "chromedriver"]
