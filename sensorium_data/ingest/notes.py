"""What a conversion has to say of an archive: sentences for the report and for the attributes of the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sensorium_data.archive import SessionArchive
from sensorium_data.counting import count_things
from sensorium_data.ingest.computed_statistics import ComputedStatistics
from sensorium_data.ingest.presentation import Presentation
from sensorium_data.ingest.session_contents import SessionContents
from sensorium_data.schema import VARIABLES
from sensorium_data.sessions import Session, sort_tiers
from sensorium_data.store import TrialRecord, format_range
from sensorium_data.visible_text import shorten

__all__ = ["describe_conversion"]

_N_NAMED = 3
_LONGEST_NAME = 200


def describe_conversion(
    session: Session,
    archive: SessionArchive,
    contents: SessionContents,
    records: Sequence[TrialRecord],
    presentation: Presentation,
    computed: ComputedStatistics,
) -> Iterator[str]:
    """Yield a sentence for each thing that is unusual in an archive whose trials are converted.

    Parameters
    ----------
    session : Session
        The session that the archive is taken for.
    archive : SessionArchive
        The archive, open.
    contents : SessionContents
        What the archive says about its trials.
    records : sequence of TrialRecord
        What became of each trial, in the order of ``contents.trials``.
    presentation : Presentation
        The places of the trials in the session.
    computed : ComputedStatistics
        The statistics that the archive lacks.
    """
    yield from _describe_withheld(session, contents, records)
    yield from _describe_place(archive)
    yield from _describe_unexpected(archive)
    yield from presentation.notes
    yield from (f"trial {record.trial} is broken: {record.broken}" for record in records if record.broken)
    yield from _describe_inferred_ends(contents, records)
    yield from _describe_early_ends(records)
    yield from _describe_infinite(records)
    yield from _describe_computed(computed, contents)


def _describe_withheld(session: Session, contents: SessionContents, records: Sequence[TrialRecord]) -> Iterator[str]:
    """Yield a sentence for each tier with responses that are not in the archive, though they are published elsewhere.

    Zeros in the test tiers of a session that withholds them are as published; a missing file never is.
    """
    for tier in sort_tiers(contents.tiers):
        of_tier = [record for record, own in zip(records, contents.tiers, strict=True) if own is tier]
        are_zeros_published = tier.is_test and session.withholds_test_responses
        n_lacking = sum(
            record.responses_withheld and not (are_zeros_published and "responses" in record.members)
            for record in of_tier
        )
        if n_lacking:
            trials = count_things(len(of_tier), "trial")
            n_in_words = trials if n_lacking == len(of_tier) else f"{n_lacking} of {trials}"
            yield f"responses of {n_in_words} of {tier} are not in the archive"


def _describe_place(archive: SessionArchive) -> Iterator[str]:
    if not archive.is_named:
        yield "neither the archive nor a folder in it has the session's name: that it is this session's is assumed"


def _describe_unexpected(archive: SessionArchive) -> Iterator[str]:
    names = archive.unexpected
    if names:
        shown = ", ".join(shorten(name, _LONGEST_NAME) for name in names[:_N_NAMED]) + (
            " and others" if len(names) > _N_NAMED else ""
        )
        have = "has" if len(names) == 1 else "have"
        yield f"{count_things(len(names), 'member')} of the archive {have} no place in a session: {shown}"


def _describe_inferred_ends(contents: SessionContents, records: Sequence[TrialRecord]) -> Iterator[str]:
    lengths = contents.n_frames_of_integer_videos
    left_out = [lengths.get(one.trial, 0) - one.n_frames for one in records if not one.broken]
    left_out = [n for n in left_out if n > 0]
    if left_out:
        frames = "1 frame" if max(left_out) == 1 else f"{format_range(np.array(left_out))} frames"
        yield (
            f"{count_things(len(left_out), 'trial')} with a video of integers: its end is taken from the NaN in "
            f"responses and pupil centers, {frames} before the array's"
        )


def _describe_early_ends(records: Sequence[TrialRecord]) -> Iterator[str]:
    for variable in VARIABLES:
        missing = [n for record in records for name, n in (record.n_missing_frames or {}).items() if name == variable]
        if missing:
            frames = "1 frame" if max(missing) == 1 else f"{format_range(np.array(missing))} frames"
            verb = "end" if variable == "responses" else "ends"
            yield f"in {count_things(len(missing), 'trial')} {variable} {verb} {frames} before the video"


def _describe_infinite(records: Sequence[TrialRecord]) -> Iterator[str]:
    for variable in VARIABLES:
        trials = [record.trial for record in records if variable in record.n_infinite]
        if trials:
            named = ", ".join(map(str, trials[:_N_NAMED]))
            others = f" and {len(trials) - _N_NAMED} more trials" if len(trials) > _N_NAMED else ""
            n = sum(record.n_infinite.get(variable, 0) for record in records)
            yield (
                f"{variable} of trial{'s' * (len(trials) > 1)} {named}{others} hold{'s' * (variable != 'responses')} "
                f"infinity, in {n} value{'s' * (n > 1)}"
            )


def _describe_computed(computed: ComputedStatistics, contents: SessionContents) -> Iterator[str]:
    if not computed:
        return
    which = "statistics" if len(computed.variables) == len(contents.variables) else None
    which = which or f"statistics of {', '.join(computed.variables)}"
    unknown = [name for name in computed.variables if name not in computed.known_variables]
    if computed.n_trials:
        yield f"the archive gives no {which}: computed over {count_things(computed.n_trials, 'trial')} of tier train"
        if unknown:
            yield f"no trial of tier train holds a value of {', '.join(unknown)}: their statistics are unknown"
    else:
        there = ", ".join(sort_tiers(contents.tiers))
        yield (
            f"the archive gives no {which}, and no trial of tier train with responses to compute them from (tiers "
            f"{there}): they are unknown; --tier-map renames a tier"
        )
