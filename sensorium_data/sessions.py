"""The ten recordings of SENSORIUM 2023, and the words that describe their trials."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from sensorium_data.errors import UnknownNameError

__all__ = [
    "NO_TIER",
    "SESSIONS",
    "SESSION_NAME_RULE",
    "Release",
    "Session",
    "Stage",
    "Stimulus",
    "Tier",
    "Track",
    "find_session",
    "find_sessions",
    "is_full_name",
    "parse_trial",
    "rank_tier",
    "sort_tiers",
]


class Release(StrEnum):
    """Which of the two data sets a session belongs to."""

    OLD = "old"
    NEW = "new"


class Track(StrEnum):
    """A competition track: natural movies, or out-of-distribution stimuli."""

    MAIN = "main"
    BONUS = "bonus"


class Stage(StrEnum):
    """A competition stage: the live leaderboard, or the final evaluation."""

    LIVE = "live"
    FINAL = "final"


class Tier(StrEnum):
    """What a trial is for, as ``meta/trials/tiers.npy`` says: one of the six that SENSORIUM has, or another lab's.

    Iteration gives the six. ``Tier("validation")``, a name of another lab, is a tier as well, the same one each time.
    """

    TRAIN = "train"
    ORACLE = "oracle"
    LIVE_TEST_MAIN = "live_test_main"
    LIVE_TEST_BONUS = "live_test_bonus"
    FINAL_TEST_MAIN = "final_test_main"
    FINAL_TEST_BONUS = "final_test_bonus"

    @property
    def is_test(self) -> bool:
        """Whether the tier is scored by the competition; its responses are withheld in new sessions."""
        return self in (
            Tier.LIVE_TEST_MAIN,
            Tier.LIVE_TEST_BONUS,
            Tier.FINAL_TEST_MAIN,
            Tier.FINAL_TEST_BONUS,
        )

    @property
    def is_bonus(self) -> bool:
        """Whether the tier shows out-of-distribution stimuli."""
        return self in (Tier.LIVE_TEST_BONUS, Tier.FINAL_TEST_BONUS)

    @classmethod
    def of(cls, track: Track, stage: Stage) -> Tier:
        """Return the tier that a track predicts at a stage."""
        return cls(f"{stage}_test_{track}")

    @classmethod
    def parse(cls, name: str, present: Iterable[str] = ()) -> Tier:
        """Return the tier called ``name``; an :class:`UnknownNameError` proposes the near ones.

        Parameters
        ----------
        name : str
            One of SENSORIUM's six, or one of ``present``.
        present : iterable of str
            Tiers of the sessions at hand, among them other labs'.

        Examples
        --------
        >>> Tier.parse("validation", present=["train", "validation"])
        <Tier.VALIDATION: 'validation'>
        """
        known = [str(tier) for tier in sort_tiers([*cls, *map(cls, present)])]
        if name not in known:
            raise UnknownNameError.of("tier", name, known)
        return cls(name)

    @property
    def is_known(self) -> bool:
        """Whether it is one of SENSORIUM's six."""
        return str(self) in _TIER_ORDER

    @classmethod
    def _missing_(cls, value: object) -> Tier | None:
        """Return another lab's tier, if that can be its name."""
        if not isinstance(value, str) or value == NO_TIER or not _TIER_NAME.fullmatch(value):
            return None
        tier = str.__new__(cls, value)
        tier._name_, tier._value_ = value.upper(), value
        # One object for a name, as for the six: tiers are compared with `is` here and there.
        return _OTHER_TIERS.setdefault(value, tier)


#: What ``tiers.npy`` says of an entry that has no files.
NO_TIER = "none"

_TIER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TIER_ORDER = {str(tier): place for place, tier in enumerate(Tier)}
_OTHER_TIERS: dict[str, Tier] = {}


def rank_tier(tier: str) -> tuple[int, str]:
    """Return what sorts tiers as :func:`sort_tiers` does."""
    return _TIER_ORDER.get(str(tier), len(_TIER_ORDER)), str(tier)


