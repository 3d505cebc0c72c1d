"""Writing a run: into a folder that gets its name when the run is finished."""

from __future__ import annotations

import contextlib
import datetime
import json
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from models.config import TrainingConfig, list_settings
from models.own_models import find_own_preset
from models.registry import get_preset, preset_names
from models.response_model import ResponseModel
from models.runs.checkpoints import Checkpoints, list_checkpoint_files
from models.runs.data import RunData
from models.runs.files import CHECKPOINTS_FOLDER, GIVEN_FILE, MODEL_FILE, UNFINISHED, UNFINISHED_RUN
from models.runs.location import RunsFolder
from models.runs.run import FORMAT_VERSION, ModelRecord
from models.runs.weights import save_weights
from models.sources import find_loaded, trust_sources, write_sources
from sensorium_data.errors import LockedError, RunError, StoreError, describe_broken_link, describe_os_error
from sensorium_data.files import (
    MOVE_FOREIGN,
    LocalObjects,
    StoredObject,
    close_locked,
    digest_file,
    lock_folder,
    make_folder,
    require_own_folder,
    sync_folder,
)
from sensorium_data.machine import count_cores
from sensorium_data.predictions import RUN_KIND
from sensorium_data.store import LEDGER_KEY, ObjectLedger

__all__ = [
    "RunFolder",
    "describe_given",
    "has_checkpoint",
    "open_checkpoints",
    "publish_run",
    "remove_checkpoints",
]


_OR_ELSEWHERE = "or name another folder"


class RunFolder:
    """A run that is being trained: its files, in a folder that is not yet its own.

    Parameters
    ----------
    path : Path
        The unfinished folder.
    identity : str
        Of the run.
    config : TrainingConfig
        The recipe.
    send : callable
        Brings what the folder holds to where runs are kept.
    """

    def __init__(self, path: Path, identity: str, config: TrainingConfig, send: Callable[[], None]) -> None:
        self.path = path
        self._identity = identity
        self._config = config
        self._send = send

    def open_checkpoints(self) -> Checkpoints:
        """Return the checkpoints, of an interrupted attempt too; what is saved is sent."""
        checkpoints = open_checkpoints(self.path, self._identity, self._config)

        def send() -> None:
            try:
                self._send()
            except LockedError:
                raise
            except StoreError as error:
                # Days of training are worth more than a copy of their checkpoint; the next one may get through.
                note = f"A checkpoint was not sent: {error}"
                if note not in checkpoints.notes:
                    checkpoints.notes.append(note)

        checkpoints.on_save = send
        return checkpoints

    def write_recipe(self, data: RunData) -> None:
        """Record what is asked for, what that comes to, by which code, and on which data."""
        sources = find_loaded(self._config.model.code)
        own = {} if sources is None else {"model": self._config.model.kind}
        # First: what lies there without it is somebody else's.
        _write_json(self.path / GIVEN_FILE, own | describe_given(self._config))
        if sources is not None:
            write_sources(sources.sources, self.path)
            trust_sources(sources.sources)
        _write_json(self.path / "config.json", self._config.model_dump(mode="json"))
        _write_json(self.path / "data.json", data.model_dump(mode="json"), indent=None)

    def write_environment(
        self, device: torch.device, *, n_ranks: int, resumed_step: int, imported: Mapping[str, Any] | None = None
    ) -> None:
        """Record the versions and the machine, and where the weights are from if they were not trained here."""
        sources = find_loaded(self._config.model.code)
        packages = ("torch", "lightning-fabric", "numpy", "xarray", "zarr", "dask", "sensorium-pipeline")
        _write_json(
            self.path / "environment.json",
            {
                "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "resumed_step": resumed_step,
                "python": platform.python_version(),
                "platform": platform.platform(),
                "packages": {name: version(name) for name in packages},
                "git_commit": _find_commit(),
                "device": str(device),
                "device_name": (
                    torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
                ),
                "n_ranks": n_ranks,
                "n_cores": count_cores(),
                "n_torch_threads": torch.get_num_threads(),
                # Where the code was read from that the run keeps.
                **({} if sources is None else {"model_files": dict(sources.sources.origins)}),
                **({} if imported is None else {"imported": dict(imported)}),
            },
        )

    def write_model(
        self, model: ResponseModel, *, best_epoch: int, best_correlation: float | None, duration_s: float
    ) -> None:
        """Write the weights, and the record that makes the run whole."""
        digest = save_weights(model.state_dict(), self.path / "model.safetensors")
        record = ModelRecord(
            format_version=FORMAT_VERSION,
            identity=self._identity,
            preset=self._config.name,
            n_parameters=sum(parameter.numel() for parameter in model.parameters()),
            n_frames_lost=model.n_frames_lost * self._config.window_stride,
            best_epoch=best_epoch,
            best_correlation=best_correlation,
            duration_s=duration_s,
            weights_sha256=digest,
            config_sha256=digest_file(self.path / "config.json"),
            data_sha256=digest_file(self.path / "data.json"),
        )
        _write_json(self.path / MODEL_FILE, record.model_dump(mode="json"))


