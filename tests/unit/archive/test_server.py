"""The server of tests and of the demo ends with all of its connections, whatever their clients do."""

from __future__ import annotations

import gc
import socket
import warnings
from contextlib import ExitStack
from pathlib import Path

from sensorium_data.testing import serve_directory


def connect(url: str) -> socket.socket:
    host, port = url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def found_unclosed(caught: list[warnings.WarningMessage]) -> list[str]:
    gc.collect()
    return [str(w.message) for w in caught if issubclass(w.category, ResourceWarning)]


def test_connections_that_come_as_it_ends_are_closed(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as caught, ExitStack() as clients:
        warnings.simplefilter("always")
        for _ in range(100):
            with serve_directory(tmp_path) as server:
                for _ in range(3):
                    clients.enter_context(connect(server.url))
        assert found_unclosed(caught) == []


def test_a_client_that_reads_no_more_does_not_hold_a_connection_open(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(50_000_000))
    with warnings.catch_warnings(record=True) as caught, ExitStack() as clients:
        warnings.simplefilter("always")
        with serve_directory(tmp_path) as server:
            client = clients.enter_context(connect(server.url))
            client.sendall(b"GET /large HTTP/1.1\r\nHost: here\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.1 200"
        assert found_unclosed(caught) == []
