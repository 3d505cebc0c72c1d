"""The page that compares the models says what was measured, and names every preset."""

from __future__ import annotations

import json
import re

from fixtures.places import CHECKOUT
from models.registry import get_preset, preset_names

README = (CHECKOUT / "models/README.md").read_text()
RESULTS = CHECKOUT / "benchmarks/results"
OFFICIAL = [name for name in preset_names() if not name.endswith("-debug")]


def rows_of(text):
    return {line for line in text.splitlines() if line.startswith("| ")}


def test_its_tables_of_sizes_and_times_are_those_of_the_benchmark():
    assert rows_of((RESULTS / "models.md").read_text()) <= rows_of(README)


def test_every_preset_is_compared_and_measured():
    measured = {run["preset"]: run for run in json.loads((RESULTS / "models.json").read_text())["measured"]["runs"]}
    assert set(measured) == set(OFFICIAL)
    for name, run in measured.items():
        config = get_preset(name)
        assert (run["n_frames_window"], run["n_frames_lost"]) == (config.n_frames_window, config.model.n_frames_lost)
        assert re.search(rf"^\| `{name}` \| .*README\.md\) \|$", README, re.MULTILINE), name
