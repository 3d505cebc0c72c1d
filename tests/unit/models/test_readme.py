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
    # A model that no machine at hand can train at full size is said to be so.
    said = re.search(r"^The steps of ((?:`[\w-]+`(?:, | and )?)+) were not measured", README, re.MULTILINE)
    assert said is not None
    unmeasured = set(re.findall(r"`([\w-]+)`", said[1]))
    assert set(measured) | unmeasured == set(OFFICIAL)
    assert not set(measured) & unmeasured
    for name in OFFICIAL:
        config = get_preset(name)
        if name in measured:
            run = measured[name]
            found = (run["n_frames_window"], run["n_frames_lost"])
            assert found == (config.n_frames_window, config.model.n_frames_lost)
        else:
            sizes = rf"^\| `{name}` \|.*\| {config.n_frames_window} \| {config.model.n_frames_lost} \|"
            assert re.search(sizes, README, re.MULTILINE), name
        assert re.search(rf"^\| `{name}` \| .*README\.md\) \|$", README, re.MULTILINE), name
