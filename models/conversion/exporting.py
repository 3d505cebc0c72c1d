"""From a run to a checkpoint that other software reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from models.checkpoints import find_format, read_checkpoint, write_checkpoint
from models.conversion.record import read_record, show_setting
from models.runs import IMPORTED_FILE, Run, load_run, read_weights
from sensorium_data.errors import RunError, describe_os_error
from sensorium_data.files import LocalObjects, read_regular
from sensorium_data.predictions import read_run_ledger
from sensorium_data.sessions import find_session

__all__ = ["ExportReport", "export_checkpoint"]


@dataclass(frozen=True)
class ExportReport:
    """What :func:`export_checkpoint` did.

    Attributes
    ----------
    file : str
        Path of the checkpoint.
    status : str
        ``"exported"``, or ``"already done"`` if these weights were there.
    format : str
    n_weights : int
        Named tensors.
    settings : mapping of str to str
        Settings of the model that no weight tells, as ``import-checkpoint --set`` takes them.
    """

    file: str
    status: str
    format: str
    n_weights: int
    settings: Mapping[str, str]


def export_checkpoint(run: str | Path, format: str, file: str | Path) -> ExportReport:
    """Write the weights of a run as another software saves them, for ``torch.load(file, weights_only=True)``.

    A run that was imported from this format gives the names and the numbers of its file again, bit by bit.

    Parameters
    ----------
    run : str or Path
        The run's folder, or any fsspec URL of it.
    format : str
        A name in :data:`models.checkpoints.CHECKPOINT_FORMATS`.
    file : str or Path
        What to write. It must not exist, unless it holds the same weights.

    Raises
    ------
    RunError
        If there is no such run, it is damaged, or its model is a user's own; if something else lies at ``file``, or it
        cannot be written.
    UsageError
        If there is no such format, or it has no files of the run's model.
    """
    path, known, opened = Path(file), find_format(format), load_run(run)
    # Before code of the run's own would be asked for.
    layout = known.layout_of(opened.config.model)
    weights = _convert(opened, format)
    content = layout.wrap(weights, {session.name: len(session.unit_ids) for session in opened.data.sessions})
    untold = {f"model.{name}": show_setting(getattr(opened.config.model, name)) for name in layout.untold}
    if path.exists() or path.is_symlink():
        _require_same(path, weights)
        return ExportReport(str(path), "already done", format, len(weights), untold)
    try:
        write_checkpoint(content, path)
    except OSError as error:
        raise RunError(
            f"the checkpoint of {layout.title} cannot be written",
            path=path,
            found=describe_os_error(error),
            remedy="check that the folder exists, its permissions and the space there",
        ) from error
    return ExportReport(str(path), "exported", format, len(weights), untold)


def _convert(run: Run, format: str) -> dict[str, torch.Tensor]:
    layout = find_format(format).layout_of(run.config.model)
    record = read_record(run)
    keys = {layout.call_session(find_session(session.name)): session.name for session in run.data.sessions}
    constants, absent = layout.make_constants(run.config.model), frozenset[str]()
    if record is not None and record.format == format:
        keys, absent = record.sessions, frozenset(record.absent)
    for key in keys:
        constants |= layout.make_session_constants(run.config.model, key)
    if record is not None and record.format == format:
        constants |= _read_constants(run)
    weights = layout.convert(run.config.model, run.model().state_dict(), keys)
    return {name: value for name, value in (constants | weights).items() if name not in absent}


def _read_constants(run: Run) -> dict[str, torch.Tensor]:
    """Return the constants of the checkpoint that a run was made of, as far as they differ from ours."""
    ledger = read_run_ledger(LocalObjects(run.path))
    # What the ledger does not list is not the run's.
    listed = None if ledger is None else ledger.objects.get(IMPORTED_FILE)
    if listed is None:
        return {}
    path = run.path / IMPORTED_FILE
    try:
        difference = listed.find_difference(read_regular(path))
    except OSError as error:
        raise RunError(
            "the constants of the checkpoint cannot be read",
            path=path,
            found=describe_os_error(error),
            remedy="restore the file, or import the checkpoint again into another folder",
        ) from error
    if difference is not None:
        raise RunError(
            "the constants of the checkpoint were changed",
            path=path,
            found=difference,
            remedy="restore the file, or import the checkpoint again into another folder",
        )
    return read_weights(path)


def _require_same(path: Path, weights: dict[str, torch.Tensor]) -> None:
    try:
        found = read_checkpoint(path).weights
    except RunError:
        found = {}
    if found.keys() != weights.keys() or any(
        found[name].dtype != value.dtype or not torch.equal(found[name], value) for name, value in weights.items()
    ):
        raise RunError(
            "something else lies where the checkpoint would be",
            path=path,
            remedy="choose another name, or remove what lies there",
        )
