"""Results of threads: in order with a bounded number of them in memory, or as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

__all__ = ["as_finished", "drop", "map_ahead"]

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item], n_ahead: int
) -> Iterator[tuple[_Item, _Result]]:
    """Yield each item with its result, in the items' order.

    Parameters
    ----------
    pool : ThreadPoolExecutor
        Where the function runs.
    function : callable
        Takes an item. What it raises is raised where its result would have been yielded.
    items : iterable
        What to map over.
    n_ahead : int
        At most so many results are in the making or waiting: ``pool.map`` would pile them up.

    Examples
    --------
    >>> with ThreadPoolExecutor(2) as pool:
    ...     list(map_ahead(pool, abs, [-2, 1], n_ahead=2))
    [(-2, 2), (1, 1)]
    """
    waiting: deque[tuple[_Item, Future[_Result]]] = deque()
    for item in items:
        if len(waiting) >= max(1, n_ahead):
            done, future = waiting.popleft()
            yield done, future.result()
        waiting.append((item, pool.submit(function, item)))
    while waiting:
        done, future = waiting.popleft()
        yield done, future.result()


def as_finished(futures: Collection[Future[_Result]]) -> Iterator[Future[_Result]]:
    """Yield futures in the order in which they finish or are canceled.

    :func:`concurrent.futures.as_completed` waits for ever for a future that its pool, shutting down, canceled.

    Examples
    --------
    >>> with ThreadPoolExecutor(1) as pool:
    ...     [future.result() for future in as_finished([pool.submit(abs, -2)])]
    [2]
    """
    finished: SimpleQueue[Future[_Result]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(finished.put)
    for _ in futures:
        yield finished.get()


def drop(futures: Collection[Future[_Result]]) -> None:
    """Cancel the futures that have not begun, and wait for the others, whatever they come to."""
    begun = [future for future in futures if not future.cancel()]
    for future in begun:
        future.exception()