@contextmanager
def publish_run(
    runs: RunsFolder,
    name: str,
    identity: str,
    config: TrainingConfig,
    data: RunData,
    *,
    restart: bool = False,
    lock: bool = True,
) -> Iterator[RunFolder]:
    """Give a folder to train into, which becomes the run when the block ends without an error.

    It is ``<name>.partial``. What an interrupted attempt left there stays if there is a checkpoint among it, and is
    removed otherwise. What somebody else put there stays in any case, and is not a part of the finished run. A finished
    run needs its best weights alone: its checkpoints are removed. While the block runs, nobody else can train the
    same run.

    Parameters
    ----------
    runs : RunsFolder
        Where runs are kept.
    name : str
        The run's.
    identity, config, data
        Of the run.
    restart : bool
        Remove what an interrupted attempt left in any case.
    lock : bool
        Whether a run in an object store is locked.

    Raises
    ------
    RunError
        If another process is training this run, if the folder holds something and no training began there, or if it
        cannot be written.
    LockedError
        If another process is training this run into the same object store, or has taken its lock meanwhile.
    UnlockableError
        If the object store cannot be locked.
    StoreError
        If the finished run cannot be sent to where runs are kept; it is sent when it is asked for again.
    """
    path, partial = runs.path(name), runs.path(name + UNFINISHED)
    with runs.hold(name, lock=lock) as require_lock:

        def send() -> None:
            require_lock()
            runs.send_unfinished(name)

        if runs.receive(name):
            # Before this one had the lock.
            raise RunError(
                "another process has just finished this run",
                path=runs.locate(name),
                remedy="run it again: the finished run is found",
            )
        broken = describe_broken_link(path)
        if broken is not None:
            raise RunError(
                "something else has the name of the run", path=path, found=broken, remedy=f"remove it, {_OR_ELSEWHERE}"
            )
        try:
            require_own_folder(partial)
            make_folder(partial)
        except OSError as error:
            raise _cannot_write(partial, error) from error
        with _exclusive_access(partial):
            try:
                place = LocalObjects(partial)
                _require_own(place)
                runs.require_own(name)
                if not restart:
                    runs.receive_unfinished(name)
                if restart or not has_checkpoint(partial):
                    UNFINISHED_RUN.delete_own(place)
                # What writers left that were killed.
                place.delete_keys([key for key in place.keys() or () if UNFINISHED_RUN.is_temporary(key)])
                folder = RunFolder(partial, identity, config, send)
                folder.write_recipe(data)
                yield folder
                _write_ledger(partial)
                # A power cut must not leave a finished run whose files never reached the disk.
                LocalObjects(partial).sync_all()
                partial.rename(path)
                sync_folder(path.parent)
            except OSError as error:
                # A full disk names no file.
                if error.filename is not None and not str(error.filename).startswith(str(partial)):
                    raise
                raise _cannot_write(partial, error) from error
        # Last: a kill before would leave neither a run nor anything to go on from.
        remove_checkpoints(path)
        require_lock()
        runs.send_finished(name)


