"""Codecs for the stored arrays: bytes, speed and error of each candidate, on the blocks that the store cuts.

    python benchmarks/array_codecs.py --trials 60

One thread, CPU seconds, the best of the repeats. Bytes are compared with the archive's float64.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import workbench
from numcodecs import blosc

# Responses below this are the numerical floor of the deconvolution.
_FLOOR = 1e-6
_MANTISSA_BITS = 23
_NEURONS_PER_CHUNK = 1024

_SHUFFLES = {"noshuffle": blosc.NOSHUFFLE, "shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}


@dataclass(frozen=True)
class Profile:
    """A way of rounding float64 to what is stored.

    Attributes
    ----------
    name : str
        For the table.
    round : callable
        From the archive's float64 to the stored dtype.
    restore : callable
        From the stored dtype to what a reader gets.
    """

    name: str
    round: Callable[[np.ndarray], np.ndarray]
    restore: Callable[[np.ndarray], np.ndarray] = lambda stored: stored


@dataclass(frozen=True)
class Codec:
    """A compressor with its shuffle and level; ``None`` is none."""

    compressor: str | None
    level: int = 1
    shuffle: str = "noshuffle"

    def __str__(self) -> str:
        return "none" if self.compressor is None else f"{self.compressor} {self.level} {self.shuffle}"

    def encode(self, chunk: np.ndarray) -> bytes:
        """Compress one chunk."""
        if self.compressor is None:
            return chunk.tobytes()
        return bytes(blosc.compress(chunk, self.compressor.encode(), self.level, _SHUFFLES[self.shuffle]))

    def decode(self, data: bytes, out: np.ndarray) -> None:
        """Decompress into ``out``."""
        if self.compressor is None:
            out[...] = np.frombuffer(data, out.dtype).reshape(out.shape)
        else:
            blosc.decompress(data, out)


def round_bits(values: np.ndarray, keep_bits: int) -> np.ndarray:
    """Return float32 with the mantissa rounded to ``keep_bits``, half to even: relative error 2^-(keep_bits + 1)."""
    stored = values.astype(np.float32)
    finite = np.isfinite(stored)
    drop = _MANTISSA_BITS - keep_bits
    bits = stored.view(np.uint32)
    rounded = bits + ((bits >> np.uint32(drop)) & np.uint32(1)) + np.uint32((1 << (drop - 1)) - 1)
    rounded &= np.uint32(0xFFFFFFFF ^ ((1 << drop) - 1))
    return np.where(finite, rounded.view(np.float32), stored)


def drop_floor(values: np.ndarray) -> np.ndarray:
    """Return the values with the numerical floor set to zero."""
    return np.where(np.abs(values) < _FLOOR, 0.0, values)


def round_to_steps(values: np.ndarray, n_steps: int) -> np.ndarray:
    """Return float32 multiples of ``1 / n_steps``, a power of two: off by at most half of that."""
    return np.rint(values * n_steps).astype(np.float32) / np.float32(n_steps)


def scaled(step: float) -> Profile:
    """Return the profile that stores multiples of ``step`` as uint16, the last value standing for NaN."""
    missing = np.iinfo(np.uint16).max

    def to_integers(values: np.ndarray) -> np.ndarray:
        return np.where(np.isfinite(values), np.rint(np.nan_to_num(values) / step), missing).astype(np.uint16)

    def to_floats(stored: np.ndarray) -> np.ndarray:
        return np.where(stored == missing, np.nan, stored * np.float32(step)).astype(np.float32)

    return Profile(f"uint16, steps of {step:g}", to_integers, to_floats)


_FLOAT32 = Profile("float32", lambda values: values.astype(np.float32))

RESPONSE_PROFILES = (
    _FLOAT32,
    Profile("float32, floor dropped", lambda values: drop_floor(values).astype(np.float32)),
    *(
        Profile(f"float32, floor dropped, {keep} bits", lambda values, keep=keep: round_bits(drop_floor(values), keep))
        for keep in (7, 10, 13)
    ),
    Profile("float16, floor dropped", lambda values: drop_floor(values).astype(np.float16)),
)
RESPONSE_CODECS = (
    Codec(None),
    *(Codec("lz4", 1, shuffle) for shuffle in _SHUFFLES),
    Codec("zstd", 1, "noshuffle"),
    Codec("zstd", 3, "noshuffle"),
    Codec("zstd", 1, "bitshuffle"),
    Codec("zstd", 3, "bitshuffle"),
)
VIDEO_PROFILES = (
    _FLOAT32,
    *(Profile(f"float32, {keep} bits", lambda values, keep=keep: round_bits(values, keep)) for keep in (10, 13)),
    *(
        Profile(f"float32, steps of 1/{n_steps}", lambda values, n_steps=n_steps: round_to_steps(values, n_steps))
        for n_steps in (8, 16)
    ),
    Profile("float16", lambda values: values.astype(np.float16)),
    scaled(1 / 8),
    scaled(1 / 128),
)
VIDEO_CODECS = (
    Codec(None),
    *(Codec("lz4", 1, shuffle) for shuffle in ("shuffle", "bitshuffle")),
    Codec("zstd", 1, "shuffle"),
    Codec("zstd", 1, "bitshuffle"),
    Codec("zstd", 3, "bitshuffle"),
)


def read_blocks(archive: Path, n_blocks: int) -> dict[str, list[np.ndarray]]:
    """Return the first published trials' arrays, in the store's order of dimensions."""
    responses = (values for _, values in workbench.read_trial_arrays(archive, "responses") if np.any(values))
    videos = (values.transpose(2, 0, 1) for _, values in workbench.read_trial_arrays(archive, "videos"))
    return {
        "responses": [np.ascontiguousarray(values) for values in itertools.islice(responses, n_blocks)],
        # Of all tiers: the classes of stimuli compress differently.
        "videos": [np.ascontiguousarray(values) for values in itertools.islice(videos, 2 * n_blocks)],
    }


def measure(
    blocks: Sequence[np.ndarray], profile: Profile, codecs: Sequence[Codec], repeats: int
) -> Iterator[dict[str, Any]]:
    """Yield a row for each codec of one profile."""
    rounded = [profile.round(block) for block in blocks]
    errors = [np.abs(profile.restore(stored) - block) for stored, block in zip(rounded, blocks, strict=True)]
    largest = max(float(np.nanmax(error)) for error in errors)
    relative = max(_find_relative_error(error, block) for error, block in zip(errors, blocks, strict=True))
    del errors
    chunks = [
        block[start : start + _NEURONS_PER_CHUNK]
        for block in rounded
        for start in range(0, len(block), _NEURONS_PER_CHUNK)
    ]
    size_bytes = sum(block.nbytes for block in blocks)
    for codec in codecs:
        encode_s, decode_s = float("inf"), float("inf")
        for _ in range(repeats):
            started = time.thread_time()
            encoded = [codec.encode(chunk) for chunk in chunks]
            encode_s = min(encode_s, time.thread_time() - started)
            out = [np.empty_like(chunk) for chunk in chunks]
            started = time.thread_time()
            for data, into in zip(encoded, out, strict=True):
                codec.decode(data, into)
            decode_s = min(decode_s, time.thread_time() - started)
        yield {
            "stored as": profile.name,
            "codec": str(codec),
            "MB a trial": sum(map(len, encoded)) / len(blocks) / 1e6,
            "smaller than float64": size_bytes / sum(map(len, encoded)),
            "encode MB/s": size_bytes / 2 / encode_s / 1e6,
            "decode MB/s": size_bytes / 2 / decode_s / 1e6,
            "largest error": largest,
            "largest relative error": relative,
        }


def _find_relative_error(error: np.ndarray, block: np.ndarray) -> float:
    """Return the largest relative error among values above the floor."""
    is_above = np.abs(block) >= _FLOOR
    return float(np.max(error[is_above] / np.abs(block[is_above]), initial=0.0))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every codec and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--blocks", type=int, default=6, help="trials encoded (default: %(default)s)")

    options = workbench.parse_arguments(__doc__ or "", n_trials=60, extend=extend, arguments=arguments)
    with workbench.open_work_folder(options.work) as work:
        archive = workbench.prepare_archive(work, options.trials, options.neurons)
        blocks = read_blocks(archive, options.blocks)
    # Blosc's own threads would hide what a codec costs.
    blosc.use_threads = False
    tables = []
    for variable, profiles, codecs in (
        ("responses", RESPONSE_PROFILES, RESPONSE_CODECS),
        ("videos", VIDEO_PROFILES, VIDEO_CODECS),
    ):
        rows = [row for profile in profiles for row in measure(blocks[variable], profile, codecs, options.repeats)]
        if variable == "videos":
            # Of black pixels it says nothing.
            rows = [{key: value for key, value in row.items() if key != "largest relative error"} for row in rows]
        tables.append((f"{variable}, speeds in MB of float32 a CPU second", rows))
    share = float(np.mean([np.nanmean(np.abs(block) > _FLOOR) for block in blocks["responses"]]))
    workbench.write_results(
        options.results,
        "array_codecs",
        "Codecs of the stored arrays",
        {"trials": options.trials, "neurons": options.neurons, "blocks": options.blocks, "repeats": options.repeats},
        {"share_of_responses_above_floor": share, "load": workbench.describe_load()},
        tables,
    )


if __name__ == "__main__":
    main()
