"""What an archive says about its session: trials, tiers, neurons, the size of frames, and what is not there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sensorium_data.archive import SessionArchive
from sensorium_data.counting import count_things
from sensorium_data.errors import TrialError
from sensorium_data.ingest.adaptation import Adaptation
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH, VARIABLES
from sensorium_data.sessions import NO_TIER, Session, Tier
from sensorium_data.store import list_trials

__all__ = ["POSITIONS", "SessionContents", "read_session_contents", "wrong_member"]

#: The name of the cell positions, beside those of the modalities, among what a recording lacks.
POSITIONS = "positions"

# A frame that a video's signature can be taken of, and one that a trial's memory holds hundreds of.
_SMALLEST_FRAME, _LARGEST_FRAME = (4, 8), (4096, 4096)
_HEADERS_AT_ONCE = 8

_POSITIONS_MEMBER = "meta/neurons/cell_motor_coordinates.npy"
_WORDS = {"behavior": "behavior", "pupil_center": "pupil centers", POSITIONS: "cell positions"}


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
        Theirs, under the names that they have in the store.
    unit_ids : np.ndarray
        (neuron,) int64.
    positions : np.ndarray or None
        (neuron, 3) float64, cell positions x, y, z in micrometers; None where the archive has none.
    frame_size : tuple of int
        Height and width of a frame in the store.
    archived_frame_size : tuple of int
        Height and width of a frame in the archive.
    n_frames_longest : int
        Length of the longest video; 0 for the published sessions, whose videos are all as long as their statistics.
    absent : tuple of str
        What the archive does not hold of ``behavior``, ``pupil_center`` and ``positions``.
    n_frames_of_integer_videos : mapping of int to int
        By trial, the length in the archive of each video of integers, which cannot mark its end with NaN.
    trials_without_files : tuple of int
        Those that have a tier and no file.
    """

    session: Session
    trials: tuple[int, ...]
    tiers: tuple[Tier, ...]
    unit_ids: np.ndarray
    positions: np.ndarray | None
    frame_size: tuple[int, int] = (FRAME_HEIGHT, FRAME_WIDTH)
    archived_frame_size: tuple[int, int] = (FRAME_HEIGHT, FRAME_WIDTH)
    n_frames_longest: int = 0
    absent: tuple[str, ...] = ()
    n_frames_of_integer_videos: Mapping[int, int] = field(default_factory=dict)
    trials_without_files: tuple[int, ...] = ()

    @property
    def variables(self) -> tuple[str, ...]:
        """The data variables that the store holds."""
        return tuple(variable for variable in VARIABLES if variable not in self.absent)

    @property
    def n_neurons(self) -> int:
        """Number of recorded neurons."""
        return len(self.unit_ids)

    @property
    def n_trials(self) -> int:
        """Number of trials that have files."""
        return len(self.trials)

    def describe_differences(self, n_frames_padded: int) -> tuple[str, ...]:
        """Return a sentence for each count that differs from the published one, and for what is not recorded."""
        notes = [f"the recording has no {_WORDS[name]}" for name in self.absent]
        if self.trials_without_files:
            n_trials = count_things(len(self.trials_without_files), "trial")
            notes.append(f"{n_trials} with a tier and without files: {list_trials(self.trials_without_files)}")
        if self.frame_size != self.archived_frame_size:
            old, new = ("{} x {}".format(*size) for size in (self.archived_frame_size, self.frame_size))
            notes.append(f"frames of {old} pixels were resized to {new}")
        if not self.session.is_described:
            return tuple(notes)
        found = Counter(self.tiers)
        for tier, expected in self.session.n_trials_by_tier.items():
            if found[tier] != expected:
                notes.append(f"{tier} has {count_things(found[tier], 'trial')}, published are {expected}")
        if self.n_neurons != self.session.n_neurons:
            notes.append(f"{count_things(self.n_neurons, 'neuron')}, published are {self.session.n_neurons:,}")
        if n_frames_padded != self.session.n_frames_padded:
            notes.append(f"trials are padded to {n_frames_padded} frames, published is {self.session.n_frames_padded}")
        return tuple(notes)


