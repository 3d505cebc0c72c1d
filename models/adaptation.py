"""Any torch module as a model: a core that gets a readout for each session, or a module of each session's own.

Shape suffixes: B trials of a batch, C channels, N neurons, T frames, H height, W width, F frames of all trials (B × T),
2 the axes x and y.
"""

from __future__ import annotations

import copy
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, cast, get_type_hints

import torch
from pydantic import Field, PositiveFloat, create_model
from pydantic.errors import PydanticUserError
from torch import nn

from models.core_readout_model import CoreMaps, CoreReadoutModel
from models.model_config import ModelConfig
from models.neurons import NeuronInfo
from models.readout_settings import ReadoutSettings
from models.response_model import ResponseModel, require_penalty
from sensorium_data.errors import UnknownNameError, UsageError
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH

__all__ = ["CoreConfig", "CoreModel", "adapt"]

#: What a module is made with that is no setting.
_GIVEN = frozenset({"n_input_channels", "n_neurons"})
# One of them is longer than what a core loses.
_PROBED_FRAMES = (64, 512)
# Then a longer one: what follows the frames, and nothing else, is as much longer.
_MORE_FRAMES = 17


class CoreConfig(ReadoutSettings):
    """Settings of the readouts and the shifters that :class:`CoreModel` adds to a core.

    They start from narrower places and from the mean responses, with which a model learns sooner.
    """

    readout_init_sigma: PositiveFloat = Field(
        default=0.6,
        description="Bound of the factors of each neuron's position covariance at first; the frame spans -1 to 1.",
    )
    starts_at_mean_response: bool = Field(
        default=True, description="Start from predictions of the mean response, instead of about 1 above it."
    )


class CoreModel(CoreReadoutModel):
    """A core of one's own, with a readout and a shifter for each session.

    A class that derives from this one has a :meth:`make_core`, and a ``config_class`` that derives from
    :class:`CoreConfig`. Responses are ELU + 1 of what is read out. The size of the core's output and the frames that
    it loses are found by running it on a video without content.

    Parameters
    ----------
    config : CoreConfig
        The settings.
    neurons : mapping of str to NeuronInfo
        By full session name.
    n_input_channels : int
        Of the video.

    Raises
    ------
    UsageError
        If the core does not return a feature map for each frame.
    """

    config_class: ClassVar[type[ModelConfig]] = CoreConfig
    has_shifter: ClassVar[bool] = True

    def __init__(self, config: CoreConfig, neurons: Mapping[str, NeuronInfo], *, n_input_channels: int = 3) -> None:
        super().__init__(config, neurons, n_input_channels=n_input_channels)
        if not self.has_shifter:
            self.shifters = nn.ModuleDict()

    def describe_maps(self, n_input_channels: int, frame_size: tuple[int, int]) -> CoreMaps:
        """Return what maps the core makes of a video without content."""
        return _probe(self.core, n_input_channels)


