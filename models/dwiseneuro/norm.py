"""Batch norm as a scale and a shift, for layers that apply it along with what comes before or after.

Shape suffixes: R rows of all windows, frames and pixels, C channels, M channels of a layer that follows.
"""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["ChannelNorm", "measure_covariance", "measure_variance"]


class ChannelNorm(nn.BatchNorm1d):
    """Batch norm with torch's weights and running statistics, given mean and variance of the batch."""

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def scale_and_shift(
        self, mean_C: torch.Tensor, variance_C: torch.Tensor, n_rows: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return what the channels are multiplied with, and what is added to them.

        In training, the running statistics move towards the batch's; otherwise the batch's do not count.

        Parameters
        ----------
        mean_C, variance_C : Tensor
            Of the batch; the variance is that of the population.
        n_rows : int
            How many values of each channel there are.
        """
        if self.training:
            self._follow(mean_C.detach(), variance_C.detach(), n_rows)
        else:
            mean_C, variance_C = self.running_mean, self.running_var
        scale_C = self.weight * (variance_C + self.eps).rsqrt()
        return scale_C, self.bias - mean_C * scale_C

    def fold(
        self, weight_MC: torch.Tensor, mean_C: torch.Tensor, covariance_CC: torch.Tensor, n_rows: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight and bias of a layer that sums up channels as ``weight_MC``, and normalizes the sums.

        Mean and variance of the sums follow from the channels': the sums need not be formed for them.

        Parameters
        ----------
        weight_MC : Tensor
            Of the layer, which has no bias of its own.
        mean_C, covariance_CC : Tensor
            Of the layer's input, which :func:`measure_covariance` measures.
        n_rows : int
            How many values of each channel there are.
        """
        mean_M = weight_MC @ mean_C
        # Not negative but for rounding.
        variance_M = ((weight_MC @ covariance_CC) * weight_MC).sum(1).clamp(min=0)
        scale_M, shift_M = self.scale_and_shift(mean_M, variance_M, n_rows)
        return weight_MC * scale_M[:, None], shift_M

    def normalize(self, rows_RC: torch.Tensor) -> torch.Tensor:
        """Return channels, normalized; what torch's own batch norm does."""
        scale_C, shift_C = self.scale_and_shift(*measure_variance(rows_RC, self.training), len(rows_RC))
        return torch.addcmul(shift_C, rows_RC, scale_C)

    @torch.no_grad()
    def _follow(self, mean_C: torch.Tensor, variance_C: torch.Tensor, n_rows: int) -> None:
        self.num_batches_tracked.add_(1)
        unbiased_C = variance_C * (n_rows / max(1, n_rows - 1))
        self.running_mean.lerp_(mean_C.to(self.running_mean.dtype), self.momentum or 0.0)
        self.running_var.lerp_(unbiased_C.to(self.running_var.dtype), self.momentum or 0.0)


def measure_variance(rows_RC: torch.Tensor, measures: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and variance of channels over rows, in 32 bits or more; 0 and 1 if nothing is to be measured."""
    rows_RC = _widen(rows_RC)
    if not measures:
        return rows_RC.new_zeros(rows_RC.shape[1]), rows_RC.new_ones(rows_RC.shape[1])
    mean_C = rows_RC.mean(0)
    # torch's own sums along the first axis, but not its variance, are fast on a CPU.
    return mean_C, (rows_RC - mean_C).square().mean(0)


def measure_covariance(rows_RC: torch.Tensor, measures: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and covariance of channels over rows; 0 and the unit matrix if nothing is to be measured."""
    rows_RC = _widen(rows_RC)
    n_channels = rows_RC.shape[1]
    if not measures:
        return rows_RC.new_zeros(n_channels), torch.eye(n_channels, dtype=rows_RC.dtype, device=rows_RC.device)
    mean_C = rows_RC.mean(0)
    centered_RC = rows_RC - mean_C
    return mean_C, centered_RC.T @ centered_RC / len(rows_RC)


def _widen(rows_RC: torch.Tensor) -> torch.Tensor:
    return rows_RC.to(torch.promote_types(rows_RC.dtype, torch.float32))
