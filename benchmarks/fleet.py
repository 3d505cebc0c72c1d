"""A fleet of machines that ingest sessions, simulated event by event.

Workers take commands from one queue. They share a link to the archives and a link to the store, and some of their work
can be finished by one of them at a time. Costs come from outside (`scale_costs.py`): nothing here reads a clock.

A link is shared fairly: every stage gets bytes at the same rate until its processor, its latency or another link holds
it back, and what it leaves goes to the others.
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial

__all__ = ["LINKS", "Command", "Fleet", "Outcome", "Plan", "Stage", "run_fleet", "share_links"]

#: The links, as the stages' fields and :class:`Outcome` call them.
LINKS = ("source", "store")

# What is left of a stage by rounding.
_DONE = 1e-9
_RETRY = "wait for another attempt"


@dataclass(frozen=True)
class Stage:
    """Work that one worker does without a pause; its parts go on side by side.

    Attributes
    ----------
    name : str
        For tallies.
    cpu_s : float
        Processor time, of all cores together.
    most_cores : float
        So many cores can work on it at a time.
    wait_s : float
        Time it takes at least: answers that are waited for.
    source_bytes, store_bytes : float
        What travels over each link.
    """

    name: str
    cpu_s: float = 0.0
    most_cores: float = 1.0
    wait_s: float = 0.0
    source_bytes: float = 0.0
    store_bytes: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do."""
        return not (self.cpu_s or self.wait_s or self.source_bytes or self.store_bytes)

    def bytes_over(self, link: str) -> float:
        """Return what travels over a link."""
        return self.source_bytes if link == "source" else self.store_bytes


@dataclass(frozen=True)
class Command:
    """What a worker takes from the queue: an ingest of one session or of several.

    Attributes
    ----------
    stages : sequence of Stage
        What it does alone, in order.
    n_sessions : int
        Sessions that it lists and links at its end, in one step.
    """

    stages: Sequence[Stage]
    n_sessions: int = 1


@dataclass(frozen=True)
class Plan:
    """What there is to do.

    Attributes
    ----------
    commands : sequence of Command
        The queue.
    publish : callable
        From the number of sessions that the store lists, the stages of listing more.
    link : callable
        From the number of sessions whose movies are linked and of listed ones whose are not, the stages of linking
        those. Whoever links, links all that are listed.
    """

    commands: Sequence[Command]
    publish: Callable[[int], Sequence[Stage]] = lambda n_listed: ()
    link: Callable[[int, int], Sequence[Stage]] = lambda n_linked, n_new: ()


