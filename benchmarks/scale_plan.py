"""What a fleet has to do to ingest many sessions, at the costs that `scale_costs.py` measured.

Sessions have the published trials, neurons and frames of the ten, in turn.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import workbench
from fleet import Command, Fleet, Plan, Stage, run_fleet
from scale_costs import Costs

from sensorium_data.files import RetryPolicy
from sensorium_data.files.remote_objects import RemoteObjects
from sensorium_data.schema import FRAME_HEIGHT, FRAME_WIDTH
from sensorium_data.sessions import SESSIONS, Session, Tier

__all__ = [
    "MBIT",
    "list_sessions",
    "make_fleet",
    "peak_memory_bytes",
    "plan_ingest",
    "simulate_all",
    "store_size_bytes",
]

#: What `linking.py` draws: so many of a session's movies are other sessions', too.
_SHARED_SHARE = 0.75
#: How often the movies of all tiers but the training one are shown in a session, mostly.
_N_REPEATS = 10
#: Bytes a second.
MBIT = 1e6 / 8
#: Trials converted at once where bytes come by network, at least; and videos compared at once by linking.
_LEAST_JOBS, _LINK_JOBS = 8, 4
#: Rates of the link to the archives in the table that varies them.
_RATES_MBIT_S = (100, 300, 1000, 3000, 10000)


def list_sessions(n_sessions: int) -> list[Session]:
    """Return sessions of the published sizes, the ten in turn."""
    return list(itertools.islice(itertools.cycle(SESSIONS.values()), n_sessions))


def plan_ingest(
    costs: Costs, options: argparse.Namespace, sessions: Sequence[Session], per_command: int | None = None
) -> Plan:
    """Return what there is to do for sessions, so many a command, into a store that is empty."""
    latency_s, is_object_store = options.latency_ms / 1e3, options.store == "object"
    jobs = max(options.cores, _LEAST_JOBS)
    mean_n_trials = statistics.mean(session.n_trials for session in sessions)
    mean_n_movies = statistics.mean(map(_count_movies, sessions))

    def read_root(n_listed: int, n_transfers: float) -> dict[str, float]:
        return {"cpu_s": n_transfers * costs.listing_s.at(n_listed), "store_bytes": n_transfers * root_bytes(n_listed)}

    def root_bytes(n_listed: int) -> float:
        return costs.root_bytes.at(n_listed)

    def ask(n_requests: float, at_once: float = 1) -> dict[str, float]:
        if not is_object_store:
            return {"cpu_s": 0.0, "wait_s": 0.0}
        return {"cpu_s": n_requests * costs.request_s, "wait_s": n_requests * latency_s / at_once}

    def stages(place: int, session: Session) -> list[Stage]:
        n, size = session.n_trials, _relative_size(session, options)
        stored = {phase: line.at(n) for phase, line in costs.store_requests.items()}
        start = read_root(place, costs.root_transfers["start"])
        began = ask(stored["start"])
        n_asked = costs.source_requests.each * n
        written = ask(stored["convert"], jobs)
        finished = ask(stored["finish"], RemoteObjects.n_requests_at_once)
        return [
            Stage(
                "start",
                cpu_s=costs.phases["start"].at(n) + began["cpu_s"] + start["cpu_s"],
                wait_s=began["wait_s"] + costs.source_requests.fixed * latency_s,
                store_bytes=start["store_bytes"],
            ),
            Stage(
                "convert",
                cpu_s=size * costs.phases["convert"].at(n) + written["cpu_s"],
                most_cores=jobs,
                wait_s=n_asked * latency_s / jobs + written["wait_s"],
                source_bytes=size * costs.source_bytes.at(n),
                store_bytes=size * costs.store_bytes.at(n),
            ),
            Stage("finish", cpu_s=costs.phases["finish"].at(n) + finished["cpu_s"], wait_s=finished["wait_s"]),
            Stage("verify", **ask(stored["verify"]))
            if is_object_store
            else Stage(
                "verify",
                cpu_s=size * costs.phases["verify"].at(n),
                most_cores=jobs,
                store_bytes=size * costs.store_bytes.at(n),
            ),
            Stage("tidy", **_add(ask(stored["tidy"] + stored["end"]), costs.phases["tidy"].at(n))),
        ]

    def publish(n_listed: int) -> list[Stage]:
        # Read and written.
        moved_bytes = costs.root_transfers["publish"] * root_bytes(n_listed)
        asked = ask(costs.store_requests["publish"].fixed)
        return [
            Stage("publish", cpu_s=costs.root_s.at(n_listed) + asked["cpu_s"]),
            Stage("publish", wait_s=asked["wait_s"], store_bytes=moved_bytes),
        ]

    def link(n_linked: int, n_new: int) -> list[Stage]:
        linking, n_sessions = costs.linking, n_linked + n_new
        root = read_root(n_sessions, costs.root_transfers["link"])
        ledger_bytes, screen_bytes = costs.ledger_bytes.at(mean_n_trials), costs.screen_bytes.at(mean_n_trials)
        if not n_new:
            asked = ask(linking.n_again.at(n_sessions))
            cpu_s = linking.again_s * n_sessions * mean_n_trials
            read_bytes = n_sessions * ledger_bytes
        else:
            n_shared = _SHARED_SHARE * mean_n_movies * n_new
            asked = _sum(
                ask(linking.n_fixed * n_new),
                ask(linking.n_known * n_linked + linking.n_movie * n_shared, _LINK_JOBS),
            )
            cpu_s = linking.fixed_s + linking.known_s * n_linked + linking.new_s * n_new
            read_bytes = n_linked * (ledger_bytes + screen_bytes) + n_new * 3 * ledger_bytes
            read_bytes += linking.n_movie * n_shared * costs.video_bytes.each
        return [
            Stage("link", cpu_s=cpu_s + asked["cpu_s"] + root["cpu_s"]),
            Stage("link", wait_s=asked["wait_s"], store_bytes=read_bytes + root["store_bytes"]),
        ]

    own = [stages(place, session) for place, session in enumerate(sessions)]
    size = per_command or options.per_command
    commands = [
        Command(list(itertools.chain.from_iterable(own[place : place + size])), len(own[place : place + size]))
        for place in range(0, len(own), size)
    ]
    return Plan(commands, publish, link)


def _add(asked: Mapping[str, float], cpu_s: float) -> dict[str, float]:
    return {**asked, "cpu_s": asked["cpu_s"] + cpu_s}


def _sum(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    return {key: one[key] + other[key] for key in one}


def _count_movies(session: Session) -> float:
    n_unique = session.n_trials_by_tier[Tier.TRAIN]
    return n_unique + (session.n_trials - n_unique) / _N_REPEATS


def _relative_size(session: Session, options: argparse.Namespace) -> float:
    """Return how large a session's trials are beside those of the archive that was measured."""
    pixels = FRAME_HEIGHT * FRAME_WIDTH
    measured = workbench.SESSION.n_frames_padded * (options.neurons + pixels)
    return session.n_frames_padded * (session.n_neurons + pixels) / measured


