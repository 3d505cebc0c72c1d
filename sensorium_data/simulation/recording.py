"""One simulated session, from its plan to its archive and its truth."""

from __future__ import annotations

import io
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from sensorium_data.progress import Progress
from sensorium_data.schema import FRAME_HEIGHT, FRAME_RATE_HZ, FRAME_WIDTH
from sensorium_data.simulation.behavior import choose_style, simulate_behavior, simulate_pupil_center
from sensorium_data.simulation.frame_statistics import TrialStack
from sensorium_data.simulation.neurons import draw_neurons
from sensorium_data.simulation.plan import SessionPlan, TrialPlan
from sensorium_data.simulation.population import Population
from sensorium_data.simulation.random_streams import random_stream
from sensorium_data.simulation.retina import shift_by_gaze, standardize_luminance
from sensorium_data.simulation.stimuli import render_movie, resample_repeat
from sensorium_data.simulation.truth import TruthWriter
from sensorium_data.simulation.zip_writer import ZipMember, ZipWriter, pack_member

__all__ = ["BehaviorPadding", "RecordedTrial", "Recorder", "record_session"]

#: What behavior holds past the valid frames.
BehaviorPadding = Literal["nan", "finite"]

_MODALITIES = ("videos", "responses", "behavior", "pupil_center")
# Every so many small members one is stored, not deflated.
_STORED_EVERY = 16

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class RecordedTrial:
    """The arrays of a trial over the padded length, features first: what the archive holds and what is true."""

    videos: np.ndarray
    responses: np.ndarray
    behavior: np.ndarray
    pupil_center: np.ndarray
    rates: np.ndarray


def record_session(
    plan: SessionPlan,
    archive_path: Path,
    truth_root: Path,
    *,
    jobs: int,
    zip64: bool,
    behavior_padding: BehaviorPadding,
    n_statistics_frames: int | None,
    simulator_version: int,
    progress: Progress,
) -> None:
    """Write the archive and the truth of one session.

    Parameters
    ----------
    plan : SessionPlan
        Its trials.
    archive_path : Path
        Where the zip goes; it appears there when it is whole.
    truth_root : Path
        Root of the truth.
    jobs : int
        Trials made at the same time.
    zip64 : bool
        Write Zip64 fields whatever the size.
    behavior_padding : {"nan", "finite"}
        What behavior holds past the valid frames: NaN, or the behavior after the stimulus.
    n_statistics_frames : int or None
        Frames that the statistics cover; None for all.
    simulator_version : int
        What the archive says that it was simulated by.
    progress : Progress
        Told after each trial, and after the statistics of each modality.
    """
    session = plan.session
    n_covered = min(n_statistics_frames or session.n_frames_padded, session.n_frames_padded)
    with ExitStack() as stack:
        # The trials are shared among threads already; a product split once more could also round differently.
        stack.enter_context(threadpool_limits(1, user_api="blas"))
        recorder = Recorder(plan, behavior_padding)
        truth = TruthWriter(truth_root, plan, recorder.population)
        stacks = {
            modality: TrialStack(
                archive_path.parent,
                sum(not trial.is_broken for trial in plan.trials),
                n_features,
                n_covered,
            )
            for modality, n_features in zip(
                _MODALITIES, (FRAME_HEIGHT * FRAME_WIDTH, plan.n_neurons, 2, 2), strict=True
            )
        }
        for trial_stack in stacks.values():
            stack.callback(trial_stack.close)
        rows = {trial.trial: row for row, trial in enumerate(t for t in plan.trials if not t.is_broken)}

        def make(position: int) -> list[ZipMember]:
            trial = plan.trials[position]
            recorded = recorder.record(trial)
            truth.write_trial(position, *recorder.know(trial, recorded))
            if not trial.is_broken:
                for modality, trial_stack in stacks.items():
                    trial_stack.write(rows[trial.trial], getattr(recorded, modality)[:, :n_covered])
            return recorder.pack(trial, recorded)

        archive = stack.enter_context(ZipWriter(archive_path, zip64=zip64))
        # Entered last, so that no thread writes any more when the files are closed.
        pool = stack.enter_context(ThreadPoolExecutor(jobs, thread_name_prefix="simulate"))
        for member in _describe_session(plan, recorder.population, simulator_version):
            archive.write(member)
        label = f"simulate {session.alias}"
        for n_done, members in enumerate(_map_ahead(pool, make, range(len(plan.trials)), jobs + 1), start=1):
            for member in members:
                archive.write(member)
            progress(label, n_done, len(plan.trials))
        for n_done, (modality, trial_stack) in enumerate(stacks.items(), start=1):
            for statistic, values in trial_stack.summarize(pool.map).items():
                padded = _pad(values, session.n_frames_padded)
                shaped = padded.reshape(FRAME_HEIGHT, FRAME_WIDTH, -1) if modality == "videos" else padded
                name = f"{session.name}/meta/statistics/{modality}/all/{statistic}.npy"
                archive.write(pack_member(name, _to_npy(shaped)))
            progress(f"summarize {session.alias}", n_done, len(stacks))
    truth.publish({"seed": plan.seed})