@dataclass(frozen=True)
class Fleet:
    """Who does it.

    Attributes
    ----------
    n_workers : int
        Machines.
    n_cores : float
        Cores of each.
    bytes_per_s : mapping of str to float
        What each of :data:`LINKS` carries, for all workers together.
    locked : set of str
        For which of ``publish`` and ``link`` workers wait for each other: both on a shared file system, linking alone
        on an object store. Otherwise each writes under the condition that nobody else has written since it read, and
        begins again if somebody has.
    retry_wait_s : callable
        From the number of the attempt that failed, what a worker waits before the next one.
    """

    n_workers: int
    n_cores: float = 1.0
    bytes_per_s: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(LINKS, math.inf))
    locked: Set[str] = frozenset({"publish", "link"})
    retry_wait_s: Callable[[int], float] = lambda attempt: 0.0


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    Attributes
    ----------
    duration_s : float
        Until the last worker ended.
    worker_s : float
        Sum over workers of the time until each ended: what is paid for if a worker without a session is given back.
    n_cores : float
        Cores of a worker.
    cpu_s : float
        Processor time spent.
    n_bytes : mapping of str to float
        What travelled over each of :data:`LINKS`.
    limited_s : mapping of str to float
        Workers' time by what held it back: ``CPU``, ``latency``, ``source``, ``store``, ``turn`` (waiting for, or
        repeating, what one at a time can finish), and ``idle`` (no session was left). They sum to all workers' time.
    stage_s : mapping of str to float
        Workers' time by the name of the stage; waits for a turn and idle time are in none.
    cpu_lost_s : float
        Processor time of attempts that somebody else overtook.
    most_attempts : int
        Of the listing or linking at the end of one command.
    """

    duration_s: float
    worker_s: float
    n_cores: float
    cpu_s: float
    n_bytes: Mapping[str, float]
    limited_s: Mapping[str, float]
    stage_s: Mapping[str, float]
    cpu_lost_s: float
    most_attempts: int

    @property
    def cpu_share(self) -> float:
        """Which share of the processor time paid for was used."""
        return self.cpu_s / (self.worker_s * self.n_cores) if self.worker_s else 0.0

    @property
    def limit(self) -> str:
        """What held workers back for most of the time in which they had a session."""
        held = {what: seconds for what, seconds in self.limited_s.items() if what != "idle"}
        return max(held, key=lambda what: held[what]) if held else "nothing"

    def limit_share(self, what: str) -> float:
        """Return the share of the time in which workers had a session that something held back."""
        held_s = sum(seconds for name, seconds in self.limited_s.items() if name != "idle")
        return self.limited_s.get(what, 0.0) / held_s if held_s else 0.0


def share_links(stages: Sequence[Stage], n_cores: float, bytes_per_s: Mapping[str, float]) -> list[tuple[float, str]]:
    """Return how fast stages that run side by side advance, in shares of each a second, and what holds each back.

    Progressive filling: all rates grow together, in bytes a second, until a stage's own limit is met or a link is full.
    What is met then stays as it is, and the others go on.

    Parameters
    ----------
    stages : sequence of Stage
        None of them empty, each of another worker.
    n_cores : float
        Cores of each worker.
    bytes_per_s : mapping of str to float
        What each link carries.
    """
    rates: list[tuple[float, str]] = [(0.0, "")] * len(stages)
    own: list[tuple[float, str]] = []
    weights = []
    for stage in stages:
        cpu_rate = min(n_cores, stage.most_cores) / stage.cpu_s if stage.cpu_s else math.inf
        wait_rate = 1.0 / stage.wait_s if stage.wait_s else math.inf
        own.append((cpu_rate, "CPU") if cpu_rate <= wait_rate else (wait_rate, "latency"))
        weights.append(1.0 / (stage.source_bytes + stage.store_bytes or 1.0))
    left = dict(bytes_per_s)
    growing = set(range(len(stages)))
    while growing:
        demand = {link: sum(weights[place] * stages[place].bytes_over(link) for place in growing) for link in LINKS}
        levels = {link: left[link] / demand[link] for link in LINKS if demand[link] and math.isfinite(left[link])}
        first = min(own[place][0] / weights[place] for place in growing)
        full = min(levels, key=lambda link: levels[link], default="")
        if full and levels[full] < first:
            level = levels[full]
            stopped = {place for place in growing if stages[place].bytes_over(full)}
            found = {place: (level * weights[place], full) for place in stopped}
        else:
            found = {p: own[p] for p in growing if own[p][0] / weights[p] <= first * (1 + _DONE)}
        for place, rate in found.items():
            # A stage of bytes alone over a link without a limit takes no time.
            rates[place] = rate
            for link in LINKS:
                if math.isfinite(rate[0]) and math.isfinite(left[link]):
                    left[link] = max(0.0, left[link] - rate[0] * stages[place].bytes_over(link))
        growing -= found.keys()
    return rates


def run_fleet(plan: Plan, fleet: Fleet) -> Outcome:
    """Simulate a fleet until the queue is empty and every worker has ended."""
    return _Run(plan, fleet).run()


@dataclass(frozen=True)
class _Acquire:
    lock: str


@dataclass(frozen=True)
class _Release:
    lock: str


_Steps = Generator[Stage | _Acquire | _Release, None, None]


class _Run:
    def __init__(self, plan: Plan, fleet: Fleet) -> None:
        self.plan, self.fleet = plan, fleet
        self.queue = deque(plan.commands)
        self.n_listed = self.n_linked = 0
        self.versions: Counter[str] = Counter()
        self.holders: dict[str, Hashable] = {}
        self.waiting: dict[str, deque[int]] = {}
        # What each worker does, and which share of it is left.
        self.running: dict[int, tuple[Stage, float]] = {}
        self.now_s = 0.0
        self.limited_s: list[Counter[str]] = [Counter() for _ in range(fleet.n_workers)]
        self.stage_s: Counter[str] = Counter()
        self.n_bytes: Counter[str] = Counter(dict.fromkeys(LINKS, 0))
        self.cpu_s = self.cpu_lost_s = 0.0
        self.most_attempts = 0

    def run(self) -> Outcome:
        n_workers = self.fleet.n_workers
        workers = [self._work(number) for number in range(n_workers)]
        ended_s = [0.0] * n_workers
        ready = deque(range(n_workers))
        while ready or self.running:
            while ready:
                number = ready.popleft()
                step = next(workers[number], None)
                if step is None:
                    ended_s[number] = self.now_s
                elif isinstance(step, Stage):
                    self.running[number] = (step, 1.0)
                elif isinstance(step, _Acquire):
                    if step.lock in self.holders:
                        self.waiting.setdefault(step.lock, deque()).append(number)
                    else:
                        self.holders[step.lock] = number
                        ready.append(number)
                else:
                    del self.holders[step.lock]
                    if self.waiting.get(step.lock):
                        following = self.waiting[step.lock].popleft()
                        self.holders[step.lock] = following
                        ready.append(following)
                    ready.append(number)
            if self.running:
                ready.extend(self._advance())
        idle_s = sum(self.now_s - end for end in ended_s)
        return Outcome(
            duration_s=self.now_s,
            worker_s=sum(ended_s),
            n_cores=self.fleet.n_cores,
            cpu_s=self.cpu_s,
            n_bytes=dict(self.n_bytes),
            limited_s={**sum(self.limited_s, Counter()), "idle": idle_s},
            stage_s=dict(self.stage_s),
            cpu_lost_s=self.cpu_lost_s,
            most_attempts=self.most_attempts,
        )

    def _advance(self) -> list[int]:
        """Let time pass until a stage ends, and return the workers whose stages have."""
        numbers = list(self.running)
        rates = share_links([self.running[n][0] for n in numbers], self.fleet.n_cores, self.fleet.bytes_per_s)
        elapsed_s = min(self.running[n][1] / rate for n, (rate, _) in zip(numbers, rates, strict=True))
        ended = []
        for number, (rate, limit) in zip(numbers, rates, strict=True):
            stage, left = self.running[number]
            share = left if math.isinf(rate) else min(left, rate * elapsed_s)
            self.cpu_s += share * stage.cpu_s
            for link in LINKS:
                self.n_bytes[link] += share * stage.bytes_over(link)
            self.limited_s[number]["turn" if stage.name == _RETRY else limit] += elapsed_s
            self.stage_s[stage.name] += elapsed_s
            if left - share <= _DONE:
                del self.running[number]
                ended.append(number)
            else:
                self.running[number] = (stage, left - share)
        self.now_s += elapsed_s
        for number in (number for waiting in self.waiting.values() for number in waiting):
            self.limited_s[number]["turn"] += elapsed_s
        return ended

    def _work(self, number: int) -> _Steps:
        """Do what one worker does from the beginning to the end."""
        while self.queue:
            command = self.queue.popleft()
            yield from (stage for stage in command.stages if not stage.is_empty)
            yield from self._take_turn(number, "publish", partial(self._begin_to_list, command.n_sessions))
            place = self.n_listed
            yield from self._take_turn(number, "link", partial(self._begin_to_link, place))

    def _begin_to_list(self, n_new: int) -> tuple[Sequence[Stage], Callable[[], None]]:
        def count() -> None:
            self.n_listed += n_new

        return self.plan.publish(self.n_listed), count

    def _begin_to_link(self, place: int) -> tuple[Sequence[Stage], Callable[[], None] | None]:
        n_listed = self.n_listed
        if place <= self.n_linked:
            # Somebody else has linked it meanwhile. There is nothing to be written.
            return self.plan.link(self.n_linked, 0), None

        def count() -> None:
            self.n_linked = n_listed

        return self.plan.link(self.n_linked, n_listed - self.n_linked), count

    def _take_turn(
        self, number: int, name: str, begin: Callable[[], tuple[Sequence[Stage], Callable[[], None] | None]]
    ) -> _Steps:
        """Do what one worker at a time can finish."""
        if name in self.fleet.locked:
            yield _Acquire(name)
            stages, commit = begin()
            yield from (stage for stage in stages if not stage.is_empty)
            if commit is not None:
                commit()
            self.most_attempts = max(self.most_attempts, 1)
            yield _Release(name)
            return
        attempt = 1
        while True:
            version, before = self.versions[name], self.limited_s[number].copy()
            stages, commit = begin()
            yield from (stage for stage in stages if not stage.is_empty)
            self.most_attempts = max(self.most_attempts, attempt)
            if commit is None:
                return
            if version == self.versions[name]:
                self.versions[name] += 1
                commit()
                return
            self.cpu_lost_s += sum(stage.cpu_s for stage in stages)
            lost_s = self.limited_s[number].total() - before.total()
            self.limited_s[number] = before + Counter({"turn": lost_s})
            if wait_s := self.fleet.retry_wait_s(attempt):
                yield Stage(_RETRY, wait_s=wait_s)
            attempt += 1
