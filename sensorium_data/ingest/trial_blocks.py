"""Each trial's arrays in an archive, checked, cut and cast for the store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np

from sensorium_data.archive import SessionArchive, reserve_memory
from sensorium_data.counting import count_things
from sensorium_data.ingest.adaptation import resize_frames
from sensorium_data.ingest.session_contents import SessionContents, wrong_member
from sensorium_data.movies import N_FRAMES_BY_STIMULUS, sign_video
from sensorium_data.recorded_frames import MOST_MISSING_FRAMES, count_recorded_frames
from sensorium_data.schema import BEHAVIOR_CHANNELS, EYE_AXES, FRAME_HEIGHT, FRAME_WIDTH, VARIABLES
from sensorium_data.sessions import Session
from sensorium_data.store import Precision, cast_values

__all__ = ["TrialBlock", "TrialForm", "read_trial_block"]

# Larger integers are not all float64 numbers.
_LARGEST_INTEGER = 2**53


_LONGEST_STIMULUS = max(max(lengths) for lengths in N_FRAMES_BY_STIMULUS.values())


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
        The archive holds zeros or NaN alone in place of the responses, or no file of them.
    videos : np.ndarray
        (time, height, width), in the store's precision as the others are.
    responses : np.ndarray
        (neuron, time).
    behavior, pupil_center : np.ndarray
        (2, time); (0, time) where the archive has none.
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


@dataclass(frozen=True)
class TrialForm:
    """What all trials of a session have in common: small, hashable, and the same in every process.

    Attributes
    ----------
    n_neurons : int
        Neurons of the session.
    n_frames_padded : int
        Length of the session's frame axis.
    frame_size, archived_frame_size : tuple of int
        Height and width of a frame, in the store and in the archive.
    absent : tuple of str
        The modalities that no trial has.
    """

    n_neurons: int
    n_frames_padded: int
    frame_size: tuple[int, int] = (FRAME_HEIGHT, FRAME_WIDTH)
    archived_frame_size: tuple[int, int] = (FRAME_HEIGHT, FRAME_WIDTH)
    absent: tuple[str, ...] = ()

    @classmethod
    def of(cls, contents: SessionContents, n_frames_padded: int) -> Self:
        """Return the form of the trials of a session."""
        return cls(
            contents.n_neurons, n_frames_padded, contents.frame_size, contents.archived_frame_size, contents.absent
        )

    def shape_of(self, variable: str) -> tuple[int, ...]:
        """Return the shape of one trial of a variable in the archive, without its frames, which come last."""
        n_channels = {"behavior": len(BEHAVIOR_CHANNELS), "pupil_center": len(EYE_AXES), "responses": self.n_neurons}
        return self.archived_frame_size if variable == "videos" else (n_channels[variable],)


def read_trial_block(
    archive: SessionArchive, session: Session, trial: int, form: TrialForm, precision: Precision = Precision.EXACT
) -> TrialBlock:
    """Read one trial, check it, and bring it into the store's form.

    A frame is valid when all its pixels are finite, and the valid frames stand at the start. A video without
    valid frames, with others after invalid ones, or of one constant value beyond the length of any stimulus
    makes the trial broken: it keeps its place, without a valid frame.

    A session that the catalogue lacks may have trials of different lengths, not padded, and numbers of other dtypes. A
    video of integers cannot mark where it ends. Its valid frames end where the responses and the pupil's center do, if
    their arrays are as long as the video's and hold NaN from there on; otherwise all its frames are valid.

    Parameters
    ----------
    archive : SessionArchive
        Whose trial.
    session : Session
        Which session that is.
    trial : int
        The trial's id.
    form : TrialForm
        The session's numbers of neurons, frames and pixels.
    precision : Precision
        What to keep of the values.

    Raises
    ------
    TrialError
        If an array's dtype or shape is wrong, a modality is sampled at other frames than the video, or a value is too
        large for the dtype that it is stored in.
    ArchiveError, SourceError
        If a member is damaged or cannot be had.
    """
    with reserve_memory(archive.unpacked_size_bytes(trial)):
        return _read_block(archive, session, trial, form, precision)


def _read_block(
    archive: SessionArchive, session: Session, trial: int, form: TrialForm, precision: Precision
) -> TrialBlock:
    errors = dict.fromkeys(VARIABLES, 0.0)

    n_frames_padded = form.n_frames_padded

    def read(variable: str, n_frames_expected: int) -> np.ndarray:
        shape = (*form.shape_of(variable), n_frames_expected)
        return _read_checked(archive, session, variable, trial, shape, n_frames_padded)

    def cast(variable: str, values: np.ndarray, stored: np.ndarray) -> None:
        errors[variable] = cast_values(values, stored, precision.rounding_of(variable))
        if not np.isfinite(errors[variable]):
            raise wrong_member(
                archive,
                session,
                archive.member(f"data/{variable}/{trial}.npy"),
                f"a value is too large for {stored.dtype}",
                trial=trial,
                found=float(np.nanmax(np.abs(values[np.isfinite(values)]))),
                expected=f"at most {np.finfo(stored.dtype).max:.3g}",
            )

    def allocate(*shape: int) -> np.ndarray:
        return np.empty(shape, precision.dtype)

    video = read("videos", n_frames_padded)
    n_frames_video = video.shape[-1]
    n_frames, broken = _count_valid_frames(video)
    if video.dtype.kind != "f" and not broken:
        # Behavior does not tell: it may go on past the stimulus.
        others = [
            read(variable, n_frames_video)
            for variable in ("responses", "pupil_center")
            if variable not in form.absent and archive.has_array(variable, trial)
        ]
        n_frames = max((end for values in others if (end := _find_end(values, n_frames))), default=n_frames)
        del others
    videos = allocate(n_frames_padded, *form.frame_size)
    # Frame by frame is how the store keeps a video, and pixel by pixel how the archive does: turned once, and then
    # cast and signed as it lies.
    frames = np.ascontiguousarray(video[..., :n_frames].transpose(2, 0, 1))
    if form.frame_size != form.archived_frame_size:
        frames = resize_frames(frames, form.frame_size)
    cast("videos", frames, videos[:n_frames])
    videos[n_frames:] = np.nan
    del video, frames

    def keep(variable: str, raw: np.ndarray) -> np.ndarray:
        n_kept = min(n_frames, raw.shape[-1])
        padded = allocate(len(raw), n_frames_padded)
        cast(variable, raw[:, :n_kept], padded[:, :n_kept])
        padded[:, n_kept:] = np.nan
        return padded

    raw = read("responses", n_frames_video) if archive.has_array("responses", trial) else None
    responses_withheld = raw is None or not _holds_responses(raw)
    if raw is None or responses_withheld:
        responses = np.full((form.n_neurons, n_frames_padded), np.nan, precision.dtype)
    else:
        responses = keep("responses", raw)
    del raw

    def keep_small(variable: str) -> np.ndarray:
        if variable in form.absent:
            return allocate(0, n_frames_padded)
        return keep(variable, read(variable, n_frames_video))

    return TrialBlock(
        trial=trial,
        n_frames=n_frames,
        broken=broken,
        responses_withheld=responses_withheld,
        videos=videos,
        responses=responses,
        behavior=keep_small("behavior"),
        pupil_center=keep_small("pupil_center"),
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
        return 0, f"the video is empty: {count_things(n_frames, 'frame')} of one constant value"
    return n_frames, ""


def _find_end(values: np.ndarray, n_frames: int) -> int:
    """Return where a trial ends by another modality than its video; 0 if that cannot tell.

    An array that is shorter than the video is not padded: the modality ended early.
    """
    if values.shape[-1] < n_frames or not values.any():
        return 0
    return count_recorded_frames(values, n_frames)


def _holds_responses(values: np.ndarray) -> bool:
    """Whether there is a number other than zero."""
    # The first frame tells of nearly every trial. NaN, which any() takes for a number, is unequal to itself.
    parts = (part for part in (values[:, :1], values[:, 1:]) if part.any())
    return any(bool(((part != 0) & (part == part)).any()) for part in parts)


def _read_checked(
    archive: SessionArchive,
    session: Session,
    variable: str,
    trial: int,
    shape: tuple[int, ...],
    n_frames_padded: int,
) -> np.ndarray:
    """Read one array of a trial, whose shape must be ``shape``; in other labs' sessions its length may differ."""
    values = archive.read_trial(variable, trial)
    member = archive.member(f"data/{variable}/{trial}.npy")
    if not session.is_described:
        return _check_freely(archive, session, variable, trial, values, shape, n_frames_padded)
    if values.dtype.kind != "f":
        raise wrong_member(
            archive,
            session,
            member,
            f"wrong dtype of {variable}",
            trial=trial,
            found=values.dtype,
            expected="float32 or float64",
        )
    if values.shape != shape:
        raise wrong_member(
            archive, session, member, f"wrong shape of {variable}", trial=trial, found=values.shape, expected=shape
        )
    return values