class Recorder:
    """Makes the arrays and the members of one trial after the other, in any thread."""

    def __init__(self, plan: SessionPlan, behavior_padding: BehaviorPadding) -> None:
        self._plan = plan
        self._behavior_padding = behavior_padding
        # The release that withholds no responses is the one in single precision.
        self._dtype = np.float64 if plan.session.withholds_test_responses else np.float32
        self._style = choose_style(plan.session)
        # The mouse's behavior knows no trials; past the last one it goes on for the length of an array.
        random = random_stream(plan.seed, "behavior", plan.session.name)
        n_frames = plan.n_frames + plan.session.n_frames_padded
        self._behavior = simulate_behavior(random, self._style, n_frames)
        self._pupil_center = simulate_pupil_center(random, self._style, n_frames)
        self.population = Population(draw_neurons(plan.session, plan.n_neurons, plan.seed), self._style, plan.seed)

    def record(self, trial: TrialPlan) -> RecordedTrial:
        """Show the movie to the mouse and record what it does."""
        plan, n_frames, n_padded = self._plan, trial.n_frames, self._plan.session.n_frames_padded
        key = (plan.session.name, trial.trial)
        begin = trial.first_frame
        behavior = self._behavior[:, begin : begin + n_padded]
        pupil_center = self._pupil_center[:, begin : begin + n_frames]
        if trial.is_broken:
            video = np.full((n_frames, FRAME_HEIGHT, FRAME_WIDTH), np.nan)
            on_retina = np.zeros(video.shape, np.float32)
        else:
            movie = render_movie(trial.movie, n_frames, plan.seed)
            random = random_stream(plan.seed, "grid", *key)
            shown = resample_repeat(movie, random)
            # Values that no float32 holds, as in the recordings.
            video = shown * (1.0 - 1e-8 * random.random(shown.shape))
            on_retina = shift_by_gaze(standardize_luminance(shown), pupil_center, self._style)
        rate = self.population.event_rates(on_retina, behavior[:, :n_frames])
        response = self.population.respond(rate, random_stream(plan.seed, "noise", *key))
        return RecordedTrial(
            videos=_pad(video.reshape(n_frames, -1).T, n_padded),
            responses=_pad(response.T, n_padded),
            behavior=behavior if self._behavior_padding == "finite" else _pad(behavior[:, :n_frames], n_padded),
            pupil_center=_pad(pupil_center, n_padded),
            rates=_pad(self.population.expect(rate).T, n_padded),
        )

    def know(self, trial: TrialPlan, recorded: RecordedTrial) -> tuple[np.ndarray, np.ndarray]:
        """Return the trial's true responses and rates, (neuron, time) float32; NaN where the stimulus is broken."""
        if trial.is_broken:
            nothing = np.full(recorded.rates.shape, np.nan, np.float32)
            return nothing, nothing
        return recorded.responses.astype(np.float32), recorded.rates.astype(np.float32)

    def pack(self, trial: TrialPlan, recorded: RecordedTrial) -> list[ZipMember]:
        """Return the trial's four members; some lie in Fortran order and some small ones are not deflated."""
        folder = f"{self._plan.session.name}/data"
        members = []
        for index, modality in enumerate(_MODALITIES):
            values: np.ndarray = getattr(recorded, modality)
            if modality == "videos":
                values = values.reshape(FRAME_HEIGHT, FRAME_WIDTH, -1)
            if modality == "responses" and trial.is_withheld:
                values = np.zeros(values.shape)
            values = values.astype(self._dtype, copy=False)
            order = "F" if (trial.trial + index) % 2 else "C"
            is_small = values.nbytes < 1 << 16
            members.append(
                pack_member(
                    f"{folder}/{modality}/{trial.trial}.npy",
                    _to_npy(values, order),
                    deflate=not (is_small and trial.trial % _STORED_EVERY == 0),
                )
            )
        return members


