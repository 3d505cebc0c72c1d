"""Linking one more session to 9, 19, ... 399 others by screens, against comparing all pairs of signatures.

    python benchmarks/linking.py --work /tmp/bench
    python benchmarks/linking.py --sizes 10 20 --plain 20

The sessions have 140 to 700 trials. A quarter of a session's trials show movies that are repeated and shown to all,
half of them movies that the session's partner shows too, and a quarter others. The movies are simulated ones of all
classes, moved in time and mirrored so that there are enough of them, and a tenth of each trial's frames is shown late.
Frames have 12 x 16 pixels: comparing two videos takes a tenth of the time, which is the same for both ways.

Sessions are not converted: signatures and videos are drawn from the movies when the store is asked for them. All else
is what `sensorium ingest` calls at its end, `link_movies`, with the screens, the ledgers (0.5 MB each) and
`movies.json` on the disk. The plain way is given the same signatures and videos. Each step runs in a process of its
own, ours and the plain one in turn, and both must find the groups that were drawn.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import workbench

N_MOVIES = 300
#: Of the movies that are rendered, one in so many is of each of the other classes.
_OTHERS_EVERY = 30
_N_OTHERS = 5
# What stands still for some frames has to be another movie when it is moved.
_MOVE_N_FRAMES, _N_MOVES = 37, 8
_FRAME = (12, 16)
_MOST_TRIALS = 700
_LEDGER_SIZE_BYTES = 500_000
_SEED = 7


def prepare(work: Path) -> Path:
    """Return the folder of the rendered movies and their signatures, made unless it is there."""
    from sensorium_data.movies import N_FRAMES_BY_STIMULUS, sign_video
    from sensorium_data.sessions import Stimulus
    from sensorium_data.simulation.clips import Movie
    from sensorium_data.simulation.stimuli import render_movie

    folder = work / f"linking-{N_MOVIES}"
    if (folder / "lengths.npy").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    classes = [stimulus for stimulus in N_FRAMES_BY_STIMULUS if stimulus is not Stimulus.NATURAL_VIDEO]
    longest = max(max(lengths) for lengths in N_FRAMES_BY_STIMULUS.values())
    lengths = []
    videos = np.lib.format.open_memmap(folder / "videos.npy", "w+", np.float32, (N_MOVIES, longest, *_FRAME))
    signatures = np.lib.format.open_memmap(folder / "signatures.npy", "w+", np.float32, (N_MOVIES, longest, 38))
    for number in range(N_MOVIES):
        place = number % _OTHERS_EVERY
        stimulus = classes[place] if place < len(classes) else Stimulus.NATURAL_VIDEO
        n_frames = int(np.random.default_rng(number).choice(N_FRAMES_BY_STIMULUS[stimulus]))
        rendered = render_movie(Movie(f"AF/{stimulus}/{number}", stimulus, number % 6), n_frames, number)
        video = rendered.reshape(n_frames, _FRAME[0], 3, _FRAME[1], 4).mean(axis=(2, 4))
        lengths.append(n_frames)
        videos[number, :n_frames], signatures[number, :n_frames] = video, sign_video(video)
    videos.flush()
    signatures.flush()
    np.save(folder / "lengths.npy", lengths)
    return folder


class DrawnSession:
    """A session whose trials are drawn from the rendered movies.

    Parameters
    ----------
    folder : Path
        What :func:`prepare` returned.
    number : int
        Which session.
    most_trials : int
        It has so many trials or down to a fifth of that.

    Attributes
    ----------
    shown : list of (int, int)
        For each trial the rendered movie, and which variant of it: how it is mirrored, and how far moved in time.
    """

    def __init__(self, folder: Path, number: int, most_trials: int) -> None:
        self.number = number
        self.name = f"dynamic{40000 + number}-1-1-Video-linking"
        random = np.random.default_rng((_SEED, number))
        n_trials = int(random.integers(most_trials // 5, most_trials, endpoint=True))
        n_shared, n_paired = n_trials // 4, n_trials // 2
        common = np.random.default_rng(_SEED).permutation(N_MOVIES)[:40]
        pair = np.random.default_rng((_SEED, number // 2, 1))
        partly = _draw(pair, most_trials)[:n_paired]
        self.shown = [(int(movie), 0) for movie in random.choice(common, n_shared)]
        self.shown += [*partly, *_draw(random, n_trials - n_shared - n_paired)]
        self.lengths = np.load(folder / "lengths.npy")[[movie for movie, _ in self.shown]]
        self._folder = folder

    @property
    def movies(self) -> list[str]:
        """The session's own id of each trial's movie."""
        first: dict[tuple[int, int], int] = {}
        return [f"{self.number}-1-1:{first.setdefault(shown, trial)}" for trial, shown in enumerate(self.shown)]

    def signature(self, trial: int) -> np.ndarray:
        """Return the signature of a trial."""
        return self._draw_trial("signatures", trial)

    def video(self, trial: int) -> np.ndarray:
        """Return the video of a trial."""
        return self._draw_trial("videos", trial)

    def _draw_trial(self, what: str, trial: int) -> np.ndarray:
        (movie, variant), n_frames = self.shown[trial], int(self.lengths[trial])
        source = (np.arange(n_frames) + _MOVE_N_FRAMES * (variant // 4)) % n_frames
        late = np.random.default_rng((_SEED, self.number, trial)).random(n_frames) < 0.1
        drawn = _read_movie(self._folder / f"{what}.npy", movie)[np.where(late, np.roll(source, 1), source)]
        if what == "signatures":
            blocks = drawn[:, :32].reshape(n_frames, 4, 8)
            return np.concatenate([_mirror(blocks, variant).reshape(n_frames, 32), drawn[:, 32:]], axis=1)
        return _mirror(drawn, variant)


def _mirror(frames: np.ndarray, variant: int) -> np.ndarray:
    return frames[:, :: -1 if variant & 1 else 1, :: -1 if variant & 2 else 1]


def _read_movie(path: Path, movie: int) -> np.ndarray:
    """Return a rendered movie, read as any file is: pages of a mapped one would count as the process's memory."""
    dtype, shape, start = _read_header(path)
    n_values = math.prod(shape[1:])
    values = np.fromfile(path, dtype, n_values, offset=start + movie * n_values * dtype.itemsize)
    return values.reshape(shape[1:])