def open_checkpoints(partial: Path, identity: str, config: TrainingConfig) -> Checkpoints:
    """Return the checkpoints in an unfinished run's folder."""
    return Checkpoints(partial / CHECKPOINTS_FOLDER, identity=identity, n_kept=config.keep_checkpoints)


def has_checkpoint(partial: Path) -> bool:
    """Whether there is anything to go on from in an unfinished run's folder."""
    folder = partial / CHECKPOINTS_FOLDER
    return folder.is_dir() and any(file.suffix == ".json" for file in list_checkpoint_files(folder))


def remove_checkpoints(path: Path) -> None:
    """Remove the checkpoints of a finished run, if there are any; what else lies there stays."""
    folder = path / CHECKPOINTS_FOLDER
    # A link leads to somebody else's.
    if folder.is_dir() and not folder.is_symlink():
        for file in list_checkpoint_files(folder):
            file.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()


def describe_given(config: TrainingConfig) -> dict[str, Any]:
    """Return a config as a user gives it: a preset, and the settings that differ from it."""
    if config.model.code:
        preset = find_own_preset(config)
    else:
        preset = get_preset(config.name) if config.name in preset_names() else None
    defaults = list_settings(preset) if preset is not None else {}
    return {
        "preset": config.name,
        "settings": {
            name: value
            for name, value in list_settings(config).items()
            if name not in defaults or defaults[name] != value
        },
    }


@contextmanager
def _exclusive_access(folder: Path) -> Iterator[None]:
    """Lock a folder; the lock dies with its holder."""
    try:
        descriptor = lock_folder(folder)
    except BlockingIOError:
        raise RunError(
            "another process is training this run",
            path=folder,
            remedy="wait for it to finish, or stop it",
        ) from None
    try:
        yield
    finally:
        if descriptor is not None:
            close_locked(descriptor)


def _write_ledger(folder: Path) -> None:
    """Record the size and the digest of everything that the finished run consists of."""
    files = LocalObjects(folder)
    files.delete(LEDGER_KEY)
    own = filter(UNFINISHED_RUN.makes, files.keys() or ())
    keys = [key for key in own if not key.startswith(f"{CHECKPOINTS_FOLDER}/")]
    objects = {key: StoredObject.of(files.read(key)) for key in keys}
    files.write(LEDGER_KEY, ObjectLedger(objects).write(RUN_KIND))


def _require_own(place: LocalObjects) -> None:
    """Raise a :class:`RunError` if somebody else's folder has the name of the unfinished run."""
    obstacle = UNFINISHED_RUN.find_obstacle(place)
    if obstacle:
        raise RunError(
            "something else has the name of the folder that the run is trained in",
            path=place.url,
            found=obstacle,
            remedy=f"{MOVE_FOREIGN}; {_OR_ELSEWHERE}",
        )


def _find_commit() -> str | None:
    """Return the commit of this package's source, ``-dirty`` if it was changed since; None where there is none."""
    source = Path(__file__).parent
    try:
        # A package that is installed below somebody else's repository is not of its commits.
        subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(source), "ls-files", "--error-unmatch", Path(__file__).name],  # noqa: S607
            check=True,
            capture_output=True,
        )
        described = subprocess.run(  # noqa: S603 - a fixed command
            ["git", "-C", str(source), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def _cannot_write(folder: Path, error: OSError) -> RunError:
    return RunError(
        "the run cannot be written",
        path=folder,
        found=describe_os_error(error),
        remedy="check the space and the permissions there, or choose another folder for runs",
    )


def _write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    text = json.dumps(content, indent=indent, ensure_ascii=False)
    LocalObjects(path.parent).write(path.name, f"{text}\n".encode())
