"""From a video to tokens: patches of it, normalized, each as a few numbers.

Shape suffixes: B trials of a batch, C channels, T frames, H height, W width, K frames of a patch, E numbers of a token,
P patches of a frame, N numbers of a patch (C × K × height × width).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from models.vivit.config import VivitConfig

__all__ = ["PatchEmbedding"]


class PatchEmbedding(nn.Module):
    """Normalize each patch of a video, project it, and normalize the projection.

    A layer norm with a linear layer after it is an affine function of a patch but for the patch's mean and standard
    deviation. So one convolution over the video, and means over boxes of it, give what normalizing and projecting each
    patch by itself gives. No patch is copied: they overlap, and 1,225 pixels of five channels belong to each.

    Parameters
    ----------
    config : VivitConfig
        Sizes of patches and tokens.
    n_input_channels : int
        Of the video.

    Attributes
    ----------
    norm : LayerNorm
        Of a patch's numbers, in the order channel, frame, row, column.
    linear : Linear
        From a patch to a token.
    token_norm : LayerNorm
        Of a token.
    """

    def __init__(self, config: VivitConfig, n_input_channels: int) -> None:
        super().__init__()
        self._kernel = (n_input_channels, config.patch_frames, config.patch_size, config.patch_size)
        self._stride = config.patch_stride
        self._n_padded = config.patch_frames - 1 if config.pads_time else 0
        n_numbers = n_input_channels * config.patch_frames * config.patch_size**2
        self.norm = nn.LayerNorm(n_numbers)
        self.linear = nn.Linear(n_numbers, config.embedding_size)
        self.token_norm = nn.LayerNorm(config.embedding_size)

    def forward(self, videos_BCTHW: torch.Tensor) -> torch.Tensor:
        """Return tokens, shape (batch, time, patch, number): one for each frame that a patch ends with."""
        # In full precision whatever the rest computes in: it is a small part of the work.
        with torch.autocast(videos_BCTHW.device.type, enabled=False):
            videos_BCTHW = functional.pad(videos_BCTHW, (0, 0, 0, 0, self._n_padded, 0))
            n_trials = len(videos_BCTHW)
            mean_BT1P, deviation_BT1P = self._measure(videos_BCTHW)
            weight_EN = self.linear.weight * self.norm.weight
            _, n_frames, height, width = self._kernel
            # Frames of a patch as channels of a picture: a two-dimensional convolution, which is the faster one.
            windows_BCTHWK = videos_BCTHW.unfold(2, n_frames, 1)
            pictures = windows_BCTHWK.permute(0, 2, 1, 5, 3, 4).flatten(2, 3).flatten(0, 1)
            projected = functional.conv2d(
                pictures, weight_EN.view(len(weight_EN), -1, height, width), None, self._stride
            )
            projected_BTEP = projected.flatten(2).unflatten(0, (n_trials, -1))
            centered_BTEP = projected_BTEP - mean_BT1P * weight_EN.sum(1)[:, None]
            tokens_BTPE = (centered_BTEP / deviation_BT1P).transpose(2, 3)
            bias_E = self.linear.weight @ self.norm.bias + self.linear.bias
            normalized_BTPE: torch.Tensor = self.token_norm(tokens_BTPE + bias_E)
            return normalized_BTPE

    def _measure(self, videos_BCTHW: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return each patch's mean and standard deviation, shape (batch, time, 1, patch)."""
        n_channels, n_frames, height, width = self._kernel
        # The difference of two large sums, so in double precision; each is of one number a pixel.
        videos = videos_BCTHW.double()
        moments = torch.stack([videos.sum(1), videos.square().sum(1)], dim=1) / n_channels
        n_trials, _, _, n_rows, n_columns = moments.shape
        over_time = functional.avg_pool2d(moments.flatten(0, 1).flatten(2), (n_frames, 1), 1)
        pictures = over_time.unflatten(2, (n_rows, n_columns)).flatten(0, 1)[:, None]
        over_patch = functional.avg_pool2d(pictures, (height, width), self._stride)
        mean_BTP, square_BTP = over_patch.view(n_trials, 2, over_time.shape[1], -1).unbind(1)
        variance_BTP = (square_BTP - mean_BTP.square()).clamp(min=0)
        deviation_BTP = (variance_BTP + self.norm.eps).sqrt()
        dtype = videos_BCTHW.dtype
        return mean_BTP[:, :, None].to(dtype), deviation_BTP[:, :, None].to(dtype)
