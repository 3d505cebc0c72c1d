"""Tiers whose responses are withheld: the sentence on each, and all of them in one line."""

from __future__ import annotations

import re
from collections.abc import Iterable

from sensorium_data.sessions import Session, Tier

__all__ = ["describe_withheld", "join_withheld"]

_WHO = "only the competition's server can score them"
_SENTENCE = re.compile(
    r"session (?P<alias>\S+)(?: \(\S+\))?, (?P<tier>[^,:]+): the responses of (?P<n>\d+) of (?P<total>\d+) trials are "
    rf"withheld; {re.escape(_WHO)}"
)


def describe_withheld(session: Session, tier: Tier, n_withheld: int, n_trials: int) -> str:
    """Return a sentence on a tier of a session, some or all of whose trials have no responses."""
    return f"session {session}, {tier}: the responses of {n_withheld} of {n_trials} trials are withheld; {_WHO}"


def join_withheld(unscored: Iterable[str]) -> list[str]:
    """Return sentences on what was not scored, those of :func:`describe_withheld` in one.

    Parameters
    ----------
    unscored : iterable of str
        As :attr:`sensorium_data.scoring.ScoreTable.unscored` has them.

    Examples
    --------
    >>> from sensorium_data.sessions import find_session
    >>> join_withheld([describe_withheld(find_session("F"), Tier.LIVE_TEST_MAIN, 60, 60), "session G: no trial"])
    ["responses withheld, only the competition's server can score them: F live_test_main", 'session G: no trial']
    """
    tiers: dict[str, list[str]] = {}
    others = []
    for sentence in unscored:
        match = _SENTENCE.fullmatch(sentence)
        if match is None:
            others.append(sentence)
            continue
        part = "" if match["n"] == match["total"] else f" ({match['n']} of {match['total']} trials)"
        tiers.setdefault(match["alias"], []).append(f"{match['tier']}{part}")
    # Sessions of which the same is withheld are named together.
    aliases: dict[str, list[str]] = {}
    for alias, names in tiers.items():
        aliases.setdefault(", ".join(names), []).append(alias)
    if aliases:
        listed = "; ".join(f"{', '.join(of)} {names}" for names, of in aliases.items())
        others.insert(0, f"responses withheld, {_WHO}: {listed}")
    return others
