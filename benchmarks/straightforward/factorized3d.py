"""The factorized 3D model as the starter kit writes it: three-dimensional convolutions, and readouts of plain samples.

Shape suffixes: B windows of a batch, C channels, N neurons, T frames, H height, W width, F frames of all windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from models.factorized3d import Factorized3d
from models.layers import FullGaussianReadout
from models.response_model import ResponseModel

__all__ = ["make_reference"]


def make_reference(model: ResponseModel) -> nn.Module:
    """Return a model that predicts the same, written straightforwardly.

    Parameters
    ----------
    model : Factorized3d
        Whose weights are copied; with Gaussian readouts.

    Returns
    -------
    Module
        With the same ``predict_rows``, on the same device and of the same dtype.
    """
    return _Factorized3d(cast(Factorized3d, model)).to(next(model.parameters())).train(model.training)


class _Factorized3d(nn.Module):
    def __init__(self, original: Factorized3d) -> None:
        super().__init__()
        config = original.config
        self.n_frames_lost = original.n_frames_lost
        layers: list[nn.Module] = []
        for layer in original.core.layers:
            n_out, n_in, side, _ = layer.spatial.weight.shape
            n_taps = layer.temporal.weight.shape[2]
            padding = side // 2 if config.pads_frames else 0
            spatial = nn.Conv3d(
                n_in, n_out, (1, side, side), stride=(1, *layer.spatial.stride), padding=(0, padding, padding)
            )
            temporal = nn.Conv3d(n_out, n_out, (n_taps, 1, 1))
            norm = nn.BatchNorm3d(n_out, momentum=config.batch_norm_momentum)
            with torch.no_grad():
                spatial.weight.copy_(layer.spatial.weight[:, :, None])
                spatial.bias.copy_(layer.spatial.bias)
                temporal.weight.copy_(layer.temporal.weight[..., None])
                temporal.bias.copy_(layer.temporal.bias)
            norm.load_state_dict(layer.norm.state_dict())
            layers += [spatial, temporal, norm, nn.ELU()]
        self.core = nn.Sequential(*layers)
        self.readouts = nn.ModuleDict({session: _Readout(one) for session, one in original.readouts.items()})
        self.shifters = nn.ModuleDict()
        for session, shifter in original.shifters.items():
            copied = type(shifter)(original.config.shifter_units)
            copied.load_state_dict(shifter.state_dict())
            self.shifters[session] = copied

    def predict_rows(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        features_BCTHW = self.core(videos_BCTHW)
        pupil_center_BT2 = pupil_center_B2T[..., self.n_frames_lost :].transpose(1, 2)
        predictions = []
        for session, rows in wanted:
            features_BTCHW = features_BCTHW[rows].transpose(1, 2)
            n_windows, n_frames = features_BTCHW.shape[:2]
            shift_F2 = self.shifters[session](pupil_center_BT2[rows].flatten(0, 1))
            responses_FN = self.readouts[session](features_BTCHW.flatten(0, 1), shift_F2)
            responses_FN = functional.elu(responses_FN) + 1
            predictions.append(responses_FN.view(n_windows, n_frames, -1).transpose(1, 2))
        return predictions


class _Readout(nn.Module):
    """A full Gaussian readout that samples all channels and weighs them afterwards."""

    cortical_positions: torch.Tensor

    def __init__(self, original: FullGaussianReadout) -> None:
        super().__init__()
        self.register_buffer("cortical_positions", original.cortical_positions.clone())
        n_hidden = original.position_predictor[0].out_features
        self.position_predictor = nn.Sequential(nn.Linear(2, n_hidden), nn.ELU(), nn.Linear(n_hidden, 2), nn.Tanh())
        self.position_predictor.load_state_dict(original.position_predictor.state_dict())
        self.sigma = nn.Parameter(original.sigma.detach().clone())
        self.features = nn.Parameter(original.features.detach().clone())
        self.bias = nn.Parameter(original.bias.detach().clone())

    def forward(self, features_FCHW: torch.Tensor, shift_F2: torch.Tensor) -> torch.Tensor:
        n_frames = len(features_FCHW)
        places_FN2 = self.position_predictor(self.cortical_positions).expand(n_frames, -1, -1)
        if self.training:
            noise_FN2 = torch.randn_like(places_FN2)
            drawn_FN2 = torch.einsum("ncd,fnd->fnc", self.sigma, noise_FN2)
            places_FN2 = (places_FN2 + drawn_FN2).clamp(-1, 1)
        places_FN12 = (places_FN2 + shift_F2[:, None])[:, :, None]
        sampled_FCN = functional.grid_sample(features_FCHW, places_FN12, align_corners=True)[..., 0]
        return torch.einsum("fcn,cn->fn", sampled_FCN, self.features) + self.bias
