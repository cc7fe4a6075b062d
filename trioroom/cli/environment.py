"""Names of variables, and which of those that are set mean nothing to us.

Kubernetes describes every Service to the containers of its namespace by variables. Those of a Service called
``trioroom`` begin as ours do, and one of them is ``TRIOROOM_PORT``, an address where we want a number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from typing import Final

from trioroom.cli.suggestions import did_you_mean

PREFIX: Final = "TRIOROOM_"
FILE_SUFFIX: Final = "_FILE"
"""At the end of a variable that names the file with a secret."""
_ADDRESS_OF_SERVICE = re.compile(r"(tcp|udp|sctp)://")
_OF_SERVICE = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$")


def variable_of(key: str) -> str:
    """The variable for an option or a setting."""
    return PREFIX + key.replace("-", "_").upper()


def unknown_variables(known: Collection[str]) -> Iterator[str]:
    """A line on each variable that looks like ours and is not among the ``known`` ones, nor from Kubernetes."""
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known and not _OF_SERVICE.search(name):
            hint = did_you_mean(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known], PREFIX)
            yield f"the variable {name} means nothing here{hint}"


def explain_kubernetes(variable: str) -> str:
    """What to add to a complaint about the value of ``variable`` if it comes from Kubernetes."""
    if not _ADDRESS_OF_SERVICE.match(os.environ.get(variable, "")):
        return ""
    return (
        " Kubernetes sets this variable for a Service called 'trioroom': write 'enableServiceLinks: false' into the "
        f"spec of the pod, give {variable} a value in its env, or call the Service something else."
    )
