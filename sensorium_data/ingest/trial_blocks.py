"""What an archive says about its trials, and each trial's arrays checked, cut and cast for the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sensorium_data.archive import SessionArchive
from sensorium_data.errors import TrialError, UnknownNameError
from sensorium_data.movies import N_FRAMES_BY_STIMULUS, sign_video
from sensorium_data.schema import BEHAVIOR_CHANNELS, EYE_AXES, FRAME_HEIGHT, FRAME_WIDTH, VARIABLES
from sensorium_data.sessions import Session, Tier
from sensorium_data.store import Precision, cast_values

__all__ = ["SessionContents", "TrialBlock", "read_session_contents", "read_trial_block"]

_LONGEST_STIMULUS = max(max(lengths) for lengths in N_FRAMES_BY_STIMULUS.values())


@dataclass(frozen=True)
class SessionContents:
    """What the archive's own metadata say about a session.

    Attributes
    ----------
    session : Session
        Which one.
    trials : tuple of int
        Ids of the trials that have files, ascending.
    tiers : tuple of Tier
        Theirs.
    unit_ids : np.ndarray
        (neuron,) int64.
    positions : np.ndarray
        (neuron, 3) float64, cell positions x, y, z in micrometers.
    """

    session: Session
    trials: tuple[int, ...]
    tiers: tuple[Tier, ...]
    unit_ids: np.ndarray
    positions: np.ndarray

    @property
    def n_neurons(self) -> int:
        """Number of recorded neurons."""
        return len(self.unit_ids)

    @property
    def n_trials(self) -> int:
        """Number of trials that have files."""
        return len(self.trials)

    def describe_differences(self, n_frames_padded: int) -> tuple[str, ...]:
        """Return a sentence for each count that differs from the published one, if one was published."""
        if not self.session.is_described:
            return ()
        notes = []
        found = Counter(self.tiers)
        for tier, expected in self.session.n_trials_by_tier.items():
            if found[tier] != expected:
                notes.append(f"{tier} has {found[tier]} trials, published are {expected}")
        if self.n_neurons != self.session.n_neurons:
            notes.append(f"{self.n_neurons} neurons, published are {self.session.n_neurons}")
        if n_frames_padded != self.session.n_frames_padded:
            notes.append(f"trials are padded to {n_frames_padded} frames, published is {self.session.n_frames_padded}")
        return tuple(notes)


@dataclass(frozen=True)
class TrialBlock:
    """One trial as the store holds it; NaN past its valid frames.

    Attributes
    ----------
    trial : int
        The trial's id.
    n_frames : int
        Valid frames: the finite length of the video.
    broken : str
        Why the trial is not valid; empty for a valid one.
    responses_withheld : bool
        The archive holds zeros in place of the responses, or no file of them.
    videos : np.ndarray
        (time, height, width), in the store's precision as the others are.
    responses : np.ndarray
        (neuron, time).
    behavior, pupil_center : np.ndarray
        (2, time).
    signature : np.ndarray
        (n_frames, columns) float32, of the video: :func:`sensorium_data.movies.sign_video`.
    largest_absolute_error : mapping of str to float
        Of the store's precision against the archive's, by variable, over the valid frames.
    """

    trial: int
    n_frames: int
    broken: str
    responses_withheld: bool
    videos: np.ndarray
    responses: np.ndarray
    behavior: np.ndarray
    pupil_center: np.ndarray
    signature: np.ndarray
    largest_absolute_error: Mapping[str, float]


def read_session_contents(archive: SessionArchive, session: Session) -> SessionContents:
    """Read which trials and neurons an archive holds.

    Raises
    ------
    TrialError
        If a trial with files has no tier or an unknown one, or the neurons' metadata do not fit together.
    ArchiveError
        If members are missing or damaged.
    """
    trials = tuple(archive.trial_ids())
    tiers = _read_tiers(archive, session, trials)
    ids_member = archive.member("meta/neurons/unit_ids.npy")
    unit_ids = archive.read_array(ids_member)
    if unit_ids.ndim != 1 or unit_ids.dtype.kind not in "iu" or len(unit_ids) == 0:
        raise _wrong(
            archive,
            session,
            ids_member,
            "wrong unit ids",
            found=f"{unit_ids.dtype} {unit_ids.shape}",
            expected="integers (neurons,)",
        )
    positions_member = archive.member("meta/neurons/cell_motor_coordinates.npy")
    positions = archive.read_array(positions_member)
    if positions.shape != (len(unit_ids), 3) or positions.dtype.kind not in "iuf":
        raise _wrong(
            archive,
            session,
            positions_member,
            "wrong cell positions",
            found=f"{positions.dtype} {positions.shape}",
            expected=f"numbers {(len(unit_ids), 3)}",
        )
    return SessionContents(session, trials, tiers, unit_ids.astype(np.int64), positions.astype(np.float64))


def read_trial_block(
    archive: SessionArchive,
    session: Session,
    trial: int,
    *,
    n_neurons: int,
    n_frames_padded: int,
    precision: Precision = Precision.EXACT,
) -> TrialBlock:
    """Read one trial, check it, and bring it into the store's form.

    A frame is valid when all its pixels are finite, and the valid frames stand at the start. A video without
    valid frames, with others after invalid ones, or of one constant value beyond the length of any stimulus
    makes the trial broken: it keeps its place, without a valid frame.

    Parameters
    ----------
    archive : SessionArchive
        Whose trial.
    session : Session
        Which session that is.
    trial : int
        The trial's id.
    n_neurons : int
        Neurons of the session.
    n_frames_padded : int
        Length of the session's frame axis.
    precision : Precision
        What to keep of the values.

    Raises
    ------
    TrialError
        If an array's dtype or shape is wrong, or a value is too large for the dtype that it is stored in.
    ArchiveError, SourceError
        If a member is damaged or cannot be had.
    """
    errors = dict.fromkeys(VARIABLES, 0.0)

    def read(variable: str, *shape: int) -> np.ndarray:
        return _read_checked(archive, session, variable, trial, (*shape, n_frames_padded))

    def cast(variable: str, values: np.ndarray, stored: np.ndarray) -> None:
        errors[variable] = cast_values(values, stored, precision.rounding_of(variable))
        if not np.isfinite(errors[variable]):
            raise _wrong(
                archive,
                session,
                archive.member(f"data/{variable}/{trial}.npy"),
                f"a value is too large for {stored.dtype}",
                trial=trial,
                found=float(np.nanmax(np.abs(values[np.isfinite(values)]))),
                expected=f"at most {np.finfo(stored.dtype).max:.3g}",
            )

    def allocate(*shape: int) -> np.ndarray:
        return np.full(shape, np.nan, precision.dtype)

    video = read("videos", FRAME_HEIGHT, FRAME_WIDTH)
    n_frames, broken = _count_valid_frames(video)
    videos = allocate(n_frames_padded, FRAME_HEIGHT, FRAME_WIDTH)
    # Frame by frame is how the store keeps a video, and pixel by pixel how the archive does: turned once, and then
    # cast and signed as it lies.
    frames = np.ascontiguousarray(video[..., :n_frames].transpose(2, 0, 1))
    cast("videos", frames, videos[:n_frames])
    del video, frames

    responses = allocate(n_neurons, n_frames_padded)
    responses_withheld = not archive.has_array("responses", trial)
    if not responses_withheld:
        raw = read("responses", n_neurons)
        responses_withheld = not raw.any()
        if not responses_withheld:
            cast("responses", raw[:, :n_frames], responses[:, :n_frames])
        del raw

    def read_small(variable: str, n_channels: int) -> np.ndarray:
        raw = read(variable, n_channels)
        padded = allocate(*raw.shape)
        cast(variable, raw[:, :n_frames], padded[:, :n_frames])
        return padded

    return TrialBlock(
        trial=trial,
        n_frames=n_frames,
        broken=broken,
        responses_withheld=responses_withheld,
        videos=videos,
        responses=responses,
        behavior=read_small("behavior", len(BEHAVIOR_CHANNELS)),
        pupil_center=read_small("pupil_center", len(EYE_AXES)),
        signature=sign_video(videos[:n_frames].astype(np.float32, copy=False)),
        largest_absolute_error=errors,
    )


def _count_valid_frames(video: np.ndarray) -> tuple[int, str]:
    """Return the number of valid frames of a (height, width, time) video, and why the trial is broken."""
    # One pixel says which frames can be valid, and a sum that all of them are: looking at every pixel by itself, which
    # only a broken video needs, takes ten times as long.
    finite = np.isfinite(video[0, 0])
    n_valid = int(np.count_nonzero(finite))
    if not finite[:n_valid].all() or not np.isfinite(video[..., :n_valid].sum()):
        finite = np.isfinite(video).all(axis=(0, 1))
    n_frames = int(finite.argmin()) if not finite.all() else len(finite)
    if n_frames == 0:
        return 0, "the video has no valid frame" if not finite.any() else "the video's first frame is not finite"
    if finite[n_frames:].any():
        return 0, f"the video's frame {n_frames} is not finite, and later ones are"
    if n_frames > _LONGEST_STIMULUS and np.ptp(video[..., :n_frames]) == 0:
        return 0, f"the video is empty: {n_frames} frames of one constant value"
    return n_frames, ""


def _read_tiers(archive: SessionArchive, session: Session, trials: tuple[int, ...]) -> tuple[Tier, ...]:
    member = archive.member("meta/trials/tiers.npy")
    names = archive.read_array(member)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise _wrong(
            archive,
            session,
            member,
            "wrong tiers",
            found=f"{names.dtype} {names.shape}",
            expected="text (trials,)",
        )
    tiers = []
    for trial in trials:
        if trial >= len(names):
            raise _wrong(
                archive,
                session,
                member,
                "the trial has files and no tier",
                trial=trial,
                found=f"{len(names)} tiers",
                expected=f"at least {trial + 1}",
            )
        name = names[trial]
        try:
            tiers.append(Tier.parse(name.decode("ascii", "replace") if isinstance(name, bytes) else str(name)))
        except UnknownNameError:
            raise _wrong(
                archive,
                session,
                member,
                "the trial has files and an unknown tier",
                trial=trial,
                found=repr(str(name)),
                expected=", ".join(Tier),
            ) from None
    return tuple(tiers)


def _read_checked(
    archive: SessionArchive, session: Session, variable: str, trial: int, shape: tuple[int, ...]
) -> np.ndarray:
    values = archive.read_trial(variable, trial)
    member = archive.member(f"data/{variable}/{trial}.npy")
    if values.dtype.kind != "f":
        raise _wrong(
            archive,
            session,
            member,
            f"wrong dtype of {variable}",
            trial=trial,
            found=values.dtype,
            expected="float32 or float64",
        )
    if values.shape != shape:
        raise _wrong(
            archive, session, member, f"wrong shape of {variable}", trial=trial, found=values.shape, expected=shape
        )
    return values


def _wrong(
    archive: SessionArchive,
    session: Session,
    member: str,
    problem: str,
    *,
    trial: int | None = None,
    found: Any,
    expected: Any,
) -> TrialError:
    return TrialError(
        problem,
        session=session,
        trial=trial,
        path=archive.locate(member),
        found=found,
        expected=expected,
        remedy="compare the archive with the published one, and download it again",
    )