def sort_tiers(tiers: Iterable[str]) -> tuple[Tier, ...]:
    """Return tiers, each once: SENSORIUM's six in the order of :class:`Tier`, and then other labs' by name.

    Examples
    --------
    >>> [str(tier) for tier in sort_tiers(["validation", "oracle", "train", "oracle"])]
    ['train', 'oracle', 'validation']
    """
    return tuple(Tier(name) for name in sorted(set(map(str, tiers)), key=rank_tier))


class Stimulus(StrEnum):
    """The class of movie that a trial shows."""

    NATURAL_VIDEO = "NaturalVideo"
    GABOR = "Gabor"
    GAUSSIAN_DOT = "GaussianDot"
    RANDOM_DOTS = "RandomDots"
    PINK_NOISE = "PinkNoise"
    NATURAL_IMAGES = "NaturalImages"
    UNKNOWN = "unknown"


_REPOSITORIES = MappingProxyType(
    {
        # The second is the earlier repository, which lacks the responses of the out-of-distribution tiers.
        Release.OLD: (
            "https://gin.g-node.org/pollytur/sensorium_2023_data",
            "https://gin.g-node.org/pollytur/Sensorium2023Data",
        ),
        Release.NEW: ("https://gin.g-node.org/pollytur/sensorium_2023_dataset",),
    }
)
_SUFFIXES = MappingProxyType(
    {
        Release.OLD: "8744edeac3b4d1ce16b680916b5267ce",
        Release.NEW: "9b4f6a1a067fe51e15306b9628efea20",
    }
)


@dataclass(frozen=True)
class Session:
    """One recording of one mouse: one of the ten published ones, or another in the same layout.

    What nobody published of a session that the catalogue lacks is 0, empty or unknown.

    Attributes
    ----------
    name : str
        The full name: the archive's folder, and the store's group.
    alias : str
        A letter, ``A`` to ``J``, in the order in which the field lists the sessions; the scan of another session.
    scan : str
        Animal, session and scan, e.g. ``29515-10-12``; the whole name where it does not tell them.
    release : Release or None
        ``old`` sessions publish the responses of every tier, in the repository that is tried first; ``new`` ones
        withhold the test tiers'.
    n_neurons : int
        Recorded neurons.
    n_frames_padded : int
        Length of every array's frame axis in the archive; trials are shorter and padded to it.
    n_trials_by_tier : mapping of Tier to int
        Published numbers of trials.
    n_unpublished_trials : int
        Entries of ``tiers.npy`` labelled ``none``, for which no files exist.
    live_bonus_stimulus : Stimulus
        The class that the live bonus tier shows.
    final_bonus_stimuli : tuple of Stimulus
        The two classes that the final bonus tier shows.
    """

    name: str
    alias: str = field(compare=False)
    scan: str = field(compare=False)
    release: Release | None = field(default=None, compare=False)
    n_neurons: int = field(default=0, compare=False)
    n_frames_padded: int = field(default=0, compare=False)
    n_trials_by_tier: Mapping[Tier, int] = field(default_factory=dict, compare=False, repr=False)
    n_unpublished_trials: int = field(default=0, compare=False, repr=False)
    live_bonus_stimulus: Stimulus = field(default=Stimulus.UNKNOWN, compare=False, repr=False)
    final_bonus_stimuli: tuple[Stimulus, ...] = field(default=(), compare=False, repr=False)

    @property
    def is_described(self) -> bool:
        """Whether the catalogue describes the session."""
        return self.release is not None

    @property
    def urls(self) -> tuple[str, ...]:
        """Where GIN serves the archive, the most complete repository first; none if the catalogue lacks it."""
        if self.release is None:
            return ()
        return tuple(f"{repository}/raw/master/{self.name}.zip" for repository in _REPOSITORIES[self.release])

    @property
    def url(self) -> str | None:
        """The first of :attr:`urls`; ``None`` for a session that the catalogue lacks."""
        return next(iter(self.urls), None)

    @property
    def n_trials(self) -> int:
        """Number of trials whose files are published; 0 where nobody said."""
        return sum(self.n_trials_by_tier.values())

    @property
    def withholds_test_responses(self) -> bool:
        """Whether the archive holds zeros in place of the test tiers' responses, as far as is published."""
        return self.release is Release.NEW

    def stimuli_of(self, tier: Tier) -> tuple[Stimulus, ...]:
        """Return the published stimulus classes of a tier, one or two; none where nobody said."""
        if not self.is_described:
            return ()
        if tier is Tier.LIVE_TEST_BONUS:
            return (self.live_bonus_stimulus,)
        if tier is Tier.FINAL_TEST_BONUS:
            return self.final_bonus_stimuli
        return (Stimulus.NATURAL_VIDEO,)

    def __str__(self) -> str:
        return f"{self.alias} ({self.name})" if self.is_described else self.name

    def __lt__(self, other: Session) -> bool:
        """Catalogue order; sessions that the catalogue lacks come after, by name."""
        return self._rank < other._rank

    @property
    def _rank(self) -> tuple[bool, str, str]:
        return not self.is_described, self.alias if self.is_described else "", self.name

    def __reduce__(self) -> tuple[object, ...]:
        # A session is identified by its name; mapping proxies do not pickle.
        return find_session, (self.name,)


