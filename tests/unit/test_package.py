"""What the packages offer, what importing them loads, and that the contracts hold every folder."""

from __future__ import annotations

import ast
import configparser
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import sensorium_data
from fixtures.places import CHECKOUT

FOLDERS = sorted(
    str(path.parent.relative_to(CHECKOUT)).replace("/", ".")
    for package in ("flows", "models", "sensorium_data")
    for path in (CHECKOUT / package).glob("*/__init__.py")
)


def read_contracts() -> configparser.ConfigParser:
    contracts = configparser.ConfigParser()
    contracts.read(CHECKOUT / ".importlinter")
    return contracts


@pytest.mark.parametrize("folder", ["sensorium_data", *FOLDERS])
def test_every_name_that_a_folder_offers_is_there(folder: str) -> None:
    package = importlib.import_module(folder)
    assert package.__doc__
    for name in package.__all__:
        if f"{folder}.{name}" in FOLDERS:
            continue
        offered = getattr(package, name)
        assert offered is not None
        # A function that bears its module's name is the function.
        assert not isinstance(offered, type(sys))


def test_no_two_folders_offer_different_functions_of_one_name() -> None:
    offered: dict[str, dict[int, str]] = {}
    for folder in ("sensorium_data", "models", "flows", *FOLDERS):
        package = importlib.import_module(folder)
        for name in getattr(package, "__all__", ()):
            if callable(thing := getattr(package, name)):
                offered.setdefault(name, {})[id(thing)] = folder
    assert len(offered) >= 300
    assert {name: [*folders.values()] for name, folders in offered.items() if len(folders) > 1} == {}


@pytest.mark.parametrize("stub", sorted(CHECKOUT.glob("[fms]*/**/__init__.pyi")), ids=lambda stub: stub.parent.name)
def test_a_folder_offers_names_of_its_own_modules(stub: Path) -> None:
    for node in ast.parse(stub.read_text()).body:
        assert isinstance(node, ast.ImportFrom)
        assert node.level == 1
        assert all(alias.asname == alias.name for alias in node.names)
        if stub.parent.name != "sensorium_data":
            # A package offers some names of its folders, too.
            own = (stub.parent / f"{node.module}.py", stub.parent / f"{node.module}" / "__init__.pyi")
            assert any(path.is_file() for path in own)


def test_a_contract_keeps_every_folder_to_itself() -> None:
    contracts = read_contracts()
    protected = {
        contracts[section]["allowed_importers"].strip(): contracts[section]["protected_modules"].strip()
        for section in contracts.sections()
        if contracts[section].get("type") == "protected"
    }
    assert protected == {folder: f"{folder}.*" for folder in FOLDERS}


def test_all_models_stand_in_one_line_so_that_none_imports_another() -> None:
    (line,) = [
        {name.strip() for name in line.split("|")}
        for line in read_contracts()["importlinter:contract:model-layers"]["layers"].splitlines()
        if "factorized3d" in line
    ]
    assert line == {path.parent.name for path in (CHECKOUT / "models").glob("*/model.py")}


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    assert not hasattr(sensorium_data, "open_sesion")


def test_a_session_opened_by_the_package_has_the_accessor() -> None:
    code = "import sensorium_data as sd, xarray as xr\nsd.open_session\nprint(hasattr(xr.Dataset, 'sensorium'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]


def test_help_loads_neither_prefect_nor_torch_nor_xarray() -> None:
    code = (
        "import sys\nfrom flows.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as exit_:\n    assert exit_.code == 0\n"
        "print([m for m in ('prefect', 'torch', 'matplotlib', 'xarray', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
