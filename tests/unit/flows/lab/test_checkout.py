"""Deployed flows run in the clone of the machine that they run on."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.utilities.importtools import import_object

from flows.lab.checkout import ENTER_CHECKOUT, find_checkout
from sensorium_data.errors import UsageError


def enter(directory: Path) -> str:
    """Run the step that deployments name, as a worker finds it."""
    step = import_object(ENTER_CHECKOUT)
    return str(step(directory=str(directory))["directory"])


@pytest.fixture(autouse=True)
def somewhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_clone_that_made_the_deployments_counts_where_it_is(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "prefect.yaml").write_text("name: sensorium-pipeline")
    assert enter(clone) == str(clone)
    assert Path.cwd() == clone


def test_a_machine_with_its_clone_at_another_path_runs_in_that(tmp_path: Path) -> None:
    assert enter(tmp_path / "clone") == str(find_checkout())
    assert Path.cwd() == find_checkout()
    assert (Path.cwd() / "flows" / "pipeline.py").is_file()


def test_a_machine_without_a_clone_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "flows.lab.checkout.__file__", str(tmp_path / "site-packages" / "flows" / "lab" / "checkout.py")
    )
    with pytest.raises(UsageError, match=rf"no clone to run flows in: found no {tmp_path}/clone, .*; install one"):
        enter(tmp_path / "clone")
