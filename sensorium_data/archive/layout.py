"""How a session's files are named, and where they lie among the names in an archive or below a folder."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence

from sensorium_data.errors import ArchiveError
from sensorium_data.schema import VARIABLES
from sensorium_data.sessions import SESSIONS, Session, is_full_name, parse_trial

__all__ = [
    "LANDMARKS",
    "MODALITIES",
    "choose_root",
    "find_owner",
    "find_roots",
    "has_place",
    "is_junk",
    "is_name_of_another",
    "name_folders",
    "trial_of",
]

#: What every trial has one file of, under ``data/``.
MODALITIES = tuple(VARIABLES)

#: The folders that a session's folder is known by.
LANDMARKS = {"data": frozenset(MODALITIES), "meta": frozenset(("neurons", "statistics", "trials"))}

_JUNK = frozenset((".DS_Store", "Thumbs.db", "desktop.ini"))
_PUBLISHED_NAME = re.compile(r"dynamic\d+-\d+-\d+-Video-\w+")
_N_NAMED = 4


def is_junk(name: str) -> bool:
    """Whether a member is what operating systems leave in archives: ``__MACOSX/``, ``.DS_Store`` and the like."""
    parts = name.split("/")
    return "__MACOSX" in parts or parts[-1] in _JUNK or parts[-1].startswith("._")


def has_place(relative: str) -> bool:
    """Whether a name inside the session's folder has a place in the layout.

    What has one: ``config.json``, everything under ``meta/``, and the files of the four modalities under ``data/``.
    """
    match relative.split("/"):
        case ["config.json"] | ["meta", _, *_]:
            return True
        case ["data", modality, _, *_]:
            return modality in MODALITIES
        case _:
            return False


def trial_of(name: str) -> int | None:
    """Return the trial that a member ``…/data/<modality>/<trial>.npy`` belongs to."""
    match name.split("/"):
        case [*_, "data", _, file] if file.endswith(".npy"):
            return parse_trial(file.removesuffix(".npy"))
        case _:
            return None


def find_roots(names: Iterable[str]) -> list[str]:
    """Return the folders in which a session's layout begins, outermost ones only, sorted.

    Parameters
    ----------
    names : iterable of str
        Names of files, parts separated by ``/``.

    Returns
    -------
    list of str
        Each empty, for the names' own root, or ending in ``/``.

    Examples
    --------
    >>> find_roots(["all/mouse/data/videos/0.npy", "all/mouse/meta/trials/tiers.npy", "README"])
    ['all/mouse/']
    """
    found = set()
    for name in names:
        parts = name.split("/")
        for i, (part, following) in enumerate(itertools.pairwise(parts[:-1])):
            if following in LANDMARKS.get(part, ()):
                found.add("".join(f"{outer}/" for outer in parts[:i]))
                break
    return sorted(root for root in found if not any(root != outer and root.startswith(outer) for outer in found))


def choose_root(roots: Sequence[str], label: str, session: Session, *, path: str) -> str | None:
    """Return the root that is the session's: the one under its name, or else the only one under no session's name.

    Parameters
    ----------
    roots : sequence of str
        What :func:`find_roots` returned.
    label : str
        What the whole is called: the archive's file name without ``.zip``, or the folder's name.
    session : Session
        Whose files are wanted.
    path : str
        Where the whole is, for errors.

    Returns
    -------
    str or None
        ``None`` if all belong to other sessions or are named like one, or there is none.

    Raises
    ------
    ArchiveError
        If there are several that could be it.
    """
    owners = {root: find_owner(root, label, session) for root in roots}
    fitting = [root for root, owner in owners.items() if owner == session.name] or [
        root for root, owner in owners.items() if owner is None
    ]
    if len(fitting) > 1:
        raise ArchiveError(
            "several folders could be the session's",
            session=session,
            path=path,
            found=name_folders(fitting),
            expected="one of them",
            remedy="name the folder itself with --source, or pack it alone",
        )
    return fitting[0] if fitting else None


def find_owner(root: str, label: str, session: Session) -> str | None:
    """Return the full name of the session that a root is called after, by its innermost folder that says so.

    If none does, a session that the catalogue lacks is not looked for in a folder that another could be called after:
    only the name tells such sessions apart.
    """
    for part in reversed([label, *root.split("/")]):
        if part == session.name or part in SESSIONS or _PUBLISHED_NAME.fullmatch(part):
            return part
    innermost = root.rstrip("/").rpartition("/")[2] or label
    return innermost if is_name_of_another(innermost, session) else None


def is_name_of_another(name: str, session: Session) -> bool:
    """Whether this is the full name of another session, where one that the catalogue lacks is wanted."""
    return not session.is_described and name != session.name and is_full_name(name)


def name_folders(folders: Sequence[str]) -> str:
    """Return folders in words, for an error's ``found``."""
    names = [folder.rstrip("/") or "the top" for folder in folders]
    if not names:
        return "no folder"
    shown = ", ".join(names[:_N_NAMED])
    return f"the folders {shown}{', …' if len(names) > _N_NAMED else ''}" if len(names) > 1 else f"the folder {shown}"
