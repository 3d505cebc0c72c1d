"""A session's group apart from its trials' blocks: what is declared before them, and what is written after them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from sensorium_data.archive import SessionArchive
from sensorium_data.ledger import StatisticsRecord, TrialRecord
from sensorium_data.movies import name_movie
from sensorium_data.schema import (
    BEHAVIOR_CHANNELS,
    COORDINATES,
    EYE_AXES,
    FRAME_HEIGHT,
    FRAME_RATE_HZ,
    FRAME_WIDTH,
    INSTITUTION,
    LICENSE,
    REFERENCES,
    SCHEMA_VERSION,
    STATISTICS,
    VARIABLES,
)
from sensorium_data.sessions import Session
from sensorium_data.stimuli import recognize_stimulus
from sensorium_data.template import SessionTemplate, statistics_field
from sensorium_data.trial_blocks import SessionContents

__all__ = [
    "BLOCK_VARIABLES",
    "CONVERTER_VERSION",
    "STATISTICS_GROUP",
    "compose_attributes",
    "declare_statistics",
    "declare_variables",
    "encode_rest",
]

#: Raised whenever the same archive would give other bytes.
CONVERTER_VERSION = 1

#: The variables that are written trial by trial; the others are small.
BLOCK_VARIABLES = ("videos", "responses")
#: The child group of the archive's own statistics.
STATISTICS_GROUP = "statistics"

_TRIAL_COORDINATES = "tier n_frames movie stimulus responses_withheld valid"
_NEURON_COORDINATES = "x y z"


def declare_variables(contents: SessionContents, n_frames_padded: int) -> SessionTemplate:
    """Return a template of the arrays that are written trial by trial."""
    template = SessionTemplate(_sizes(contents, n_frames_padded))
    for variable in BLOCK_VARIABLES:
        template.declare_array(variable, VARIABLES[variable])
    return template


def declare_statistics(contents: SessionContents, n_frames_padded: int) -> SessionTemplate:
    template = SessionTemplate(_sizes(contents, n_frames_padded))
    template.compose_group(STATISTICS_GROUP, {})
    for variable in VARIABLES:
        template.declare_array(f"{STATISTICS_GROUP}/{variable}", statistics_field(variable))
    return template


def encode_rest(
    contents: SessionContents,
    statistics: StatisticsRecord,
    records: Sequence[TrialRecord],
    movies: Sequence[int],
    attributes: Mapping[str, Any],
) -> dict[str, bytes]:
    """Return everything but the blocks already written: metadata, coordinates and the small variables."""
    session = contents.session
    template = SessionTemplate(_sizes(contents, statistics.n_frames_padded))
    for variable, field in VARIABLES.items():
        located = f"{_TRIAL_COORDINATES} {_NEURON_COORDINATES}" if variable == "responses" else _TRIAL_COORDINATES
        extra = {
            "coordinates": located,
            "largest_absolute_error": max(r.largest_absolute_error[variable] for r in records),
        }
        if variable in BLOCK_VARIABLES:
            template.declare_array(variable, field, extra)
        else:
            template.encode_array(variable, field, np.stack([getattr(record, variable) for record in records]), extra)
        template.declare_array(
            f"{STATISTICS_GROUP}/{variable}",
            statistics_field(variable),
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
        "x": contents.positions[:, 0],
        "y": contents.positions[:, 1],
        "z": contents.positions[:, 2],
    }
    shared = {
        "time": np.arange(statistics.n_frames_padded) / FRAME_RATE_HZ,
        "neuron": contents.unit_ids,
        "behavior_channel": BEHAVIOR_CHANNELS,
        "eye_axis": EYE_AXES,
    }
    for name, values in {**coordinates, **shared}.items():
        template.encode_array(name, COORDINATES[name], values)
    for name, values in {**shared, "statistic": STATISTICS}.items():
        template.encode_array(f"{STATISTICS_GROUP}/{name}", COORDINATES[name], values)
    template.compose_group(STATISTICS_GROUP, {"title": f"{attributes['title']}: statistics over trials"})
    template.compose_group("", attributes)
    return template.take_objects()


def compose_attributes(
    session: Session, archive: SessionArchive, records: Iterable[TrialRecord], notes: Sequence[str]
) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "title": f"SENSORIUM 2023, session {session.alias} ({session.scan})"
        if session.is_described
        else f"session {session.name}",
        "session": session.name,
        "alias": session.alias,
        "institution": INSTITUTION,
        "references": REFERENCES,
        "license": LICENSE,
        # Without the query, which may hold a token.
        "source": archive.url.partition("?")[0] if "://" in archive.url else archive.url,
        "source_size_bytes": archive.size_bytes,
        "source_digest": archive.digest,
        "schema_version": SCHEMA_VERSION,
        "converter_version": CONVERTER_VERSION,
    }
    if archive.modified is not None:
        attributes["source_modified"] = archive.modified
    broken = {str(record.trial): record.broken for record in records if record.broken}
    # Empty lists are left out: netCDF, which people export to, cannot hold them.
    if broken:
        attributes["broken_trials"] = [f"{trial}: {reason}" for trial, reason in broken.items()]
    if notes:
        attributes["notes"] = list(notes)
    return attributes


def _sizes(contents: SessionContents, n_frames_padded: int) -> dict[str, int]:
    return {
        "trial": contents.n_trials,
        "neuron": contents.n_neurons,
        "time": n_frames_padded,
        "height": FRAME_HEIGHT,
        "width": FRAME_WIDTH,
        "behavior_channel": len(BEHAVIOR_CHANNELS),
        "eye_axis": len(EYE_AXES),
        "statistic": len(STATISTICS),
    }
