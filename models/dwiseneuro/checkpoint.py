"""Weights of DwiseNeuro as its reference saves them with argus: a dictionary of ``nn_state_dict`` and ``params``.

Readouts are numbered. The numbers of neurons are among the parameters: a readout has an even number of rows, so that
the weights leave open whether the last one is a neuron's.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

import torch

from models.checkpoints import CheckpointLayout, Structure, WeightName, list_norm, shape_of
from models.dwiseneuro.config import DwiseNeuroConfig
from models.dwiseneuro.positions import list_frequencies
from models.layouts import find_layout
from models.model_config import ModelConfig
from sensorium_data.counting import count_things, name_some
from sensorium_data.errors import RunError, UsageError
from sensorium_data.sessions import SESSIONS, Release, find_session

__all__ = ["CHECKPOINTS", "SESSION_ORDER"]

#: Full names of the sessions in the order of the readouts: the new ones, then the old ones.
SESSION_ORDER = tuple(
    session.name
    for release in (Release.NEW, Release.OLD)
    for session in sorted(SESSIONS.values(), key=lambda session: session.alias)
    if session.release is release
)
_BLOCK = re.compile(r"core\.blocks\.(\d{1,9})\.")
_LAYER = re.compile(r"cortex\.layers\.(\d{1,9})\.")
_READOUT = re.compile(r"readouts\.(\d{1,9})\.")
_FREQUENCIES = re.compile(r"core\.blocks\.\d+\.inv_freq")
#: A file that has more lacks all weights of those between.
_MOST_LAYERS = 100
#: Channels of the video.
_N_INPUTS = len(find_layout("dwiseneuro").channels)
#: Here, and in the file: each has a convolution and a batch norm.
_CONVOLUTIONS = (
    ("expand", "conv_pw"),
    ("space", "spat_covn_dw"),
    ("time", "temp_covn_dw"),
)


class _Layout(CheckpointLayout):
    """The one model of the format.

    Parameters
    ----------
    n_neurons : sequence of int, optional
        Of each readout, as the file's parameters tell them.
    """

    kind = "dwiseneuro"
    title = "DwiseNeuro"
    untold = ("strides", "softplus_beta")

    def __init__(self, n_neurons: Sequence[int] | None = None) -> None:
        self._n_neurons = n_neurons

    def recognizes(self, state: Mapping[str, torch.Tensor]) -> bool:
        return "core.stem.0.weight" in state

    def takes(self, config: ModelConfig) -> bool:
        return config.kind == self.kind

    def with_parameters(self, beside: Mapping[str, object]) -> _Layout:
        return _Layout(_read_n_neurons(beside))

    def wrap(self, weights: Mapping[str, torch.Tensor], n_neurons: Mapping[str, int]) -> dict[str, object]:
        known = {"readout_outputs": tuple(n_neurons[name] for name in SESSION_ORDER if name in n_neurons)}
        # What of the reference's parameters is the same in all its files.
        parameters = {
            "nn_module": ("dwiseneuro", known),
            "frame_stack": {"size": 16, "step": 2, "position": "last"},
        }
        return {"model_name": "MouseModel", "params": parameters, "nn_state_dict": dict(weights)}

    def read_structure(self, state: Mapping[str, torch.Tensor]) -> Structure:
        n_blocks, n_readouts = _count(_BLOCK, state) // 2, _count(_READOUT, state)
        if n_readouts > len(SESSION_ORDER):
            raise RunError(
                "more readouts than there are sessions", found=n_readouts, expected=f"up to {len(SESSION_ORDER)}"
            )
        sessions = SESSION_ORDER[: max(1, n_readouts)]
        names = {name: name for name in sessions}
        return Structure(max(1, n_blocks), names, n_later_layers=max(1, _count(_LAYER, state)))

    def structure_of(self, config: ModelConfig, sessions: Mapping[str, str]) -> Structure:
        known = cast(DwiseNeuroConfig, config)
        order = sorted(sessions.items(), key=lambda item: _find_place(item[1]))
        names = tuple(name for _, name in order)
        if names != SESSION_ORDER[: len(names)]:
            raise _refuse_sessions(names)
        return Structure(len(known.strides), {name: name for name in names}, n_later_layers=len(known.cortex_channels))

    def list_weights(self, structure: Structure) -> Iterator[WeightName]:
        yield WeightName("core.stem.convolution.weight", "core.stem.0.weight")
        yield from list_norm("core.stem.norm", "core.stem.1.bn")
        for block in range(structure.n_layers):
            here, there = f"core.blocks.{block}", f"core.blocks.{2 * block + 1}"
            for name, file_name in _CONVOLUTIONS:
                yield WeightName(f"{here}.{name}.weight", f"{there}.{file_name}.0.weight")
                yield from list_norm(f"{here}.{name}_norm", f"{there}.{file_name}.1.bn")
            for name, file_name in (("squeeze", "conv_reduce"), ("excite", "conv_expand")):
                for part in ("weight", "bias"):
                    yield WeightName(f"{here}.{name}.{part}", f"{there}.se.{file_name}.{part}")
            yield WeightName(f"{here}.project.weight", f"{there}.conv_pwl.0.weight")
            yield from list_norm(f"{here}.project_norm", f"{there}.conv_pwl.1.bn")
            yield from list_norm(f"{here}.shortcut_norm", f"{there}.bn_sc.bn")
        for layer in range(structure.n_later_layers):
            here, there = f"core.cortex.{layer}", f"cortex.layers.{layer}"
            yield WeightName(f"{here}.convolution.weight", f"{there}.conv.weight")
            yield from list_norm(f"{here}.norm", f"{there}.bn.bn")
            yield from list_norm(f"{here}.shortcut_norm", f"{there}.bn_sc.bn")
        for key, session in structure.sessions.items():
            for part in ("weight", "bias"):
                yield WeightName(f"readouts.{session}.{part}", f"readouts.{_find_place(key)}.layer.1.{part}")

    def is_constant(self, name: str) -> bool:
        return _FREQUENCIES.fullmatch(name) is not None

    def make_constants(self, config: ModelConfig) -> dict[str, torch.Tensor]:
        channels = cast(DwiseNeuroConfig, config).channels[:-1]
        return {f"core.blocks.{2 * number}.inv_freq": list_frequencies(n) for number, n in enumerate(channels)}

    def read_settings(self, state: Mapping[str, torch.Tensor], structure: Structure) -> dict[str, Any]:
        blocks = [f"core.blocks.{2 * number + 1}" for number in range(structure.n_layers)]
        layers = [f"cortex.layers.{number}" for number in range(structure.n_later_layers)]
        stem = shape_of(state, "core.stem.0.weight", 5)
        if stem[1] != _N_INPUTS:
            raise RunError(
                "the model takes another video than DwiseNeuro's",
                found=f"{stem[1]} channels",
                expected=f"{_N_INPUTS}: video, pupil dilation, running speed, and the pupil's x and y",
            )
        expanded = shape_of(state, f"{blocks[0]}.conv_pw.0.weight", 5)
        cortex = [shape_of(state, f"{layer}.conv.weight", 3) for layer in layers]
        ends = [shape_of(state, f"{block}.conv_pwl.0.weight", 5)[0] for block in blocks]
        return {
            "model.channels": (stem[0], *ends),
            "model.expansion": _divide(expanded[0], expanded[1]),
            "model.spatial_kernel": shape_of(state, f"{blocks[0]}.spat_covn_dw.0.weight", 5)[3],
            "model.temporal_kernel": shape_of(state, f"{blocks[0]}.temp_covn_dw.0.weight", 5)[2],
            "model.squeeze_reduction": _read_reduction(
                [shape_of(state, f"{block}.se.conv_reduce.weight", 5)[:2] for block in blocks]
            ),
            "model.cortex_channels": tuple(shape[0] for shape in cortex),
            "model.cortex_groups": _divide(ends[-1], cortex[0][1]),
            "input_layout": "dwiseneuro",
        }

    def read_neurons(self, state: Mapping[str, torch.Tensor], session: str) -> tuple[int, torch.Tensor | None]:
        place = _find_place(session)
        n_rows = shape_of(state, f"readouts.{place}.layer.1.weight", 3)[0]
        if self._n_neurons is None:
            raise RunError(
                "the file does not tell the numbers of neurons",
                found="no readout_outputs of params.nn_module",
                expected="the dictionary that argus saves, with nn_state_dict and params",
                remedy="give the whole file, and not the state_dict alone",
            )
        if place >= len(self._n_neurons) or not self._n_neurons[place] <= n_rows:
            raise RunError(
                f"the parameters and the weights of readout {place} do not fit each other",
                found=f"readout_outputs {', '.join(map(str, self._n_neurons))}; {n_rows} rows",
                expected="a number for each readout, of as many neurons as rows or one less",
            )
        return self._n_neurons[place], None


def _count(pattern: re.Pattern[str], state: Mapping[str, torch.Tensor]) -> int:
    """Return how many numbered parts there are, by the last one's number."""
    numbers = [int(match[1]) for name in state if (match := pattern.match(name))]
    return min(max(numbers, default=-1), 2 * _MOST_LAYERS) + 1


