"""The session store's schema: dimensions, variables, dtypes, chunks, attributes and version.

A session is one Zarr v3 group. This module is the only place that says what is in it and how
it is cut into chunks and shards; :mod:`sensorium_data.ingest.convert` writes it and
:mod:`sensorium_data.store.store` reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

__all__ = [
    "BEHAVIOR_CHANNELS",
    "COORDINATES",
    "EYE_AXES",
    "FRAME_HEIGHT",
    "FRAME_RATE_HZ",
    "FRAME_WIDTH",
    "INSTITUTION",
    "LICENSE",
    "MOVIE_GROUP",
    "PREDICTIONS",
    "PRESENTATION_RATE_HZ",
    "READABLE_SCHEMA_VERSIONS",
    "REFERENCES",
    "SCHEMA_VERSION",
    "SIGNATURE",
    "STATISTICS",
    "VARIABLES",
    "Field",
]

#: Raised whenever a reader of the previous version would misread a store.
SCHEMA_VERSION = 3
#: The versions that this software reads. It writes :data:`SCHEMA_VERSION`.
READABLE_SCHEMA_VERSIONS = (2, 3)

#: The nominal rate, which the time axis of a trial counts in.
FRAME_RATE_HZ = 30.0
#: The rate at which frames were shown, measured on the recordings' event times: a clip of 300 frames takes 10.0109 s.
PRESENTATION_RATE_HZ = 29.967
FRAME_HEIGHT = 36
FRAME_WIDTH = 64

#: The archive's own statistics, over trials, in the order of the ``statistic`` dimension.
STATISTICS = ("mean", "std", "median", "min", "max")

#: How a store names its source if the archive was deleted once it was converted.
SOURCE_NOT_KEPT = "not kept"

LICENSE = "CC BY-NC-ND 4.0"
REFERENCES = (
    "Turishcheva et al. (2023), The Dynamic Sensorium competition for predicting large-scale mouse visual "
    "cortex activity from videos, arXiv:2305.19654; Turishcheva et al. (2024), Retrospective for the Dynamic "
    "Sensorium Competition, arXiv:2407.09100"
)
INSTITUTION = "Baylor College of Medicine; University of Göttingen; University of Tübingen"

_NEURONS_PER_CHUNK = 1024


@dataclass(frozen=True)
class Field:
    """One array of a store.

    Attributes
    ----------
    name : str
        Its name in the group.
    dims : tuple of str
        Its dimensions, slowest first.
    dtype : str
        NumPy dtype; ``"str"`` is a variable-length UTF-8 string.
    long_name, units, comment : str
        CF-style attributes; ``units`` and ``comment`` may be empty.
    unknown : object
        What stands where nothing is known; by default NaN for floats, empty text, and 0.
    since : int
        The first version of the schema that has it.
    """

    name: str
    dims: tuple[str, ...]
    dtype: str
    long_name: str
    units: str = ""
    comment: str = ""
    unknown: Any = None
    since: int = 2

    @property
    def attributes(self) -> dict[str, str]:
        """The attributes every array of this field carries."""
        attributes = {"long_name": self.long_name}
        if self.units:
            attributes["units"] = self.units
        if self.comment:
            attributes["comment"] = self.comment
        return attributes

    @property
    def fill_value(self) -> Any:
        """What stands where nothing was recorded: :attr:`unknown`, or NaN for floats."""
        if self.unknown is not None:
            return self.unknown
        if self.dtype == "str":
            return ""
        return np.dtype(self.dtype).type(np.nan if np.dtype(self.dtype).kind == "f" else 0)

    def layout(self, sizes: Mapping[str, int], *, compact: bool = False) -> dict[str, Any]:
        """Return how to store this field: keyword arguments for :func:`zarr.create_array`.

        Responses lie in a shard a trial, cut into chunks of 1,024 neurons with all frames: a
        training window needs one file and the neurons it uses, and one neuron's trace
        over all trials reads an eighth of the data. Videos are a chunk a trial. The other arrays are
        small and lie in one chunk each. Chosen by measuring other cuts (benchmarks/layout.py): shards of several
        trials make a block up to twice as slow, chunks of all neurons a trace two to five times.

        Every chunk ends with its CRC-32C, so that any reader of Zarr reports a damaged one. Videos have none: they are
        read whole, and our readers compare whole objects with the ledger.

        Parameters
        ----------
        sizes : mapping of str to int
            Length of every dimension in ``dims``.
        compact : bool
            The values are rounded (:attr:`sensorium_data.store.Precision.COMPACT`), so that compression pays.
        """
        from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec

        shape = tuple(sizes[dim] for dim in self.dims)
        layout: dict[str, Any] = {
            "shape": shape,
            "dtype": str if self.dtype == "str" else self.dtype,
            "dimension_names": self.dims,
            "fill_value": self.fill_value,
            # An all-NaN trial is data here, and verification counts on every object being there.
            "config": {"write_empty_chunks": True},
        }
        whole = tuple(max(1, n) for n in shape)
        # Lossless float32 hardly compresses whatever the codec, and lz4 costs next to nothing; a byte or
        # bit shuffle helps the smooth videos and hurts the sparse responses. Rounded responses are worth zstd, which
        # takes 40 % off lz4's bytes for 3 ms a trial in reading (benchmarks/array_codecs.py).
        typesize = 4 if self.dtype == "str" else np.dtype(self.dtype).itemsize
        lz4 = partial(BloscCodec, cname="lz4", clevel=1, typesize=typesize)
        match self.name:
            case "responses" | "predictions" | "rates" if self.dims == ("trial", "neuron", "time"):
                _, n_neurons, n_frames = whole
                per_chunk = min(_NEURONS_PER_CHUNK, n_neurons)
                per_shard = -(-n_neurons // per_chunk) * per_chunk
                layout["chunks"] = (1, per_chunk, n_frames)
                layout["shards"] = (1, per_shard, n_frames)
                layout["compressors"] = [
                    BloscCodec(cname="zstd", clevel=1, typesize=typesize, shuffle="noshuffle")
                    if compact
                    else lz4(shuffle="noshuffle"),
                    Crc32cCodec(),
                ]
            case "videos" if self.dims[0] == "trial":
                layout["chunks"] = (1, *whole[1:])
                layout["compressors"] = [lz4(shuffle="bitshuffle")]
            case _ if self.dims[0] == "statistic" and len(self.dims) > 1:
                layout["chunks"] = (1, *whole[1:])
                layout["compressors"] = [lz4(shuffle="bitshuffle"), Crc32cCodec()]
            case _:
                layout["chunks"] = whole
                layout["compressors"] = [ZstdCodec(), Crc32cCodec()]
        return layout


#: The data variables of a session.
VARIABLES: Mapping[str, Field] = MappingProxyType(
    {
        field.name: field
        for field in (
            Field("videos", ("trial", "time", "height", "width"), "float32", "luminance of the video shown", "0-255"),
            Field(
                "responses",
                ("trial", "neuron", "time"),
                "float32",
                "deconvolved calcium activity",
                "arbitrary units",
            ),
            Field(
                "behavior",
                ("trial", "behavior_channel", "time"),
                "float32",
                "pupil dilation and running speed",
                "arbitrary units",
            ),
            Field(
                "pupil_center",
                ("trial", "eye_axis", "time"),
                "float32",
                "position of the pupil's center",
                "pixels of the eye camera",
            ),
        )
    }
)

#: The coordinates of a session.
COORDINATES: Mapping[str, Field] = MappingProxyType(
    {
        field.name: field
        for field in (
            Field("trial", ("trial",), "int64", "trial id: the trial's file name in the archive"),
            Field("tier", ("trial",), "str", "what the trial is for"),
            Field("n_frames", ("trial",), "int64", "valid frames, counted in the video", "frames"),
            Field("movie", ("trial",), "str", "the session's own id of the movie shown, equal for its repeats"),
            Field("stimulus", ("trial",), "str", "class of the stimulus"),
            Field("responses_withheld", ("trial",), "bool", "the archive holds no responses for this trial"),
            Field("valid", ("trial",), "bool", "false for a trial whose stimulus is broken"),
            Field(
                "presentation",
                ("trial",),
                "int64",
                "place of the trial in the session",
                "1",
                comment="counted from 0 over all clips that were shown; -1 where it is not known",
                unknown=-1,
                since=3,
            ),
            Field(
                "onset",
                ("trial",),
                "float64",
                "time from the session's first frame to the trial's",
                "s",
                comment=f"at {PRESENTATION_RATE_HZ} frames a second; NaN where it is not known",
                since=3,
            ),
            Field(
                "trial_idx",
                ("trial",),
                "str",
                "the recording's own number of the trial",
                comment="as meta/trials/trial_idx.npy of the archive has it; empty where it is not known",
                since=3,
            ),
            Field("time", ("time",), "float64", "time from stimulus onset", "s"),
            Field("neuron", ("neuron",), "int64", "unit id"),
            Field("x", ("neuron",), "float64", "cell position, x", "micrometer"),
            Field("y", ("neuron",), "float64", "cell position, y", "micrometer"),
            Field("z", ("neuron",), "float64", "cell position, depth", "micrometer"),
            Field("behavior_channel", ("behavior_channel",), "str", "behavioral variable"),
            Field("eye_axis", ("eye_axis",), "str", "axis of the eye camera"),
            Field("statistic", ("statistic",), "str", "statistic over trials"),
        )
    }
)

#: Not stored: readers add it to the coordinates from the file ``movies.json`` beside the sessions.
MOVIE_GROUP = Field(
    "movie_group", ("trial",), "str", "id of the movie shown, equal for all trials of the store's sessions that show it"
)

#: What tells movies apart without reading them, in the child group ``movies``; see :mod:`sensorium_data.movies`.
SIGNATURE = Field("signature", ("trial", "time", "feature"), "float32", "signature of each frame of the video")

BEHAVIOR_CHANNELS = ("pupil_dilation", "running_speed")
EYE_AXES = ("x", "y")

#: The one data variable of a predictions store; its coordinates are the session's.
PREDICTIONS = Field("predictions", ("trial", "neuron", "time"), "float32", "predicted activity")
