"""A recurrent layer that keeps a map of states.

Shape suffixes: B trials of a batch, C channels, T frames, H height, W width, F frames of all trials (B × T).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from models.layers.normalized import init_convolutions

__all__ = ["ConvolutionalGru"]


class ConvolutionalGru(nn.Module):
    """A gated recurrent unit whose products are convolutions; it begins with zeros, and every state is returned.

    With input x, state h, convolutions W of the input and U of the state, and the logistic function s::

        u  = s(W_u x + U_u h)            update
        r  = s(W_r x + U_r h)            reset
        c  = tanh(W_c x + U_c (r h))     candidate
        h' = (1 − u) h + u c

    Parameters
    ----------
    n_in, n_out : int
        Channels of the input and of the state.
    kernel : int
        Height and width of all kernels, odd, pixels. Maps are padded with zeros, so that they keep their size.

    Notes
    -----
    ``ConvGRUCell`` of neuralpredictors, from Sinz et al. 2018, "Stimulus domain transfer in recurrent models for large
    scale cortical population prediction on video". Each convolution has a bias.
    """

    def __init__(self, n_in: int, n_out: int, kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"a kernel of even size {kernel} changes the size of the map")
        self.n_out = n_out
        self.padding = kernel // 2
        self.update_input = nn.Conv2d(n_in, n_out, kernel)
        self.update_hidden = nn.Conv2d(n_out, n_out, kernel)
        self.reset_input = nn.Conv2d(n_in, n_out, kernel)
        self.reset_hidden = nn.Conv2d(n_out, n_out, kernel)
        self.candidate_input = nn.Conv2d(n_in, n_out, kernel)
        self.candidate_hidden = nn.Conv2d(n_out, n_out, kernel)
        init_convolutions(self)

    def forward(self, features_BTCHW: torch.Tensor) -> torch.Tensor:
        """Return the state after each frame, shape (batch, time, channel, height, width).

        Parameters
        ----------
        features_BTCHW : Tensor, shape (batch, time, channel, height, width)
            In time order; a state depends on no later frame.
        """
        n_trials, n_frames, _, height, width = features_BTCHW.shape
        inputs_BTCHW = self._convolve_inputs(features_BTCHW.flatten(0, 1)).unflatten(0, (n_trials, n_frames))
        # One convolution for both gates.
        gates_weight, gates_bias = _join(self.update_hidden, self.reset_hidden)
        # In 32 bits at least, also where convolutions compute with fewer: a state is a sum over many frames.
        dtype = torch.promote_types(features_BTCHW.dtype, torch.float32)
        state_BCHW = features_BTCHW.new_zeros((n_trials, self.n_out, height, width), dtype=dtype)
        states = []
        for input_BCHW in inputs_BTCHW.unbind(1):
            of_gates_BCHW, of_candidate_BCHW = input_BCHW.split((2 * self.n_out, self.n_out), dim=1)
            gates_BCHW = of_gates_BCHW + functional.conv2d(state_BCHW, gates_weight, gates_bias, padding=self.padding)
            update_BCHW, reset_BCHW = torch.sigmoid(gates_BCHW).chunk(2, dim=1)
            hidden = self.candidate_hidden
            candidate_BCHW = torch.tanh(
                of_candidate_BCHW
                + functional.conv2d(reset_BCHW * state_BCHW, hidden.weight, hidden.bias, padding=self.padding)
            )
            state_BCHW = state_BCHW + update_BCHW * (candidate_BCHW - state_BCHW)
            states.append(state_BCHW)
        return torch.stack(states, dim=1)

    def _convolve_inputs(self, features_FCHW: torch.Tensor) -> torch.Tensor:
        """Return what the inputs of all frames add to update, reset and candidate: they do not wait for the state."""
        weight, bias = _join(self.update_input, self.reset_input, self.candidate_input)
        return functional.conv2d(features_FCHW, weight, bias, padding=self.padding)


def _join(*convolutions: nn.Conv2d) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of one convolution that gives the channels of several, one after the other."""
    weight = torch.cat([convolution.weight for convolution in convolutions])
    return weight, torch.cat([cast(torch.Tensor, convolution.bias) for convolution in convolutions])
