"""The simulation against the recordings: what it is calibrated to, session by session, at real size.

    python benchmarks/simulation.py --sessions A B F

Each session is simulated in memory, trial by trial, by what writes the archives. A value holds if it differs by
at most 15 % from that of the recorded mouse, or lies within the range of the ten mice (of those for which it is
published). Besides, an archive of fewer trials is written for its time and memory.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import workbench
from threadpoolctl import threadpool_limits

from sensorium_data.sessions import Session, Stimulus, Tier, find_sessions
from sensorium_data.simulation.mice import MICE
from sensorium_data.simulation.neurons import draw_neurons
from sensorium_data.simulation.plan import SessionPlan, TrialPlan, plan_session
from sensorium_data.simulation.recording import RecordedTrial, Recorder
from sensorium_data.simulation.stimuli import GABOR_N_FRAMES, list_gabors

SEED = 0
TOLERANCE = 0.15
N_SKIPPED = 50
SILENT_BELOW = 1e-6
LAGS = (1, 4, 9)
QUANTILES = (0.05, 0.5, 0.95)

# Of the recordings, beyond what the simulation is given: 5 %, 50 % and 95 % quantile over neurons.
STD = {
    "A": (2.63, 9.92, 50.7),
    "B": (3.25, 10.7, 50.1),
    "C": (3.98, 12.4, 45.5),
    "D": (3.71, 12.5, 53.8),
    "E": (3.53, 13.5, 58.3),
    "F": (3.79, 12.6, 51.9),
    "G": (2.67, 10.1, 37.4),
    "H": (3.02, 8.05, 34.6),
    "I": (3.38, 9.88, 49.7),
    "J": (4.57, 15.0, 61.2),
}
MAX_OVER_STD = {
    "A": (20.1, 31.9, 50.7),
    "B": (21.6, 32.3, 50.6),
    "C": (21.6, 32.1, 49.2),
    "D": (22.2, 34.3, 55.5),
    "E": (22.3, 35.2, 55.8),
    "F": (24.4, 38.4, 60.6),
    "G": (22.8, 35.2, 55.0),
    "H": (21.9, 32.9, 51.5),
    "I": (22.0, 33.1, 51.5),
    "J": (21.3, 31.9, 49.8),
}
LOG_MEAN_WITH_LOG_STD = {
    "A": 0.963, "B": 0.959, "C": 0.95, "D": 0.962, "E": 0.957, "F": 0.95, "G": 0.94, "H": 0.95, "I": 0.964, "J": 0.959,
}  # fmt: skip
# Mean activity in trials of a class against natural video, minus 1.
ACTIVITY = {
    "PinkNoise": {"A": -0.131, "B": -0.26, "D": -0.176},
    "RandomDots": {"A": 0.087, "C": 0.169, "E": 0.19},
    "GaussianDot": {"A": -0.195, "D": -0.258, "E": -0.244},
    "NaturalImages": {"B": -0.116, "C": -0.163, "D": -0.169},
    "Gabor": {"B": -0.355, "C": -0.252, "E": -0.268},
}
# 5 %, 50 % and 95 % quantile over neurons, from responses to the Gabor patches of eight directions.
OSI = {"B": (0.0472, 0.227, 0.623), "C": (0.052, 0.244, 0.628), "E": (0.0558, 0.247, 0.604)}
DSI = {"B": (0.0312, 0.148, 0.479), "C": (0.0316, 0.148, 0.488), "E": (0.0361, 0.152, 0.466)}
# Of trained models, by four publications: correlation to average over single-trial correlation.
RATIO = {"static 2D": 1.81, "dynamic 3D": 1.85, "factorized 3D": 1.89, "winner": 1.86}


class Summary:
    """What one simulated session looks like, gathered trial by trial."""

    def __init__(self, plan: SessionPlan) -> None:
        n = plan.n_neurons
        self.plan = plan
        self.n_frames = 0
        self.sum, self.square, self.silent = (np.zeros(n) for _ in range(3))
        self.largest, self.largest_in_training = np.zeros(n), np.zeros(n)
        self.products = {lag: np.zeros(n) for lag in LAGS}
        self.n_products = dict.fromkeys(LAGS, 0)
        self.by_direction, self.n_blocks = np.zeros((8, n)), np.zeros(8)
        self.trial_means: dict[str, list[np.ndarray]] = {}
        self.behavior: list[np.ndarray] = []
        self.pairs = {kind: np.zeros(n) for kind in ("r", "e", "rr", "ee", "re")}
        self.n_scored = 0
        self.repeats: dict[str, list[Any]] = {}

    def add(self, trial: TrialPlan, recorded: RecordedTrial) -> None:
        """Take a trial's responses and behavior into account."""
        n_frames = trial.n_frames
        response, expected = recorded.responses[:, :n_frames], recorded.rates[:, :n_frames]
        self.behavior.append(recorded.behavior[:, :n_frames])
        self.trial_means.setdefault(str(trial.movie.stimulus), []).append(response.mean(axis=1).astype(np.float32))
        self.largest = np.maximum(self.largest, response.max(axis=1))
        if trial.tier is Tier.TRAIN:
            self.n_frames += n_frames
            self.largest_in_training = np.maximum(self.largest_in_training, response.max(axis=1))
            self.sum += response.sum(axis=1)
            self.square += np.einsum("nt,nt->n", response, response)
            self.silent += (response < SILENT_BELOW).sum(axis=1)
            for lag in LAGS:
                self.products[lag] += np.einsum("nt,nt->n", response[:, lag:], response[:, :-lag])
                self.n_products[lag] += n_frames - lag
        if trial.movie.stimulus is Stimulus.GABOR:
            self._add_directions(trial, response)
        if trial.tier is Tier.ORACLE:
            self._add_repeat(trial, response[:, N_SKIPPED:], expected[:, N_SKIPPED:])

    def _add_directions(self, trial: TrialPlan, response: np.ndarray) -> None:
        patches = list_gabors(trial.movie, trial.n_frames, SEED)
        # The first patch follows another clip.
        for place, (direction, _, _) in list(enumerate(patches))[1:]:
            block = response[:, place * GABOR_N_FRAMES : (place + 1) * GABOR_N_FRAMES]
            index = round(direction / (math.pi / 4))
            self.by_direction[index] += block.mean(axis=1)
            self.n_blocks[index] += 1

    def _add_repeat(self, trial: TrialPlan, response: np.ndarray, expected: np.ndarray) -> None:
        for kind, value in (("r", response), ("e", expected)):
            self.pairs[kind] += value.sum(axis=1)
        for kind, one, other in (("rr", response, response), ("ee", expected, expected), ("re", response, expected)):
            self.pairs[kind] += np.einsum("nt,nt->n", one, other)
        self.n_scored += response.shape[1]
        total = self.repeats.setdefault(trial.movie.id, [0, 0.0, 0.0])
        self.repeats[trial.movie.id] = [total[0] + 1, total[1] + response, total[2] + expected]

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield each value beside the recording's."""
        alias = self.plan.session.alias
        mean = self.sum / self.n_frames
        std = np.sqrt(self.square / self.n_frames - mean**2)
        for name, values, real in (
            ("mean response", mean, {a: m.response_mean for a, m in MICE.items()}),
            ("std", std, STD),
            ("std / mean", std / mean, {a: m.response_cv for a, m in MICE.items()}),
            ("maximum / std", self.largest_in_training / std, MAX_OVER_STD),
        ):
            yield from _quantile_rows(alias, name, values, real)
        silent = float(np.mean(self.silent > 0.5 * self.n_frames))
        yield _row(alias, "share of silent medians", silent, {a: m.silent_share for a, m in MICE.items()})
        depth = draw_neurons(self.plan.session, self.plan.n_neurons, self.plan.seed).positions[:, 2]
        real_depth = {a: m.depth_correlation for a, m in MICE.items()}
        yield _row(alias, "log std with depth", float(np.corrcoef(np.log(std), depth)[0, 1]), real_depth)
        log_mean = float(np.corrcoef(np.log(mean), np.log(std))[0, 1])
        yield _row(alias, "log mean with log std", log_mean, LOG_MEAN_WITH_LOG_STD)
        dilation, running = np.concatenate(self.behavior, axis=1)
        for index, (name, statistic) in enumerate((("mean", np.mean), ("std", np.std))):
            real = {a: m.dilation[index] for a, m in MICE.items()}
            yield _row(alias, f"pupil dilation, {name}", float(statistic(dilation)), real)
        for index, (name, statistic) in enumerate(
            (("mean", np.mean), ("std", np.std), ("median", np.median), ("maximum", np.max))
        ):
            real = {a: m.running[index] for a, m in MICE.items()}
            yield _row(alias, f"running speed, {name}", float(statistic(running)), real)
        yield from self._activity_rows()
        if self.n_blocks.all():
            yield from self._tuning_rows()
        yield from self._ceiling_rows()
        for lag in LAGS:
            correlation = float(np.median((self.products[lag] / self.n_products[lag] - mean**2) / std**2))
            # What the stimulus adds to independent scans is positive.
            least = _acquisition_autocorrelation(lag)
            row = _row(
                alias, f"autocorrelation, {lag / 30:.2f} s", correlation, {"8 Hz": least, "stimulus": least + 0.1}
            )
            yield row | {"this mouse": "–"}

    def _activity_rows(self) -> Iterator[dict[str, Any]]:
        natural = np.mean(self.trial_means[str(Stimulus.NATURAL_VIDEO)], axis=0) / self.largest
        for stimulus, real in ACTIVITY.items():
            if stimulus in self.trial_means:
                relative = (np.mean(self.trial_means[stimulus], axis=0) / self.largest).mean() / natural.mean() - 1
                yield _row(self.plan.session.alias, f"activity, {stimulus}", float(relative), real)

    def _tuning_rows(self) -> Iterator[dict[str, Any]]:
        curve = self.by_direction / self.n_blocks[:, None]
        angle = np.arange(8)[:, None] * np.pi / 4
        for name, order, real in (("OSI", 2, OSI), ("DSI", 1, DSI)):
            index = np.abs((curve * np.exp(1j * order * angle)).sum(axis=0)) / curve.sum(axis=0)
            yield from _quantile_rows(self.plan.session.alias, name, index, real)

    def _ceiling_rows(self) -> Iterator[dict[str, Any]]:
        n, pairs = self.n_scored, self.pairs
        covariance = pairs["re"] / n - pairs["r"] * pairs["e"] / n**2
        variances = [pairs[k + k] / n - (pairs[k] / n) ** 2 for k in ("r", "e")]
        single = covariance / np.sqrt(variances[0] * variances[1])
        response, expected = (
            np.concatenate([total[kind] / total[0] for total in self.repeats.values()], axis=1) for kind in (1, 2)
        )
        centered = [trace - trace.mean(axis=1, keepdims=True) for trace in (response, expected)]
        to_average = np.einsum("nt,nt->n", *centered) / np.sqrt(
            np.prod([np.einsum("nt,nt->n", trace, trace) for trace in centered], axis=0)
        )
        alias = self.plan.session.alias
        for name, value in (("single-trial", single), ("to average", to_average)):
            yield {"session": alias, "value": f"ceiling, {name}", "simulated": float(value.mean())} | _NOT_PUBLISHED
        row = _row(alias, "to average / single-trial", float(to_average.mean() / single.mean()), RATIO)
        yield row | {"this mouse": "–"}


