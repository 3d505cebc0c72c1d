"""Layouts of the stored responses: three ways of reading each candidate, on the disk and over HTTP.

    python benchmarks/layout.py --trials 60

A trial's whole block is what training reads, one neuron's trace over all trials is what an analysis reads. Over HTTP,
requests and bytes count more than the time: the server is on this machine and answers at once.
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import workbench
import zarr
import zarr.codecs
import zarr.storage

from sensorium_data.testing import DirectoryServer, serve_directory

_FLOOR = 1e-6
_N_READS = 8


@dataclass(frozen=True)
class Layout:
    """How responses (trial, neuron, time) are cut.

    Attributes
    ----------
    n_neurons : int or None
        Neurons in a chunk; None for all.
    n_trials : int
        Trials in a shard, or in a chunk where there are no shards.
    is_sharded : bool
        Whether the chunks lie together in shards.
    """

    n_neurons: int | None
    n_trials: int = 1
    is_sharded: bool = True

    def __str__(self) -> str:
        neurons = "all neurons" if self.n_neurons is None else f"{self.n_neurons} neurons"
        files = f"shards of {self.n_trials} trials" if self.is_sharded else "a file each"
        return f"chunks of 1 trial × {neurons}, {files}"

    def create(self, folder: Path, shape: tuple[int, int, int]) -> zarr.Array[Any]:
        """Create an empty array."""
        n_trials, n_neurons, n_frames = shape
        per_chunk = min(self.n_neurons or n_neurons, n_neurons)
        shards = (min(self.n_trials, n_trials), -(-n_neurons // per_chunk) * per_chunk, n_frames)
        return zarr.create_array(
            zarr.storage.LocalStore(folder),
            shape=shape,
            chunks=(1, per_chunk, n_frames),
            shards=shards if self.is_sharded else None,
            dtype="float32",
            fill_value=np.nan,
            compressors=[zarr.codecs.BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle", typesize=4)],
            config={"write_empty_chunks": True},
        )


LAYOUTS = (
    Layout(512),
    Layout(1024),
    Layout(2048),
    Layout(None),
    Layout(None, is_sharded=False),
    Layout(1024, is_sharded=False),
    Layout(1024, n_trials=8),
)


def write_layouts(archive: Path, folder: Path, layouts: Sequence[Layout], *, compact: bool) -> list[Path]:
    """Write the archive's responses in every layout, and return the arrays' folders."""
    trials = workbench.list_trials(archive)
    arrays: list[zarr.Array[Any]] = []
    paths = [folder / f"layout-{number}" for number in range(len(layouts))]
    pending: list[np.ndarray] = []
    most = max(layout.n_trials for layout in layouts)
    for position, (_, values) in enumerate(workbench.read_trial_arrays(archive, "responses")):
        if not arrays:
            shape = (len(trials), *values.shape)
            arrays = [layout.create(path, shape) for layout, path in zip(layouts, paths, strict=True)]
        stored = values.astype(np.float32)
        if compact:
            stored[np.abs(stored) < _FLOOR] = 0
        pending.append(stored)
        # A shard can only be written as a whole.
        if len(pending) == most or position == len(trials) - 1:
            start = position + 1 - len(pending)
            for layout, array in zip(layouts, arrays, strict=True):
                for first in range(0, len(pending), layout.n_trials):
                    block = np.stack(pending[first : first + layout.n_trials])
                    array[start + first : start + first + len(block)] = block
            pending = []
    return paths


def measure_reads(open_array: Callable[[], zarr.Array[Any]], repeats: int) -> tuple[float, float]:
    """Return the seconds that a trial's block takes and that one neuron over all trials takes, medians."""
    array = open_array()
    n_trials, n_neurons, _ = array.shape
    random = np.random.default_rng(0)
    block_s, trace_s = [], []
    for _ in range(repeats):
        for trial in random.permutation(n_trials)[:_N_READS]:
            block_s.append(_time_read(array, (int(trial), slice(None), slice(None))))
        trace_s.append(_time_read(array, (slice(None), int(random.integers(n_neurons)), slice(None))))
    return statistics.median(block_s), statistics.median(trace_s)


def _time_read(array: zarr.Array[Any], where: tuple[Any, ...]) -> float:
    started = time.perf_counter()
    np.asarray(array[where])
    return time.perf_counter() - started


def count_requests(server: DirectoryServer, array: zarr.Array[Any], where: tuple[Any, ...]) -> tuple[int, float]:
    """Return how many requests a read makes, and how many MB they bring."""
    n_requests, n_bytes = len(server.requests), server.n_bytes_sent
    np.asarray(array[where])
    return len(server.requests) - n_requests, (server.n_bytes_sent - n_bytes) / 1e6


def measure_layouts(folder: Path, layouts: Sequence[Layout], paths: Sequence[Path], repeats: int) -> Iterator[Any]:
    """Yield a row for each layout."""
    with serve_directory(folder) as server:
        for layout, path in zip(layouts, paths, strict=True):
            local_s = measure_reads(lambda path=path: zarr.open_array(str(path), mode="r"), repeats)
            store = zarr.storage.FsspecStore.from_url(server.url_of(path.name), read_only=True)
            remote = zarr.open_array(store, mode="r")
            remote_s = measure_reads(lambda remote=remote: remote, repeats)
            block = count_requests(server, remote, (0, slice(None), slice(None)))
            trace = count_requests(server, remote, (slice(None), 0, slice(None)))
            files = [file for file in path.rglob("*") if file.is_file()]
            yield {
                "layout": str(layout),
                "files a trial": (len(files) - 1) / remote.shape[0],
                "MB a trial": workbench.store_size_bytes(path) / remote.shape[0] / 1e6,
                "block, ms": 1e3 * local_s[0],
                "trace, ms a trial": 1e3 * local_s[1] / remote.shape[0],
                "block over HTTP, ms": 1e3 * remote_s[0],
                "its requests": block[0],
                "its MB": block[1],
                "trace over HTTP, ms a trial": 1e3 * remote_s[1] / remote.shape[0],
                "its requests a trial": trace[0] / remote.shape[0],
                "its MB a trial": trace[1] / remote.shape[0],
            }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every layout and write the results."""
    options = workbench.parse_arguments(__doc__ or "", n_trials=60, arguments=arguments)
    tables = []
    with workbench.open_work_folder(options.work) as work:
        archive = workbench.prepare_archive(work, options.trials, options.neurons)
        for label, compact in (("responses as they are", False), ("their numerical floor dropped", True)):
            folder = work / "layouts"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            paths = write_layouts(archive, folder, LAYOUTS, compact=compact)
            tables.append((label, list(measure_layouts(folder, LAYOUTS, paths, options.repeats))))
            shutil.rmtree(folder)
    workbench.write_results(
        options.results,
        "layout",
        "Layouts of the stored responses",
        {"trials": options.trials, "neurons": options.neurons, "repeats": options.repeats},
        {"load": workbench.describe_load()},
        tables,
    )


if __name__ == "__main__":
    main()
