"""A file of weights, read without running code from it."""

from __future__ import annotations

import io
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.checkpoints.content import describe_content
from models.checkpoints.numpy_scalars import list_scalar_readers
from models.checkpoints.pickle_bounds import UnboundedError, require_flat
from sensorium_data.errors import RunError, describe_os_error
from sensorium_data.files import OversizeError, digest_bytes, read_bounded, replace_whole, sync_path
from sensorium_data.limits import MAX_CHECKPOINT_SIZE_BYTES
from sensorium_data.visible_text import make_visible, shorten

__all__ = ["CheckpointFile", "read_checkpoint", "write_checkpoint"]

#: Under which of these names files hold a state_dict beside other things.
_WRAPPERS = ("state_dict", "model", "model_state_dict", "nn_state_dict")
#: What torch's own wrappers put before the names of all weights.
_PREFIX = "module."
#: What torch.compile puts before the names of the weights of a module, which may be a part of the model.
_COMPILED = "_orig_mod."
#: In the zip that torch writes.
_PICKLE = "data.pkl"
#: Which torch wrote one after the other before it wrote zips.
_N_OLD_PICKLES = 5
_LONGEST_NAME = 500
_SHOWN_NAME = 60
_EXPECTED = "a file that torch.save(model.state_dict(), …) wrote"


@dataclass(frozen=True, eq=False)
class CheckpointFile:
    """A file of weights.

    Attributes
    ----------
    path : Path
    sha256 : str
        Digest of the file.
    size_bytes : int
    weights : dict of str to Tensor
        By name, in the order of the file, without what wraps them.
    beside : mapping of str to object
        What the dictionary holds that wraps them, as it was read: nothing in it was checked.
    """

    path: Path
    sha256: str
    size_bytes: int
    weights: dict[str, torch.Tensor]
    beside: Mapping[str, object] = field(default_factory=dict)


def read_checkpoint(path: str | Path, *, has_numpy_scalars: bool = False) -> CheckpointFile:
    """Read a file of weights; it runs no code.

    A ``state_dict`` may lie in a dictionary under ``state_dict``, ``model``, ``model_state_dict`` or
    ``nn_state_dict``. The prefixes ``module.`` of all names and ``_orig_mod.`` of some are left out.

    Parameters
    ----------
    path : str or Path
        E.g. ``final.pth``.
    has_numpy_scalars : bool
        Whether numbers of NumPy may lie beside the weights, as scores do that training loops compute.

    Raises
    ------
    RunError
        If the file is missing, too large, or damaged, if it holds code, or something else than weights.
    """
    path = Path(path)
    data = _read_bytes(path)
    state, beside = _unwrap(_load(data, path, has_numpy_scalars=has_numpy_scalars), path)
    weights = _strip_prefixes(state, path)
    _require_plain(weights, path)
    size_bytes = sum(weight.numel() * weight.element_size() for weight in weights.values())
    if size_bytes > MAX_CHECKPOINT_SIZE_BYTES:
        # A tensor may repeat few stored numbers as often as its shape says.
        raise _too_large(path, size_bytes)
    return CheckpointFile(path, digest_bytes(data), len(data), weights, beside)


def write_checkpoint(file: Mapping[str, object], path: Path) -> None:
    """Write what a file holds as ``torch.save`` does, whole or not at all; an OSError if the disk does not take it."""
    content = io.BytesIO()
    # Copies: a view would bring along all that it is a view of. torch's own writing of a file hides what the disk said.
    torch.save(_copy(file), content)
    with replace_whole(path) as temporary:
        temporary.write_bytes(content.getbuffer())
        sync_path(temporary)
    sync_path(path.parent)


def _copy(content: Any) -> Any:
    """Return a dictionary whose tensors are copies, also in the dictionaries that it holds."""
    if isinstance(content, torch.Tensor):
        return content.detach().cpu().clone()
    return {name: _copy(value) for name, value in content.items()} if isinstance(content, Mapping) else content


def _read_bytes(path: Path) -> bytes:
    try:
        return read_bounded(path, MAX_CHECKPOINT_SIZE_BYTES)
    except OversizeError as error:
        raise _too_large(path, error.n_read) from error
    except OSError as error:
        raise RunError(
            "the checkpoint cannot be read",
            path=path,
            found=describe_os_error(error),
            remedy="give the path of a file of weights, for example final.pth",
        ) from error


