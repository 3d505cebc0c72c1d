"""What an interrupted run goes on from: checkpoints that are whole, or not there.

A checkpoint is two files, named by the epoch that is under way and the steps so far: tensors as safetensors, and a
JSON file of all else, written last, which names the tensors by their digest. The best weights so far are a file of
their own, written when they get better. Each file is written under another name, brought to the disk, and renamed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from models.runs.files import CHECKPOINT_FILE
from models.runs.weights import save_weights
from sensorium_data.errors import RunError, describe_os_error
from sensorium_data.files import (
    digest_file,
    read_regular,
    read_sealed,
    replace_whole,
    require_own_folder,
    seal,
    sync_path,
)
from sensorium_data.names import find_name_problem

__all__ = ["Checkpoint", "Checkpoints", "Position", "list_checkpoint_files"]

#: Raised whenever a checkpoint's files change their meaning. Since 2 the record holds a digest of itself.
FORMAT_VERSION = 2
_UNSEALED_VERSION = 1

_NAME = re.compile(r"epoch-\d{5}-step-\d{9}\.json")


class Position(pydantic.BaseModel):
    """How far training is.

    Attributes
    ----------
    epoch : int
        The epoch that is under way, from 1; 0 before the untrained model was scored.
    n_batches : int
        Batches of it that are done, always those of whole steps.
    n_steps : int
        Optimizer steps of all epochs.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    epoch: int = 0
    n_batches: int = 0
    n_steps: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """What was saved.

    Attributes
    ----------
    position : Position
        How far training was.
    tensors : mapping of str to Tensor
        As they were saved, on the CPU.
    best_weights : mapping of str to Tensor
        The best so far.
    state : mapping
        All else.
    """

    position: Position
    tensors: Mapping[str, torch.Tensor]
    best_weights: Mapping[str, torch.Tensor]
    state: Mapping[str, Any]


