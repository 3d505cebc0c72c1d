"""What `import sensorium_data` offers, and what it does not load."""

from __future__ import annotations

import subprocess
import sys

import sensorium_data


def test_every_public_name_is_there() -> None:
    for name in sensorium_data.__all__:
        assert getattr(sensorium_data, name) is not None


def test_public_names_and_lazy_names_are_the_same() -> None:
    assert sorted(sensorium_data._MODULE_OF) == sorted(sensorium_data.__all__)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    assert not hasattr(sensorium_data, "open_sesion")


def test_help_loads_neither_prefect_nor_torch_nor_xarray() -> None:
    code = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as exit_:\n    assert exit_.code == 0\n"
        "print([m for m in ('prefect', 'torch', 'matplotlib', 'xarray', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
