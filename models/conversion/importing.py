"""From a checkpoint of other software to a run that predicts, scores and submits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from models.checkpoints import find_format
from models.conversion.loading import LoadedCheckpoint, ReadCheckpoint, read_settings
from models.conversion.record import ImportedFile, ImportRecord, show_setting
from models.conversion.sessions import choose_sessions, match_sessions
from models.layers import normalize_positions
from models.runs import (
    ENSEMBLE_SUFFIX,
    IMPORTED_FILE,
    UNFINISHED,
    RunData,
    RunsFolder,
    describe_data,
    identify_run,
    load_run,
    publish_run,
    save_weights,
    split_run,
)
from sensorium_data.counting import count_things
from sensorium_data.errors import RunError, UsageError
from sensorium_data.sessions import find_session, find_sessions
from sensorium_data.store import StoreLike, open_store

__all__ = ["ImportReport", "import_checkpoint"]

# Places are normalized to 1; another order of sums, and float32, leave less than this.
_TOLERANCE = 1e-3
# Of names in a folder of runs.
_TAKEN_BY = MappingProxyType({UNFINISHED: "unfinished runs", ENSEMBLE_SUFFIX: "ensembles' records"})


@dataclass(frozen=True)
class ImportReport:
    """What :func:`import_checkpoint` did.

    Attributes
    ----------
    run : str
        Path or URL of the run.
    status : str
        ``"imported"``, or ``"already done"`` if the run existed.
    preset : str
        Whose recipe the run has, with the model's settings as the weights tell them.
    sessions : tuple of str
        Full names.
    n_parameters : int
        Of the model.
    notes : tuple of str
        What no weight tells, and where it is from, in a sentence.
    """

    run: str
    status: str
    preset: str
    sessions: tuple[str, ...]
    n_parameters: int
    notes: tuple[str, ...]


def import_checkpoint(
    format: str,
    files: Sequence[str | Path],
    store: StoreLike,
    out: str | Path,
    *,
    sessions: Sequence[str] | None = None,
    preset: str | None = None,
    settings: Mapping[str, str] | None = None,
    lock: bool = True,
) -> ImportReport:
    """Make a run of a checkpoint. It predicts, is scored and is verified as one that was trained here.

    The store gives what no checkpoint has: the neurons' unit ids, by which predictions are stored, and the content of
    the sessions, by which statistics are found. If the checkpoint has the neurons' places, they have to be those of the
    store. The run keeps the name, the size and the digest of the file in its ``environment.json``.

    Parameters
    ----------
    format : str
        A name in :data:`models.checkpoints.CHECKPOINT_FORMATS`.
    files : sequence of path
        The checkpoint; one file, and after it, for formats that have one, the file of arguments if it does not lie
        beside the checkpoint.
    store : Store or path
        The session stores with the recordings that the model was trained on, or the path or URL of their root.
    out : str or Path
        The run's folder, or any fsspec URL of it. It must not exist, unless it is the same run.
    sessions : sequence of str, optional
        Aliases or names of those sessions of the checkpoint that the run is to predict; by default all. The store need
        not have the others.
    preset, settings
        As in :func:`models.conversion.load_checkpoint`.
    lock : bool
        Whether a run in an object store is locked while it is written.

    Raises
    ------
    RunError
        As :func:`models.conversion.load_checkpoint` does; if the checkpoint is of other sessions or neurons than the
        store's; if something else lies at ``out``, or it cannot be written.
    UsageError
        As there; if several files are given.
    StoreError
        If the store or a session cannot be opened.
    """
    arguments = find_format(format).arguments
    if not 1 <= len(files) <= (1 if arguments is None else 2):
        raise UsageError(
            "a checkpoint of this format is one file"
            if arguments is None
            else f"a checkpoint of this format is one file, and {arguments}",
            found=count_things(len(files), "file"),
            remedy="import each of several checkpoints into a run of its own",
        )
    read = read_settings(
        format, files[0], preset=preset, settings=settings, arguments=files[1] if len(files) > 1 else None
    )
    opened = open_store(store)
    path = read.file.path
    if sessions is None:
        names = match_sessions(read.neurons, opened.sessions, store=opened.url, path=path)
    else:
        names = choose_sessions(read.neurons, find_sessions(sessions), path=path)
    data = describe_data(opened, [find_session(name) for name in names.values()])
    for key, name in names.items():
        _require_neurons(read, key, name, data)
    record = ImportRecord(
        format=format,
        files=tuple(
            ImportedFile(name=file.path.name, size_bytes=file.size_bytes, sha256=file.sha256)
            for file in (read.file, read.arguments)
            if file is not None
        ),
        sessions=names,
    )
    identity = _identify(read, record, data)
    runs, name = split_run(out)
    _require_run_name(name, runs)
    if runs.receive(name):
        return _report_existing(runs, name, identity, read, names)
    if runs.path(name).is_dir():
        # This machine's copy of a run that was removed behind a URL, or was never sent whole.
        report = _report_existing(runs, name, identity, read, names)
        with runs.hold(name, lock=lock):
            runs.send_finished(name)
        return report
    if runs.has_checkpoint(name):
        raise RunError(
            "an unfinished training lies where the run would be made",
            path=runs.locate(name + UNFINISHED),
            remedy="choose another folder with --out, or train that run to its end first",
        )
    loaded = read.make_model(data.neurons, names)
    record = record.model_copy(update={"absent": loaded.absent})
    with publish_run(runs, name, identity, read.config, data, restart=True, lock=lock) as folder:
        folder.write_environment(torch.device("cpu"), n_ranks=1, resumed_step=0, imported=record.model_dump())
        if loaded.constants:
            save_weights(loaded.constants, folder.path / IMPORTED_FILE)
        (folder.path / "metrics.jsonl").touch()
        _write_summary(folder.path / "summary.md", name, read, record, loaded)
        folder.write_model(loaded.model, best_epoch=0, best_correlation=None, duration_s=0.0)
    return ImportReport(
        run=runs.locate(name),
        status="imported",
        preset=read.config.name,
        sessions=tuple(names.values()),
        n_parameters=_count_parameters(loaded),
        notes=_list_notes(read, names),
    )


def _require_run_name(name: str, runs: RunsFolder) -> None:
    """Raise a :class:`UsageError` if a run cannot be called so."""
    taken = [suffix for suffix in (UNFINISHED, ENSEMBLE_SUFFIX) if name.endswith(suffix)]
    if taken:
        raise UsageError(
            "a run cannot be called so",
            path=runs.locate(name),
            found=f"{taken[0]}, with which the names of {_TAKEN_BY[taken[0]]} end",
            remedy="choose another name with --out",
        )


def _require_neurons(read: ReadCheckpoint, key: str, name: str, data: RunData) -> None:
    n_neurons, places = read.neurons[key]
    info = data.neurons[name]
    if n_neurons != info.n_neurons:
        raise RunError(
            "the checkpoint is of other neurons than the store's",
            session=name,
            path=read.file.path,
            found=f"{count_things(n_neurons, 'neuron')} of {key}",
            expected=f"the {info.n_neurons} of {data.store}",
            remedy="give the store of the recordings that the model was trained on",
        )
    if places is None:
        return
    distance = float(np.abs(places.double().numpy() - normalize_positions(info.positions)).max())
    if not distance <= _TOLERANCE:
        raise RunError(
            "the checkpoint is of other neurons than the store's, or of another order of them",
            session=name,
            path=read.file.path,
            found=f"normalized places that differ by up to {distance:.2g}",
            expected=f"those of {data.store}",
            remedy="give the store of the recordings that the model was trained on",
        )


def _identify(read: ReadCheckpoint, record: ImportRecord, data: RunData) -> str:
    # No training arrives at it: the digest of the file is part of it.
    parts = {
        "imported": [record.format, *(file.sha256 for file in record.files)],
        "sessions": record.sessions,
        "run": identify_run(read.config, data),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _report_existing(
    runs: RunsFolder, name: str, identity: str, read: ReadCheckpoint, names: Mapping[str, str]
) -> ImportReport:
    remedy = "choose another folder with --out, or remove what lies there"
    try:
        run = load_run(runs.path(name))
    except RunError as error:
        raise RunError(
            "something else lies where the run would be", path=runs.locate(name), found=error.problem, remedy=remedy
        ) from error
    if run.identity != identity:
        raise RunError(
            "another run lies where this one would be",
            path=runs.locate(name),
            found=f"identity {run.identity[:12]}",
            expected=identity[:12],
            remedy=remedy,
        )
    run.require_whole()
    return ImportReport(
        run=runs.locate(name),
        status="already done",
        preset=run.config.name,
        sessions=tuple(session.name for session in run.sessions),
        n_parameters=run.n_parameters,
        notes=_list_notes(read, names),
    )


def _list_notes(read: ReadCheckpoint, names: Mapping[str, str]) -> tuple[str, ...]:
    values = ", ".join(f"{name}={show_setting(getattr(read.config.model, name))}" for name in read.layout.untold)
    notes = []
    if read.arguments is not None:
        notes.append(f"Settings that no weight tells are those of {read.arguments.path.name}.")
    if values:
        notes.append(
            f"No weight tells these settings of the model: {values}. They are those of the preset {read.config.name}, "
            "but for what --set changes: see that they are the model's."
        )
    left_out = [key for key in read.neurons if key not in names]
    if left_out:
        notes.append(f"Sessions of the file that are left out: {', '.join(left_out)}.")
    return tuple(notes)


def _write_summary(path: Path, name: str, read: ReadCheckpoint, record: ImportRecord, loaded: LoadedCheckpoint) -> None:
    file = record.files[0]
    lines = [
        f"# {name}",
        "",
        f"Imported from `{file.name}`, a checkpoint of the format {record.format}: {read.layout.title} with "
        f"{_count_parameters(loaded):,} parameters for {count_things(len(record.sessions), 'session')}.",
        "",
        *(f"- SHA-256 of the file: {one.sha256} ({one.name})" for one in record.files),
        f"- Recipe: that of the preset {read.config.name}. How the model was trained is not known.",
        *(f"- {note}" for note in _list_notes(read, record.sessions)),
        "",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")


def _count_parameters(loaded: LoadedCheckpoint) -> int:
    return sum(parameter.numel() for parameter in loaded.model.parameters())