@cache
def _read_header(path: Path) -> tuple[np.dtype[Any], tuple[int, ...], int]:
    mapped = np.load(path, mmap_mode="r")
    return mapped.dtype, mapped.shape, int(mapped.offset)


def _draw(random: np.random.Generator, n_trials: int) -> list[tuple[int, int]]:
    movies = random.integers(N_MOVIES, size=n_trials)
    # Others than natural videos may look the same in a mirror.
    is_natural = movies % _OTHERS_EVERY >= _N_OTHERS
    variants = 4 * random.integers(1, _N_MOVES, n_trials) + np.where(is_natural, random.integers(4, size=n_trials), 0)
    return list(zip(movies.tolist(), variants.tolist(), strict=True))


def link(drawn: Sequence[DrawnSession], root: Path, jobs: int) -> dict[str, float]:
    """Link the sessions of a store, and return what it took."""
    import xarray as xr

    from sensorium_data.movies import link_movies
    from sensorium_data.sessions import find_session
    from sensorium_data.store import Store

    sessions = {session.name: session for session in drawn}
    for name in sessions:
        ledger = root / name / "ledger.json"
        if not ledger.exists():
            ledger.parent.mkdir(parents=True)
            ledger.write_bytes(name.encode().ljust(_LEDGER_SIZE_BYTES))

    def open_drawn(_: Store, name: str) -> xr.Dataset:
        session = sessions[name]
        return xr.Dataset(
            {"videos": ("trial", np.empty(len(session.shown)), {"largest_absolute_error": 0.0})},
            {"n_frames": ("trial", session.lengths), "movie": ("trial", session.movies)},
            {"session": name},
        ).assign_coords(trial=np.arange(len(session.shown)))

    def read_signatures(_: Store, name: str) -> xr.DataArray:
        session = sessions[name]
        values = np.full((len(session.shown), int(session.lengths.max()), 38), np.nan, np.float32)
        for trial, length in enumerate(session.lengths.tolist()):
            values[trial, :length] = session.signature(trial)
        return xr.DataArray(values, dims=("trial", "time", "feature"))

    found = [find_session(name) for name in sessions]
    for name, replacement in {
        "sessions": property(lambda _: found),
        "movies": open_drawn,
        "videos": lambda _, name: _Videos(sessions[name]),
        "signatures": read_signatures,
        "digest": lambda _, name: f"digest of {name}",
        "release": lambda _, name: None,
    }.items():
        setattr(Store, name, replacement)
    started, cpu = time.perf_counter(), time.process_time()
    links = link_movies(str(root), jobs=jobs)
    taken = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
    _require_truth(drawn, {name: one.ids for name, one in links.sessions.items()})
    return taken


class _Videos:
    """A session's videos as an array that is drawn trial by trial."""

    def __init__(self, session: DrawnSession) -> None:
        self._session = session

    def __getitem__(self, key: tuple[int, slice]) -> np.ndarray:
        trial, frames = key
        return self._session.video(trial)[frames]


def link_plainly(sessions: Sequence[DrawnSession], n_known: int, jobs: int) -> dict[str, float]:
    """Link sessions by comparing all pairs of signatures, of which some are known, and return what it took."""
    from sensorium_data.movies.grouping import join_groups

    trials = [(session, trial) for session in sessions for trial in range(len(session.shown))]
    groups = [
        ("", *session.shown[trial]) if session.number < n_known else (session.number, *session.shown[trial])
        for session, trial in trials
    ]
    started, cpu = time.perf_counter(), time.process_time()
    firsts = join_groups(
        [session.signature(trial) for session, trial in trials],
        lambda position: trials[position][0].video(trials[position][1]),
        groups=groups,
        batches=[0 if session.number < n_known else 1 + session.number for session, _ in trials],
        largest_errors=[0.0] * len(trials),
        jobs=jobs,
    )
    taken = {"wall_s": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}
    first: dict[tuple[int, int], int] = {}
    if firsts != [first.setdefault(session.shown[trial], position) for position, (session, trial) in enumerate(trials)]:
        raise AssertionError("the plain way found other groups than were drawn")
    return taken


