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
import numpy as np
from sensorium_data import open_session

store, out = sys.argv[1:]
session = open_session(store, "F")

def read(trial):
    # dask keeps a pool for each number of threads, and one for none given.
    with dask.config.set(num_workers=2 if trial % 2 else None):
        return session.responses[trial].values

read(0), read(1)
with get_context("fork").Pool(2) as pool:
    np.save(out, pool.map_async(read, range(session.sizes["trial"]), chunksize=1).get(timeout=30))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not fork")
def test_a_forked_process_reads_on(tmp_path: Path) -> None:
    written = write_session_store(tmp_path / "store", n_neurons=3)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "store"), str(tmp_path / "out.npy")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    expected = written.responses.astype(np.float32)
    expected[list(written.withheld)] = np.nan
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), expected)
