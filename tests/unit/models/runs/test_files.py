"""What of an unfinished run's folder this software made, and what users put there."""

from __future__ import annotations

import json

import pytest

from models.runs.files import UNFINISHED_RUN
from models.sources import ModelSources, write_sources
from sensorium_data.errors import RunError
from sensorium_data.files import LocalObjects, open_objects

SOURCES = ModelSources({"net.py": b"x = 1", "parts/layers.py": b"y = 2"}, {})
EVENTS = "tensorboard/events.out.tfevents.1764500000.machine.17.0"


@pytest.fixture(params=["local", "memory"])
def run(request, tmp_path):
    url = tmp_path / "run.partial" if request.param == "local" else f"memory:/{tmp_path}/run.partial"
    folder = open_objects(url)
    folder.write("config-given.json", json.dumps({"preset": "Net", "model": "net:Net", "settings": {}}).encode())
    folder.write("config.json", json.dumps({"model": {"code": SOURCES.digests}}).encode())
    for name, content in SOURCES.files.items():
        folder.write(f"code/{name}", content)
    folder.write(EVENTS, b"")
    return folder


def test_all_that_training_made_is_deleted(run):
    assert UNFINISHED_RUN.list_foreign(run) == []
    UNFINISHED_RUN.discard(run)
    assert not run.keys()


@pytest.mark.parametrize("key", ["code/helper.py", "code/parts/layers.py", "tensorboard/events.out.tfevents.mine"])
def test_what_users_put_there_or_changed_stays(run, key):
    run.write(key, b"mine")
    assert UNFINISHED_RUN.list_foreign(run) == [key]
    assert key in UNFINISHED_RUN.describe_foreign(run)
    assert not UNFINISHED_RUN.find_obstacle(run)
    UNFINISHED_RUN.discard(run)
    assert run.keys() == [key]
    assert run.read(key) == b"mine"


def test_code_that_was_changed_is_not_written_over(run):
    if isinstance(run, LocalObjects):
        write_sources(SOURCES, run.root)
        run.write("code/net.py", b"mine")
        with pytest.raises(RunError, match=r"code/net\.py: the code that the unfinished run keeps was changed; move"):
            write_sources(SOURCES, run.root)
        assert run.read("code/net.py") == b"mine"