def _require_truth(sessions: Sequence[DrawnSession], ids: dict[str, Any]) -> None:
    common: dict[tuple[int, int], str] = {}
    for session in sessions:
        for shown, own in zip(session.shown, session.movies, strict=True):
            linked = ids[session.name].get(own, own)
            if common.setdefault(shown, linked) != linked:
                raise AssertionError(f"session {session.number} was not linked as it was drawn")
    shown_as: dict[str, tuple[int, int]] = {}
    for shown, linked in common.items():
        if shown_as.setdefault(linked, shown) != shown:
            raise AssertionError(f"movies {shown} and {shown_as[linked]} were joined")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sizes", type=int, nargs="+", default=[10, 20, 50, 100, 200, 400], help="sessions")
        parser.add_argument("--plain", type=int, default=50, help="add one plainly to up to so many sessions")
        parser.add_argument("--plain-all", type=int, default=20, help="compare all pairs of up to so many sessions")
        parser.add_argument("--jobs", type=int, default=2, help="pairs of videos compared at once")
        parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)

    options = workbench.parse_arguments(__doc__ or "", n_trials=_MOST_TRIALS, extend=extend, arguments=arguments)
    if options.step is not None:
        what, n_known, n_sessions, root = options.step
        folder = prepare(options.work)
        sessions = [DrawnSession(folder, number, options.trials) for number in range(int(n_sessions))]
        taken = (
            link(sessions, Path(root), options.jobs)
            if what == "ours"
            else link_plainly(sessions, int(n_known), options.jobs)
        )
        print(json.dumps(taken))
        return
    with workbench.open_work_folder(options.work) as work:
        subprocess.run([sys.executable, "-c", _PREPARE, str(Path(__file__).parent), str(work)], check=True)
        measured = measure(work, options)
    workbench.write_results(
        options.results,
        "linking",
        "Movies of one more session linked to those of all others",
        {name: getattr(options, name) for name in ("trials", "sizes", "plain", "plain_all", "jobs")},
        {"steps": measured, "load": workbench.describe_load()},
        [("One more session, and all of them so far", sum_up(measured))],
    )


_PREPARE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import linking
linking.prepare(Path(sys.argv[2]))
"""


def measure(work: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return what each step took: to all sessions but the last, and to the last, for each size and way."""
    root = work / "linking-store"
    shutil.rmtree(root, ignore_errors=True)
    steps = []
    n_linked = 0
    for size in options.sizes:
        for what, n_sessions in (("the others", size - 1), ("one more", size)):
            steps.append(_run("ours", what, n_linked, n_sessions, root, options))
            n_linked = n_sessions
        if size <= options.plain:
            steps.append(_run("plain", "one more", size - 1, size, root, options))
        if size <= options.plain_all:
            steps.append(_run("plain", "all", 0, size, root, options))
    return steps


def _run(way: str, what: str, n_known: int, n_sessions: int, root: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a step in a process of its own, and return what it took and its peak memory."""
    command = [sys.executable, __file__, "--work", str(root.parent), "--jobs", str(options.jobs)]
    command += ["--trials", str(options.trials), "--step", way, str(n_known), str(n_sessions), str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        output = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise subprocess.CalledProcessError(child.returncode, command)
    unit = 1 if sys.platform == "darwin" else 1024
    taken = json.loads(output.splitlines()[-1])
    row = {"way": way, "what": what, "n_known": n_known, "n_sessions": n_sessions, **taken}
    row["peak_memory_bytes"] = usage.ru_maxrss * unit
    print(row, file=sys.stderr)
    return row


def sum_up(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row a size: what one more session took, and all of them."""
    rows = []
    ours = [step for step in steps if step["way"] == "ours"]
    for size in sorted({step["n_sessions"] for step in ours if step["what"] == "one more"}):

        def find(way: str, what: str, size: int = size) -> dict[str, Any] | None:
            chosen = [s for s in steps if (s["way"], s["what"], s["n_sessions"]) == (way, what, size)]
            return chosen[0] if chosen else None

        added, plain, plain_all = find("ours", "one more"), find("plain", "one more"), find("plain", "all")
        assert added is not None
        so_far = [step for step in ours if step["n_sessions"] <= size]
        rows.append(
            {
                "sessions": size,
                "one more, s": added["wall_s"],
                "one more, CPU s": added["cpu_s"],
                "plain, CPU s": plain["cpu_s"] if plain else "",
                "plain / ours": plain["cpu_s"] / added["cpu_s"] if plain else "",
                "all, CPU s": sum(step["cpu_s"] for step in so_far),
                "plain: all, CPU s": plain_all["cpu_s"] if plain_all else "",
                "peak MB": max(step["peak_memory_bytes"] for step in so_far) / 1e6,
                "plain: peak MB": plain["peak_memory_bytes"] / 1e6 if plain else "",
            }
        )
    return rows


if __name__ == "__main__":
    main()
