"""What a store and unfinished work know of the files that they were made from, so that a folder's need not be read."""

from __future__ import annotations

from collections.abc import Iterable

from sensorium_data.archive import SessionArchive, members_of_trial
from sensorium_data.schema import STATISTICS, VARIABLES
from sensorium_data.store import StatisticsRecord, TrialFacts

__all__ = ["STATISTICS_MEMBERS", "recall_statistics", "recall_trials"]

#: The archive's own statistics, by the names that records have for them.
STATISTICS_MEMBERS = {
    f"{variable}/{statistic}": f"meta/statistics/{variable}/all/{statistic}.npy"
    for variable in VARIABLES
    for statistic in STATISTICS
}


def recall_trials(archive: SessionArchive, trials: Iterable[TrialFacts]) -> None:
    """Tell an archive the fingerprints of trials' files: they count where the files have not been touched since."""
    for facts in trials:
        archive.recall(members_of_trial(facts.trial), facts.stamps, facts.members)


def recall_statistics(archive: SessionArchive, record: StatisticsRecord) -> None:
    """Tell an archive the fingerprints of its own statistics."""
    archive.recall(STATISTICS_MEMBERS, record.stamps, record.members)
