"""Checking one predictions file of a submission, row by row, against the session stores."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from sensorium_data.counting import count_things
from sensorium_data.errors import SubmissionError
from sensorium_data.frames import COLUMNS, FramesProfile
from sensorium_data.sessions import SESSIONS, Release, Tier
from sensorium_data.submission.cells import MISSING_NEURONS, read_label, read_neurons
from sensorium_data.submission.columns import check_columns
from sensorium_data.submission.expectation import ExpectedSession, full_name_of, parse_trial
from sensorium_data.submission.findings import Findings
from sensorium_data.submission.prediction_checker import PredictionChecker
from sensorium_data.submission.reader import ForeignPredictions, ParquetReader
from sensorium_data.submission.section import FileSection

__all__ = ["TableChecker"]


class TableChecker:
    """Checks one Parquet file; memory holds one row at a time.

    Parameters
    ----------
    file : str
        What to call the file.
    reader : ParquetReader
        What reads it.
    section : FileSection
        Where it lies.
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
    """

    def __init__(
        self,
        file: str,
        reader: ParquetReader,
        section: FileSection,
        expected: Mapping[str, ExpectedSession],
        findings: Findings,
        *,
        frames: FramesProfile | None,
        on_row: Callable[[int, int], None],
    ) -> None:
        self.tier: Tier | None = None
        self._file = file
        self._reader = reader
        self._section = section
        self._expected = expected
        self._by_neurons = _sessions_by_neurons(expected)
        self._findings = findings
        self._predictions = PredictionChecker(file, expected, findings, frames)
        self._on_row = on_row
        #: The submission's columns that the file has, and whether each is of the right type.
        self._columns: dict[str, bool] = {}
        self._first_rows: dict[tuple[str, int], int] = {}
        self._foreign_names: dict[str, list[int]] = {}
        self._n_broken_rows = 0
        #: How many rows of each check there was something to compare.
        self._n_compared: Counter[str] = Counter()

    @property
    def profiles(self) -> tuple[FramesProfile, ...]:
        """The frames profiles that most of the file's trials are of; empty if none was recognized.

        Two of the profiles give the same number of frames and cannot be told apart.
        """
        return self._predictions.profiles

    def check(self, tier: Tier | None) -> None:
        """Check the file against a tier; by default against the one that most of its trials are of.

        A column of a wrong type is one violation; what it says is checked as far as it can be told.
        """
        n_rows, self.tier = 0, tier
        has_columns = False
        try:
            table = self._reader.open(self._section)
            has_columns = True
            self._columns = check_columns(table.schema, partial(self._violate, "columns"))
            codecs = [codec for codec in table.codecs if codec != "BROTLI"]
            if codecs:
                self._findings.warn(
                    f"{self._file}: compressed with {', '.join(codecs)}; the competition asks for brotli"
                )
            self.tier = tier or self._guess_tier(table)
            for cells in table.iterate_rows(list(self._columns)) if self._columns else ():
                self._check_row(n_rows, cells)
                n_rows += 1
                self._on_row(n_rows, table.n_rows)
        except SubmissionError as error:
            self._violate("readable", error.problem, found=error.found, expected=error.expected, remedy=error.remedy)
            self._findings.conclude(self._file, "readable", "")
            if has_columns:
                self._findings.conclude(self._file, "columns", ", ".join(COLUMNS))
            return
        self._findings.conclude(self._file, "readable", f"readable Parquet with {count_things(n_rows, 'row')}")
        self._findings.conclude(self._file, "columns", ", ".join(COLUMNS))
        self._conclude()

    def _violate(self, check: str, problem: str, **parts: Any) -> None:
        self._findings.violate(self._file, check, problem, **parts)

    def _accepts(self, *columns: str) -> bool:
        return all(self._columns.get(column) for column in columns)

    def _guess_tier(self, table: ForeignPredictions) -> Tier | None:
        tiers: Counter[Tier] = Counter()
        labels = [column for column in ("mouse", "trial_indices", "neuron_ids") if column in self._columns]
        if "trial_indices" in labels:
            for cells in table.iterate_rows(labels):
                session, trial = self._find_session(cells), parse_trial(read_label(cells["trial_indices"]))
                if session is not None and trial is not None and trial in session.tiers:
                    tiers[session.tiers[trial]] += 1
        return tiers.most_common(1)[0][0] if tiers else None

    def _read_name(self, cells: pa.StructScalar) -> str | None:
        """Return what a row calls its session, None if its column is not there or of a type that has no names."""
        name = read_label(cells["mouse"]) if "mouse" in self._columns else None
        return str(name) if isinstance(name, str) or self._accepts("mouse") else None

    def _find_session(self, cells: pa.StructScalar) -> ExpectedSession | None:
        """Return a row's session, by its neurons if it has no name."""
        name = self._read_name(cells)
        if name is not None:
            return self._expected.get(full_name_of(name))
        neurons = read_neurons(cells["neuron_ids"]) if "neuron_ids" in self._columns else ""
        return None if isinstance(neurons, str) else self._by_neurons.get(tuple(sorted(neurons.tolist())))

    def _check_row(self, row: int, cells: pa.StructScalar) -> None:
        name = self._read_name(cells)
        if name is not None:
            self._n_compared["sessions"] += 1
            if name != full_name_of(name) or name not in self._expected:
                self._foreign_names.setdefault(name, []).append(row)
        session, trial = self._find_session(cells), None
        place: dict[str, Any] = {"row": row}
        if session is not None:
            place["session"] = str(session.session)
        if "neuron_ids" in self._columns:
            self._check_neurons(session, cells["neuron_ids"], place)
        if session is not None and "trial_indices" in self._columns:
            trial = self._check_trial(session, read_label(cells["trial_indices"]), place)
        if session is not None and trial in session.broken:
            self._n_broken_rows += 1
        elif "prediction" in self._columns:
            named = place if trial is None else {**place, "trial": trial}
            self._predictions.check(session, trial, cells["prediction"], named)

    def _check_trial(self, session: ExpectedSession, value: object, place: Mapping[str, Any]) -> int | None:
        """Return the trial's id, if the session has it."""
        trial = parse_trial(value)
        row = place["row"]
        if trial is None and not self._accepts("trial_indices"):
            return None
        self._n_compared["trials"] += 1
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

    def _check_neurons(self, session: ExpectedSession | None, cell: pa.Scalar, place: Mapping[str, Any]) -> None:
        found = read_neurons(cell)
        if isinstance(found, str) and found == MISSING_NEURONS:
            self._n_compared["neurons"] += 1
            ids = "unit ids" if session is None else count_things(session.neurons.size, "id")
            self._violate("neurons", found, **place, found="null", expected=ids)
        if isinstance(found, str) or session is None:
            return  # Its column is of a wrong type, which has been said, or nobody knows whose they are.
        self._n_compared["neurons"] += 1
        expected = session.neurons
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

    def _conclude(self) -> None:
        """End the checks of which all could be told from the columns, or anything was compared."""
        if self._accepts("mouse") or self._n_compared["sessions"]:
            self._conclude_sessions()
        if self._accepts("mouse", "trial_indices") or self._n_compared["trials"]:
            self._conclude_trials()
        self._predictions.conclude(has_all=self._accepts("mouse", "trial_indices", "prediction"))
        if self._accepts("mouse", "neuron_ids") or self._n_compared["neurons"]:
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
                        expected=f"{count_things(len(missing), 'trial')} of {self.tier}",
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
                f"{self._file}: {count_things(self._n_broken_rows, 'row')} of trials whose stimulus is broken; "
                "whether the server wants them is not known"
            )
        self._findings.conclude(
            self._file, "trials", f"one row for each of the {count_things(n_expected, 'valid trial')} of {self.tier}"
        )


def _sessions_by_neurons(expected: Mapping[str, ExpectedSession]) -> dict[tuple[int, ...], ExpectedSession]:
    """Return the sessions by their sorted unit ids, without those that share them."""
    n_of = Counter(tuple(sorted(session.neurons.tolist())) for session in expected.values())
    by_neurons = {tuple(sorted(session.neurons.tolist())): session for session in expected.values()}
    return {neurons: session for neurons, session in by_neurons.items() if n_of[neurons] == 1}