def _describe_session(plan: SessionPlan, population: Population, simulator_version: int) -> Iterator[ZipMember]:
    """Yield the members that are no trial's: folders, configuration, meta data, and a Mac's leavings."""
    name, neurons = plan.session.name, population.neurons
    animal, number, scan = (int(part) for part in plan.session.scan.split("-"))
    for folder in ("", "data/", *(f"data/{modality}/" for modality in _MODALITIES), "meta/"):
        yield pack_member(f"{name}/{folder}", b"", deflate=False)
    # A Mac's zip carries each file's attributes beside it.
    for path in (f"._{name}", f"{name}/._config.json", f"{name}/data/._videos", f"{name}/data/videos/._0.npy"):
        yield pack_member(f"__MACOSX/{path}", b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(96))
    config = {
        "data_key": name,
        "animal_id": animal,
        "session": number,
        "scan_idx": scan,
        "target_fps": FRAME_RATE_HZ,
        "modalities": list(_MODALITIES),
        # The published archives lack these three: who converts the archive knows it by them.
        "simulated": True,
        "seed": plan.seed,
        "simulator_version": simulator_version,
    }
    yield pack_member(f"{name}/config.json", json.dumps(config, indent=2).encode(), deflate=False)
    n_ids = len(plan.tiers)
    arrays = {
        "neurons/unit_ids": neurons.unit_ids,
        "neurons/cell_motor_coordinates": neurons.positions,
        "neurons/animal_ids": np.full(len(neurons), animal),
        "neurons/sessions": np.full(len(neurons), number),
        "neurons/scan_idx": np.full(len(neurons), scan),
        "trials/tiers": np.array(plan.tiers, dtype=str),
        **({} if plan.trial_idx is None else {"trials/trial_idx": np.array(plan.trial_idx)}),
        "trials/animal_id": np.full(n_ids, animal),
        "trials/session": np.full(n_ids, number),
        "trials/scan_idx": np.full(n_ids, scan),
        "trials/target_fps": np.full(n_ids, FRAME_RATE_HZ),
    }
    for index, (path, values) in enumerate(arrays.items()):
        yield pack_member(f"{name}/meta/{path}.npy", _to_npy(values), deflate=index % 3 != 0)


def _pad(values: np.ndarray, n_frames: int) -> np.ndarray:
    """Return (feature, time) values padded with NaN to ``n_frames``, float64, frames next to each other in memory."""
    padded = np.full((len(values), n_frames), np.nan)
    padded[:, : values.shape[1]] = values
    return padded


def _to_npy(values: np.ndarray, order: str = "C") -> bytes:
    """Return the bytes of a ``.npy`` file whose array lies in C or Fortran order."""
    ordered = np.asfortranarray(values) if order == "F" else np.ascontiguousarray(values)
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, np.lib.format.header_data_from_array_1_0(ordered))
    buffer.write(ordered.ravel(order="K").view(np.uint8).data)
    return buffer.getvalue()


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], n_ahead: int
) -> Iterator[_Result]:
    """Map in order, with at most ``n_ahead`` results made and not yet taken, so that memory stays bounded."""
    pending: deque[Future[_Result]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > n_ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        for future in pending:
            future.cancel()
