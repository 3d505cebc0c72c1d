"""What checking a submission finds: checks, violations, warnings."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Self

import pandas as pd

from sensorium_data.errors import SubmissionError
from sensorium_data.html_table import write_html_lines, write_html_table

__all__ = ["Check", "Findings", "ValidationReport", "Violation"]

#: Violations of one kind in one file that are spelled out; the others are counted.
_MAX_SPELLED_OUT = 20


@dataclass(frozen=True)
class Check:
    """One thing that was checked in one file, and how it came out, in a sentence."""

    file: str
    name: str
    passed: bool
    finding: str


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong: where, what was found, what was expected, what to do, in a sentence.

    Attributes
    ----------
    file : str
        The file, as it was named; for a member of a zip, ``zip: member``.
    check : str
        Name of the check that failed.
    sentence : str
        All of it, in one line.
    row : int, optional
        The row of the table, counted from 0 as pandas does.
    session, trial
        Where they are known.
    """

    file: str
    check: str
    sentence: str
    row: int | None = None
    session: str | None = None
    trial: int | None = None

    def __str__(self) -> str:
        return self.sentence


@dataclass(frozen=True)
class ValidationReport:
    """What :func:`sensorium_data.submission.validate_submission` found.

    Attributes
    ----------
    checks : tuple of Check
        Everything that was checked, passed or not, file by file.
    violations : tuple of Violation
        Everything that is wrong; empty if the submission is right. Many of one kind are spelled out up to a
        limit, and counted beyond it.
    warnings : tuple of str
        What the server takes but was hardly meant.
    """

    checks: tuple[Check, ...]
    violations: tuple[Violation, ...]
    warnings: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations

    def _repr_html_(self) -> str:
        caption = f"Validation: {'passed' if self.passed else 'failed'}"
        rows = [(one.file, one.name, "passed" if one.passed else "failed", one.finding) for one in self.checks]
        table = write_html_table(caption, ["file", "check", "result", "finding"], rows)
        violations = [[one.sentence] for one in self.violations]
        wrong = write_html_table("What is wrong", ["violation"], violations) if violations else ""
        return table + wrong + write_html_lines(self.warnings)

    def to_frame(self) -> pd.DataFrame:
        """Return the checks as a table: file, check, passed, finding."""
        rows = [(check.file, check.name, check.passed, check.finding) for check in self.checks]
        return pd.DataFrame(rows, columns=["file", "check", "passed", "finding"])

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps({"passed": self.passed, **self.to_dict()}, indent=2, ensure_ascii=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, which :meth:`from_dict` reads."""
        return {
            "checks": [asdict(check) for check in self.checks],
            "violations": [asdict(violation) for violation in self.violations],
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Read what :meth:`to_dict` returned; a :class:`TypeError` or :class:`KeyError` if it is something else."""
        return cls(
            tuple(Check(**check) for check in values["checks"]),
            tuple(Violation(**violation) for violation in values["violations"]),
            tuple(str(warning) for warning in values["warnings"]),
        )


class Findings:
    """Collects what is found, in order, with a limit on what is spelled out of one kind."""

    def __init__(self) -> None:
        self._checks: list[Check] = []
        self._violations: list[Violation] = []
        self._warnings: list[str] = []
        self._n_of_kind: Counter[tuple[str, str, str]] = Counter()
        self._n_of_check: Counter[tuple[str, str]] = Counter()

    def violate(
        self,
        file: str,
        check: str,
        problem: str,
        *,
        row: int | None = None,
        session: str | None = None,
        trial: int | None = None,
        found: object | None = None,
        expected: object | None = None,
        remedy: str | None = None,
    ) -> None:
        """Add a violation; ``problem`` says which kind it is, and the rest is particular."""
        self._n_of_check[file, check] += 1
        self._n_of_kind[file, check, problem] += 1
        if self._n_of_kind[file, check, problem] > _MAX_SPELLED_OUT:
            return
        where = file if row is None else f"{file}, row {row}"
        # The same words in the same order as every error of this project.
        sentence = str(
            SubmissionError(
                problem,
                session=session,
                trial=trial,
                path=where,
                found=found,
                expected=expected,
                remedy=remedy,
            )
        )
        self._violations.append(Violation(file, check, sentence, row, session, trial))

    def warn(self, sentence: str) -> None:
        """Add a warning."""
        self._warnings.append(sentence)

    def conclude(self, file: str, check: str, passed: str) -> bool:
        """End a check: it has passed, which ``passed`` puts into words, if it was never violated."""
        n_violations = self._n_of_check[file, check]
        for (of_file, of_check, problem), n in self._n_of_kind.items():
            if (of_file, of_check) == (file, check) and n > _MAX_SPELLED_OUT:
                sentence = f"{file}: {problem}: {n - _MAX_SPELLED_OUT} more of this kind"
                self._violations.append(Violation(file, check, sentence))
        finding = passed if n_violations == 0 else f"{n_violations} violation{'s' if n_violations > 1 else ''}"
        self._checks.append(Check(file, check, n_violations == 0, finding))
        return n_violations == 0

    def report(self) -> ValidationReport:
        """Return everything so far."""
        return ValidationReport(tuple(self._checks), tuple(self._violations), tuple(self._warnings))
