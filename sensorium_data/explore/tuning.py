"""Tuning of neurons to the direction of drifting Gabor patches."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from sensorium_data.counting import count_things
from sensorium_data.errors import UsageError
from sensorium_data.explore.arguments import parse_integer, show_value
from sensorium_data.explore.blocks import TrialBlock, find_counted, label_neurons, map_blocks, require_counted
from sensorium_data.explore.gabors import GABOR_BLOCK_FRAMES, N_DIRECTIONS, tabulate_gabors
from sensorium_data.explore.layout import arrange_session, session_name
from sensorium_data.sessions import Stimulus

__all__ = ["measure_tuning"]

# The shuffles are drawn and compared in parts, so that memory does not grow with their number.
_SHUFFLES_AT_ONCE = 50

Sums = npt.NDArray[np.float64]


def measure_tuning(
    dataset: xr.Dataset,
    stimulus: str = "Gabor",
    *,
    delay_frames: int = 0,
    skip_blocks: int = 0,
    n_permutations: int = 1000,
    seed: int = 0,
    jobs: int | None = None,
) -> xr.Dataset:
    """Return how each neuron responds to the directions in which Gabor patches drift.

    The archives do not say what a patch shows: its direction is recovered from the frames
    (:func:`sensorium_data.explore.tabulate_gabors`). The response to a patch is the mean over its 25 frames. It is
    averaged over the repeats of the movie first, then over the patches of a direction, whatever their place and
    frequency.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of it. Valid trials of Gabor patches whose responses are there count.
    stimulus : str
        ``Gabor``, the one class whose tuning is known how to measure.
    delay_frames : int
        By how many frames the response is taken later than the patch.
    skip_blocks : int
        Patches left out at the start of every trial.
    n_permutations : int
        Shuffles of the directions, of which the p values are made.
    seed : int
        Of the shuffles.
    jobs : int, optional
        Trials read at the same time; one a CPU core by default.

    Returns
    -------
    xarray.Dataset
        By neuron, with r(θ) the mean response to the direction θ:

        - ``response`` (neuron, direction): r, with the coordinate ``direction`` in degrees (0 to the right, 90
          downward) and ``n_patches`` (direction);
        - ``orientation_selectivity``: ``|Σ r e^(2iθ)| / Σ r``, and ``direction_selectivity``: ``|Σ r e^(iθ)| / Σ r``;
        - ``preferred_orientation``: half the angle of ``Σ r e^(2iθ)``, 0 to 180 degrees, the axis of drift,
          and ``preferred_direction``: the direction with the largest mean response;
        - ``orientation_p`` and ``direction_p``: the share of shuffles, the data counted as one, in which the
          selectivity is at least as large. Patches are shuffled with all their repeats: repeats of one patch are no
          independent evidence of its direction.

        NaN for a neuron that lacks a value, and for one whose responses do not add up to more than 0.

    Raises
    ------
    UsageError
        If the class is another one, no trial of it counts, an argument cannot be, or not every direction was shown.

    References
    ----------
    Mazurek, Kager and Van Hooser (2014), Robust quantification of orientation selectivity and direction selectivity,
    Frontiers in Neural Circuits 8:92 (the vector sums).
    """
    if stimulus != Stimulus.GABOR:
        raise UsageError(
            "tuning to this class of stimulus is not known how to measure",
            found=show_value(stimulus),
            expected=str(Stimulus.GABOR),
            remedy="see `stimulus_means()` for mean responses by class",
        )
    delay_frames = parse_integer(delay_frames, "delay_frames", least=0)
    skip_blocks = parse_integer(skip_blocks, "skip_blocks", least=0)
    n_permutations = parse_integer(n_permutations, "n_permutations", least=1)
    seed = parse_integer(seed, "seed", least=0)
    dataset = arrange_session(dataset, "responses", "videos", "stimulus", unique=["trial"], whole_start=True)
    shown = dataset["stimulus"].values.astype(str) == str(Stimulus.GABOR)
    positions = find_counted(dataset, chosen=shown)
    if shown.any():
        require_counted(dataset, positions, "tuning")
    # Without a trial of the class this says so.
    gabors = tabulate_gabors(dataset.isel(trial=positions) if shown.any() else dataset, jobs=jobs)
    patches, directions = _name_patches(gabors, skip_blocks)
    responses, counted = _average_patches(dataset, positions, patches, len(directions), delay_frames, jobs)
    if len(directions) and not len(counted):
        raise UsageError(
            "no patch has responses so late",
            session=session_name(dataset),
            found=f"delay_frames {delay_frames}, and trials of at most {int(dataset['n_frames'].max())} frames",
            expected=f"half of the {GABOR_BLOCK_FRAMES} frames of a patch before the trial's end",
            remedy="give a smaller delay_frames",
        )
    responses, directions = responses[:, counted], directions[counted]
    n_patches = np.bincount(directions, minlength=N_DIRECTIONS)
    if n_patches.min(initial=1) == 0:
        missing = [f"{angle}°" for angle in np.flatnonzero(n_patches == 0) * 360 // N_DIRECTIONS]
        raise UsageError(
            "not every direction was shown",
            session=session_name(dataset),
            found=f"no {', '.join(missing)} in {count_things(len(directions), 'patch', 'patches')}",
            expected=f"all {N_DIRECTIONS} directions",
            remedy="take all Gabor trials of the session, and skip fewer blocks",
        )
    return _describe(dataset, responses, directions, n_patches, n_permutations, seed)


def _name_patches(
    gabors: pd.DataFrame, skip_blocks: int
) -> tuple[dict[int, list[tuple[int, int]]], npt.NDArray[np.int64]]:
    """Return the patches of each trial, and each patch's direction as a multiple of 45°.

    A patch is one block of one movie: all repeats of the movie show it. Repeats may differ by a late frame, so the
    direction is the one that most of them show.
    """
    known = gabors[gabors["direction"].notna() & (gabors["block"] >= skip_blocks)]
    known = known.assign(step=(known["direction"] / (360 / N_DIRECTIONS)).round().astype(np.int64))
    # A movie without an id is unlike any other.
    owner = known["movie"].where(known["movie"] != "", "trial " + known["trial"].astype(str))
    of_trial: dict[int, list[tuple[int, int]]] = {}
    directions = []
    for number, (_, rows) in enumerate(known.groupby([owner, known["block"]], sort=False)):
        directions.append(int(rows["step"].mode().iloc[0]))
        for trial, first_frame in rows[["trial", "first_frame"]].to_numpy(np.int64).tolist():
            of_trial.setdefault(trial, []).append((number, first_frame))
    return of_trial, np.array(directions, np.int64)


def _average_patches(
    dataset: xr.Dataset,
    positions: npt.NDArray[np.int64],
    patches: dict[int, list[tuple[int, int]]],
    n_patches: int,
    delay_frames: int,
    jobs: int | None,
) -> tuple[Sums, npt.NDArray[np.int64]]:
    """Return each neuron's mean response to each patch, (neuron, patch), and the patches that have one."""
    sums, n_shown = np.zeros((dataset.sizes["neuron"], n_patches)), np.zeros(n_patches, np.int64)

    def average(block: TrialBlock) -> list[tuple[int, Sums]]:
        means = []
        for patch, first in patches.get(block.trial, []):
            frames = block.responses[:, first + delay_frames : first + delay_frames + GABOR_BLOCK_FRAMES]
            # The last one loses frames to the delay, and where responses end early.
            if 2 * frames.shape[1] >= GABOR_BLOCK_FRAMES:
                means.append((patch, frames.mean(axis=1, dtype=np.float64)))
        return means

    for means in map_blocks(dataset, positions, ["responses"], average, jobs=jobs):
        for patch, mean in means:
            sums[:, patch] += mean
            n_shown[patch] += 1
    return sums / np.maximum(n_shown, 1), np.flatnonzero(n_shown)


