"""Pictures leave matplotlib's settings alone, but not the backend that loads while one is drawn."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import matplotlib

from fixtures.places import CHECKOUT
from sensorium_data.picture_style import picture_style

# As a notebook's backend does: it sets the mode in which figures show themselves, and the user's configuration.
_BACKEND = """
import matplotlib
from matplotlib.backends.backend_agg import *

matplotlib.interactive(True)
matplotlib.rcParams["figure.dpi"] = 77
"""

_PROGRAM = """
import matplotlib
import matplotlib.pyplot as plt
from sensorium_data.picture_style import picture_style

size = matplotlib.rcParams["font.size"]
assert not matplotlib.is_interactive()
with picture_style():
    plt.figure()
print(matplotlib.is_interactive(), matplotlib.rcParams["figure.dpi"], matplotlib.rcParams["font.size"] == size)
"""


def test_settings_are_as_before_afterwards() -> None:
    before = dict(matplotlib.rcParams)
    try:
        with picture_style():
            assert matplotlib.rcParams["font.size"] != before["font.size"]
            raise KeyError
    except KeyError:
        pass
    assert dict(matplotlib.rcParams) == before


def test_what_a_backend_sets_when_a_picture_loads_it_stays(tmp_path: Path) -> None:
    (tmp_path / "notebook_backend.py").write_text(_BACKEND)
    environment = os.environ | {"MPLBACKEND": "module://notebook_backend", "PYTHONPATH": f"{tmp_path}:{CHECKOUT}"}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True", "77.0", "True"], done.stderr
