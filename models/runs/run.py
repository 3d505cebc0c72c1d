"""A training run on disk: the model, what it was trained on, and how that went."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import pydantic
import torch
import xarray as xr

from models.config import TrainingConfig
from models.own_models import load_kept
from models.registry import build_model
from models.response_model import ResponseModel
from models.runs.data import RunData
from models.runs.files import MODEL_FILE, REQUIRED_FILES, RESTORE, RESTORE_ALL, SUMMARY_FILE, UNFINISHED
from models.runs.location import split_run
from models.runs.metrics import EpochMetrics, read_metrics
from models.runs.weights import load_weights, require_weights
from models.settings import MachineSettings
from models.sources import CODE_FOLDER, ModelSources, digest_code, find_changes, find_loaded, is_trusted, read_kept
from models.value_problems import describe_problem
from sensorium_data.counting import count_things
from sensorium_data.errors import RunError, StoreError
from sensorium_data.files import LocalObjects, digest_file, parse_json
from sensorium_data.html_table import write_html_table
from sensorium_data.predictions import read_run_ledger, require_run_ledger
from sensorium_data.sessions import Session, find_session
from sensorium_data.store import LEDGER_KEY

__all__ = [
    "FORMAT_VERSION",
    "RECIPE_VERSION",
    "ModelRecord",
    "Run",
    "identify_run",
    "load_run",
    "run_name",
]

_Record = TypeVar("_Record", bound=pydantic.BaseModel)

#: Raised whenever a run's files change their meaning. Version 2 has a ledger.
FORMAT_VERSION = 2
_READABLE_VERSIONS = (1, 2)
#: Raised whenever equal settings come to mean another training, or a default changes.
RECIPE_VERSION = 2

_OTHER_FOLDER = "give the folder that `sensorium train` printed"


class ModelRecord(pydantic.BaseModel):
    """``model.json``, the last file that a run gets: its results, and what it is known by.

    Attributes
    ----------
    format_version : int
        Of the folder.
    identity : str
        :func:`identify_run`.
    preset : str
        Name of the preset.
    n_parameters, n_frames_lost : int
        Of the model.
    best_epoch : int
        Whose weights are kept.
    best_correlation : float or None
        Theirs, on the validation trials; None for weights that were not trained here.
    duration_s : float
        Time that training took.
    weights_sha256, config_sha256, data_sha256 : str
        Digests of ``model.safetensors``, ``config.json`` and ``data.json``.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    format_version: int
    identity: str
    preset: str
    n_parameters: int
    n_frames_lost: int
    best_epoch: int
    best_correlation: float | None
    duration_s: float
    weights_sha256: str
    config_sha256: str
    data_sha256: str


