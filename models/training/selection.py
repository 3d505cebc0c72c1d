"""Which neurons a recipe trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from models.config import TrainingConfig
from sensorium_data.errors import UsageError
from sensorium_data.scoring import measure_oracle_correlation
from sensorium_data.sessions import Session, find_session
from sensorium_data.store import Store, parse_exclusions, require_trials
from sensorium_data.windows import choose_neurons

__all__ = ["describe_neurons", "select_neurons"]


def select_neurons(
    config: TrainingConfig, store: Store, sessions: Sequence[Session]
) -> dict[str, tuple[int, ...]] | None:
    """Return the unit ids of the neurons that a recipe trains on, by full session name; None if it takes all.

    Those whose oracle correlation is at least ``min_reliability``, and of these those that ``neurons`` chooses, in the
    store's order. Oracle trials that are left out do not count for the correlation.

    Raises
    ------
    StoreError, TrialError
        If a trial to leave out does not exist, or the oracle trials cannot be read.
    UsageError
        If no neuron of a session is left.
    """
    excluded = parse_exclusions(config.exclude)
    require_trials(store, excluded)
    if not config.selects_neurons:
        return None
    chosen = {}
    for session in sessions:
        unit_ids = store[session]["neuron"].values
        if config.min_reliability is not None:
            reliability = measure_oracle_correlation(store, session, exclude=excluded.get(session.name, frozenset()))
            is_reliable = reliability >= config.min_reliability
            if not is_reliable.any():
                raise UsageError(
                    "no neuron is reliable enough",
                    session=session,
                    path=store.url,
                    found=f"oracle correlations of up to {reliability.max():.3f}, {reliability.mean():.3f} on average",
                    expected=f"min_reliability {config.min_reliability:g}",
                    remedy="lower --min-reliability, or leave the session out",
                )
            unit_ids = unit_ids[is_reliable]
        if config.neurons is not None:
            unit_ids = choose_neurons(session.name, unit_ids, config.neurons, path=store.url)
        chosen[session.name] = tuple(unit_ids.tolist())
    return chosen


def describe_neurons(store: Store, neurons: Mapping[str, Sequence[int]] | None) -> tuple[str, ...]:
    """Return a sentence for each session of which some neurons are trained on."""
    notes = []
    for name, unit_ids in (neurons or {}).items():
        session = find_session(name)
        n_neurons = store[session].sizes["neuron"]
        notes.append(f"Session {session}: {len(unit_ids)} of {n_neurons} neurons are trained on and will be predicted.")
    return tuple(notes)