def _check_freely(
    archive: SessionArchive,
    session: Session,
    variable: str,
    trial: int,
    values: np.ndarray,
    shape: tuple[int, ...],
    n_frames_padded: int,
) -> np.ndarray:
    """Check an array of a session that the catalogue lacks, and return it; integers only as far as they are exact."""
    member = archive.member(f"data/{variable}/{trial}.npy")
    if values.dtype.kind not in "fiu" or values.dtype.itemsize > 8:
        raise wrong_member(
            archive,
            session,
            member,
            f"wrong dtype of {variable}",
            trial=trial,
            found=values.dtype,
            expected="float16, float32, float64 or integers",
            remedy=f"save {variable} as float32",
        )
    if values.shape[:-1] != shape[:-1] or values.ndim != len(shape):
        raise wrong_member(
            archive,
            session,
            member,
            f"wrong shape of {variable}",
            trial=trial,
            found=values.shape,
            expected=f"({', '.join(map(str, shape[:-1]))}, frames), as the session's other files and metadata have it",
            remedy="see that the file is this session's, and export it with the same neurons, channels and pixels",
        )
    n_frames = values.shape[-1]
    if n_frames > n_frames_padded if variable == "videos" else abs(n_frames - shape[-1]) > MOST_MISSING_FRAMES:
        raise wrong_member(
            archive,
            session,
            member,
            f"{variable} {'are' if variable == 'responses' else 'is'} not sampled at the frames of the video",
            trial=trial,
            found=count_things(n_frames, "frame"),
            expected=f"{shape[-1]} frames, or up to {MOST_MISSING_FRAMES} more or fewer",
            remedy=f"resample {variable} to the frames of the video",
        )
    is_long = values.dtype.kind in "iu" and values.dtype.itemsize == 8 and values.size > 0
    if is_long and max(abs(int(values.min())), abs(int(values.max()))) > _LARGEST_INTEGER:
        raise wrong_member(
            archive,
            session,
            member,
            f"{variable} hold integers that no float64 is",
            trial=trial,
            found=f"up to {values.max()}",
            expected=f"at most 2**53 = {_LARGEST_INTEGER}",
            remedy=f"save {variable} as float64",
        )
    # Integers of 4 bytes and more are float64 numbers, from which the error of the store's precision is counted.
    if values.dtype.kind in "iu" and variable != "videos":
        return values.astype(np.float64)
    # Sums of float16 leave its range.
    return values.astype(np.float32) if values.dtype == np.float16 else values
