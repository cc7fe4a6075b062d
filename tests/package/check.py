"""The wheel and the sdist as users get them: built, read, and installed where nothing else is.

    nox -s package
    python tests/package/check.py       with build and twine installed, for the Python that runs it

Ends with 1 and what is wrong, if something is.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen
from zipfile import ZipFile

ROOT = Path(__file__).parent.parent.parent
DEADLINE = 60  # seconds for a server to start
ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
SERVED = {
    "/healthz": b"ok",
    "/": b"<!doctype html>",
    "/chat.js": b"trioroom.js",
    "/trioroom.js": b"class",
}  # by the demo, with what is somewhere in it
IMPORTED = """
import importlib.resources, trioroom, trioroom.testing
assert importlib.resources.files("trioroom").joinpath("py.typed").is_file(), "py.typed is missing"
assert "site-packages" in trioroom.__file__, trioroom.__file__
print(trioroom.__version__)
"""


class Wrong(Exception):
    """What was built is not what it should be."""


def main() -> None:
    """Build, look, install, try."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        wheel, sdist = build(directory / "dist")
        run(sys.executable, "-m", "twine", "check", "--strict", str(wheel), str(sdist))
        check_content(wheel)
        check_same(wheel, build_from_tree(directory / "tree"))
        check_installed(wheel, directory / "user")
    print(f"{wheel.name} and {sdist.name} are as they should be on Python {sys.version.split()[0]}")


def build(directory: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is made from that."""
    run(sys.executable, "-m", "build", "--outdir", str(directory), str(ROOT))
    (wheel,), (sdist,) = directory.glob("*.whl"), directory.glob("*.tar.gz")
    return wheel, sdist


def build_from_tree(directory: Path) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(directory), str(ROOT))
    (wheel,) = directory.glob("*.whl")
    return wheel


def check_content(wheel: Path) -> None:
    """The package as git keeps it, what tells of it, and nothing besides."""
    listed = run("git", "-C", str(ROOT), "ls-files", "trioroom").split("\n")
    kept = {place_in_wheel(path) for path in listed if path}
    found = set(read(wheel))
    told = {name for name in found if name.split("/")[0].endswith(".dist-info")}
    if missing := kept - found:
        raise Wrong(f"the wheel lacks {', '.join(sorted(missing))}")
    if stray := found - kept - told:
        raise Wrong(f"the wheel has what git does not keep: {', '.join(sorted(stray))}")


def place_in_wheel(path: str) -> str:
    """Where the build puts a file: what pyproject.toml names as `sources` is left out of its path."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for source in settings["tool"]["hatch"]["build"]["targets"]["wheel"]["sources"]:
        path = path.removeprefix(f"{source}/")
    return path


def check_same(wheel: Path, other: Path) -> None:
    """The sdist and the tree make the same wheel."""
    one, two = read(wheel), read(other)
    if different := [name for name in one.keys() | two.keys() if one.get(name) != two.get(name)]:
        raise Wrong(f"the wheels of the sdist and of the tree differ in {', '.join(sorted(different))}")


def read(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def check_installed(wheel: Path, directory: Path) -> None:
    """It works where nothing else is installed: the command, the import, the demo with its page."""
    venv.create(directory, with_pip=True)
    python, command = directory / "bin" / "python", directory / "bin" / "trioroom"
    run(str(python), "-m", "pip", "install", "--quiet", str(wheel), cwd=directory)
    run(str(python), "-m", "pip", "check", cwd=directory)
    version = wheel.name.split("-")[1]
    said = run(str(command), "--version", cwd=directory), run(str(python), "-W", "error", "-c", IMPORTED, cwd=directory)
    if not all(text.strip().endswith(version) for text in said):
        raise Wrong(f"it says {said} and is {version}")
    with demo(command, directory) as address:
        for path, part in SERVED.items():
            with urlopen(address + path, timeout=DEADLINE) as answer:  # by default it raises for all but 200
                if part not in answer.read():
                    raise Wrong(f"the demo serves {path} without {part.decode()}")


@contextmanager
def demo(command: Path, directory: Path) -> Iterator[str]:
    """The demo on a free port; yields its address."""
    arguments = [str(command), "demo", "--port", "0"]
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=directory
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if address := ADDRESS.search(line):
                    yield address[0]
                    break
            else:
                raise Wrong("the demo has ended before it told its address")
        finally:
            process.terminate()
    if process.returncode != 0:
        raise Wrong(f"the demo ends with {process.returncode} when it is told to")


def run(*command: str, cwd: Path = ROOT) -> str:
    """What it prints."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Wrong(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    try:
        main()
    except Wrong as wrong:
        raise SystemExit(str(wrong)) from None
