"""A session's published version as a source of blocks: what did not change is copied, not converted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from sensorium_data.files import Objects, StoredObject
from sensorium_data.ingest.trial_blocks import TrialForm
from sensorium_data.schema import SIGNATURE
from sensorium_data.store import Ledger, Members, StatisticsRecord, TrialFacts, TrialRecord

__all__ = ["PreviousVersion"]


class PreviousVersion:
    """A published group whose objects may be copied.

    An object is copied only if its bytes are those that the ledger describes: damage is not handed on.

    Parameters
    ----------
    group : Objects
        The published group.
    ledger : Ledger
        Its ledger.
    """

    def __init__(self, group: Objects, ledger: Ledger) -> None:
        self._group = group
        self._ledger = ledger
        self._rows = {trial: row for row, trial in enumerate(sorted(ledger.trials))}

    def holds(self, trial: int, members: Members) -> bool:
        """Whether a trial was made from the same members, so that it may be copied if it is sound."""
        facts = self._ledger.trials.get(trial)
        return facts is not None and facts.members == members

    def fits(self, form: TrialForm) -> bool:
        """Whether its blocks have as many neurons, frames and pixels as are wanted now."""
        import zarr

        store = self._group.zarr_store()
        videos, responses = (zarr.open_array(store, path=name, mode="r").shape for name in ("videos", "responses"))
        n_frames = form.n_frames_padded
        return videos[1:] == (n_frames, *form.frame_size) and responses[1:] == (form.n_neurons, n_frames)

    def facts(self, trial: int) -> TrialFacts | None:
        """Return what is known of a trial."""
        return self._ledger.trials.get(trial)

    def copy_trial(
        self, trial: int, members: Members, stamps: Mapping[str, str], keys: Mapping[str, str], group: Objects
    ) -> TrialRecord | None:
        """Copy the blocks of a trial, if it was made from the same members and they are sound.

        Parameters
        ----------
        trial : int
            The trial's id.
        members : mapping of str to tuple of int
            CRC-32 and size of the archive's members, by variable.
        stamps : mapping of str to str
            What marks the version of those that state no CRC-32.
        keys : mapping of str to str
            The keys to copy to, by variable.
        group : Objects
            Where to copy to.

        Returns
        -------
        TrialRecord or None
            What to keep of the trial; ``None`` if it has to be converted.
        """
        if not self.holds(trial, members):
            return None
        facts = self._ledger.trials[trial]
        copied: dict[str, StoredObject] = {}
        for old_key, stored in facts.objects.items():
            data = self._read_sound(old_key, stored)
            if data is None:
                return None
            key = keys[old_key.partition("/")[0]]
            copied[key] = replace(stored, tag=group.write(key, data))
        row = self._rows[trial]
        return TrialRecord(
            trial=trial,
            n_frames=facts.n_frames,
            broken=facts.broken,
            responses_withheld=facts.responses_withheld,
            largest_absolute_error=facts.largest_absolute_error,
            members=facts.members,
            stamps=stamps,
            objects=copied,
            n_missing_frames=facts.n_missing_frames,
            n_infinite=facts.n_infinite,
            behavior=self._read_row("behavior", row),
            pupil_center=self._read_row("pupil_center", row),
            signature=self._small["signature"][row][: facts.n_frames],
        )

    def copy_statistics(
        self,
        members: Members,
        stamps: Mapping[str, str],
        group: Objects,
        *,
        n_frames_padded: int | None = None,
    ) -> StatisticsRecord | None:
        """Copy the statistics that the archive gives, if they were made from the same members and are sound.

        Parameters
        ----------
        members, stamps, group
            As :meth:`copy_trial` takes them.
        n_frames_padded : int, optional
            How long their frame axis has to be.
        """
        record = self._ledger.statistics
        if record.members != members or n_frames_padded not in (None, record.n_frames_padded):
            return None
        # Those that were computed are computed again: they depend on the trials.
        given = {name.partition("/")[0] for name in members}
        copied = {key: stored for key, stored in record.objects.items() if key.split("/")[1] in given}
        for key, stored in copied.items():
            data = self._read_sound(key, stored)
            if data is None:
                return None
            copied[key] = replace(stored, tag=group.write(key, data))
        return replace(record, stamps=stamps, objects=copied)

    @cached_property
    def is_usable(self) -> bool:
        """Whether the small arrays, which every trial needs, are sound; the blocks are looked at one by one.

        Blocks without a checksum, as earlier versions wrote them, cannot stand in a group of this version.
        """
        small = (
            "behavior/",
            "pupil_center/",
            "movies/",
            "trial/",
            "videos/zarr.json",
            "responses/zarr.json",
            "zarr.json",
        )
        sound = {
            key: self._read_sound(key, stored) for key, stored in self._ledger.objects.items() if key.startswith(small)
        }
        if None in sound.values():
            return False
        sharding = json.loads(sound["responses/zarr.json"] or b"")["codecs"][0]["configuration"]
        return bool(sharding["codecs"][-1]["name"] == "crc32c")

    @cached_property
    def _small(self) -> dict[str, np.ndarray[Any, np.dtype[Any]]]:
        import zarr

        store = self._group.zarr_store()
        paths = {name: name for name in ("behavior", "pupil_center")} | {"signature": f"movies/{SIGNATURE.name}"}
        # What the recording lacks is not there.
        there = {name: path for name, path in paths.items() if f"{path}/zarr.json" in self._ledger.objects}
        return {name: np.asarray(zarr.open_array(store, path=path, mode="r")[...]) for name, path in there.items()}

    def _read_row(self, variable: str, row: int) -> np.ndarray[Any, np.dtype[Any]]:
        """Return a trial's small array; one without channels if the recording lacks it."""
        if variable in self._small:
            return np.asarray(self._small[variable][row])
        return np.full((0, self._ledger.statistics.n_frames_padded), np.nan, np.float32)

    def _read_sound(self, key: str, stored: StoredObject) -> bytes | None:
        try:
            data = self._group.read(key)
        except FileNotFoundError:
            return None
        return None if stored.find_difference(data) is not None else data
