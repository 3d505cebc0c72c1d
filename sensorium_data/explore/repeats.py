"""How reliably neurons answer the repeats of a movie, and the responses to one movie over sessions."""

from __future__ import annotations

from collections.abc import Iterable

import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.explore.arguments import parse_integer, parse_names
from sensorium_data.explore.blocks import TrialBlock, find_counted, label_neurons, map_blocks, name_movies
from sensorium_data.explore.layout import arrange_session, session_name
from sensorium_data.explore.selection import match_tiers
from sensorium_data.frames import N_SKIPPED_FRAMES
from sensorium_data.scoring import OracleReliability, RepeatMoments

__all__ = ["NoRepeatsError", "measure_reliability", "measure_signal_to_noise"]


class NoRepeatsError(UsageError):
    """No movie is shown twice among the trials that count."""


def measure_reliability(
    dataset: xr.Dataset,
    *,
    tier: str | Iterable[str] | None = "oracle",
    skip_frames: int = N_SKIPPED_FRAMES,
    jobs: int | None = None,
) -> xr.DataArray:
    """Return how well a neuron's response to a trial correlates with the mean of the movie's other repeats.

    The Pearson correlation over the frames of all trials of all repeated movies joined, of each trial's response with
    the mean response to the other repeats of its movie (leave one out). This is the ``oracle_correlation`` of
    ``sensorium score``, there in the competition's units, here in those of the dataset;
    :func:`sensorium_data.scoring.measure_oracle_correlation` measures it in the former. Of each movie the frames count
    that all repeats have.

    Parameters
    ----------
    dataset : xarray.Dataset
        A session, or a selection of it. Valid trials whose responses are there count.
    tier : str or iterable of str, optional
        Whose repeats count; None for those of all tiers.
    skip_frames : int
        Frames left out at the start of every trial.
    jobs : int, optional
        Trials read at the same time; one a CPU core by default.

    Returns
    -------
    xarray.DataArray
        (neuron,), from -1 to 1; 0 for a constant trace, NaN for one that lacks a value.

    Raises
    ------
    UsageError
        If no movie was shown twice, past the frames that are left out.

    References
    ----------
    Sinz et al. (2018), NeurIPS 31 (oracle correlation).
    """
    correlation = _sum_repeats(dataset, tier, skip_frames, jobs).correlation()
    return xr.DataArray(
        correlation,
        dims="neuron",
        coords=label_neurons(dataset),
        name="reliability",
        attrs={"long_name": "correlation of a trial with the mean of the movie's other repeats", "units": "1"},
    )


def measure_signal_to_noise(
    dataset: xr.Dataset,
    *,
    tier: str | Iterable[str] | None = "oracle",
    skip_frames: int = N_SKIPPED_FRAMES,
    jobs: int | None = None,
) -> xr.DataArray:
    """Return the power of the response that the movie explains over the power that it does not.

    The noise power is the variance over repeats, unbiased, averaged over frames. The signal power is the variance over
    frames of the mean over repeats, less the noise that is left in that mean, and not less than 0. Whatever differs
    between repeats is noise, also a change of a whole trial's level.

    Parameters
    ----------
    dataset, tier, skip_frames, jobs
        As :func:`measure_reliability` takes them.

    Returns
    -------
    xarray.DataArray
        (neuron,), from 0; NaN for a neuron whose repeats do not differ, and for one that lacks a value.

    Raises
    ------
    UsageError
        As :func:`measure_reliability` does.

    References
    ----------
    Sahani and Linden (2003), How linear are auditory cortical responses?, NeurIPS 15.
    """
    ratio = _sum_repeats(dataset, tier, skip_frames, jobs).signal_to_noise()
    return xr.DataArray(
        ratio,
        dims="neuron",
        coords=label_neurons(dataset),
        name="signal_to_noise",
        attrs={"long_name": "signal power over noise power", "units": "1"},
    )


def _sum_repeats(
    dataset: xr.Dataset, tier: str | Iterable[str] | None, skip_frames: int, jobs: int | None
) -> OracleReliability:
    skip_frames = parse_integer(skip_frames, "skip_frames", least=0)
    dataset = arrange_session(dataset, "responses", whole_start=True)
    tiers = None if tier is None else parse_names(tier, "tier")
    chosen = None if tiers is None else match_tiers(dataset, tiers)
    counted = find_counted(dataset, chosen=chosen)
    movies = name_movies(dataset)
    lengths = dataset["n_frames"].values
    groups: dict[str, list[int]] = {}
    for position in counted.tolist():
        if movies[position]:
            groups.setdefault(str(movies[position]), []).append(position)
    groups = {movie: trials for movie, trials in groups.items() if len(trials) > 1}
    # Movie by movie, so that one movie's sums are in memory.
    order = [position for trials in groups.values() for position in trials]
    reliability = OracleReliability(dataset.sizes["neuron"])
    blocks = map_blocks(dataset, order, ["responses"], _keep, jobs=jobs)
    for trials in groups.values():
        n_frames = int(lengths[trials].min())
        moments = RepeatMoments(dataset.sizes["neuron"], n_frames, skip_frames=skip_frames)
        for _ in trials:
            moments.add(next(blocks).responses)
        reliability.add(moments)
    blocks.close()
    if not reliability.n_movies:
        raise NoRepeatsError(
            "no repeats to compare",
            session=session_name(dataset),
            found=f"{len(counted)} trials that count{'' if tiers is None else ' of tier ' + ', '.join(tiers)}, "
            f"and no movie that two of them show past frame {skip_frames}",
            expected="two trials of a movie, valid and not withheld",
            remedy="take a session or selection with repeats, or another tier (tier=None for all)",
        )
    return reliability


def _keep(block: TrialBlock) -> TrialBlock:
    return block