_NOT_PUBLISHED = {"this mouse": "–", "recordings": "–", "holds": "–"}


def _quantile_rows(alias: str, name: str, values: np.ndarray, real: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for place, level in enumerate(QUANTILES):
        simulated = float(np.quantile(values, level))
        yield _row(alias, f"{name}, {level:.0%}", simulated, {a: quantiles[place] for a, quantiles in real.items()})


def _row(alias: str, name: str, simulated: float, real: dict[str, float]) -> dict[str, Any]:
    own, low, high = real.get(alias), min(real.values()), max(real.values())
    near = own is not None and abs(simulated - own) <= TOLERANCE * abs(own)
    # Where another mouse's value stands for this one's, its tolerance does too.
    margin = 0.0 if own is not None else TOLERANCE
    within = low - margin * abs(low) <= simulated <= high + margin * abs(high)
    return {
        "session": alias,
        "value": name,
        "simulated": simulated,
        "this mouse": "–" if own is None else own,
        "recordings": f"{low:.3g} to {high:.3g}",
        "holds": "yes" if near or within else "no",
    }


def _acquisition_autocorrelation(lag_frames: int) -> float:
    """Return the autocorrelation of independent scans at 8 Hz that are interpolated linearly to 30 Hz."""
    lag = lag_frames * 8 / 30
    if lag >= 2:
        return 0.0
    return (2 / 3 - lag**2 + lag**3 / 2 if lag < 1 else (2 - lag) ** 3 / 6) / (2 / 3)


def summarize(session: Session, n_trials: int, n_neurons: int, jobs: int) -> Summary:
    """Simulate a session in memory and return what it looks like."""
    plan = plan_session(session, n_trials=min(n_trials, session.n_trials), n_neurons=n_neurons, seed=SEED)
    summary = Summary(plan)
    trials = [trial for trial in plan.trials if not trial.is_broken]
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(jobs) as pool:
        recorder = Recorder(plan, "nan")
        for start in range(0, len(trials), jobs):
            group = trials[start : start + jobs]
            for trial, recorded in zip(group, pool.map(recorder.record, group), strict=True):
                summary.add(trial, recorded)
    return summary


_SIMULATE = """
import sys
from sensorium_data.sessions import find_sessions
from sensorium_data.simulation import simulate

folder, n_trials, n_neurons = sys.argv[1], *map(int, sys.argv[2:])
simulate(folder, sessions=find_sessions(["F"]), n_trials=n_trials, n_neurons=n_neurons)
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and write the results."""

    def extend(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--sessions", nargs="+", default=["A", "B", "F"], help="mice (default: A B F)")
        parser.add_argument("--timed-trials", type=int, default=60, help="trials of the timed archive (default: 60)")
        parser.set_defaults(repeats=1)

    options = workbench.parse_arguments(__doc__ or "", extend=extend, arguments=arguments)
    load = [workbench.describe_load()]
    rows: list[dict[str, Any]] = []
    for session in find_sessions(options.sessions):
        n_neurons = min(options.neurons, session.n_neurons)
        rows += summarize(session, options.trials, n_neurons, jobs=2).rows()
    with workbench.open_work_folder(None) as work:
        usages = [
            workbench.run_python(_SIMULATE, work / str(n), options.timed_trials, options.neurons)
            for n in range(options.repeats)
        ]
    load.append(workbench.describe_load())
    usage = workbench.median_usage(usages)
    timed = [
        {
            "what": f"{options.timed_trials} trials of F, archive and truth",
            "wall s": usage.wall_s,
            "CPU s": usage.cpu_s,
            "peak memory, MB": usage.peak_memory_bytes / 1e6,
        }
    ]
    failing = [f"{row['session']}: {row['value']}" for row in rows if row["holds"] == "no"]
    workbench.write_results(
        options.results,
        "simulation",
        "The simulation against the recordings",
        {"sessions": " ".join(options.sessions), "trials": options.trials, "neurons": options.neurons, "seed": SEED},
        {"rows": rows, "failing": failing, "timed": usages, "load": load},
        [
            ("A value holds within 15 % of the recorded mouse's, or within the range of the recordings", rows),
            ("Time and memory", timed),
        ],
    )


if __name__ == "__main__":
    main()
