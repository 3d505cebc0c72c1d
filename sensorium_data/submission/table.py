"""Checking one predictions file of a submission, row by row, against the session stores."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from sensorium_data.frames import COLUMNS, FRAMES_PROFILES, FramesProfile, frames_of
from sensorium_data.sessions import SESSIONS, Release, Tier
from sensorium_data.submission.expectation import ExpectedSession, full_name_of, parse_trial
from sensorium_data.submission.findings import Findings
from sensorium_data.submission.parquet import COLUMN_TYPES, PredictionsFile, describe_type

__all__ = ["TableChecker"]

_MAX_EXAMPLES = 20


class TableChecker:
    """Checks one Parquet file; memory holds one row at a time.

    Parameters
    ----------
    file : str
        What to call the file.
    open_source : callable
        Opens the file, as often as it is called: a path, or a new seekable file object.
    expected : mapping of str to ExpectedSession
        The scored sessions of the store, by full name.
    findings : Findings
        Where to put what is found.
    frames : str, optional
        The frames profile that the file has to be of; by default any.
    on_row : callable
        Called after every row with the number of checked rows and of all rows.

    Attributes
    ----------
    tier : Tier or None
        The tier that the file was checked against.
    profiles : tuple of str
        The frames profiles that most of the file's trials are of; empty if none was recognized. Two of the
        profiles give the same number of frames and cannot be told apart.
    """

    def __init__(
        self,
        file: str,
        open_source: Callable[[], Path | IO[bytes]],
        expected: Mapping[str, ExpectedSession],
        findings: Findings,
        *,
        frames: FramesProfile | None,
        on_row: Callable[[int, int], None],
    ) -> None:
        self.tier: Tier | None = None
        self.profiles: tuple[FramesProfile, ...] = ()
        self._file = file
        self._open_source = open_source
        self._expected = expected
        self._findings = findings
        self._frames = frames
        self._on_row = on_row
        self._first_rows: dict[tuple[str, int], int] = {}
        self._foreign_names: dict[str, list[int]] = {}
        self._by_profiles: dict[tuple[FramesProfile, ...], _Tally] = {}
        self._ranges: dict[str, _Range] = {}
        self._n_broken_rows = 0

    def check(self, tier: Tier | None) -> None:
        """Check the file against a tier; by default against the one that most of its trials are of."""
        n_rows = 0
        try:
            with PredictionsFile(self._open_source) as table:
                usable = self._check_columns(table.schema)
                if table.codec not in (None, "BROTLI"):
                    self._findings.warn(f"{self._file}: compressed with {table.codec}; the competition asks for brotli")
                self.tier = tier or self._guess_tier(table, usable)
                for cells in table.iterate_rows(sorted(usable)) if usable else ():
                    self._check_row(n_rows, cells, usable)
                    n_rows += 1
                    self._on_row(n_rows, table.n_rows)
        # Damaged files fail in any of these ways, according to which bytes are damaged.
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            self._violate(
                "readable",
                "the file cannot be read as Parquet",
                found=str(error).splitlines()[0] if str(error) else type(error).__name__,
                remedy="write it again, with pyarrow",
            )
            self._findings.conclude(self._file, "readable", "")
            return
        self._findings.conclude(self._file, "readable", f"readable Parquet with {n_rows} rows")
        self._findings.conclude(self._file, "columns", ", ".join(COLUMNS))
        self._conclude(usable)

    def _violate(self, check: str, problem: str, **parts: Any) -> None:
        self._findings.violate(self._file, check, problem, **parts)

    def _check_columns(self, schema: pa.Schema) -> set[str]:
        """Return the columns whose content can be checked."""
        usable = set()
        for name in dict.fromkeys(schema.names):
            if name not in COLUMN_TYPES:
                remedy = "write it with index=False" if name.startswith("__index_level") else "leave it out"
                self._violate(
                    "columns", "a column too many", found=repr(name), expected=", ".join(COLUMNS), remedy=remedy
                )
        for name, column_type in COLUMN_TYPES.items():
            types = [field.type for field in schema if field.name == name]
            if not types:
                self._violate("columns", "a column is missing", expected=repr(name), remedy="add it")
            elif len(types) > 1:
                self._violate("columns", "a column is there twice", found=repr(name), remedy="keep one")
            elif not column_type.accepts(types[0]):
                self._violate(
                    "columns",
                    f"column {name!r} is of the wrong type",
                    found=describe_type(types[0]),
                    expected=column_type.description,
                    remedy="convert it",
                )
            else:
                usable.add(name)
        return usable

    def _guess_tier(self, table: PredictionsFile, usable: set[str]) -> Tier | None:
        tiers: Counter[Tier] = Counter()
        if {"mouse", "trial_indices"} <= usable:
            for mouse, trial in table.iterate_labels(["mouse", "trial_indices"]):
                session, parsed = self._expected.get(full_name_of(mouse)), parse_trial(trial)
                if session is not None and parsed is not None and parsed in session.tiers:
                    tiers[session.tiers[parsed]] += 1
        return tiers.most_common(1)[0][0] if tiers else None

    def _check_row(self, row: int, cells: pa.StructScalar, usable: set[str]) -> None:
        if "mouse" not in usable:
            return
        name = cells["mouse"].as_py()
        full_name = full_name_of(name)
        if name != full_name or full_name not in self._expected:
            self._foreign_names.setdefault(str(name), []).append(row)
        session = self._expected.get(full_name)
        if session is None:
            return
        place: dict[str, Any] = {"row": row, "session": str(session.session)}
        if "trial_indices" in usable:
            trial = self._check_trial(session, cells["trial_indices"].as_py(), place)
            if trial is not None and trial in session.broken:
                self._n_broken_rows += 1
            elif trial is not None:
                place["trial"] = trial
                if "prediction" in usable:
                    self._check_prediction(session, trial, cells["prediction"], place)
        if "neuron_ids" in usable:
            self._check_neurons(session, cells["neuron_ids"], place)

    def _check_trial(self, session: ExpectedSession, value: object, place: Mapping[str, Any]) -> int | None:
        """Return the trial's id, if the session has it."""
        trial = parse_trial(value)
        row = place["row"]
        if trial is None or trial not in session.tiers:
            self._violate(
                "trials",
                "the session has no such trial",
                **place,
                found=repr(value),
                expected="a trial id, as 1 or '1.npy'",
                remedy="write the number of the trial's file in the archive",
            )
            return None
        key = (session.session.name, trial)
        if key in self._first_rows:
            self._violate(
                "trials",
                "the trial is there twice",
                **place,
                trial=trial,
                found=f"rows {self._first_rows[key]} and {row}",
                remedy="keep one",
            )
        self._first_rows.setdefault(key, row)
        if self.tier is not None and session.tiers[trial] is not self.tier:
            self._violate(
                "trials",
                "the trial is of another tier",
                **place,
                trial=trial,
                found=str(session.tiers[trial]),
                expected=str(self.tier),
                remedy="leave it out of this file",
            )
        return trial

    def _check_prediction(
        self, session: ExpectedSession, trial: int, cell: pa.Scalar, place: Mapping[str, Any]
    ) -> None:
        n_neurons = session.neurons.size
        shapes = {p: (n_neurons, len(frames_of(p, session.n_frames[trial]))) for p in FRAMES_PROFILES}
        expected = f"{shapes['official']}, or {shapes['50-298']} in the profiles 50-298 and 51-299"
        neurons = cell.values
        if neurons is None or neurons.null_count:
            self._violate("frames", "a prediction is missing", **place, found="null", expected=expected)
            return
        lengths = np.unique(pc.list_value_length(neurons).to_numpy(zero_copy_only=False))
        if lengths.size > 1:
            self._violate(
                "frames",
                "the neurons of a prediction have different numbers of frames",
                **place,
                found=f"{lengths[0]} to {lengths[-1]}",
                expected=expected,
                remedy="give every neuron the same frames",
            )
            return
        found = (len(neurons), int(lengths[0]) if lengths.size else 0)
        profiles = tuple(profile for profile, shape in shapes.items() if shape == found)
        if not profiles:
            transposed = found[::-1] in shapes.values()
            self._violate(
                "frames",
                "wrong shape of a prediction",
                **place,
                found=found,
                expected=expected,
                remedy="transpose it: neurons first"
                if transposed
                else "give the frames of one profile, which all end with the video",
            )
            return
        if len(profiles) < len(FRAMES_PROFILES):  # All profiles agree on trials that are too short for any frame.
            self._by_profiles.setdefault(profiles, _Tally()).add(place, found)
        values = neurons.flatten().to_numpy(zero_copy_only=False).reshape(found)
        finite = np.isfinite(values)
        if not finite.all():
            neuron, frame = np.argwhere(~finite)[0].tolist()
            self._violate(
                "values",
                "values that are not finite",
                **place,
                found=f"{np.count_nonzero(~finite)}, the first for unit {session.neurons[neuron]} at frame {frame}",
                expected="numbers",
                remedy="check the model",
            )
            return
        self._ranges.setdefault(session.session.name, _Range(n_neurons)).add(values)

    def _check_neurons(self, session: ExpectedSession, cell: pa.Scalar, place: Mapping[str, Any]) -> None:
        expected = session.neurons
        array = cell.values
        if array is None or array.null_count:
            self._violate("neurons", "neuron ids are missing", **place, found="null", expected=f"{expected.size} ids")
            return
        found = array.to_numpy(zero_copy_only=False)
        if np.array_equal(found, expected):
            return
        if found.size != expected.size:
            problem, detail, what = "wrong number of neuron ids", str(found.size), str(expected.size)
        else:
            first = int(np.flatnonzero(found != expected)[0])
            detail, what = f"unit {found[first]} at position {first}", f"unit {expected[first]}"
            same = np.array_equal(np.sort(found), np.sort(expected))
            problem = "neuron ids in another order than the store's" if same else "neuron ids of other neurons"
        self._violate(
            "neurons",
            problem,
            **place,
            found=detail,
            expected=what,
            remedy="write meta/neurons/unit_ids.npy as it is, and the prediction's rows in that order",
        )

    def _conclude(self, usable: set[str]) -> None:
        if "mouse" in usable:
            self._conclude_sessions()
        if {"mouse", "trial_indices"} <= usable:
            self._conclude_trials()
            if "prediction" in usable:
                self._conclude_frames()
                self._findings.conclude(self._file, "values", "every value is finite")
                self._warn_of_values()
        if {"mouse", "neuron_ids"} <= usable:
            self._findings.conclude(self._file, "neurons", "neuron_ids are those of the store, in its order")

    def _conclude_sessions(self) -> None:
        for name, rows in self._foreign_names.items():
            full_name = full_name_of(name)
            problem, expected, remedy = "unknown session", None, None
            if name != full_name:
                problem, expected, remedy = "the session's name is not whole", full_name, "write it whole"
            elif name in SESSIONS:
                session = SESSIONS[name]
                if session.release is Release.OLD:
                    problem, remedy = "a session that the competition does not score", "leave it out"
                else:
                    problem, remedy = "the session is not in the store", f"ingest {session.alias} to check it"
            else:
                near = difflib.get_close_matches(name, SESSIONS, n=2)
                remedy = f"did you mean {' or '.join(near)}?" if near else "write a session's full name"
            more = f", in {len(rows)} rows" if len(rows) > 1 else ""
            self._violate("sessions", problem, row=rows[0], found=f"{name!r}{more}", expected=expected, remedy=remedy)
        aliases = ", ".join(s.session.alias for s in self._expected.values())
        self._findings.conclude(self._file, "sessions", f"only scored sessions of the store ({aliases})")

    def _conclude_trials(self) -> None:
        n_expected = 0
        if self.tier is not None:
            for name, session in self._expected.items():
                missing = sorted(trial for trial in session.trials(self.tier) if (name, trial) not in self._first_rows)
                n_expected += len(session.trials(self.tier))
                if missing and len(missing) == len(session.trials(self.tier)):
                    self._violate(
                        "trials",
                        "the session has no row of this tier",
                        session=str(session.session),
                        expected=f"{len(missing)} trials of {self.tier}",
                        remedy="add them",
                    )
                    continue
                for trial in missing:
                    self._violate(
                        "trials",
                        "the trial has no row",
                        session=str(session.session),
                        trial=trial,
                        expected=f"a row for every trial of {self.tier}",
                        remedy="add it",
                    )
        if self._n_broken_rows:
            self._findings.warn(
                f"{self._file}: {self._n_broken_rows} rows of trials whose stimulus is broken; "
                "whether the server wants them is not known"
            )
        self._findings.conclude(
            self._file, "trials", f"one row for each of the {n_expected} valid trials of {self.tier}"
        )

    def _conclude_frames(self) -> None:
        if self._by_profiles:
            self.profiles = max(self._by_profiles, key=lambda profiles: self._by_profiles[profiles].n_rows)
        for profiles, tally in self._by_profiles.items():
            if self._frames is not None and self._frames not in profiles:
                problem, expected = f"the frames are not those of profile {self._frames}", str(self._frames)
            elif self._frames is None and profiles != self.profiles:
                problem = "the frames are of another profile than those of the other trials"
                expected = " or ".join(self.profiles)
            else:
                continue
            for place, found in tally.examples:
                self._violate(
                    "frames",
                    problem,
                    **place,
                    found=f"{found}, which is {' or '.join(profiles)}",
                    expected=expected,
                    remedy="use one profile for all trials",
                )
            if tally.n_rows > len(tally.examples):
                self._violate("frames", f"{problem}, in more rows", found=tally.n_rows - len(tally.examples))
        profile = " or ".join(self.profiles) or "any"
        self._findings.conclude(self._file, "frames", f"(neurons, frames) of every trial are of profile {profile}")

    def _warn_of_values(self) -> None:
        for name, values in self._ranges.items():
            session = self._expected[name].session
            n_constant = int(np.count_nonzero(values.lowest == values.highest))
            if n_constant:
                self._findings.warn(
                    f"{self._file}: session {session}: the predictions of {n_constant} of {values.lowest.size} neurons "
                    "are constant over all trials, and will score 0"
                )
            if values.n_negative:
                self._findings.warn(
                    f"{self._file}: session {session}: {values.n_negative} predicted values are negative; "
                    "recorded activity is not"
                )


class _Tally:
    """How many rows are of some kind, and the first of them."""

    def __init__(self) -> None:
        self.n_rows = 0
        self.examples: list[tuple[dict[str, Any], tuple[int, int]]] = []

    def add(self, place: Mapping[str, Any], found: tuple[int, int]) -> None:
        self.n_rows += 1
        if len(self.examples) < _MAX_EXAMPLES:
            self.examples.append((dict(place), found))


class _Range:
    """The range of each neuron's values over a file."""

    def __init__(self, n_neurons: int) -> None:
        self.lowest = np.full(n_neurons, np.inf)
        self.highest = np.full(n_neurons, -np.inf)
        self.n_negative = 0

    def add(self, values: npt.NDArray[np.floating]) -> None:
        if values.size:
            np.minimum(self.lowest, values.min(axis=1), out=self.lowest)
            np.maximum(self.highest, values.max(axis=1), out=self.highest)
            self.n_negative += int(np.count_nonzero(values < 0))
