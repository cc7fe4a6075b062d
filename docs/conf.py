"""Sphinx for these pages. Needs no network: no intersphinx."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

import trioroom
from trioroom.backplane.kafka import KafkaSettings
from trioroom.backplane.nats import NatsSettings
from trioroom.backplane.redis import RedisSettings

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "trioroom"
author = "trioroom developers"
project_copyright = "2026, trioroom developers"
release = version = trioroom.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples", "changelog.d"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

default_role = "py:obj"  # `Room` in a docstring is a link
nitpick_ignore_regex = [
    # Of other projects, which an offline build cannot link to.
    (r"py:.*", r"(trio|msgspec|ssl|socket|attrs|click|pathlib|collections\.abc)\..*"),
    (
        r"py:.*",
        r"(TracerProvider|Any|AsyncIterator|Awaitable|Callable|Iterator|Path|Sequence|SSLContext|WebSocketRequest)",
    ),
    # Internal types in public signatures: they are told in words, and are free to change.
    (
        r"py:.*",
        r"(Data|Json|Request|Members|Membership|Connection|ActiveRoom|Authenticate|Greeter|Hub|Siblings|Admission|Backplane|Budget|Args|T)",
    ),
    (r"py:.*", r"trioroom\._.*"),
    (r"py:.*", r"trioroom\.auth\.keys\..*"),
    (r"py:.*", r"trioroom\.client\.\w+\..*"),  # its modules: the names are documented in the package
    (r"py:.*", r"trioroom\.backplane\.(base|redis|nats|kafka)\.(Backplane|backplane|\w+\.).*"),
]

html_theme = "furo"
html_title = f"trioroom {release}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]


def add_default(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """A setting's text ends with its default."""
    owner, _, field = name.rpartition(".")
    settings = [trioroom.Settings, trioroom.Presence, RedisSettings, NatsSettings, KafkaSettings]
    owned = [each for each in settings if each.__name__ == owner.rpartition(".")[2]]
    fields = attrs.fields_dict(owned[0]) if owned else {}
    if field in fields:
        lines[:] = [*lines, "", f"Default: ``{fields[field].default!r}``.", ""]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", add_default)