def _describe(
    dataset: xr.Dataset,
    responses: Sums,
    directions: npt.NDArray[np.int64],
    n_patches: npt.NDArray[np.int64],
    n_permutations: int,
    seed: int,
) -> xr.Dataset:
    degrees = np.arange(N_DIRECTIONS) * 360.0 / N_DIRECTIONS
    weights = 1 / n_patches[directions]
    is_direction = np.arange(N_DIRECTIONS) == directions[:, np.newaxis]
    tuning = responses @ (is_direction * weights[:, np.newaxis])
    total = tuning.sum(axis=1)
    total[~(total > 0)] = np.nan
    vectors = {
        kind: tuning @ np.exp(1j * times * np.radians(degrees))
        for kind, times in (("orientation", 2), ("direction", 1))
    }
    selectivity = {kind: np.abs(vector) / total for kind, vector in vectors.items()}
    p_values = _test(responses, directions, weights, selectivity, n_permutations, seed)
    known = np.isfinite(total)
    orientation = np.where(known, np.degrees(np.angle(vectors["orientation"])) % 360 / 2, np.nan)
    # The angle of the vector sum would lie between two opposite peaks.
    direction = np.where(known, degrees[np.argmax(tuning, axis=1)], np.nan)
    units = str(dataset["responses"].attrs.get("units", "arbitrary units"))
    one = {"units": "1"}
    return xr.Dataset(
        {
            "response": (("neuron", "direction"), tuning, {"long_name": "mean response by direction", "units": units}),
            "orientation_selectivity": (
                "neuron",
                selectivity["orientation"],
                {"long_name": "orientation selectivity, |Σ r exp(2iθ)| / Σ r", **one},
            ),
            "direction_selectivity": (
                "neuron",
                selectivity["direction"],
                {"long_name": "direction selectivity, |Σ r exp(iθ)| / Σ r", **one},
            ),
            "preferred_orientation": (
                "neuron",
                orientation,
                {"long_name": "preferred axis of drift", "units": "degrees"},
            ),
            "preferred_direction": (
                "neuron",
                direction,
                {"long_name": "preferred direction of drift", "units": "degrees"},
            ),
            "orientation_p": (
                "neuron",
                p_values["orientation"],
                {"long_name": "p of the orientation selectivity", **one},
            ),
            "direction_p": ("neuron", p_values["direction"], {"long_name": "p of the direction selectivity", **one}),
        },
        coords={
            **label_neurons(dataset),
            "direction": (
                "direction",
                degrees,
                {"long_name": "direction of drift", "units": "degrees", "comment": "0 to the right, 90 downward"},
            ),
            "n_patches": ("direction", n_patches),
        },
        attrs={"stimulus": str(Stimulus.GABOR), "n_permutations": n_permutations, "seed": seed},
    )


