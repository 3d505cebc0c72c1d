"""Forked processes read what their parent has opened and read before."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fixtures.session_stores import write_session_store

SCRIPT = """
import sys
from multiprocessing import get_context
import dask
from sensorium_data import open_session

store, out, workers = sys.argv[1:]
session = open_session(store, "F")

def read(trial):
    # dask keeps a pool for each number of threads, and one for none given.
    with dask.config.set(num_workers=None if workers == "any" else int(workers)):
        return session.responses[trial].values

read(0)
with get_context("fork").Pool(2) as pool:
    import numpy as np
    np.save(out, pool.map_async(read, range(session.sizes["trial"]), chunksize=1).get(timeout=30))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork")
@pytest.mark.parametrize("workers", ["any", "2"])
def test_a_forked_process_reads_on(workers: str, tmp_path: Path) -> None:
    written = write_session_store(tmp_path / "store", n_neurons=3)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "store"), str(tmp_path / "out.npy"), workers]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    expected = written.responses.astype(np.float32)
    expected[list(written.withheld)] = np.nan
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
