"""What a conversion has written, compared with what it was to write, before it is published."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future

from sensorium_data.files import ObjectStatus, StoredObject
from sensorium_data.ingest.trial_conversion import ConversionPlan, check_written
from sensorium_data.ordered_map import as_finished, drop
from sensorium_data.progress import Progress

__all__ = ["find_written_problems"]

# Objects that one task reads back: few enough to spread, many enough that a cluster's overhead does not count.
_CHECKED_AT_ONCE = 16

Submit = Callable[..., Future[dict[str, str]]]


def find_written_problems(
    plan: ConversionPlan,
    written: Mapping[str, StoredObject],
    listed: Mapping[str, ObjectStatus],
    submit: Submit,
    *,
    label: str,
    progress: Progress,
) -> dict[str, str]:
    """Return what is wrong with objects that were written, by key.

    An object whose tag the store confirmed when it was written is compared with the tag in a listing; every other one
    is read back.

    Parameters
    ----------
    plan : ConversionPlan
        Of the session.
    written : mapping of str to StoredObject
        What was written, by key.
    listed : mapping of str to ObjectStatus
        What a listing says of them.
    submit : callable
        Has a function called with arguments, here or by a worker.
    label : str
        What progress is reported under.
    progress : Progress
        Told after each group of objects.
    """
    problems, n_bytes = _compare_listed(written, listed)
    unread = [(key, stored) for key, stored in written.items() if key not in problems and stored.tag is None]
    n_done = len(written) - len(unread)
    if n_done:
        progress(label, n_done, len(written), n_bytes=n_bytes)
    batches = [unread[start : start + _CHECKED_AT_ONCE] for start in range(0, len(unread), _CHECKED_AT_ONCE)]
    futures = {submit(check_written, plan, batch): batch for batch in batches}
    try:
        for future in as_finished(futures):
            problems.update(future.result())
            n_done += len(futures[future])
            n_bytes += sum(stored.size_bytes for _, stored in futures[future])
            progress(label, n_done, len(written), n_bytes=n_bytes)
    finally:
        drop(futures)
    return problems


def _compare_listed(
    written: Mapping[str, StoredObject], listed: Mapping[str, ObjectStatus]
) -> tuple[dict[str, str], int]:
    """Return what a listing says is wrong with objects that have tags, by key, and the size of those that are right.

    The store confirmed each tag when the object was written. The same tag now means the same bytes.
    """
    tagged = {key: stored for key, stored in written.items() if stored.tag is not None}
    found = {key: stored.find_listed_difference(listed.get(key)) for key, stored in tagged.items()}
    problems = {key: problem for key, problem in found.items() if problem is not None}
    return problems, sum(stored.size_bytes for key, stored in tagged.items() if key not in problems)
