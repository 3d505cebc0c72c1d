"""Stores of simulated archives say so wherever they are shown, and stores of recordings never do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

import sensorium_data.explore.accessor  # noqa: F401  # registers it
from sensorium_data.archive import open_archive
from sensorium_data.ingest import convert_session
from sensorium_data.ingest.simulation_mark import SimulationMark, read_simulation_mark
from sensorium_data.predictions import from_arrays, predictions_attributes
from sensorium_data.quality import check_store
from sensorium_data.quality.report import render_report
from sensorium_data.schema import INSTITUTION
from sensorium_data.scoring import Bootstrap, score_predictions
from sensorium_data.store import Store, describe_store, open_store
from sensorium_data.submission.card import describe_predictions, write_card
from sensorium_data.submission.sources import open_entry
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording

MARK = {"simulated": True, "seed": 7, "simulator_version": 2}


def with_config(recording: Recording, config: bytes) -> Recording:
    return replace(recording, extra={f"{recording.session.name}/config.json": config})


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Session F, simulated, and A, recorded, of 60 frames a trial."""
    root = tmp_path_factory.mktemp("marked")
    for alias, config in (("F", MARK), ("A", {"data_key": "A"})):
        recording = make_recording(alias, ["train", "oracle", "oracle"], movies={1: 1, 2: 1}, n_frames=60, n_padded=60)
        with_config(recording, json.dumps(config).encode()).write(root / "archives")
        convert_session(recording.session, str(root / "store"), source=str(root / "archives"))
    return open_store(root / "store")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (MARK, SimulationMark(7, 2)),
        ({"simulated": True}, SimulationMark(None, None)),
        ({"simulated": True, "seed": "7", "simulator_version": -1}, SimulationMark(None, None)),
        ({"simulated": "true", "seed": 7}, None),
        ({"data_key": "F"}, None),
        ([], None),
    ],
)
def test_the_mark_is_what_a_simulation_writes(config: object, expected: SimulationMark | None, tmp_path: Path) -> None:
    recording = with_config(make_recording("F", ["train"], n_frames=4, n_padded=4), json.dumps(config).encode())
    recording.write(tmp_path)
    with open_archive(recording.session, [str(tmp_path)]) as archive:
        assert read_simulation_mark(archive) == expected


@pytest.mark.parametrize("config", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_configuration_that_is_no_json_says_nothing(config: bytes, tmp_path: Path) -> None:
    recording = with_config(make_recording("F", ["train"], n_frames=4, n_padded=4), config)
    recording.write(tmp_path)
    with open_archive(recording.session, [str(tmp_path)]) as archive:
        assert read_simulation_mark(archive) is None


def test_attributes_of_a_simulated_session_are_not_those_of_the_recordings(store: Store) -> None:
    simulated, recorded = store["F"].attrs, store["A"].attrs
    assert (simulated["simulated"], simulated["simulation_seed"], simulated["simulation_version"]) == (True, 7, 2)
    assert simulated["title"].startswith("Simulated")
    assert not {"institution", "license", "references"} & simulated.keys()
    assert not {"simulated", "simulation_seed"} & recorded.keys()
    assert recorded["institution"] == INSTITUTION


def test_a_store_and_its_sessions_say_what_is_simulated(store: Store) -> None:
    assert repr(store).endswith(": A, F (simulated)>")
    for alias, kind in (("F", "simulated session"), ("A", "session")):
        first_line = repr(store[alias].sensorium).splitlines()[0]
        assert first_line == f"<{kind} {alias} ({store[alias].attrs['session']}): 3 trials, 5 neurons>"
    assert describe_store(store).set_index("alias").simulated.to_dict() == {"A": False, "F": True}


def test_the_quality_report_says_what_is_simulated(store: Store) -> None:
    quality = check_store(store)
    assert quality.describe().endswith("(simulated, no recordings: F)")
    assert [one["simulated"] for one in quality.to_dict()["sessions"]] == [False, True]
    assert render_report(quality).count("Simulated, no recording.") == 1


def test_predictions_scores_and_cards_say_what_is_simulated(store: Store, tmp_path: Path) -> None:
    arrays = {"F": {trial: store["F"].responses.sel(trial=trial).values for trial in (1, 2)}}
    path = str(tmp_path / "predictions")
    from_arrays(path, store, arrays, response_units="raw")
    name = store.sessions[1].name
    assert predictions_attributes(path)["simulated"] == [name]
    table = score_predictions(path, store, bootstrap=Bootstrap(100))
    assert json.loads(table.to_json())["simulated"] == [name]
    assert table.describe_simulated() == "F is simulated: the scores say nothing about recordings"
    record = {
        "identity": {"track": "main", "frames": "official", "float_type": "float32", "stores": {}},
        "files": [],
        "predictions": describe_predictions(open_entry([path])),
        "software": {},
    }
    assert "**Simulated sessions: F." in write_card(record, {})
