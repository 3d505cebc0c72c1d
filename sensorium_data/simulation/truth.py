"""What a simulation knows and its archives hide: expected responses, withheld responses, movies, receptive fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.abc.store import Store as ZarrStore

from sensorium_data.errors import StoreError
from sensorium_data.files import LocalObjects, Objects, open_objects, parse_json
from sensorium_data.schema import COORDINATES, FRAME_RATE_HZ, VARIABLES, Field
from sensorium_data.sessions import SESSIONS, Session, find_session
from sensorium_data.simulation.neurons import KINDS
from sensorium_data.simulation.plan import SHOWN_RATE_HZ, SessionPlan
from sensorium_data.simulation.population import Population
from sensorium_data.store import METADATA_KEY, SessionTemplate, consolidate

__all__ = ["SIMULATE_AGAIN", "TRUTH_FOLDER", "TruthWriter", "is_whole_truth", "open_truth", "publish_truth_root"]

#: Where a simulation's truth lies, beside its archives.
TRUTH_FOLDER = "truth"
#: The remedy for a truth that is damaged.
SIMULATE_AGAIN = "remove the session's truth, and simulate again with the same arguments"

_RATES = replace(VARIABLES["responses"], name="rates", long_name="expected activity, given stimulus and behavior")
_NEURON_FIELDS = tuple(
    Field(name, ("neuron",), dtype, long_name, units)
    for name, dtype, long_name, units in (
        (
            "kind",
            "str",
            "spot: a place gets lighter or darker; grating: an edge or bar; energy: whatever its phase",
            "",
        ),
        ("rf_x", "float64", "center of the receptive field, from the video's left", "pixel"),
        ("rf_y", "float64", "center of the receptive field, from the video's top", "pixel"),
        ("rf_sigma", "float64", "width of the receptive field's envelope", "pixel"),
        ("rf_aspect", "float64", "by how much the envelope is narrower along the orientation than across it", ""),
        ("rf_period", "float64", "period of the receptive field's grating", "pixel"),
        ("rf_orientation", "float64", "direction along which the grating varies", "radian"),
        ("rf_phase", "float64", "phase of the grating at the center", "radian"),
        ("direction_weight", "float64", "preference for movement along the orientation, or against it if negative", ""),
        ("kernel", "int64", "index of the temporal kernel", ""),
        ("event_rate", "float64", "mean number of events a scan of 1/8 s in natural movies", ""),
        ("active_share", "float64", "share of natural movies' time spent above threshold", ""),
        ("spontaneous_share", "float64", "share of the activity in natural movies that no video changes", ""),
        ("amplitude", "float64", "mean size of an event", "arbitrary units"),
        ("running_gain", "float64", "relative change of activity with running", ""),
        ("dilation_gain", "float64", "relative change of activity with pupil dilation", ""),
    )
)
_TRIAL_FIELDS = (
    Field("presentation", ("trial",), "int64", "place among all clips that the mouse saw", ""),
    Field("onset", ("trial",), "float64", "time from the start of the session", "second"),
)

_NODES = "|".join(
    sorted({*VARIABLES, *COORDINATES, _RATES.name, *(field.name for field in (*_NEURON_FIELDS, *_TRIAL_FIELDS))})
)
# What the keys of a session's truth match.
_OWN_KEYS = re.compile(rf"(?:(?:{_NODES})/)?{re.escape(METADATA_KEY)}|(?:{_NODES})/c(?:/\d+)*")


class TruthWriter:
    """Writes the truth of one session, trial by trial and from many threads.

    Parameters
    ----------
    root : Path
        The truth's root; the session becomes a group under its full name, visible by :meth:`publish`.
    plan : SessionPlan
        The session's trials.
    population : Population
        Its neurons.
    """

    def __init__(self, root: Path, plan: SessionPlan, population: Population) -> None:
        self._plan = plan
        self._neurons = population.neurons
        self._population = population
        self._objects = LocalObjects(root).child(plan.session.name)
        self._objects.delete_keys([key for key in self._objects.keys() or () if _OWN_KEYS.fullmatch(key)])
        self._template = SessionTemplate(
            {"trial": len(plan.trials), "neuron": len(self._neurons), "time": plan.session.n_frames_padded}
        )
        for field in (VARIABLES["responses"], _RATES):
            self._template.declare_array(field.name, field)

    def write_trial(self, position: int, responses: np.ndarray, rates: np.ndarray) -> None:
        """Write one trial: two arrays (neuron, time) over the whole padded length, raw units."""
        for name, block in (("responses", responses), ("rates", rates)):
            self._objects.write(*self._template.encode_block(name, position, block))

    def publish(self, attributes: Mapping[str, Any]) -> None:
        """Write coordinates and metadata; from then on the session can be opened."""
        coordinates = self._compose_coordinates()
        for name, values in coordinates.items():
            self._template.encode_array(name, COORDINATES[name], values)
        for field in _NEURON_FIELDS:
            owner = self._neurons if hasattr(self._neurons, field.name) else self._population
            values = getattr(owner, field.name)
            if field.name == "kind":
                values = [KINDS[kind] for kind in values]
            self._template.encode_array(field.name, field, values)
        trials = self._plan.trials
        for field, values in zip(
            _TRIAL_FIELDS,
            ([t.presentation for t in trials], [t.first_frame / SHOWN_RATE_HZ for t in trials]),
            strict=True,
        ):
            self._template.encode_array(field.name, field, values)
        labels = " ".join(
            [
                *(name for name, field in COORDINATES.items() if name in coordinates and (name,) != field.dims),
                *(field.name for field in _TRIAL_FIELDS),
            ]
        )
        session = self._plan.session
        self._template.compose_group(
            "",
            {
                "title": f"Truth of the simulated session {session.alias}",
                "session": session.name,
                "coordinates": labels,
                **attributes,
            },
        )
        objects = self._template.take_objects()
        metadata = objects.pop(METADATA_KEY)
        for key, data in objects.items():
            self._objects.write(key, data)
        self._objects.write(METADATA_KEY, metadata)

    def _compose_coordinates(self) -> dict[str, Any]:
        trials = self._plan.trials
        x, y, z = self._neurons.positions.T.astype(np.float64)
        return {
            "trial": [trial.trial for trial in trials],
            "tier": [str(trial.tier) for trial in trials],
            "n_frames": [0 if trial.is_broken else trial.n_frames for trial in trials],
            "movie": [trial.movie.id for trial in trials],
            "stimulus": [str(trial.movie.stimulus) for trial in trials],
            "responses_withheld": [trial.is_withheld for trial in trials],
            "valid": [not trial.is_broken for trial in trials],
            "time": np.arange(self._plan.session.n_frames_padded) / FRAME_RATE_HZ,
            "neuron": self._neurons.unit_ids,
            "x": x,
            "y": y,
            "z": z,
        }


def publish_truth_root(root: Path) -> None:
    """Write the root group's metadata, which list the sessions and carry all their arrays'."""
    objects = LocalObjects(root)
    nodes: dict[str, Mapping[str, Any]] = {}
    published = []
    for name in SESSIONS:
        if not objects.exists(f"{name}/{METADATA_KEY}"):
            continue
        metadata = parse_json(objects.read(f"{name}/{METADATA_KEY}"))
        below = metadata.pop("consolidated_metadata")["metadata"]
        published.append(name)
        nodes[name] = metadata
        nodes.update({f"{name}/{path}": node for path, node in below.items()})
    attributes = {"title": "Truth of simulated SENSORIUM 2023 sessions", "sessions": published}
    objects.write(METADATA_KEY, consolidate(attributes, nodes))


def open_truth(directory_or_url: str | Path, session: str | Session) -> xr.Dataset:
    """Open what a simulation knows about one of its sessions.

    Parameters
    ----------
    directory_or_url : str or path
        Where the simulated archives are, or the folder ``truth`` there; a path or any fsspec URL.
    session : str or Session
        Alias or full name.

    Returns
    -------
    xarray.Dataset
        Over dask, a chunk a trial: ``responses`` (trial, neuron, time), raw units, with nothing withheld, and
        ``rates``, their expectation given stimulus and behavior, both NaN past ``n_frames``; the
        coordinates of a session store; and for each neuron its receptive field.

    Raises
    ------
    StoreError
        If there is no truth, or this session is not in it.
    UnknownNameError
        If no session has this name.

    Examples
    --------
    >>> truth = open_truth("simulated", "F")  # doctest: +SKIP
    >>> truth.rates.sel(trial=truth.tier == "oracle")  # doctest: +SKIP
    """
    found = session if isinstance(session, Session) else find_session(session)
    given = open_objects(str(directory_or_url))
    roots: tuple[Objects, ...] = (given, given.child(TRUTH_FOLDER))
    for root in roots:
        if root.exists(f"{found.name}/{METADATA_KEY}"):
            try:
                store = root.child(found.name).zarr_store()
                dataset: xr.Dataset = xr.open_zarr(store, consolidated=True, chunks=None)
                if not {_RATES.name, "responses"} <= dataset.variables.keys():
                    raise _no_truth(directory_or_url)
                lost = _list_lost(store)
                if lost:
                    raise ValueError(f"chunks are missing of {', '.join(lost)}")
                chunked: xr.Dataset = dataset.chunk({dim: 1 if dim == "trial" else -1 for dim in dataset.dims})
                # Chunking takes coordinates along; they are small and wanted at once.
                return chunked.assign_coords({name: coordinate.load() for name, coordinate in dataset.coords.items()})
            except (ValueError, KeyError, TypeError) as error:
                raise StoreError(
                    "the truth of the simulation is damaged",
                    session=found,
                    path=root.locate(found.name),
                    found=error,
                    remedy=SIMULATE_AGAIN,
                ) from error
    if not any(root.exists(METADATA_KEY) for root in roots):
        raise _no_truth(directory_or_url)
    raise StoreError(
        "the session was not simulated", session=found, path=directory_or_url, remedy="choose one that was"
    )


def is_whole_truth(root: Path, session: Session) -> bool:
    """Whether the truth of a session is there, and no chunk of it is lost."""
    try:
        return not _list_lost(LocalObjects(root).child(session.name).zarr_store())
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def _no_truth(path: str | Path) -> StoreError:
    return StoreError(
        "no truth of a simulation here",
        path=path,
        remedy="give the folder that `sensorium simulate` wrote, or its folder truth",
    )


def _list_lost(store: ZarrStore) -> list[str]:
    """Return the arrays of a group that lack chunks, which would read as NaN; none where nothing can be listed."""
    if not store.supports_listing:
        return []
    arrays = zarr.open_group(store, mode="r").arrays()
    return sorted(name for name, array in arrays if array.nchunks_initialized < array.nchunks)
