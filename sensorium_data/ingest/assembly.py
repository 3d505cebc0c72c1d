"""A session's group apart from its trials' blocks: what is declared before them, and what is written after them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sensorium_data.archive import SessionArchive
from sensorium_data.ingest.adaptation import Adaptation
from sensorium_data.ingest.computed_statistics import COMPUTED_STATISTICS_RULE
from sensorium_data.ingest.presentation import Presentation, compute_onsets
from sensorium_data.ingest.session_contents import SessionContents
from sensorium_data.ingest.simulation_mark import SimulationMark
from sensorium_data.ingest.trial_blocks import TrialForm
from sensorium_data.movies import name_movie, recognize_stimulus
from sensorium_data.redaction import hide_secrets
from sensorium_data.schema import (
    BEHAVIOR_CHANNELS,
    COORDINATES,
    EYE_AXES,
    FRAME_RATE_HZ,
    INSTITUTION,
    LICENSE,
    REFERENCES,
    SCHEMA_VERSION,
    SIGNATURE,
    STATISTICS,
)
from sensorium_data.sessions import Session
from sensorium_data.store import Precision, SessionTemplate, StatisticsRecord, TrialRecord

__all__ = [
    "BLOCK_VARIABLES",
    "CONVERTER_VERSION",
    "MOVIES_GROUP",
    "STATISTICS_GROUP",
    "compose_attributes",
    "declare_statistics",
    "declare_variables",
    "encode_rest",
]

#: Raised whenever the same archive would give other bytes.
CONVERTER_VERSION = 6

#: The variables that are written trial by trial; the others are small.
BLOCK_VARIABLES = ("videos", "responses")
#: The child group of the archive's own statistics.
STATISTICS_GROUP = "statistics"
#: The child group of the movies' signatures.
MOVIES_GROUP = "movies"

_TRIAL_COORDINATES = "tier n_frames movie stimulus responses_withheld valid presentation onset trial_idx"
_NEURON_COORDINATES = "x y z"


def declare_variables(n_trials: int, form: TrialForm, precision: Precision) -> SessionTemplate:
    """Return a template of the arrays that are written trial by trial."""
    template = SessionTemplate(_sizes(n_trials, form), precision)
    for variable in BLOCK_VARIABLES:
        template.declare_variable(variable)
    return template


def declare_statistics(contents: SessionContents, n_frames_padded: int, precision: Precision) -> SessionTemplate:
    """Return a template of the group of the archive's own statistics."""
    form = TrialForm.of(contents, n_frames_padded)
    template = SessionTemplate(_sizes(contents.n_trials, form), precision)
    template.compose_group(STATISTICS_GROUP, {})
    for variable in contents.variables:
        template.declare_statistics(f"{STATISTICS_GROUP}/{variable}", variable)
    return template


def encode_rest(
    contents: SessionContents,
    statistics: StatisticsRecord,
    records: Sequence[TrialRecord],
    movies: Sequence[int],
    presentation: Presentation,
    attributes: Mapping[str, Any],
    precision: Precision,
) -> dict[str, bytes]:
    """Return everything but the blocks already written: metadata, coordinates and the small variables."""
    session = contents.session
    n_frames_padded = statistics.n_frames_padded
    template = SessionTemplate(_sizes(contents.n_trials, TrialForm.of(contents, n_frames_padded)), precision)
    has_positions = contents.positions is not None
    for variable in contents.variables:
        is_located = variable == "responses" and has_positions
        located = f"{_TRIAL_COORDINATES} {_NEURON_COORDINATES}" if is_located else _TRIAL_COORDINATES
        extra = {
            "coordinates": located,
            "largest_absolute_error": max(r.largest_absolute_error[variable] for r in records),
        }
        if variable in BLOCK_VARIABLES:
            template.declare_variable(variable, extra)
        else:
            template.encode_variable(variable, np.stack([getattr(record, variable) for record in records]), extra)
        template.declare_statistics(
            f"{STATISTICS_GROUP}/{variable}",
            variable,
            {"largest_absolute_error": statistics.largest_absolute_error[variable]},
        )
    coordinates: dict[str, Any] = {
        "trial": contents.trials,
        "tier": contents.tiers,
        "n_frames": [record.n_frames for record in records],
        "movie": [name_movie(session, first) for first in movies],
        "stimulus": [
            recognize_stimulus(session, tier, record.signature)
            for tier, record in zip(contents.tiers, records, strict=True)
        ],
        "responses_withheld": [record.responses_withheld for record in records],
        "valid": [record.valid for record in records],
        "presentation": presentation.places,
        "onset": compute_onsets(presentation.places, [record.n_frames for record in records]),
        "trial_idx": presentation.trial_idx,
    }
    if contents.positions is not None:
        coordinates |= dict(zip(("x", "y", "z"), contents.positions.T, strict=True))
    shared: dict[str, Any] = {
        "time": np.arange(n_frames_padded) / FRAME_RATE_HZ,
        "neuron": contents.unit_ids,
    }
    if "behavior" in contents.variables:
        shared["behavior_channel"] = BEHAVIOR_CHANNELS
    if "pupil_center" in contents.variables:
        shared["eye_axis"] = EYE_AXES
    for name, values in {**coordinates, **shared}.items():
        template.encode_array(name, COORDINATES[name], values)
    for name, values in {**shared, "statistic": STATISTICS}.items():
        template.encode_array(f"{STATISTICS_GROUP}/{name}", COORDINATES[name], values)
    signatures = _stack_signatures(records, n_frames_padded)
    template.sizes["feature"] = signatures.shape[-1]
    template.encode_array(f"{MOVIES_GROUP}/{SIGNATURE.name}", SIGNATURE, signatures)
    for name, values in (("trial", contents.trials), ("time", shared["time"])):
        template.encode_array(f"{MOVIES_GROUP}/{name}", COORDINATES[name], values)
    template.compose_group(MOVIES_GROUP, {"title": f"{attributes['title']}: signatures of the movies"})
    template.compose_group(STATISTICS_GROUP, {"title": f"{attributes['title']}: statistics over trials"})
    template.compose_group("", attributes)
    return template.take_objects()