def _test(
    responses: Sums,
    directions: npt.NDArray[np.int64],
    weights: Sums,
    selectivity: dict[str, Sums],
    n_permutations: int,
    seed: int,
) -> dict[str, Sums]:
    """Return the p values of a permutation test; NaN where there is no selectivity."""
    random = np.random.default_rng(seed)
    angles = directions * 2 * np.pi / N_DIRECTIONS
    # What a patch adds to the sum of r, and to the vector sums, if it had the direction of another.
    columns = np.stack(
        [weights, *(weights * turn(times * angles) for times in (2, 1) for turn in (np.cos, np.sin))], axis=1
    )
    n_larger = {kind: np.zeros(len(responses), np.int64) for kind in selectivity}
    for start in range(0, n_permutations, _SHUFFLES_AT_ONCE):
        n = min(_SHUFFLES_AT_ONCE, n_permutations - start)
        shuffled = np.stack([columns[random.permutation(len(columns))] for _ in range(n)], axis=1)
        sums = (responses @ shuffled.reshape(len(columns), -1)).reshape(len(responses), n, 5)
        for kind, first in (("orientation", 1), ("direction", 3)):
            length = np.hypot(sums[..., first], sums[..., first + 1])
            # As large but for rounding is as large.
            least = (selectivity[kind] * (1 - 1e-9))[:, np.newaxis] * sums[..., 0]
            n_larger[kind] += (length >= least).sum(axis=1)
    return {
        kind: np.where(np.isfinite(selectivity[kind]), (1 + n_larger[kind]) / (1 + n_permutations), np.nan)
        for kind in selectivity
    }
