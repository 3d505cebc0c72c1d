"""A slot of the GPU limit that cannot be given back is no failure of the work; the server is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from flows.training import gpu_limit


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Log lines, where the server gives slots and takes none back."""
    lines: list[str] = []

    @contextmanager
    def client(**_: object) -> Iterator[Any]:
        yield SimpleNamespace(read_global_concurrency_limit_by_name=lambda _name: SimpleNamespace(limit=1))

    @contextmanager
    def concurrency(*_: object, **__: object) -> Iterator[None]:
        try:
            yield
        finally:
            raise httpx.ConnectError("nobody there")

    monkeypatch.setattr(gpu_limit, "get_client", client)
    monkeypatch.setattr(gpu_limit, "concurrency", concurrency)
    monkeypatch.setattr(gpu_limit, "wait_for_server", lambda: False)
    monkeypatch.setattr(gpu_limit, "log_line", lines.append)
    return lines


def test_work_that_is_done_stays_done(lines: list[str]) -> None:
    with gpu_limit.gpu_slot():
        pass
    assert "nobody there" in lines[-1]


def test_work_that_fails_fails(lines: list[str]) -> None:
    with pytest.raises(ValueError, match="out of memory"), gpu_limit.gpu_slot():
        raise ValueError("out of memory")
    assert len(lines) == 1