def compose_attributes(
    session: Session,
    group: str,
    archive: SessionArchive,
    records: Iterable[TrialRecord],
    notes: Sequence[str],
    precision: Precision,
    *,
    source_name: str | None = None,
    simulation: SimulationMark | None = None,
    adaptation: Adaptation | None = None,
    absent: Sequence[str] = (),
    computed_statistics: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the attributes of a session's group."""
    name = f"session {session.alias} ({session.scan})" if session.is_described else f"session {session.name}"
    title = f"SENSORIUM 2023, {name}" if session.is_described else name
    attributes: dict[str, Any] = {
        "title": title if simulation is None else f"Simulated recording in the layout of {title}",
        "session": session.name,
        "group": group,
        "alias": session.alias,
        # What was published of the ten sessions; another lab's say nothing of theirs, and a simulation's are nobody's.
        **(
            {"institution": INSTITUTION, "references": REFERENCES, "license": LICENSE}
            if session.is_described and simulation is None
            else {}
        ),
        **({} if simulation is None else simulation.attributes),
        "source": source_name or _describe_origin(archive.origin),
        "source_size_bytes": archive.size_bytes,
        "source_digest": archive.digest,
        "schema_version": SCHEMA_VERSION,
        "converter_version": CONVERTER_VERSION,
        "precision": str(precision),
    }
    if archive.modified is not None:
        attributes["source_modified"] = archive.modified
    broken = {str(record.trial): record.broken for record in records if record.broken}
    # Empty lists are left out: netCDF, which people export to, cannot hold them.
    if broken:
        attributes["broken_trials"] = [f"{trial}: {reason}" for trial, reason in broken.items()]
    # Only other labs' sessions have the following.
    if absent:
        attributes["absent"] = list(absent)
    if computed_statistics:
        attributes["computed_statistics"] = list(computed_statistics)
        attributes["computed_statistics_rule"] = COMPUTED_STATISTICS_RULE
    if adaptation is not None:
        attributes |= adaptation.to_attributes()
    if notes:
        attributes["notes"] = list(notes)
    return attributes


def _describe_origin(origin: str) -> str:
    """Return where an archive came from, without the query of a URL, which may hold a token, and without a login."""
    return hide_secrets(origin.partition("?")[0]) if "://" in origin else origin


def _stack_signatures(records: Sequence[TrialRecord], n_frames_padded: int) -> np.ndarray:
    """Return the signatures of all trials, (trial, time, feature) float32, NaN past their frames."""
    stacked = np.full((len(records), n_frames_padded, records[0].signature.shape[1]), np.nan, np.float32)
    for row, record in zip(stacked, records, strict=True):
        row[: record.n_frames] = record.signature
    return stacked


def _sizes(n_trials: int, form: TrialForm) -> dict[str, int]:
    height, width = form.frame_size
    return {
        "trial": n_trials,
        "neuron": form.n_neurons,
        "time": form.n_frames_padded,
        "height": height,
        "width": width,
        "behavior_channel": len(BEHAVIOR_CHANNELS),
        "eye_axis": len(EYE_AXES),
        "statistic": len(STATISTICS),
    }