class _File(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: str
    sha256: str


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    format_version: int
    identity: str
    position: Position
    tensors: _File
    best_weights: _File
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run: the last few, and the best weights.

    Parameters
    ----------
    folder : Path
        Made if it is missing.
    identity : str
        Of the run.
    n_kept : int
        Older ones are deleted.

    Attributes
    ----------
    notes : list of str
        What was found damaged, a sentence each.
    on_save : callable
        Called after a checkpoint is written and the old ones are deleted.
    """

    def __init__(self, folder: Path, *, identity: str, n_kept: int) -> None:
        self._folder = folder
        self._identity = identity
        self._n_kept = n_kept
        self._best: _File | None = None
        self.notes: list[str] = []
        self.on_save: Callable[[], None] = lambda: None
        try:
            # What is not of the last checkpoints is deleted there.
            require_own_folder(folder)
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise RunError(
                "the folder of the checkpoints cannot be used",
                path=folder,
                found=describe_os_error(error),
                remedy="put a folder there, and move the checkpoints into it",
            ) from error

    def save_best(self, weights: Mapping[str, torch.Tensor], epoch: int) -> None:
        """Write the weights of the best epoch so far; 0 is the untrained model."""
        self._best = self._write_tensors(weights, f"best-epoch-{epoch:05d}.safetensors")

    def save(self, position: Position, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
        """Write a checkpoint, then delete those that are too many.

        Parameters
        ----------
        position : Position
            How far training is.
        tensors : mapping of str to Tensor
            To be restored bit by bit.
        state : mapping
            What else is to be restored, as JSON has it.
        """
        if self._best is None:
            raise RuntimeError("save the best weights first")
        name = f"epoch-{position.epoch:05d}-step-{position.n_steps:09d}"
        record = _Record(
            format_version=FORMAT_VERSION,
            identity=self._identity,
            position=position,
            tensors=self._write_tensors(tensors, f"{name}.safetensors"),
            best_weights=self._best,
            state=dict(state),
        )
        # Python's own writer: scores may be infinite, which pydantic would write as null.
        content = seal(record.model_dump())
        _publish_file(self._folder / f"{name}.json", lambda path: path.write_bytes(content))
        self._delete_old()
        self.on_save()

    def load(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole, None if none was ever saved.

        Raises
        ------
        RunError
            If there are some and all are damaged, or if one is of another run or another version.
        """
        names = self._list()
        for name in reversed(names):
            try:
                checkpoint = self._read(name)
            except _DamagedError as error:
                self.notes.append(f"The checkpoint {name.removesuffix('.json')} is damaged ({error}).")
                continue
            if self.notes:
                self.notes.append(f"Went on from {name.removesuffix('.json')}.")
            return checkpoint
        if names:
            raise RunError(
                "every checkpoint is damaged",
                path=self._folder,
                found=" ".join(self.notes),
                remedy="restart the run, which throws them away",
            )
        return None

    def _list(self) -> list[str]:
        return sorted(path.name for path in self._folder.iterdir() if _NAME.fullmatch(path.name))

    def _read(self, name: str) -> Checkpoint:
        record = self._read_record(name)
        if record.format_version not in (FORMAT_VERSION, _UNSEALED_VERSION):
            raise RunError(
                "the checkpoint was written by another version",
                path=self._folder / name,
                found=f"format {record.format_version}",
                expected=FORMAT_VERSION,
                remedy="go on with that version, or restart the run",
            )
        if record.identity != self._identity:
            raise RunError(
                "the checkpoint belongs to another recipe or other data",
                path=self._folder / name,
                found=f"run {record.identity[:12]}",
                expected=self._identity[:12],
                remedy="restart the run, which throws the checkpoint away",
            )
        tensors, best_weights = self._read_tensors(record.tensors), self._read_tensors(record.best_weights)
        self._best = record.best_weights
        return Checkpoint(record.position, tensors, best_weights, record.state)

    def _read_record(self, name: str) -> _Record:
        try:
            document, is_sealed = read_sealed(read_regular(self._folder / name))
            record = _Record.model_validate(document)
        except (OSError, ValueError) as error:
            raise _DamagedError(f"{name} cannot be read") from error
        if not is_sealed and record.format_version == FORMAT_VERSION:
            raise _DamagedError(f"{name} was changed")
        return record

    def _read_tensors(self, file: _File) -> dict[str, torch.Tensor]:
        if find_name_problem(file.name) is not None or "/" in file.name:
            raise _DamagedError(f"it names a file elsewhere, {file.name!r}")
        path = self._folder / file.name
        if not path.is_file():
            raise _DamagedError(f"no {file.name}")
        if digest_file(path) != file.sha256:
            raise _DamagedError(f"{file.name} is not what was saved")
        try:
            return load_file(path)
        except SafetensorError as error:
            raise _DamagedError(f"{file.name} cannot be read") from error

    def _write_tensors(self, tensors: Mapping[str, torch.Tensor], name: str) -> _File:
        path = self._folder / name
        _publish_file(path, lambda temporary: save_weights(tensors, temporary))
        return _File(name=name, sha256=digest_file(path))

    def _delete_old(self) -> None:
        names = self._list()
        for name in names[: -self._n_kept]:
            # The record first: what it names may be missing then, and nobody looks for it.
            (self._folder / name).unlink()
        kept = set(names[-self._n_kept :])
        for name in names[-self._n_kept :]:
            try:
                record = self._read_record(name)
            except _DamagedError:
                continue  # Nothing of it can be used; load() says so if it comes to that.
            kept |= {record.tensors.name, record.best_weights.name}
        for path in list_checkpoint_files(self._folder):
            if path.name not in kept:
                path.unlink()


def list_checkpoint_files(folder: Path) -> list[Path]:
    """Return the files in a folder of checkpoints that were written as such; whatever else lies there is left alone."""
    return [path for path in folder.iterdir() if CHECKPOINT_FILE.fullmatch(path.name) and not path.is_dir()]


class _DamagedError(Exception):
    """A checkpoint that is not what was saved."""


def _publish_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have a file written under another name, bring it to the disk, and give it its own."""
    with replace_whole(path) as temporary:
        write(temporary)
        sync_path(temporary)
    sync_path(path.parent)
