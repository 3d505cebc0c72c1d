"""Servers on this machine are asked directly, whatever proxy the environment names; others through it."""

from __future__ import annotations

import os
import socket
import threading
from urllib.request import getproxies, proxy_bypass

import httpx
import pytest
from pytest_httpserver import HTTPServer

from flows.lab import require_server
from flows.lab.loopback import bypass_proxies_for_loopback, describe_route
from sensorium_data.errors import UsageError

PROXY = "http://ward:secret@127.0.0.1:9"


@pytest.fixture(autouse=True)
def proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name a proxy that nobody answers at."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, PROXY)
    for name in ("no_proxy", "NO_PROXY"):
        # Set before they are deleted: what the test sets is then taken back too.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("before", "direct", "by_proxy"),
    [
        ({}, ["127.0.0.1", "localhost", "::1"], ["gin.g-node.org", "10.0.0.7"]),
        ({"no_proxy": "10.0.0.7"}, ["127.0.0.1", "10.0.0.7"], ["gin.g-node.org"]),
        ({"NO_PROXY": "10.0.0.7, localhost"}, ["127.0.0.1", "localhost", "10.0.0.7"], ["gin.g-node.org"]),
        ({"no_proxy": "*"}, ["127.0.0.1", "gin.g-node.org"], []),
    ],
)
def test_hosts_that_need_no_proxy_are_kept_and_loopback_joins_them(
    monkeypatch: pytest.MonkeyPatch, before: dict[str, str], direct: list[str], by_proxy: list[str]
) -> None:
    for name, value in before.items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        bypass_proxies_for_loopback()
    assert [host for host in [*direct, *by_proxy] if proxy_bypass(host)] == direct
    assert os.environ["no_proxy"] == os.environ["NO_PROXY"]
    assert len(set(os.environ["no_proxy"].split(","))) == len(os.environ["no_proxy"].split(","))


def test_a_server_on_this_machine_is_found(monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/health").respond_with_json(True)
    url = httpserver.url_for("/api")
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")
    monkeypatch.setenv("PREFECT_API_URL", url)
    require_server()
    # Prefect's own client, in this process and in those that it starts.
    assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.parametrize(("status", "is_there"), [(200, True), (401, True), (403, True), (502, False), (504, False)])
def test_what_a_proxy_answers_for_a_server_that_is_away_is_no_server(
    monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer, status: int, is_there: bool
) -> None:
    httpserver.expect_request("/api/health").respond_with_data("", status)
    monkeypatch.setenv("PREFECT_API_URL", httpserver.url_for("/api"))
    if is_there:
        require_server()
    else:
        with pytest.raises(UsageError, match=rf"no Prefect server answers .* found HTTP Error {status}"):
            require_server()


def test_what_speaks_no_http_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")

        answering = threading.Thread(target=greet)
        answering.start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{listener.getsockname()[1]}/api")
        with pytest.raises(
            UsageError, match=r"no Prefect server answers .* found SSH-2\.0-OpenSSH_9\.6, asked directly"
        ):
            require_server()
        answering.join()
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name)
    # It has looked for proxies when it was made.
    monkeypatch.setattr("urllib.request._opener", None)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:port/api")
    with pytest.raises(UsageError, match=r"no Prefect server answers .* found nonnumeric port: 'port'"):
        require_server()


def test_the_error_names_the_proxy_without_its_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.invalid/api")
    assert getproxies()["http"] == PROXY
    with pytest.raises(UsageError, match=r"asked through the proxy http://…@127\.0\.0\.1:9 of the environment"):
        require_server()
    bypass_proxies_for_loopback()
    assert describe_route("http://127.0.0.1:4200/api") == "asked directly"
    assert describe_route("http://[::1") == "not asked"
