"""A sound store and sound predictions, which tests copy and damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from fixtures.changed_stores import TIERS
from fixtures.once import made_once
from fixtures.predicted_sessions import PredictedSessions


@pytest.fixture(scope="session")
def predicted(tmp_path_factory: pytest.TempPathFactory) -> PredictedSessions:
    """Predictions ``sound`` and, with other values, ``others``. Not to be changed."""
    made = PredictedSessions(tmp_path_factory.mktemp("predicted"))
    made.write("sound")
    made.write("others", predictions={alias: values + 1 for alias, values in made.predictions.items()})
    return made


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two sessions, of which F is in its second version, beside its ``archives``. Not to be changed."""
    return made_once(tmp_path_factory, "sound", _make_store) / "store"


def _make_store(root: Path) -> None:
    from sensorium_data.ingest import convert_session
    from sensorium_data.movies import link_movies
    from sensorium_data.testing.recordings import make_recording

    for alias in "AF":
        recording = make_recording(alias, TIERS, n_frames=20, n_padded=22, movies={1: 9, 2: 9}, n_neurons=4)
        recording.write(root / "archives")
        convert_session(recording.session, str(root / "store"), source=str(root / "archives"))
    changed = recording.with_trial(0, responses=recording.trials[0].responses + 1)
    changed.write(root / "archives")
    convert_session(changed.session, str(root / "store"), source=str(root / "archives"))
    link_movies(str(root / "store"))
