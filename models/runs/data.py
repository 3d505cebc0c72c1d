"""The data of a run: which sessions, with what content and which neurons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pydantic
import xarray as xr

from models.neurons import NeuronInfo
from sensorium_data.errors import RunError, StoreError
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH
from sensorium_data.sessions import Session
from sensorium_data.store import Store, StoreLike, open_store

__all__ = ["RunData", "RunSession", "describe_data", "require_model_inputs", "require_unchanged"]


class RunSession(pydantic.BaseModel):
    """What a run must know of a session to rebuild its model and to tell that it is the same one.

    Attributes
    ----------
    name : str
        Full name.
    digest : str
        Of the session's content in the store it was trained from.
    n_trials : int
        Trials of all tiers.
    unit_ids : tuple of int
        The neurons, in the order of the model's outputs.
    positions_um : tuple of (float, float)
        Each neuron's x and y, in micrometers.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: str
    digest: str
    n_trials: int
    unit_ids: tuple[int, ...]
    positions_um: tuple[tuple[float, float], ...]

    @property
    def neurons(self) -> NeuronInfo:
        """The session's neurons as models are built for them."""
        return NeuronInfo(
            n_neurons=len(self.unit_ids), positions=np.asarray(self.positions_um, dtype=np.float64).reshape(-1, 2)
        )


class RunData(pydantic.BaseModel):
    """The data of a run.

    Attributes
    ----------
    store : str
        Where they were; they may have moved since.
    sessions : tuple of RunSession
        In the order in which they were trained on.
    split : str or None
        :attr:`models.training.batches.Split.digest` of a fold, which depends on which movies are the same.
    teacher : str or None
        Digest of the teacher's weights.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    store: str
    sessions: tuple[RunSession, ...]
    split: str | None = None
    teacher: str | None = None

    @property
    def neurons(self) -> dict[str, NeuronInfo]:
        """Each session's neurons, by full session name."""
        return {session.name: session.neurons for session in self.sessions}


def describe_data(
    store: StoreLike, sessions: Sequence[Session], neurons: Mapping[str, Sequence[int]] | None = None
) -> RunData:
    """Return what a run records of its sessions.

    Parameters
    ----------
    store : Store or path
        The session stores, or the path or URL of their root.
    sessions : sequence of Session
        In the order in which they are trained on.
    neurons : mapping of str to sequence of int, optional
        Unit ids of the neurons that the run predicts, by full session name, in the store's order; by default all.

    Raises
    ------
    StoreError
        If the store or a session cannot be opened.
    RunError
        If the sessions are stored in different precisions, or one has not what models need
        (:func:`require_model_inputs`).
    """
    opened = open_store(store)
    recordings = [(session, _select(opened[session], (neurons or {}).get(session.name))) for session in sessions]
    for session, recording in recordings:
        require_model_inputs(recording, session, opened.url)
    precisions = {session: recording.attrs.get("precision") for session, recording in recordings}
    if len(set(precisions.values())) > 1:
        raise RunError(
            "the sessions are stored in different precisions",
            path=opened.url,
            found=", ".join(f"{session.alias} {precision}" for session, precision in precisions.items()),
            expected="one of them",
            remedy="train on those of one precision, or ingest the others again into another store",
        )
    return RunData(
        store=opened.url,
        sessions=tuple(
            RunSession(
                name=session.name,
                digest=opened.digest(session),
                n_trials=recording.sizes["trial"],
                unit_ids=tuple(recording["neuron"].values.tolist()),
                positions_um=tuple(zip(recording["x"].values.tolist(), recording["y"].values.tolist(), strict=True)),
            )
            for session, recording in recordings
        ),
    )


def require_model_inputs(recording: xr.Dataset, session: Session, store: str) -> None:
    """Check that a recording has what the models here take: frames of 36 × 64, behavior, pupil and cell positions.

    Raises
    ------
    RunError
        If it lacks one of these; the message names it.
    """
    size = recording.sizes["height"], recording.sizes["width"]
    if size != (FRAME_HEIGHT, FRAME_WIDTH):
        raise RunError(
            f"models take frames of {FRAME_HEIGHT} x {FRAME_WIDTH} pixels",
            session=session,
            path=store,
            found="{} x {}".format(*size),
            expected=f"{FRAME_HEIGHT} x {FRAME_WIDTH}",
            remedy=f"convert its archive into another store, with --resize {FRAME_HEIGHT}x{FRAME_WIDTH}",
        )
    needed = {
        "behavior": "the recording has no behavior, which models take as an input",
        "pupil_center": "the recording has no pupil centers, by which models shift the frame",
        "x": "the recording has no cell positions, by which models place neurons",
    }
    for name, problem in needed.items():
        if name not in recording.variables:
            raise RunError(
                problem,
                session=session,
                path=store,
                found=f"{', '.join(map(str, recording.data_vars))}" + (", x, y, z" if "x" in recording.coords else ""),
                expected="videos, responses, behavior, pupil_center, and the coordinates x, y, z",
                remedy="leave the session out, or add what is missing to its files and ingest it again",
            )


def _select(recording: xr.Dataset, unit_ids: Sequence[int] | None) -> xr.Dataset:
    return recording if unit_ids is None else recording.sel(neuron=list(unit_ids))


def require_unchanged(data: RunData) -> None:
    """Check that the sessions of the store are still those that a run was begun with.

    Raises
    ------
    RunError
        If one was replaced, or is gone; the message names it.
    """
    # As it is now, and not as it was when training began.
    store = Store.at(data.store)
    for session in data.sessions:
        try:
            found = store.digest(session.name)
        except StoreError as error:
            raise RunError(
                "the session disappeared from the store during training",
                session=session.name,
                path=data.store,
                found=error.problem,
                remedy="restore it, and start the run again",
            ) from error
        if found != session.digest:
            raise RunError(
                "the session changed in the store during training",
                session=session.name,
                path=data.store,
                found=f"digest {found[:12]}",
                expected=session.digest[:12],
                remedy="train again, on the store as it is now",
            )