def read_session_contents(
    archive: SessionArchive, session: Session, adaptation: Adaptation | None = None
) -> SessionContents:
    """Read which trials and neurons an archive holds.

    Of sessions that the catalogue lacks, the first bytes of every video are read as well: they say how large frames
    are, and how long each trial is.

    Parameters
    ----------
    archive : SessionArchive
        The session's archive.
    session : Session
        Which session.
    adaptation : Adaptation, optional
        What is to be changed of it.

    Raises
    ------
    TrialError
        If a trial with files has no tier or an impossible one, the neurons' metadata do not fit together, or the
        videos are no videos or differ in the size of their frames.
    UsageError
        If a tier is to be renamed that is not there.
    ArchiveError
        If members are missing or damaged.
    """
    adaptation = adaptation or Adaptation()
    trials = tuple(archive.trial_ids())
    absent = archive.absent_modalities
    member = archive.member("meta/trials/tiers.npy")
    names = _read_tier_names(archive, session, member)
    tiers = adaptation.rename_tiers(_choose_tiers(names, archive, session, trials), session, archive.locate(member))
    ids_member = archive.member("meta/neurons/unit_ids.npy")
    unit_ids = archive.read_array(ids_member)
    if unit_ids.ndim != 1 or unit_ids.dtype.kind not in "iu" or len(unit_ids) == 0:
        raise wrong_member(
            archive,
            session,
            ids_member,
            "wrong unit ids",
            found=f"{unit_ids.dtype} {unit_ids.shape}",
            expected="integers (neurons,)",
        )
    if len(np.unique(unit_ids)) != len(unit_ids) and not session.is_described:
        raise wrong_member(
            archive,
            session,
            ids_member,
            "unit ids are not unique",
            found=f"{len(np.unique(unit_ids))} ids of {len(unit_ids)} neurons",
            expected="an id of its own for each neuron",
        )
    if unit_ids.dtype.kind == "u" and int(unit_ids.max()) > np.iinfo(np.int64).max:
        raise wrong_member(
            archive,
            session,
            ids_member,
            "a unit id is too large for int64",
            found=int(unit_ids.max()),
            expected=f"at most 2**63 - 1 = {np.iinfo(np.int64).max}",
            remedy=None if session.is_described else "number the units anew, and save them as int64",
        )
    size, n_frames_longest = (FRAME_HEIGHT, FRAME_WIDTH), 0
    n_frames_of_integer_videos: dict[int, int] = {}
    if not session.is_described:
        size, n_frames_longest, n_frames_of_integer_videos = _read_video_sizes(archive, session, trials)
    contents = SessionContents(
        session,
        trials,
        tiers,
        unit_ids.astype(np.int64),
        positions=None,
        frame_size=adaptation.frame_size or size,
        archived_frame_size=size,
        n_frames_longest=n_frames_longest,
        absent=absent,
        n_frames_of_integer_videos=n_frames_of_integer_videos,
        trials_without_files=tuple(
            trial for trial in sorted(set(range(len(names))) - set(trials)) if names[trial] not in ("", NO_TIER)
        ),
    )
    if not session.is_described and not archive.has_member(_POSITIONS_MEMBER):
        return replace(contents, absent=(*absent, POSITIONS))
    positions_member = archive.member(_POSITIONS_MEMBER)
    positions = archive.read_array(positions_member)
    if positions.shape != (len(unit_ids), 3) or positions.dtype.kind not in "iuf":
        raise wrong_member(
            archive,
            session,
            positions_member,
            "wrong cell positions",
            found=f"{positions.dtype} {positions.shape}",
            expected=f"numbers {(len(unit_ids), 3)}",
        )
    return replace(contents, positions=positions.astype(np.float64))


def _read_video_sizes(
    archive: SessionArchive, session: Session, trials: tuple[int, ...]
) -> tuple[tuple[int, int], int, dict[int, int]]:
    """Return the frame size of all videos, the frames of the longest, and those of each video of integers by trial."""
    members = [archive.member(f"data/videos/{trial}.npy") for trial in trials]
    with ThreadPoolExecutor(_HEADERS_AT_ONCE, thread_name_prefix="headers") as pool:
        headers = list(pool.map(archive.read_array_header, members))
    shapes = [shape for shape, _ in headers]
    first = shapes[0]
    for trial, member, shape in zip(trials, members, shapes, strict=True):
        is_video = len(shape) == 3 and shape[2] > 0
        is_frame = is_video and all(
            low <= n <= high for low, n, high in zip(_SMALLEST_FRAME, shape, _LARGEST_FRAME, strict=False)
        )
        if not is_frame or shape[:2] != first[:2]:
            expected = f"(height, width, frames), frames of {_SMALLEST_FRAME} to {_LARGEST_FRAME} pixels"
            if is_frame:
                expected = f"frames of {first[:2]} pixels as in trial {trials[0]}"
            raise wrong_member(
                archive, session, member, "wrong shape of videos", trial=trial, found=shape, expected=expected
            )
    of_integers = {
        trial: int(shape[2]) for trial, (shape, dtype) in zip(trials, headers, strict=True) if dtype.kind in "iu"
    }
    return (int(first[0]), int(first[1])), max(shape[2] for shape in shapes), of_integers


def _read_tier_names(archive: SessionArchive, session: Session, member: str) -> list[str]:
    """Return what the archive calls the tier of each trial, by id."""
    names = archive.read_array(member)
    if names.ndim != 1 or names.dtype.kind not in "US":
        raise wrong_member(
            archive,
            session,
            member,
            "wrong tiers",
            found=f"{names.dtype} {names.shape}",
            expected="text (trials,)",
        )
    return [name.decode("ascii", "replace") if isinstance(name, bytes) else str(name) for name in names.tolist()]


def _choose_tiers(
    names: list[str], archive: SessionArchive, session: Session, trials: tuple[int, ...]
) -> tuple[Tier, ...]:
    member = archive.member("meta/trials/tiers.npy")
    tiers = []
    for trial in trials:
        if trial >= len(names):
            raise wrong_member(
                archive,
                session,
                member,
                "the trial has files and no tier",
                trial=trial,
                found=count_things(len(names), "tier"),
                expected=f"at least {trial + 1}",
            )
        name = names[trial]
        try:
            tier = Tier(name)
            if session.is_described and not tier.is_known:
                raise ValueError(tier)
            tiers.append(tier)
        except ValueError:
            raise wrong_member(
                archive,
                session,
                member,
                "the trial has files and an unknown tier",
                trial=trial,
                found=repr(name),
                expected=", ".join(Tier)
                if session.is_described
                else f"a name of up to 64 letters, digits, '.', '_' and '-', other than {NO_TIER}",
            ) from None
    return tuple(tiers)


def wrong_member(
    archive: SessionArchive,
    session: Session,
    member: str,
    problem: str,
    *,
    trial: int | None = None,
    found: Any,
    expected: Any,
    remedy: str | None = None,
) -> TrialError:
    """Return the error that a member of an archive is not what it should be; other labs' are told to correct it."""
    return TrialError(
        problem,
        session=session,
        trial=trial,
        path=archive.locate(member),
        found=found,
        expected=expected,
        remedy=remedy
        or (
            "compare the archive with the published one, and download it again"
            if session.is_described
            else "correct the file, and pack the session again"
        ),
    )
