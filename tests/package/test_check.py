"""What the check of wheel and sdist takes for right: it is run by hand, and must not fall behind pyproject.toml."""

from __future__ import annotations

import tomllib

from tests.package.check import ROOT, place_in_wheel


def test_plugin_comes_to_be_where_its_entry_point_says() -> None:
    [module] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"].values()
    files = [str(file.relative_to(ROOT)) for file in (ROOT / "trioroom").rglob("*.py")]
    assert f"{module}.py" in {place_in_wheel(file) for file in files}


def test_package_stays_where_it_is() -> None:
    assert place_in_wheel("trioroom/room.py") == "trioroom/room.py"
