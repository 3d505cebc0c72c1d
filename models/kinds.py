"""The models of this package: where each one is.

Names alone, so that nobody imports a model who does not ask for it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

__all__ = ["MODEL_KINDS", "ModelKind"]


@dataclass(frozen=True)
class ModelKind:
    """Where a model's classes are.

    Attributes
    ----------
    folder : str
        The package that offers them, e.g. ``models.factorized3d``. It also offers ``PRESETS``: by name, functions that
        return a :class:`models.config.TrainingConfig`. The first line of a function's docstring describes its preset.
        And ``CHECKPOINTS``: by the name of a format of :mod:`models.checkpoints`, the layouts of the model's weights in
        its files; empty if there are none.
    config, model : str
        Names of the :class:`models.model_config.ModelConfig` and of the :class:`models.response_model.ResponseModel`.
    """

    folder: str
    config: str
    model: str

    def find(self, name: str) -> Any:
        """Return what the folder offers under a name."""
        return getattr(importlib.import_module(self.folder), name)


#: By :attr:`models.model_config.ModelConfig.kind`.
MODEL_KINDS: Mapping[str, ModelKind] = MappingProxyType(
    {
        "dwiseneuro": ModelKind("models.dwiseneuro", config="DwiseNeuroConfig", model="DwiseNeuro"),
        "dynamic-v1fm": ModelKind("models.dynamic_v1fm", config="DynamicV1fmConfig", model="DynamicV1fm"),
        "factorized3d": ModelKind("models.factorized3d", config="Factorized3dConfig", model="Factorized3d"),
        "full3d": ModelKind("models.full3d", config="Full3dConfig", model="Full3d"),
        "gru": ModelKind("models.gru", config="GruConfig", model="Gru"),
        "static2d": ModelKind("models.static2d", config="Static2dConfig", model="Static2d"),
        "vivit": ModelKind("models.vivit", config="VivitConfig", model="Vivit"),
    }
)
