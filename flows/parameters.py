"""Types of the flows' parameters: Prefect's forms check what is entered by them.

A flow's descriptions stay in its own docstring, where Prefect reads them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from sensorium_data.scoring import LEAST_RESAMPLES

__all__ = [
    "Count",
    "Fold",
    "Folds",
    "Jobs",
    "MinReliability",
    "NTrials",
    "Names",
    "PredictionPrecision",
    "Resamples",
    "Seed",
    "Seeds",
    "SeveralNames",
    "TrustCode",
]

#: Of sessions, runs, tiers or predictions stores.
Names = Annotated[list[str], Field(min_length=1)]
SeveralNames = Annotated[list[str], Field(min_length=2)]
Jobs = Annotated[int | None, Field(ge=1, le=256)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Seeds = Annotated[int | None, Field(ge=1)]
Resamples = Annotated[int, Field(ge=LEAST_RESAMPLES)]
Folds = Annotated[int | None, Field(ge=2)]
Fold = Annotated[int | None, Field(ge=0)]
NTrials = Annotated[int | None, Field(ge=1)]
MinReliability = Annotated[float | None, Field(ge=0, lt=1)]
PredictionPrecision = Literal["32-true", "bf16-mixed"]
#: Any code that runs keep, or that of some digests.
TrustCode = bool | list[str]
