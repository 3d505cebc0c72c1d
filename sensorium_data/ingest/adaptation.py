"""What a user asks to be changed of a recording on its way into the store: its frame size, and names of its tiers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Self

import numpy as np

from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.sessions import Session, Tier, sort_tiers
from sensorium_data.store import read_list

__all__ = ["RESIZE_RULE", "Adaptation", "parse_frame_size", "parse_tier_map", "resize_frames"]

#: What :func:`resize_frames` does, as a store's attributes name it.
RESIZE_RULE = "area mean"

#: What ``--resize`` and ``--tier-map`` take to undo what was asked for before.
NOTHING = "none"

_LARGEST_SIDE = 4096
_SIZE = re.compile(r"([1-9]\d{0,3})\s*[x×]\s*([1-9]\d{0,3})", re.IGNORECASE)


@dataclass(frozen=True)
class Adaptation:
    """What is changed of a recording; the same for all its trials.

    Attributes
    ----------
    frame_size : tuple of int, or None
        Height and width that frames are resized to by :func:`resize_frames`; None keeps them as they are.
    tier_map : mapping of Tier to Tier
        The new names of tiers; others keep theirs.
    """

    frame_size: tuple[int, int] | None = None
    tier_map: Mapping[Tier, Tier] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def read(cls, attributes: Mapping[str, Any]) -> Self:
        """Return what was changed of a stored session, as its attributes say."""
        size = attributes.get("resized_to")
        return cls(
            None if size is None else parse_frame_size(str(size)),
            parse_tier_map(str(pair) for pair in read_list(attributes, "tier_map")),
        )

    def to_attributes(self) -> dict[str, Any]:
        """Return the attributes that say what was changed; none where nothing was."""
        attributes: dict[str, Any] = {}
        if self.frame_size is not None:
            attributes |= {"resized_to": "{}x{}".format(*self.frame_size), "resize_rule": RESIZE_RULE}
        if self.tier_map:
            attributes["tier_map"] = [f"{old}={new}" for old, new in sorted(self.tier_map.items())]
        return attributes

    def rename_tiers(self, tiers: Sequence[Tier], session: Session, path: str) -> tuple[Tier, ...]:
        """Return the tiers of trials under their new names.

        Raises
        ------
        UsageError
            If a tier that is to be renamed is not there.
        """
        missing = [str(old) for old in self.tier_map if old not in tiers]
        if missing:
            raise UsageError(
                "--tier-map: no trial has this tier",
                session=session,
                path=path,
                found=f"{', '.join(missing)}; there are {', '.join(sort_tiers(tiers))}",
                expected=f"a tier that is there, and one of {', '.join(Tier)} for it",
                remedy="name a tier that is there, e.g. --tier-map validation=oracle",
            )
        return tuple(self.tier_map.get(tier, tier) for tier in tiers)


def parse_frame_size(text: str | None) -> tuple[int, int] | None:
    """Return height and width from words such as ``36x64``; ``None`` for ``none``.

    Raises
    ------
    UsageError
        If the words are no frame size, or one that no video is resized to.

    Examples
    --------
    >>> parse_frame_size("36x64")
    (36, 64)
    """
    if text is None or text == NOTHING:
        return None
    match = _SIZE.fullmatch(text.strip())
    size = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (4 <= size[0] <= _LARGEST_SIDE and 8 <= size[1] <= _LARGEST_SIDE):
        raise UsageError(
            "no frame size",
            found=repr(text),
            expected=f"height x width, from 4x8 to {_LARGEST_SIDE}x{_LARGEST_SIDE}, or {NOTHING}",
            remedy="e.g. --resize 36x64",
        )
    return size


def parse_tier_map(pairs: Iterable[str]) -> Mapping[Tier, Tier]:
    """Return new names of tiers from words such as ``validation=oracle``; none for ``none``.

    Raises
    ------
    UsageError
        If a pair is none, two of them rename one tier, or ``none`` stands beside others.
    UnknownNameError
        If a new name is none of SENSORIUM's tiers.

    Examples
    --------
    >>> dict(parse_tier_map(["validation=oracle"]))
    {<Tier.VALIDATION: 'validation'>: <Tier.ORACLE: 'oracle'>}
    """
    renamed: dict[Tier, Tier] = {}
    pairs = list(pairs)
    if NOTHING in pairs and any(pair != NOTHING for pair in pairs):
        raise UsageError(
            "--tier-map contradicts itself",
            found=repr(" ".join(pairs)),
            expected=f"pairs such as validation=oracle, or {NOTHING} alone, which keeps the recorded names",
            remedy=f"leave out {NOTHING} or the pairs",
        )
    for pair in pairs:
        if pair == NOTHING:
            continue
        old, separator, new = (part.strip() for part in pair.partition("="))
        try:
            tier = Tier(old) if separator and new else None
        except ValueError:
            tier = None
        if tier is None or tier in renamed:
            raise UsageError(
                "--tier-map",
                found=repr(pair) + (", a second name for this tier" if tier in renamed else ""),
                expected="a recorded tier=a known one, each recorded tier once",
                remedy="e.g. --tier-map validation=oracle",
            )
        if new not in [str(known) for known in Tier]:
            raise UnknownNameError.of("tier to map to", new, [str(known) for known in Tier])
        renamed[tier] = Tier(new)
    return MappingProxyType(renamed)


def resize_frames(video: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize frames by the mean over areas: each new pixel is the mean of the old frame over the area it covers.

    An old pixel that lies partly in the area counts for that part. The frame's mean stays what it was, no value leaves
    the range of the old ones, and whole factors give plain means of blocks. The aspect ratio is not kept.

    Parameters
    ----------
    video : np.ndarray
        (time, height, width).
    size : tuple of int
        New height and width.

    Returns
    -------
    np.ndarray
        (time, new height, new width) float64.

    Examples
    --------
    >>> resize_frames(np.array([[[1.0, 3.0, 5.0, 7.0]] * 2]), (1, 2)).tolist()
    [[[2.0, 6.0]]]
    """
    values = video.astype(np.float64, copy=False)
    for axis in (1, 2):
        lines = np.moveaxis(values, axis, 0)
        shares = _share_areas(len(lines), size[axis - 1])
        resized = np.zeros((len(shares), *lines.shape[1:]))
        # Line by line in a fixed order, and no matrix product: the same bits on every machine.
        for new, old in np.argwhere(shares):
            resized[new] += shares[new, old] * lines[old]
        values = np.moveaxis(resized, 0, axis)
    return values


@lru_cache(maxsize=16)
def _share_areas(n_old: int, n_new: int) -> np.ndarray:
    """Return the share that each old pixel of a line has in each new one, (new, old); rows sum to 1."""
    edges_old, edges_new = np.arange(n_old + 1) * n_new, np.arange(n_new + 1) * n_old
    start = np.maximum(edges_new[:-1, None], edges_old[None, :-1])
    stop = np.minimum(edges_new[1:, None], edges_old[None, 1:])
    shares: np.ndarray = np.maximum(stop - start, 0) / n_old
    shares.setflags(write=False)
    return shares