def _find_place(session: str) -> int:
    """Return the number of a session's readout; behind all others where the format has none of it."""
    return SESSION_ORDER.index(session) if session in SESSION_ORDER else len(SESSION_ORDER)


def _refuse_sessions(names: Collection[str]) -> UsageError:
    """Return the error on sessions that are not the first ones of the readouts' order, or none of it."""
    foreign = [name for name in names if name not in SESSION_ORDER]
    if foreign:
        return UsageError(
            "the format argus has only the sessions of the competition",
            found=f"{count_things(len(foreign), 'other session')}: {name_some(foreign)}",
            expected="sessions A to J",
        )
    last = max(SESSION_ORDER.index(name) for name in names)
    left_out = [name for name in SESSION_ORDER[:last] if name not in names]
    return UsageError(
        "the format argus numbers the sessions from F to J, then from A to E, and cannot leave one out",
        found=f"{count_things(len(names), 'session')} ({_name_aliases(names)}), without {_name_aliases(left_out)}",
        remedy="export a run of these sessions too",
    )


def _name_aliases(names: Collection[str]) -> str:
    return name_some([find_session(name).alias for name in names], most=len(SESSION_ORDER))


def _divide(n_all: int, n_part: int) -> int:
    return n_all // max(1, n_part)


def _read_reduction(squeezes: Sequence[Sequence[int]]) -> int:
    """Return the largest divisor that makes each block's squeezed channels, rounded down but at least one, of its own.

    Parameters
    ----------
    squeezes : sequence of (int, int)
        Of each block, how many channels are squeezed into, and how many there are.
    """
    largest = [_divide(n_hidden, n_squeezed) for n_squeezed, n_hidden in squeezes if n_squeezed > 1]
    return max(1, min(largest, default=max(n_hidden for _, n_hidden in squeezes)))


def _read_n_neurons(beside: Mapping[str, object]) -> tuple[int, ...] | None:
    """Return ``params.nn_module[1].readout_outputs``; None where there is no such thing."""
    parameters = beside.get("params")
    module = parameters.get("nn_module") if isinstance(parameters, Mapping) else None
    known = module[1] if isinstance(module, tuple | list) and len(module) > 1 else None
    numbers = known.get("readout_outputs") if isinstance(known, Mapping) else None
    if not isinstance(numbers, tuple | list) or not 0 < len(numbers) <= len(SESSION_ORDER):
        return None
    if not all(isinstance(number, int) and not isinstance(number, bool) and number > 0 for number in numbers):
        return None
    return tuple(numbers)


#: By the name of the format.
CHECKPOINTS: Mapping[str, tuple[CheckpointLayout, ...]] = MappingProxyType({"argus": (_Layout(),)})
