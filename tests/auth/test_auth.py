from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("missing", ["jwt", "cryptography"])
def test_extra_that_is_not_installed_is_named(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; import trioroom.auth"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode != 0
    assert result.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: trioroom.auth needs PyJWT and cryptography, and there is no {missing}; "
        "pip install 'trioroom[jwt]'"
    )


def test_trioroom_itself_does_without_the_extra() -> None:
    program = "import sys; sys.modules['jwt'] = sys.modules['cryptography'] = None; import trioroom"
    subprocess.run([sys.executable, "-c", program], check=True)
