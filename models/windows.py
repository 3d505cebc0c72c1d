"""Where training gets its windows from: cut on the host and sent, or cut on the device from trials that stay there.

Shape suffixes: B trials of a batch, N neurons, T frames, H height, W width, 2 the axes x and y or the two behavioral
variables.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from models.inputs import InputPreparer, ModelInputs
from models.layouts import InputLayout
from sensorium_data.errors import UsageError
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH
from sensorium_data.sessions import Tier
from sensorium_data.statistics import Normalizer
from sensorium_data.store import Precision
from sensorium_data.windows import (
    BatchPart,
    BlockCache,
    EpochPlan,
    RecordedTrial,
    SessionTrials,
    TrialReader,
    WindowLoader,
    Windows,
    default_cache_bytes,
)

__all__ = ["CacheMode", "DeviceWindows", "HostWindows", "WindowSource", "open_windows"]

CacheMode = Literal["auto", "none", "memory", "device"]

#: What trials may take of the device's free memory, unless told otherwise; the rest is the model's.
_SHARE_OF_FREE_DEVICE_MEMORY = 0.5


class WindowSource(ABC):
    """Gives a model its inputs, for training and for evaluation.

    Parameters
    ----------
    loader : WindowLoader
        Of the sessions' trials.
    preparer : InputPreparer
        Of the model's device. It has normalizers, or the loader has them.

    Attributes
    ----------
    reader : TrialReader
        The loader's.
    """

    def __init__(self, loader: WindowLoader, preparer: InputPreparer) -> None:
        self.reader = loader.reader
        self._loader = loader
        self._preparer = preparer

    @abstractmethod
    def iter_batches(
        self, plan: EpochPlan, *, first_batch: int = 0, rank: int = 0, n_ranks: int = 1
    ) -> Generator[tuple[ModelInputs, ...], None, None]:
        """Yield an epoch's batches, each as its parts: one for each session that it mixes."""

    def iter_trials(
        self,
        session: str,
        tiers: Iterable[Tier],
        *,
        labelled: bool = False,
        only: Collection[int] | None = None,
    ) -> Generator[ModelInputs, None, None]:
        """Yield whole trials, as :meth:`sensorium_data.windows.WindowLoader.iter_trials` does."""
        with closing(self._loader.iter_trials(session, tiers, labelled=labelled, only=only)) as trials:
            for trial in trials:
                yield self._preparer.prepare(trial)


def open_windows(
    reader: TrialReader,
    normalizers: Mapping[str, Normalizer],
    layout: InputLayout,
    device: torch.device,
    trials: Iterable[SessionTrials],
    *,
    cache: CacheMode = "auto",
    cache_bytes: int | None = None,
) -> WindowSource:
    """Return where training gets its windows from, and decide which trials stay in which memory.

    On a GPU, batches are normalized there; elsewhere in the threads that read them.

    Parameters
    ----------
    reader : TrialReader
        Whose cache is replaced by one of the size that is decided here.
    normalizers : mapping of str to Normalizer
        By full session name.
    layout : InputLayout
        How the model's video is composed.
    device : torch.device
        Where the model is.
    trials : iterable of SessionTrials
        What will be trained on: its size decides what fits.
    cache : {"auto", "none", "memory", "device"}
        ``memory`` and ``device``: as many trials as fit into the budget stay there. ``auto``: on the device if all fit
        there, else in memory.
    cache_bytes : int, optional
        The budget. By default half of the device's free memory, or a quarter of the machine's.

    Raises
    ------
    UsageError
        If trials shall stay on a GPU and there is none.
    """
    if cache == "device" and device.type != "cuda":
        raise UsageError(
            "trials cannot stay on the device",
            found=f"device {device.type}",
            expected="a GPU",
            remedy="choose the cache memory",
        )
    is_resident = False
    if device.type == "cuda" and cache in ("auto", "device"):
        free_bytes = torch.cuda.mem_get_info(device)[0]
        device_bytes = int(_SHARE_OF_FREE_DEVICE_MEMORY * free_bytes) if cache_bytes is None else cache_bytes
        is_resident = cache == "device" or _estimate_size(reader, trials) <= device_bytes
    host_bytes = default_cache_bytes() if cache_bytes is None else cache_bytes
    # What stays on the device need not stay in memory too.
    reader.cache = BlockCache(host_bytes if cache in ("auto", "memory") and not is_resident else 0)
    if is_resident:
        preparer = InputPreparer(layout, device, normalizers)
        return DeviceWindows(WindowLoader(reader), preparer, BlockCache(device_bytes))
    if device.type == "cuda":
        return HostWindows(WindowLoader(reader), InputPreparer(layout, device, normalizers))
    return HostWindows(WindowLoader(reader, normalizers), InputPreparer(layout, device))


class HostWindows(WindowSource):
    """Windows that are cut on the host, and sent to the device as batches."""

    def iter_batches(
        self, plan: EpochPlan, *, first_batch: int = 0, rank: int = 0, n_ranks: int = 1
    ) -> Generator[tuple[ModelInputs, ...], None, None]:
        """Yield an epoch's batches, each as its parts: one for each session that it mixes."""
        with closing(self._loader.iter_batches(plan, first_batch=first_batch, rank=rank, n_ranks=n_ranks)) as batches:
            for parts in batches:
                yield tuple(self._preparer.prepare(part) for part in parts)