def make_fleet(options: argparse.Namespace, n_workers: int, source_mbit_s: float) -> Fleet:
    """Return the machines that the parameters describe."""
    policy = RetryPolicy()
    return Fleet(
        n_workers=n_workers,
        n_cores=options.cores,
        bytes_per_s={"source": source_mbit_s * MBIT, "store": options.store_mbit_s * MBIT},
        locked={"publish", "link"} if options.store == "folder" else {"link"},
        # The mean of what is drawn.
        retry_wait_s=lambda attempt: 0.75 * min(policy.backoff_max_s, policy.backoff_s * 2.0 ** (min(attempt, 3) - 1)),
    )


def simulate_all(costs: Costs, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Simulate every number of sessions and workers, at every rate of the link to the archives that is asked for."""
    found = []
    rates = sorted({options.source_mbit_s, *(_RATES_MBIT_S if options.vary else ())})
    for n_sessions in options.sessions:
        plan = plan_ingest(costs, options, list_sessions(n_sessions))
        for n_workers, rate in itertools.product(options.workers, rates):
            if rate != options.source_mbit_s and n_sessions != max(options.sessions):
                continue
            outcome = run_fleet(plan, make_fleet(options, n_workers, rate))
            found.append({"sessions": n_sessions, "workers": n_workers, "source_mbit_s": rate, "outcome": outcome})
            print(f"{n_sessions} sessions, {n_workers} workers, {rate:g} Mbit/s: {outcome.limit}", file=sys.stderr)
    return found


def peak_memory_bytes(costs: Costs, options: argparse.Namespace, n_sessions: int) -> float:
    """Return the largest memory that a worker takes: converting, listing or linking."""
    jobs = max(options.cores, _LEAST_JOBS)
    largest = max(session.n_trials for session in list_sessions(n_sessions))
    converting = costs.memory["fixed"] + costs.memory["job"] * jobs + costs.memory["trial"] * largest
    return max(converting, costs.root_peak_bytes.at(n_sessions), costs.linking.peak_memory_bytes)


def store_size_bytes(costs: Costs, options: argparse.Namespace, n_sessions: int) -> float:
    """Return the size of a store of so many sessions."""
    sessions = list_sessions(n_sessions)
    stored = sum(_relative_size(one, options) * costs.store_bytes.at(one.n_trials) for one in sessions)
    return stored + sum(costs.screen_bytes.at(one.n_trials) for one in sessions) + costs.root_bytes.at(n_sessions)