_G, _D, _R, _P, _I = (
    Stimulus.GABOR,
    Stimulus.GAUSSIAN_DOT,
    Stimulus.RANDOM_DOTS,
    Stimulus.PINK_NOISE,
    Stimulus.NATURAL_IMAGES,
)

# alias, scan, neurons, padded frames, trials by tier in the order of Tier, unpublished, live bonus, final bonus
_CATALOGUE: tuple[
    tuple[str, str, int, int, tuple[int, int, int, int, int, int], int, Stimulus, tuple[Stimulus, Stimulus]], ...
] = (
    ("A", "29156-11-10", 7440, 324, (350, 59, 56, 59, 58, 138), 20, _P, (_D, _R)),
    ("B", "29228-2-10", 7928, 324, (352, 60, 58, 59, 57, 118), 16, _G, (_I, _P)),
    ("C", "29234-6-9", 8285, 325, (355, 58, 58, 80, 59, 119), 11, _R, (_G, _I)),
    ("D", "29513-3-5", 7671, 403, (356, 59, 60, 59, 60, 120), 6, _I, (_D, _P)),
    ("E", "29514-2-9", 7495, 315, (351, 60, 57, 58, 60, 137), 16, _D, (_G, _R)),
    ("F", "29515-10-12", 7863, 324, (348, 58, 56, 58, 57, 134), 0, _P, (_D, _R)),
    ("G", "29623-4-9", 7908, 325, (329, 56, 53, 57, 56, 131), 0, _G, (_I, _R)),
    ("H", "29647-19-8", 8202, 326, (354, 60, 60, 58, 59, 120), 0, _D, (_I, _P)),
    ("I", "29712-5-9", 7939, 315, (359, 60, 60, 80, 60, 120), 0, _R, (_G, _D)),
    ("J", "29755-2-8", 8122, 414, (354, 59, 60, 60, 60, 119), 0, _I, (_G, _P)),
)  # fmt: skip

#: Every published session by its full name, in the order of the aliases.
SESSIONS: Mapping[str, Session] = MappingProxyType(
    {
        session.name: session
        for session in (
            Session(
                name=f"dynamic{scan}-Video-{_SUFFIXES[release]}",
                alias=alias,
                scan=scan,
                release=release,
                n_neurons=n_neurons,
                n_frames_padded=n_frames_padded,
                n_trials_by_tier=MappingProxyType(dict(zip(Tier, n_trials, strict=True))),
                n_unpublished_trials=n_unpublished,
                live_bonus_stimulus=live_bonus,
                final_bonus_stimuli=final_bonus,
            )
            for alias, scan, n_neurons, n_frames_padded, n_trials, n_unpublished, live_bonus, final_bonus in _CATALOGUE
            for release in (Release.OLD if alias <= "E" else Release.NEW,)
        )
    }
)


