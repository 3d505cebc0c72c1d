from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.places import TESTS
from sensorium_data.predictions.unfinished import UNFINISHED_PREDICTIONS
from sensorium_data.store import SESSION_GROUP, UNFINISHED_SESSION

STORES = sorted(TESTS.glob("compat/store-*/*/ledger.json"))


@pytest.mark.parametrize("ledger", STORES, ids=lambda path: path.parents[1].name)
def test_every_object_of_a_session_is_known_by_its_key(ledger: Path) -> None:
    group = ledger.parent
    keys = [path.relative_to(group).as_posix() for path in group.rglob("*") if path.is_file()]
    assert len(keys) > 50
    assert [key for key in keys if not SESSION_GROUP.makes(key)] == []


def test_every_object_of_predictions_is_known_by_its_key() -> None:
    root = TESTS / "compat" / "predictions-2"
    keys = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
    assert len(keys) > 15
    assert [key for key in keys if not UNFINISHED_PREDICTIONS.makes(key)] == []


@pytest.mark.parametrize("key", ["notes.txt", "group/notes.txt", "trials/notes.npz", "videos/c/0", "group/data/0.npy"])
def test_other_keys_are_of_no_conversion(key: str) -> None:
    assert not UNFINISHED_SESSION.makes(key)