def _load(data: bytes, path: Path, *, has_numpy_scalars: bool) -> object:
    try:
        if zipfile.is_zipfile(io.BytesIO(data)):
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                size_bytes = sum(member.file_size for member in archive.infolist())
                if size_bytes > MAX_CHECKPOINT_SIZE_BYTES:
                    raise _too_large(path, size_bytes)
                for member in archive.infolist():
                    if member.filename.rpartition("/")[2] == _PICKLE:
                        require_flat(io.BytesIO(archive.read(member)))
        else:
            stream = io.BytesIO(data)
            for _ in range(_N_OLD_PICKLES):
                require_flat(stream)
        readers = list_scalar_readers() if has_numpy_scalars else []
        with warnings.catch_warnings(), torch.serialization.safe_globals(readers):
            # On how old files were written.
            warnings.simplefilter("ignore")
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except RunError:
        raise
    except Exception as error:
        # What a damaged pickle makes the reader do is not foreseeable: it fails of whatever it meets.
        called = re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if called is not None:
            raise RunError(
                "the checkpoint holds code, which is not run",
                path=path,
                found=called[1],
                expected="tensors, numbers and texts alone",
                remedy="if you trust the file, load it with torch yourself, and save its state_dict alone",
            ) from error
        raise RunError(
            "not a file of weights, or a damaged one",
            path=path,
            found=str(error) if isinstance(error, UnboundedError) else describe_content(data),
            expected=_EXPECTED,
            remedy="download or copy the file again",
        ) from error


def _unwrap(content: object, path: Path) -> tuple[Mapping[str, torch.Tensor], Mapping[str, object]]:
    """Return the weights, and what lies beside them."""
    if _is_state(content):
        return content, {}  # type: ignore[return-value]
    if isinstance(content, Mapping):
        inner = [name for name in _WRAPPERS if _is_state(content.get(name))]
        if len(inner) == 1:
            state: Mapping[str, torch.Tensor] = content[inner[0]]
            return state, {name: value for name, value in content.items() if isinstance(name, str) and name != inner[0]}
    raise RunError(
        "the checkpoint holds no state_dict, or several",
        path=path,
        found=_describe(content),
        expected=f"names and tensors, or these under one of {', '.join(_WRAPPERS)}",
        remedy="save the model's state_dict alone",
    )


def _is_state(content: object) -> bool:
    return (
        isinstance(content, Mapping)
        and bool(content)
        and all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())
    )


def _describe(content: object) -> str:
    if not isinstance(content, Mapping):
        return f"a {type(content).__name__}"
    names = ", ".join(str(name) for name in list(content)[:5])
    return f"a dictionary with {names}" if names else "an empty dictionary"


def _strip_prefixes(state: Mapping[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    names = [name.replace(_COMPILED, "") for name in state]
    while all(name.startswith(_PREFIX) for name in names):
        names = [name.removeprefix(_PREFIX) for name in names]
    stripped = dict(zip(names, state.values(), strict=True))
    if len(stripped) < len(state):
        twice = next(name for name in names if names.count(name) > 1)
        raise RunError(
            "the checkpoint holds a weight twice",
            path=path,
            found=f"{twice}, with and without {_COMPILED}",
            remedy="save the model's state_dict alone",
        )
    return stripped


def _require_plain(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise a :class:`RunError` if a tensor has no values of its own in memory, or its name is none."""
    for name, weight in weights.items():
        found = None
        if not name.isprintable() or not name.isascii() or len(name) > _LONGEST_NAME:
            found = "a name that is too long, or holds other than plain characters"
        elif weight.device.type != "cpu" or weight.layout != torch.strided or weight.is_nested or weight.is_quantized:
            found = "a tensor that is sparse, nested, quantized or without values"
        if found is not None:
            raise RunError(
                "the checkpoint holds something else than plain weights",
                path=path,
                found=f"{shorten(make_visible(name), _SHOWN_NAME)}: {found}",
                expected=_EXPECTED,
            )


def _too_large(path: Path, size_bytes: int) -> RunError:
    return RunError(
        "the checkpoint is too large",
        path=path,
        found=f"{size_bytes / 1e9:.1f} GB or more",
        expected=f"up to {MAX_CHECKPOINT_SIZE_BYTES / 1e9:.1f} GB",
        remedy="save the model's state_dict alone, without the optimizer",
    )
