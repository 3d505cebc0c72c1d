"""Proxies are for other machines: servers on this one are asked directly."""

from __future__ import annotations

import os
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from sensorium_data.redaction import hide_secrets

__all__ = ["bypass_proxies_for_loopback", "describe_route"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def bypass_proxies_for_loopback() -> None:
    """Have this process, and those that it starts, ask loopback without a proxy.

    Proxies that the environment names for other hosts stay. Every HTTP client heeds ``no_proxy``, in small letters or
    in capitals.
    """
    named = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host for host in (part.strip() for part in named.split(",")) if host]
    if "*" not in hosts:
        hosts += [host for host in _LOOPBACK if host not in hosts]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)


def describe_route(url: str) -> str:
    """Return how a URL is asked: directly, or through which proxy of the environment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "not asked"
    proxy = getproxies().get(parts.scheme)
    if proxy is None or proxy_bypass(parts.hostname or ""):
        return "asked directly"
    return f"asked through the proxy {hide_secrets(proxy)} of the environment"
