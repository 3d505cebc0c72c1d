"""A look at a pickle before it is read: a few bytes may stand for more than a reader can bear.

Tuples are hashed where they are keys, through all that they hold. One in another, 200,000 deep, overflows the stack of
the process; one that holds another twice, 40 deep, takes 2**40 steps. Nothing is made of the pickle here.
"""

from __future__ import annotations

import pickletools
from collections.abc import Iterator
from typing import IO

__all__ = ["UnboundedError", "require_flat"]

#: So many values a tuple may stand for, with those of the tuples in it. A tensor has about twenty.
_MOST_VALUES = 10_000

_PUT = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_GET = frozenset({"GET", "BINGET", "LONG_BINGET"})
# What they make, or change, cannot be hashed.
_CONTAINERS = frozenset({"APPEND", "APPENDS", "SETITEM", "SETITEMS", "DICT", "LIST", "ADDITEMS"})
_MARK = -1


class UnboundedError(ValueError):
    """A tuple in a pickle stands for more values than a reader can bear; the message says so in a clause."""


def require_flat(stream: IO[bytes]) -> None:
    """Check a pickle in a stream, which is read to the pickle's end.

    Raises
    ------
    UnboundedError
        If a tuple in it stands for too many values.
    Exception
        Whatever reading it raises, if it is no pickle: its bytes decide.
    """
    # What each thing on the stack stands for, in values.
    stack: list[int] = []
    memo: dict[int, int] = {}
    for operation, argument, _ in pickletools.genops(stream):
        name = operation.name
        try:
            if name in _PUT:
                memo[len(memo) if argument is None else int(argument)] = stack[-1]
                continue
            if name in _GET:
                stack.append(memo[int(argument)])
                continue
            popped = list(_pop(stack, operation))
        except (IndexError, KeyError) as error:
            raise ValueError("the pickle takes what it has not put there") from error
        size = 1 if name in _CONTAINERS else 1 + sum(popped)
        if size > _MOST_VALUES:
            raise UnboundedError(f"a tuple that stands for more than {_MOST_VALUES:,} values")
        if name == "DUP":
            stack += [popped[0], popped[0]]
            continue
        stack += [_MARK if made is pickletools.markobject else size for made in operation.stack_after]


def _pop(stack: list[int], operation: pickletools.OpcodeInfo) -> Iterator[int]:
    """Take from the stack what an operation takes, and yield what it stands for."""
    for wanted in reversed(operation.stack_before):
        if wanted is pickletools.stackslice:
            while stack[-1] != _MARK:
                yield stack.pop()
        elif wanted is pickletools.markobject:
            if stack.pop() != _MARK:
                raise IndexError
        else:
            taken = stack.pop()
            if taken == _MARK:
                raise IndexError
            yield taken