# A name that the catalogue lacks counts as another session's when it could not be an alias or a mistyped word: 4 to 128
# characters of a portable file name, among them a digit, a separator, or a capital after a small letter. A store keeps
# files of its own under names that end in .json, and later versions under names that end in .v2 and so on.
_FULL_NAME = re.compile(
    r"(?!.*\.(?:v\d+|json|zip|lock)$)(?=.*(?:[0-9_-]|[a-z][A-Z]))[A-Za-z0-9][A-Za-z0-9._-]{2,126}[A-Za-z0-9_-]"
)
#: The rule for such names, for errors.
SESSION_NAME_RULE = (
    "4 to 128 letters, digits, '.', '_' and '-', with a digit, '_', '-' or a capital after a small letter among them, "
    "beginning with a letter or digit, and not ending in '.', '.v2' and the like, '.json', '.zip' or '.lock'"
)
_TRIAL = re.compile(r"0|[1-9][0-9]{0,8}")
_SCAN = re.compile(r"[a-z]+(?P<scan>\d+-\d+-\d+)(?:-.*)?")


def find_session(name: str | Session) -> Session:
    """Return the session with this alias or full name; a :class:`Session` as it is.

    A well-formed full name that the catalogue lacks gives a session of which nothing is published: other labs record
    in the same layout. Whether there is such a session shows at the archive or the store.

    Raises
    ------
    UnknownNameError
        If the name cannot be a session's; the message names the near ones.

    Examples
    --------
    >>> find_session("F").name
    'dynamic29515-10-12-Video-9b4f6a1a067fe51e15306b9628efea20'
    >>> find_session("dynamic30001-2-5-Video-mylab").alias
    '30001-2-5'
    >>> find_session("mouseA").is_described
    False
    """
    if isinstance(name, Session):
        return name
    if not isinstance(name, str):
        raise UnknownNameError(
            "no session's name", found=repr(name), expected="an alias or a full name", remedy='for example "F"'
        )
    for session in SESSIONS.values():
        if name in (session.name, session.scan) or name.upper() == session.alias:
            return session
    if _FULL_NAME.fullmatch(name) and not _is_cut_short(name):
        match = _SCAN.fullmatch(name)
        scan = name if match is None else match["scan"]
        # A scan of the catalogue under another suffix is another session: its short name must not be taken for that.
        if any(scan == session.scan for session in SESSIONS.values()):
            scan = name
        return Session(name=name, alias=scan, scan=scan)
    choices = (
        "choose aliases A to J, full names, or one of new, old, all; names of other labs' sessions are "
        f"{SESSION_NAME_RULE}"
    )
    raise UnknownNameError.of(
        "session",
        name,
        [*(s.alias for s in SESSIONS.values()), *SESSIONS],
        remedy=None if len(name) > 3 else choices,
        otherwise=choices,
    )


def is_full_name(name: object) -> bool:
    """Whether this is a session's full name, which folders may have; what is read from a file is asked this first.

    Examples
    --------
    >>> is_full_name("dynamic30001-2-5-Video-mylab"), is_full_name("F"), is_full_name("../thesis")
    (True, False, False)
    """
    try:
        return isinstance(name, str) and find_session(name).name == name
    except UnknownNameError:
        return False


def _is_cut_short(name: str) -> bool:
    """Whether a name is the start of a published one, such as ``dynamic29515`` or ``29515``."""
    starts = (published for session in SESSIONS.values() for published in (session.name, session.scan))
    return not re.search("[-_]", name) and any(published.startswith(name) for published in starts)


def parse_trial(text: str) -> int | None:
    """Return the trial's id that a text is: up to nine digits, written in one way; None if it is none.

    Examples
    --------
    >>> parse_trial("12"), parse_trial("012")
    (12, None)
    """
    return int(text) if _TRIAL.fullmatch(text) else None


def find_sessions(names: Iterable[str | Session]) -> tuple[Session, ...]:
    """Return the sessions that ``names`` mean, each once, in catalogue order, others after them by name.

    Parameters
    ----------
    names : iterable of str
        Aliases, full names, or ``new``, ``old`` and ``all``. Case does not matter for the short ones.

    Raises
    ------
    UnknownNameError
        If a name means no session.
    """
    chosen: set[Session] = set()
    for name in names:
        match name.lower() if isinstance(name, str) else name:
            case "all":
                chosen.update(SESSIONS.values())
            case "new" | "old" as release:
                chosen.update(s for s in SESSIONS.values() if s.release == release)
            case _:
                chosen.add(find_session(name))
    return tuple(sorted(chosen))