def adapt(
    make: Callable[..., nn.Module],
    *,
    shifter: bool = True,
    regularizer: Callable[[nn.Module], torch.Tensor] | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> type[ResponseModel]:
    """Return a model's class made of a plain torch module.

    Parameters
    ----------
    make : callable
        The module's class, or a function that returns the module. What it takes, each with a default, become settings
        of the model: ``--set model.hidden=32``. Two names are given what they say: ``n_input_channels``, the number of
        the video's channels, and ``n_neurons``.

        Without ``n_neurons``, the module is a core that all sessions share: from videos (batch, channel, time, height,
        width) to a feature map of the same axes for all frames or the last ones. Each session gets a Gaussian readout.
        With ``n_neurons``, each session has a module of its own, which returns responses (batch, neuron, time), not
        negative.
    shifter : bool
        Shift each frame of a core's feature map by the position of the pupil.
    regularizer : callable, optional
        Takes the module and returns the penalty on its weights, a scalar.
    recipe : mapping, optional
        Settings of :class:`models.config.TrainingConfig` to be trained with instead of the defaults; by default what
        the module's class has under this name.

    Raises
    ------
    UsageError
        If something that ``make`` takes has no default, or is of a type that no setting has.

    Examples
    --------
    >>> def make_core(n_input_channels: int = 3, hidden: int = 8):
    ...     return nn.Conv3d(n_input_channels, hidden, (1, 5, 5))
    >>> adapt(make_core).config_class().hidden
    8
    """
    settings, given = _read_settings(make)
    base: type[ResponseModel] = _SessionModules if "n_neurons" in given else CoreModel
    name = getattr(make, "__name__", "Model")
    try:
        config_class = create_model(f"{name}Config", __base__=base.config_class, **settings)
    except (PydanticUserError, TypeError, NameError) as error:
        raise UsageError(
            f"the settings of {name} cannot be read off what it takes",
            found=str(error).splitlines()[0],
            expected="numbers, texts, true or false, or tuples of these",
        ) from error
    body = {
        "__doc__": make.__doc__,
        "__module__": make.__module__,
        "config_class": config_class,
        # Whoever makes a preset of it says what is wrong with one that is no mapping.
        "recipe": getattr(make, "recipe", {}) if recipe is None else recipe,
        "has_shifter": shifter,
        "_make": staticmethod(make),
        "_settings": frozenset(settings),
        "_given": given,
        "_regularizer": None if regularizer is None else staticmethod(regularizer),
    }
    adapted: type[ResponseModel] = type(name, (_AdaptedMixin, base), body)
    return adapted


class _AdaptedMixin:
    """Makes the module, and asks the regularizer that it was given."""

    _make: ClassVar[Callable[..., nn.Module]]
    _settings: ClassVar[frozenset[str]]
    _given: ClassVar[frozenset[str]]
    _regularizer: ClassVar[Callable[[nn.Module], torch.Tensor] | None]

    def make_core(self, n_input_channels: int) -> nn.Module:
        return self.make_module(n_input_channels=n_input_channels)

    def make_module(self, **given: int) -> nn.Module:
        settings = {name: getattr(self.config, name) for name in self._settings}  # type: ignore[attr-defined]
        module = self._make(**settings, **{name: value for name, value in given.items() if name in self._given})
        if not isinstance(module, nn.Module):
            raise UsageError(
                "this makes no torch module",
                found=f"{type(self).__name__} returns a {type(module).__name__}",
                expected="a torch.nn.Module",
            )
        return module

    def regularizer(self) -> torch.Tensor:
        core: nn.Module = self.core  # type: ignore[attr-defined]
        if self._regularizer is None:
            return super().regularizer()  # type: ignore[misc,no-any-return]
        modules = core.children() if isinstance(core, nn.ModuleDict) else [core]
        return torch.stack([require_penalty(self._regularizer(module)) for module in modules]).sum()


class _SessionModules(ResponseModel):
    """A module for each session, from videos to responses."""

    def __init__(self, config: ModelConfig, neurons: Mapping[str, NeuronInfo], *, n_input_channels: int = 3) -> None:
        super().__init__()
        self.config = config
        self.core = nn.ModuleDict(
            {
                session: self.make_module(n_input_channels=n_input_channels, n_neurons=info.n_neurons)  # type: ignore[attr-defined]
                for session, info in neurons.items()
            }
        )
        lost = {session: _probe_responses(module, n_input_channels) for session, module in self.core.items()}
        self.n_frames_lost = next(iter(lost.values()))

    def predict_rows(
        self, videos_BCTHW: torch.Tensor, pupil_center_B2T: torch.Tensor, wanted: Sequence[tuple[str, slice]]
    ) -> list[torch.Tensor]:
        """Predict several sessions' responses to parts of one batch, as :class:`ResponseModel` says."""
        modules = cast(nn.ModuleDict, self.core)
        for session, _ in wanted:
            if session not in modules:
                raise UnknownNameError.of("session of the model", session, modules)
        return [modules[session](videos_BCTHW[rows]) for session, rows in wanted]


def _read_settings(make: Callable[..., nn.Module]) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the fields of a config for what a callable takes, and which of the given values it takes."""
    name = getattr(make, "__name__", repr(make))
    initializer = make.__init__ if isinstance(make, type) else make  # type: ignore[misc]
    try:
        types = get_type_hints(initializer)
    except (NameError, TypeError):
        types = {}
    descriptions = _read_descriptions(make)
    fields: dict[str, Any] = {}
    given = set()
    for parameter in inspect.signature(make).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name in _GIVEN:
            given.add(parameter.name)
            continue
        is_taken = parameter.name in ModelConfig.model_fields or hasattr(ModelConfig, parameter.name)
        if parameter.default is parameter.empty or parameter.kind is parameter.POSITIONAL_ONLY or is_taken:
            raise UsageError(
                f"{name} takes {parameter.name}, which is no setting",
                found="the name of something that all models have" if is_taken else "no default",
                expected=f"a default for each setting; {' and '.join(sorted(_GIVEN))} are given",
                remedy=f"write {parameter.name}=… with the value that it has by default"
                if not is_taken
                else "give it another name",
            )
        annotation = types.get(parameter.name, type(parameter.default))
        description = descriptions.get(parameter.name, f"{parameter.name} of {name}.")
        fields[parameter.name] = (annotation, Field(default=parameter.default, description=description))
    return fields, frozenset(given)


def _read_descriptions(make: Callable[..., nn.Module]) -> dict[str, str]:
    """Return what a NumPy docstring says of each parameter, in a line each."""
    text = inspect.getdoc(make) or ""
    found = re.findall(r"^(\w+(?:, \w+)*) :[^\n]*\n((?:[ \t]+\S[^\n]*\n?)+)", text, re.MULTILINE)
    return {name: " ".join(lines.split()) for names, lines in found for name in names.split(", ")}


def _probe(core: nn.Module, n_input_channels: int) -> CoreMaps:
    """Return what maps a core makes of a video without content."""
    n_frames, shape, longer = _probe_shape(core, n_input_channels)
    is_map = len(shape) == 5 and shape[0] == 1 and 0 < shape[2] <= n_frames and min(shape) > 0
    if not is_map or longer not in (None, (*shape[:2], shape[2] + _MORE_FRAMES, *shape[3:])):
        raise UsageError(
            "the core does not return a feature map for each frame",
            found=_describe_shapes(n_input_channels, n_frames, shape, longer),
            expected=f"(1, channels, up to {n_frames} frames, height, width)",
            remedy="return five axes in this order, or take n_neurons and return responses (batch, neuron, time)",
        )
    return CoreMaps(n_channels=shape[1], size=(shape[3], shape[4]), n_frames_lost=n_frames - shape[2])


def _probe_responses(module: nn.Module, n_input_channels: int) -> int:
    """Return how many frames a module loses; what else is wrong with its output is found at the first batch."""
    n_frames, shape, longer = _probe_shape(module, n_input_channels)
    if len(shape) == 3 and longer not in (None, (*shape[:2], shape[2] + _MORE_FRAMES)):
        raise UsageError(
            "the module does not return a response for each frame",
            found=_describe_shapes(n_input_channels, n_frames, shape, longer),
            expected=f"(1, neurons, up to {n_frames} frames)",
            remedy="return the axes in this order: batch, neuron, time",
        )
    return max(0, n_frames - shape[-1]) if shape else 0


def _describe_shapes(
    n_input_channels: int, n_frames: int, shape: tuple[int, ...], longer: tuple[int, ...] | None
) -> str:
    found = f"shape {shape} of a video of shape {(1, n_input_channels, n_frames, FRAME_HEIGHT, FRAME_WIDTH)}"
    return found if longer is None else f"{found}, and {longer} of one with {_MORE_FRAMES} frames more"


def _probe_shape(module: nn.Module, n_input_channels: int) -> tuple[int, tuple[int, ...], tuple[int, ...] | None]:
    """Return the number of frames of a video, the shape of what a module makes of it, and the same of a longer video.

    The last is None where the module takes no longer one.
    """
    _require_one_argument(module)
    for n_frames in _PROBED_FRAMES:
        video = (1, n_input_channels, n_frames, FRAME_HEIGHT, FRAME_WIDTH)
        try:
            shape = _run_empty(module, video)
            try:
                return n_frames, shape, _run_empty(module, (*video[:2], n_frames + _MORE_FRAMES, *video[3:]))
            except RuntimeError:
                return n_frames, shape, None
        except RuntimeError:
            # A kernel may be longer than the video.
            if n_frames == _PROBED_FRAMES[-1]:
                raise
    raise AssertionError("unreachable")


def _require_one_argument(module: nn.Module) -> None:
    """Raise a :class:`UsageError` if a module cannot be called with a video alone."""
    try:
        inspect.signature(module.forward).bind(None)
    except TypeError as error:
        raise UsageError(
            f"{type(module).__name__} cannot be called with a video alone",
            found=f"forward{inspect.signature(module.forward)}: {error}",
            expected="forward(videos)",
            remedy="derive a model that needs the pupil's center, too, from models.ResponseModel",
        ) from error
    except ValueError:
        pass  # Compiled code tells no signature.


@torch.no_grad()
def _run_empty(module: nn.Module, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a module's output; its weights, its statistics and the random numbers stay as they are."""
    if any(isinstance(parameter, nn.parameter.UninitializedParameter) for parameter in module.parameters()):
        # Lazy layers get their weights from the first video they see.
        was_training = module.training
        module.eval()(torch.zeros(shape))
        module.train(was_training)
    try:
        probed = copy.deepcopy(module).eval()
    except Exception as error:
        raise UsageError(
            f"{type(module).__name__} cannot be copied, to find out the shape of its output",
            found=f"{type(error).__name__}: {error}",
            remedy="make what cannot be copied (locks, open files) where it is used, and not in the constructor",
        ) from error
    try:
        # Shapes alone, which takes no time.
        output = copy.deepcopy(probed).to("meta")(torch.zeros(shape, device="meta"))
    except (NotImplementedError, RuntimeError):
        with torch.random.fork_rng(devices=[]):
            output = probed(torch.zeros(shape))
    if not isinstance(output, torch.Tensor):
        raise UsageError(
            "the module returns no tensor", found=type(output).__name__, expected="a tensor", remedy="return one"
        )
    return tuple(output.shape)
