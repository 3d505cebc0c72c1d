"""Writing a run: into a folder that gets its name when the run is finished."""

from __future__ import annotations

import datetime
import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from models.config import TrainingConfig
from models.response_model import ResponseModel
from models.training.checkpointing import digest_file, save_weights
from models.training.run import FORMAT_VERSION, ModelRecord, RunData
from sensorium_data.errors import RunError

try:
    import fcntl
except ImportError:  # Windows has none; training a run once at a time is the user's part there.
    fcntl = None  # type: ignore[assignment]

__all__ = ["RunFolder", "publish_run"]


class RunFolder:
    """A run that is being trained: its files, in a folder that is not yet its own.

    Parameters
    ----------
    path : Path
        The unfinished folder.
    identity : str
    config : TrainingConfig
    data : RunData
    """

    def __init__(self, path: Path, identity: str, config: TrainingConfig, data: RunData) -> None:
        self.path = path
        self._identity = identity
        self._config = config

        _write_json(path / "config.json", config.model_dump(mode="json"))
        _write_json(path / "data.json", data.model_dump(mode="json"), indent=None)

    def write_environment(self, device: torch.device) -> None:
        """Record the versions and the machine."""
        packages = ("torch", "lightning-fabric", "numpy", "xarray", "zarr", "dask", "sensorium-pipeline")
        _write_json(
            self.path / "environment.json",
            {
                "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                "python": platform.python_version(),
                "platform": platform.platform(),
                "packages": {name: version(name) for name in packages},
                "device": str(device),
                "device_name": (
                    torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "CPU"
                ),
                "n_cores": os.cpu_count(),
                "n_torch_threads": torch.get_num_threads(),
            },
        )

    def write_model(self, model: ResponseModel, *, best_epoch: int, best_correlation: float, duration_s: float) -> None:
        """Write the weights, and the record that makes the run whole."""
        digest = save_weights(model.state_dict(), self.path / "model.safetensors")
        record = ModelRecord(
            format_version=FORMAT_VERSION,
            identity=self._identity,
            preset=self._config.name,
            n_parameters=sum(parameter.numel() for parameter in model.parameters()),
            n_frames_lost=model.n_frames_lost,
            best_epoch=best_epoch,
            best_correlation=best_correlation,
            duration_s=duration_s,
            weights_sha256=digest,
            config_sha256=digest_file(self.path / "config.json"),
            data_sha256=digest_file(self.path / "data.json"),
        )
        _write_json(self.path / "model.json", record.model_dump(mode="json"))


@contextmanager
def publish_run(path: Path, identity: str, config: TrainingConfig, data: RunData) -> Iterator[RunFolder]:
    """Give a folder to train into, which becomes ``path`` when the block ends without an error.

    It is ``<path>.partial``; what an interrupted attempt left there is removed first. While the block runs, nobody
    else can train the same run.

    Raises
    ------
    RunError
        If another process is training this run, or the folder cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(partial, error) from error
    with _exclusive_access(partial):
        for entry in partial.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink()
        try:
            yield RunFolder(partial, identity, config, data)
            partial.rename(path)
        except OSError as error:
            if not str(error.filename or "").startswith(str(partial)):
                raise
            raise _cannot_write(partial, error) from error


@contextmanager
def _exclusive_access(folder: Path) -> Iterator[None]:
    """Lock a folder; the lock dies with its holder."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The one who held the lock a moment ago may have finished and renamed the folder.
        held = folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat())
    except BlockingIOError:
        held = False
    try:
        if not held:
            raise RunError(
                "another process is training this run",
                path=folder,
                remedy="wait for it to finish, or stop it",
            )
        yield
    finally:
        os.close(descriptor)


def _cannot_write(folder: Path, error: OSError) -> RunError:
    return RunError(
        "the run cannot be written",
        path=folder,
        found=error.strerror,
        remedy="check the space and the permissions there, or choose another folder for runs",
    )


def _write_json(path: Path, content: Any, *, indent: int | None = 2) -> None:
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