def identify_run(config: TrainingConfig, data: RunData) -> str:
    """Return the digest of everything that decides what a run learns: its recipe and its data's content.

    Where the store and the teacher lie, the device that the run happens to get, the memory it may take and when it is
    saved do not belong to it: :class:`models.settings.MachineSettings`. The code of a model that is no part of this
    package does, by the digests of its files. Settings that have their default are left out,
    so that a setting that comes with a later version does not make another run of one that does not use it.
    """
    recipe = config.model_dump(mode="json", exclude={*MachineSettings.model_fields, "teacher"}, exclude_defaults=True)
    recipe["model"]["kind"] = config.model.kind
    content = [[session.name, session.digest] for session in data.sessions]
    parts = {
        "version": RECIPE_VERSION,
        "recipe": recipe,
        "data": content,
        "split": data.split,
        "teacher": data.teacher,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def run_name(config: TrainingConfig, identity: str) -> str:
    """Return the name of a run's folder."""
    return f"{config.name}-{identity[:8]}"


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes
    ----------
    path : Path
        Its folder on this machine.
    location : str
        The path or URL that it was opened by.
    identity : str
        Digest of its recipe and data.
    config : TrainingConfig
        As it was trained.
    data : RunData
        What it was trained on.
    n_parameters : int
        Of the model.
    n_frames_lost : int
        Frames at a trial's start that the model does not predict.
    best_epoch : int
        The epoch whose weights it keeps; 0 if none beat the untrained model.
    best_correlation : float or None
        Single-trial correlation of those weights on the validation trials, over all neurons; None for weights that
        were not trained here.
    duration_s : float
        Time that training took.
    digest : str
        SHA-256 of the weights.
    """

    path: Path
    location: str
    identity: str
    config: TrainingConfig
    data: RunData
    n_parameters: int
    n_frames_lost: int
    best_epoch: int
    best_correlation: float | None
    duration_s: float
    digest: str

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The sessions that the model predicts."""
        return tuple(find_session(session.name) for session in self.data.sessions)

    def _repr_html_(self) -> str:
        best = "none beat the untrained model" if not self.best_epoch else f"{self.best_epoch:,}"
        rows = [
            ("model", self.config.model.kind),
            ("sessions", ", ".join(session.alias for session in self.sessions)),
            ("parameters", self.n_parameters),
            ("best epoch", best if self.best_correlation is not None else "not trained here"),
            ("validation correlation", self.best_correlation),
            ("training (min)", self.duration_s / 60),
            ("digest of the weights", self.digest[:16]),
            ("folder", self.location),
        ]
        return write_html_table(f"Run {self.name}", ["", ""], rows)

    def metrics(self) -> list[EpochMetrics]:
        """Return what was measured in every epoch."""
        return read_metrics(self.path / "metrics.jsonl")

    def require_whole(self) -> None:
        """Raise a :class:`RunError` if a file is missing, one for people too, or the weights were changed.

        Of a run of an earlier version, which has no ledger, the files are looked at that every run has.
        """
        ledger = read_run_ledger(LocalObjects(self.path))
        _require_files(self.path, (SUMMARY_FILE,) if ledger is None else sorted(ledger.objects), self.location)
        self.require_weights()

    def require_weights(self) -> None:
        """Raise a :class:`RunError` if the weights are missing or were changed. They are read whole."""
        require_weights(self.path / "model.safetensors", digest=self.digest)

    def model(self, device: str | torch.device = "cpu", *, trust_code: bool | Collection[str] = False) -> ResponseModel:
        """Return the trained model, in evaluation mode.

        A model that is no part of this package is made by the code that the run keeps, whatever the file is now that it
        was read from.

        Parameters
        ----------
        device : str or torch.device
            Where to.
        trust_code : bool or collection of str
            Whether the run's code may run although this user has not trained with it on this machine: any, or that
            of some digests.

        Raises
        ------
        RunError
            If the weights are missing, changed, or of another model; if the run's code may not run, was changed or
            cannot be imported here.
        """
        self.require_weights()
        model = build_model(self._load_code(trust_code), self.data.neurons)
        load_weights(model, self.path / "model.safetensors", digest=self.digest)
        return model.to(device).eval()

    @property
    def code_digest(self) -> str | None:
        """Digest of the code that the run keeps; None if its model is part of this package."""
        return digest_code(self.config.model.code) if self.config.model.code else None

    def code(self) -> ModelSources:
        """Return the sources that the run keeps; nothing is run.

        Raises
        ------
        RunError
            If a file is missing or was changed.
        """
        return read_kept(self.path, self.config.model.code)

    def find_changed_code(self) -> list[str]:
        """Return the files that the run's code was read from, as far as they are here and were changed since."""
        try:
            environment = parse_json((self.path / "environment.json").read_bytes())
            origins = environment.get("model_files", {})
        except (OSError, ValueError, AttributeError):
            return []
        return find_changes(self.config.model.code, origins) if isinstance(origins, dict) else []

    def _load_code(self, trust_code: bool | Collection[str]) -> TrainingConfig:
        """Have the model's code loaded, if it may be, and return the config as the code reads it."""
        digest = self.code_digest
        if digest is None:
            return self.config
        named = trust_code if isinstance(trust_code, bool) else digest in trust_code
        if find_loaded(self.config.model.code) is None and not (named or is_trusted(digest)):
            raise RunError(
                "the run brings code of its own, which is not run without being asked for",
                path=self.location,
                found=f"{self.config.model.kind}, code {digest[:12]}, which you have not trained with on this machine",
                remedy=f"look at its folder {CODE_FOLDER}; if you trust it, add --trust-code",
            )
        return load_kept(self.config, self.code())

    def require_session(self, session: xr.Dataset, name: str) -> None:
        """Check that the run knows a session, and that its neurons are those of ``session``.

        Raises
        ------
        RunError
            If it was not trained on the session, or on other neurons or another order of them. A run of some of a
            session's neurons needs these, in their order.
        """
        known = {s.name: s for s in self.data.sessions}
        if name not in known:
            raise RunError(
                "the run was not trained on this session",
                session=name,
                path=self.location,
                found=", ".join(known),
                remedy="choose among the run's sessions, or train on this one too",
            )
        expected = np.asarray(known[name].unit_ids)
        found = session["neuron"].values
        if self.config.selects_neurons and np.isin(expected, found).all():
            found = found[np.isin(found, expected)]
        if not np.array_equal(expected, found):
            n_same = len(np.intersect1d(expected, found))
            raise RunError(
                "the store's neurons are not those that the run was trained on",
                session=name,
                path=self.location,
                found=f"{count_things(len(found), 'neuron')}, {n_same} of them the run's",
                expected=f"the run's {len(expected)}, in their order",
                remedy="use the store that the run was trained from, or train again",
            )


class NoRunError(RunError):
    """Where a run is looked for there is none: nothing, or something else."""


def load_run(path: str | Path) -> Run:
    """Open a finished run.

    Parameters
    ----------
    path : str or Path
        Its folder, or any fsspec URL of it: what lies there is first copied into the user's folder for caches.

    Raises
    ------
    NoRunError
        If there is none.
    RunError
        If it is unfinished, or if a file is missing or damaged.
    StoreError
        If a URL cannot be read.
    """
    runs, name = split_run(path)
    name = name.removesuffix(UNFINISHED)
    location, path = os.fspath(path), runs.path(name)
    if location.endswith(UNFINISHED) or not runs.receive(name) or not path.is_dir():
        if runs.has_unfinished(name):
            raise RunError(
                "the run is unfinished", path=runs.locate(name + UNFINISHED), remedy="train it to its end first"
            )
        raise NoRunError("there is no run here", path=location, remedy=_OTHER_FOLDER)
    _require_files(path, REQUIRED_FILES, location)
    record = _read_record(path / MODEL_FILE, ModelRecord)
    if record.format_version not in _READABLE_VERSIONS:
        raise RunError(
            "the run was written by another version",
            path=path,
            found=f"format {record.format_version}",
            expected=" or ".join(map(str, _READABLE_VERSIONS)),
            remedy="train again",
        )
    data = _read_record(path / "data.json", RunData)
    config = _read_record(path / "config.json", TrainingConfig)
    for name, digest in (("config.json", record.config_sha256), ("data.json", record.data_sha256)):
        # The files' bytes and not the identity: a later version's config may have settings that this one lacks.
        if digest_file(path / name) != digest:
            raise RunError("changed after training", path=path / name, remedy=RESTORE)
    _require_as_written(path, record.format_version)
    return Run(
        path=path,
        location=location,
        identity=record.identity,
        config=config,
        data=data,
        n_parameters=record.n_parameters,
        n_frames_lost=record.n_frames_lost,
        best_epoch=record.best_epoch,
        best_correlation=record.best_correlation,
        duration_s=record.duration_s,
        digest=record.weights_sha256,
    )


def _require_files(path: Path, names: Iterable[str], location: str) -> None:
    files = LocalObjects(path)
    try:
        missing = [name for name in names if files.size(name) is None]
    except StoreError as error:
        # A link out of the folder, a named pipe, a device.
        raise RunError(
            "a file of the run is a link out of it, or not a file",
            path=error.path,
            found=error.found,
            remedy=RESTORE,
        ) from error
    if not missing:
        return
    found = f"no {', '.join(missing)}"
    # Only a finished run gets these two.
    if not any((path / name).is_file() for name in (MODEL_FILE, LEDGER_KEY)):
        raise NoRunError("there is no run here", path=location, found=found, remedy=_OTHER_FOLDER)
    raise RunError(
        f"{'a file' if len(missing) == 1 else 'files'} of the run {'is' if len(missing) == 1 else 'are'} missing",
        path=location,
        found=found,
        remedy=RESTORE if len(missing) == 1 else RESTORE_ALL,
    )


def _require_as_written(path: Path, format_version: int) -> None:
    """Raise a :class:`RunError` if a file is not what it was when the run was finished, as far as that is known."""
    files = LocalObjects(path)
    ledger = read_run_ledger(files)
    require_run_ledger(files, ledger, format_version)
    if ledger is None:
        return
    # The weights are compared when they are loaded.
    for name in sorted(ledger.objects.keys() & set(REQUIRED_FILES) - {"model.safetensors"}):
        damage = ledger.objects[name].find_difference((path / name).read_bytes())
        if damage is not None:
            raise RunError(
                "changed after training",
                path=path / name,
                found=damage,
                remedy=RESTORE,
            )


def _read_record(path: Path, kind: type[_Record]) -> _Record:
    data = path.read_bytes()
    try:
        # Before pydantic, whose words for what is no JSON are a parser's.
        parse_json(data)
        return kind.model_validate_json(data)
    except pydantic.ValidationError as error:
        raise _damaged(path, describe_problem(error)) from error
    except ValueError as error:
        raise _damaged(path, str(error)) from error


def _damaged(path: Path, found: str) -> RunError:
    return RunError("a file of the run is damaged", path=path, found=found, remedy=RESTORE)
