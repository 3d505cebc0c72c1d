"""What the competition's server takes: file names, columns, frames, size."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

import pyarrow as pa

from sensorium_data.errors import UnknownNameError
from sensorium_data.sessions import Stage, Tier, Track

__all__ = [
    "COLUMNS",
    "ENCRYPTED_PARQUET_MAGIC",
    "FRAMES_PROFILES",
    "MAX_UPLOAD_SIZE_BYTES",
    "MEMBER_NAMES",
    "N_SKIPPED_FRAMES",
    "OFFICIAL_FRAMES_NOTE",
    "PARQUET_MAGIC",
    "ZIP_MAGIC",
    "FloatType",
    "FramesProfile",
    "frames_of",
    "member_tiers",
    "parse_float_type",
    "parse_frames_profile",
    "submission_schema",
    "zip_members",
]

#: Frames at the start of a trial that no profile scores.
N_SKIPPED_FRAMES = 50

#: The longest upload the server takes. It says 5 GB; the smaller reading of that is the careful one.
MAX_UPLOAD_SIZE_BYTES = 5_000_000_000

#: Which frames of a trial a file holds. Three conventions are on record. The main track's entries that were scored in
#: 2023 held ``50-298``; what the server of today takes is not known:
#:
#: ``official``
#:     all frames but the first 50 (the starter kit's README, and the server's own message)
#: ``50-298``
#:     of the first 300 frames, from 50 to the second to last (the winner; accepted and scored)
#: ``51-299``
#:     of the first 300 frames, from 51 to the last (third place)
FramesProfile = Literal["official", "50-298", "51-299"]

#: What whoever submits the default should know: a trial of 300 frames had 249 values in the entries that were scored.
OFFICIAL_FRAMES_NOTE = (
    "frames official: all but a trial's first 50, as the competition's pages ask; the entries that its server scored "
    "in 2023 held 50-298, 249 values of a 300-frame trial (--frames 50-298)"
)

FRAMES_PROFILES: tuple[FramesProfile, ...] = get_args(FramesProfile)

#: The name of each tier's file inside its zip.
MEMBER_NAMES: Mapping[Tier, str] = MappingProxyType(
    {
        Tier.LIVE_TEST_MAIN: "predictions_live_main.parquet.brotli",
        Tier.FINAL_TEST_MAIN: "predictions_final_main.parquet.brotli",
        Tier.LIVE_TEST_BONUS: "predictions_live_test_bonus_ood.parquet.brotli",
        Tier.FINAL_TEST_BONUS: "predictions_final_test_bonus_ood.parquet.brotli",
    }
)

#: What a Parquet file, an encrypted one, and a zip (an empty one too) begin with.
PARQUET_MAGIC = b"PAR1"
ENCRYPTED_PARQUET_MAGIC = b"PARE"
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")

#: What a predictions file's values may be. Float32 halves the upload; no public source says that the server wants more.
FloatType = Literal["float32", "float64"]

#: The columns of a predictions file, one row a trial.
COLUMNS: tuple[str, ...] = ("mouse", "trial_indices", "prediction", "neuron_ids")

_CAPPED_AT = 300


def parse_frames_profile(name: str) -> FramesProfile:
    """Return the profile called ``name``.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    """
    for profile in FRAMES_PROFILES:
        if name == profile:
            return profile
    raise UnknownNameError.of("frames profile", name, FRAMES_PROFILES)


def parse_float_type(name: str) -> FloatType:
    """Return the type of values called ``name``.

    Raises
    ------
    UnknownNameError
        If it is none that a predictions file may hold.
    """
    for float_type in get_args(FloatType):
        if name == float_type:
            return float_type  # type: ignore[no-any-return]
    raise UnknownNameError.of("type of values", name, get_args(FloatType))


def submission_schema(float_type: FloatType = "float32") -> pa.Schema:
    """Return the columns of a predictions file with values of a type. Lists of lists are (neuron, frame)."""
    value = pa.float32() if float_type == "float32" else pa.float64()
    types = (pa.string(), pa.int64(), pa.list_(pa.list_(value)), pa.list_(pa.int64()))
    return pa.schema([pa.field(name, type_) for name, type_ in zip(COLUMNS, types, strict=True)])


def frames_of(profile: FramesProfile, n_frames: int) -> range:
    """Return the frames that a file holds of a trial with ``n_frames`` valid ones.

    Examples
    --------
    >>> [(frames_of(p, 324)[0], frames_of(p, 324)[-1], len(frames_of(p, 324))) for p in FRAMES_PROFILES]
    [(50, 323, 274), (50, 298, 249), (51, 299, 249)]
    """
    match profile:
        case "official":
            return range(N_SKIPPED_FRAMES, n_frames)
        case "50-298":
            return range(N_SKIPPED_FRAMES, min(n_frames, _CAPPED_AT) - 1)
        case "51-299":
            return range(N_SKIPPED_FRAMES + 1, min(n_frames, _CAPPED_AT))


def member_tiers() -> dict[str, Tier]:
    """Return the tier of each file name."""
    return {name: tier for tier, name in MEMBER_NAMES.items()}


def zip_members(track: Track) -> dict[str, tuple[Tier, ...]]:
    """Return the zips of a track, each with the tiers whose files lie in it.

    The main track's stages share a zip. The bonus stages lie apart: together they exceed the upload limit.

    Examples
    --------
    >>> sorted(zip_members(Track.BONUS))
    ['submission_bonus_final.zip', 'submission_bonus_live.zip']
    """
    if track is Track.MAIN:
        return {"submission_main.zip": (Tier.LIVE_TEST_MAIN, Tier.FINAL_TEST_MAIN)}
    return {f"submission_bonus_{stage}.zip": (Tier.of(track, stage),) for stage in Stage}
