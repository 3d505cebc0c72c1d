"""The two usual ways of loading, written from their description: what :mod:`loader` is measured against.

Both read a folder of unpacked ``.npy`` files, four a trial, float64, each whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

__all__ = ["FileTree", "FourFiles", "iterate_file_tree", "iterate_four_files"]

VARIABLES = ("videos", "responses", "behavior", "pupil_center")


class FourFiles(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """The winner's way: four ``np.load`` for each sample of 16 frames, every second one, in raw units.

    Parameters
    ----------
    data : Path
        The folder of the four variables' folders.
    trials : sequence of int
        Ids.
    lengths : sequence of int
        Valid frames of each.
    n_samples : int
        Of an epoch; each is of a trial and a last frame drawn at random.
    """

    n_frames, stride = 16, 2

    def __init__(self, data: Path, trials: Sequence[int], lengths: Sequence[int], n_samples: int) -> None:
        self._data = data
        self._trials = list(trials)
        self._lengths = list(lengths)
        self._n_samples = n_samples

    def __len__(self) -> int:
        return self._n_samples

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        generator = np.random.default_rng(index)
        position = int(generator.integers(len(self._trials)))
        span = (self.n_frames - 1) * self.stride + 1
        last = int(generator.integers(span - 1, self._lengths[position]))
        frames = slice(last - span + 1, last + 1, self.stride)
        video, responses, behavior, pupil = (
            np.load(self._data / variable / f"{self._trials[position]}.npy")[..., frames] for variable in VARIABLES
        )
        inputs = np.zeros((5, self.n_frames, 64, 64), np.float32)
        inputs[0, :, 14:50] = video.transpose(2, 0, 1)
        inputs[1:3] = behavior[..., None, None]
        inputs[3:5] = pupil[..., None, None]
        return torch.from_numpy(inputs), torch.from_numpy(np.maximum(responses, 0).astype(np.float32))


class FileTree(Dataset[dict[str, torch.Tensor]]):
    """The starter kit's way: files of float64, whole trials transformed for each sample, and kept once they were seen.

    Parameters
    ----------
    root : Path
        The folder of ``data`` and ``meta``.
    trials : sequence of int
        Ids.
    n_frames : int
        In a window.
    """

    def __init__(self, root: Path, trials: Sequence[int], n_frames: int = 80) -> None:
        self._root = root
        self._trials = list(trials)
        self._n_frames = n_frames
        self._seen: dict[int, dict[str, np.ndarray]] = {}
        self._generator = np.random.default_rng(0)

        def read(variable: str, statistic: str) -> np.ndarray:
            return np.load(root / "meta" / "statistics" / variable / "all" / f"{statistic}.npy")

        self._mean = {variable: np.nan_to_num(read(variable, "mean")) for variable in VARIABLES}
        self._std = {variable: np.nan_to_num(read(variable, "std"), nan=1.0) for variable in VARIABLES}
        std = self._std["responses"]
        threshold = 0.01 * float(std.mean())
        self._precision = 1 / np.where(std > threshold, std, threshold)

    def __len__(self) -> int:
        return len(self._trials)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        trial = self._trials[index]
        if trial not in self._seen:
            self._seen[trial] = {
                variable: np.load(self._root / "data" / variable / f"{trial}.npy") for variable in VARIABLES
            }
        raw = self._seen[trial]
        video = (raw["videos"] - self._mean["videos"]) / np.where(self._std["videos"] == 0, 1, self._std["videos"])
        responses = raw["responses"] * self._precision
        behavior = raw["behavior"] / self._std["behavior"]
        pupil = (raw["pupil_center"] - self._mean["pupil_center"]) / self._std["pupil_center"]
        # The tail that only pads the trial goes, in each field.
        n_valid = min(int(np.isfinite(field.reshape(-1, field.shape[-1])).all(0).sum()) for field in (video, responses))
        first = int(self._generator.integers(0, n_valid - self._n_frames))
        frames = slice(first, first + self._n_frames)
        planes = np.broadcast_to(behavior[:, frames, None, None], (2, self._n_frames, *video.shape[:2]))
        inputs = np.concatenate([video[..., frames].transpose(2, 0, 1)[None], planes])
        return {
            "videos": torch.tensor(inputs, dtype=torch.float32),
            "responses": torch.tensor(responses[:, frames], dtype=torch.float32),
            "pupil_center": torch.tensor(pupil[:, frames], dtype=torch.float32),
        }


def iterate_four_files(dataset: FourFiles, *, batch_size: int = 32, n_workers: int = 2) -> Iterator[int]:
    """Yield the size of each batch that worker processes make."""
    for inputs, _ in DataLoader(dataset, batch_size=batch_size, num_workers=n_workers):
        yield len(inputs)


def iterate_file_tree(dataset: FileTree, *, batch_size: int = 8) -> Iterator[int]:
    """Yield the size of each batch of one pass in random order."""
    for batch in DataLoader(dataset, batch_size=batch_size, shuffle=True):
        yield len(batch["videos"])