class DeviceWindows(WindowSource):
    """Windows that are cut on the device, from trials that stay there as far as a budget allows.

    Trials of a compact store are kept in 16 bits a value, from which they come back as they were, but for
    responses below 4e-6, which are off by at most 2e-9.

    Parameters
    ----------
    loader : WindowLoader
        Without normalizers.
    preparer : InputPreparer
        Of the same device; it normalizes.
    cache : BlockCache
        Holds the trials that stay.
    """

    def __init__(self, loader: WindowLoader, preparer: InputPreparer, cache: BlockCache[_DeviceTrial]) -> None:
        super().__init__(loader, preparer)
        self.cache = cache

    def iter_batches(
        self, plan: EpochPlan, *, first_batch: int = 0, rank: int = 0, n_ranks: int = 1
    ) -> Generator[tuple[ModelInputs, ...], None, None]:
        """Yield an epoch's batches, each as its parts: one for each session that it mixes."""
        last_batches = plan.find_last_batches().tolist()
        # Trials that give further windows and found no place in the cache, by visit.
        held: dict[int, _DeviceTrial] = {}
        batches = self._loader.map_new_trials(
            plan,
            self._pack,
            first_batch=first_batch,
            rank=rank,
            n_ranks=n_ranks,
            is_known=lambda session, trial: (session, trial) in self.cache,
        )
        with closing(batches):
            for number, (one, packed) in enumerate(batches, start=first_batch):
                parts = []
                for part in one.parts:
                    on_device = []
                    for trial, visit in zip(part.trials, part.visits, strict=True):
                        key = (part.session, trial)
                        found = self.cache.get(key) or held.get(visit)
                        if found is None:
                            found = packed[visit].to(self._preparer.device)
                            if not self.cache.offer(key, found):
                                held[visit] = found
                        on_device.append(found)
                    parts.append(self._cut(part, one.windows, on_device))
                for visit in [visit for visit in held if last_batches[visit] <= number]:
                    del held[visit]
                yield tuple(parts)

    def _cut(self, part: BatchPart, windows: Windows, on_device: list[_DeviceTrial]) -> ModelInputs:
        frames = [slice(first, first + windows.span, windows.stride) for first in part.first_frames]
        pairs = list(zip(on_device, frames, strict=True))
        responses = [
            _unpack(trial.responses[cut], _RESPONSE_SCALE) for trial, cut in pairs if trial.responses is not None
        ]
        return self._preparer.compose(
            session=part.session,
            trials=part.trials,
            first_frames=part.first_frames,
            stride=windows.stride,
            video_BTHW=torch.stack([_unpack(trial.videos[cut], _VIDEO_SCALE) for trial, cut in pairs]),
            behavior_B2T=torch.stack([trial.behavior[:, cut] for trial, cut in pairs]),
            pupil_center_B2T=torch.stack([trial.pupil_center[:, cut] for trial, cut in pairs]),
            responses_BTN=torch.stack(responses) if len(responses) == len(pairs) else None,
        )

    def _pack(self, trial: RecordedTrial) -> _DeviceTrial:
        is_compact = self.reader.coordinates(trial.session).attrs.get("precision") == Precision.COMPACT
        return _DeviceTrial.pack(trial, is_compact, pins=self._preparer.device.type == "cuda")


# Compact stores keep videos in steps of 1/16, which are whole numbers then, and responses to 10 bits, as half
# floats do from 2**-14 to 2**16: scaled so, from 4e-6 to 4,094.
_VIDEO_SCALE = 16.0
_RESPONSE_SCALE = 16.0
_LARGEST_HALF = 65504.0


@dataclass(frozen=True, eq=False)
class _DeviceTrial:
    """A trial's arrays as tensors, videos and responses in 16 bits where nothing is lost by it.

    Attributes
    ----------
    videos : Tensor, shape (time, height, width)
        Times ``_VIDEO_SCALE`` if of int16.
    responses : Tensor, shape (time, neuron), or None
        Times ``_RESPONSE_SCALE`` if of float16.
    behavior, pupil_center : Tensor, shape (2, time)
    """

    videos: torch.Tensor
    responses: torch.Tensor | None
    behavior: torch.Tensor
    pupil_center: torch.Tensor

    @classmethod
    def pack(cls, block: RecordedTrial, is_compact: bool, *, pins: bool) -> _DeviceTrial:
        # Copies: torch warns of memory that must not be written to.
        videos = torch.from_numpy(np.array(block.videos))
        responses_TN = None if block.responses is None else torch.from_numpy(np.array(block.responses.T))
        if is_compact:
            videos = (videos * _VIDEO_SCALE).to(torch.int16)
            if responses_TN is not None and float(responses_TN.max()) * _RESPONSE_SCALE < _LARGEST_HALF:
                responses_TN = (responses_TN * _RESPONSE_SCALE).half()
        trial = cls(
            videos,
            responses_TN,
            torch.from_numpy(np.array(block.behavior)),
            torch.from_numpy(np.array(block.pupil_center)),
        )
        return trial._map(torch.Tensor.pin_memory) if pins else trial

    def to(self, device: torch.device) -> _DeviceTrial:
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    @property
    def size_bytes(self) -> int:
        tensors = (self.videos, self.responses, self.behavior, self.pupil_center)
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> _DeviceTrial:
        return _DeviceTrial(
            function(self.videos),
            None if self.responses is None else function(self.responses),
            function(self.behavior),
            function(self.pupil_center),
        )


def _unpack(values: torch.Tensor, scale: float) -> torch.Tensor:
    return values if values.dtype == torch.float32 else values.float() * (1 / scale)


def _estimate_size(reader: TrialReader, trials: Iterable[SessionTrials]) -> int:
    """Return the memory that trials would take on a device."""
    total = 0
    for session in trials:
        coordinates = reader.coordinates(session.session)
        n_bytes = 2 if coordinates.attrs.get("precision") == Precision.COMPACT else 4
        per_frame = coordinates.sizes["neuron"] + FRAME_HEIGHT * FRAME_WIDTH
        total += n_bytes * per_frame * sum(session.n_frames)
    return total
