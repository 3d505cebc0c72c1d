"""From a run to a checkpoint that other software reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from models.checkpoints import find_format, read_checkpoint, write_checkpoint
from models.conversion.record import read_record
from models.runs import IMPORTED_FILE, Run, load_run, read_weights
from sensorium_data.errors import RunError, describe_os_error

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
    """

    file: str
    status: str
    format: str
    n_weights: int


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
    if path.exists() or path.is_symlink():
        _require_same(path, weights)
        return ExportReport(str(path), "already done", format, len(weights))
    try:
        write_checkpoint(weights, path)
    except OSError as error:
        raise RunError(
            f"the checkpoint of {layout.title} cannot be written",
            path=path,
            found=describe_os_error(error),
            remedy="check that the folder exists, its permissions and the space there",
        ) from error
    return ExportReport(str(path), "exported", format, len(weights))


def _convert(run: Run, format: str) -> dict[str, torch.Tensor]:
    layout = find_format(format).layout_of(run.config.model)
    record = read_record(run)
    keys = {session.name: session.name for session in run.data.sessions}
    constants, absent = layout.make_constants(run.config.model), frozenset[str]()
    if record is not None and record.format == format:
        keys, absent = record.sessions, frozenset(record.absent)
        if (run.path / IMPORTED_FILE).is_file():
            constants |= read_weights(run.path / IMPORTED_FILE)
    weights = layout.convert(run.config.model, run.model().state_dict(), keys)
    return {name: value for name, value in (constants | weights).items() if name not in absent}


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
