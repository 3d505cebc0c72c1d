"""However a recording is packed, the store that is made of it is the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures.packings import PACKINGS
from sensorium_data.ingest import convert_session
from sensorium_data.store import open_store
from sensorium_data.testing import Recording
from sensorium_data.testing.recordings import make_recording


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    tiers = draw(st.lists(st.sampled_from(["train", "oracle", "live_test_bonus", "none"]), min_size=1, max_size=3))
    recording = make_recording(
        draw(st.sampled_from(["A", "F", "dynamic1-2-3-Video-lab"])),
        ["train", *tiers],
        n_frames=draw(st.integers(1, 12)),
        n_padded=12,
        n_neurons=draw(st.integers(1, 4)),
        seed=draw(st.integers(0, 99)),
    )
    for trial in draw(st.sets(st.sampled_from(sorted(recording.trials)), max_size=1)) - {0}:
        zeros = np.zeros_like(recording.trials[trial].responses)
        recording = recording.with_trial(trial, responses=draw(st.sampled_from([zeros, None])))
    return recording


# Of each further kind, tests/unit/ingest/test_unpacked.py converts one recording.
KINDS = ("as published", "flat", "one folder too many", "backslashes", "a tree")


@pytest.mark.slow  # by default, one recording of each packing: tests/unit/ingest/test_unpacked.py
@settings(max_examples=8, deadline=None)
@given(recording=recordings())
def test_every_packing_gives_the_same_content(recording: Recording) -> None:
    digests = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(KINDS):
            place = Path(folder) / str(number)
            source = PACKINGS[kind](recording, place / "source")
            convert_session(recording.session, str(place / "store"), source=str(source))
            digests[kind] = open_store(str(place / "store")).digest(recording.session.name)
    assert len(set(digests.values())) == 1, digests
