"""Whether a host can be reached at all: where there is no network, nobody should wait for it more than once a run."""

from __future__ import annotations

import socket
import threading
import urllib.request
from urllib.parse import urlparse

PROBE_SECONDS = 2.0
PORTS = {"http": 80, "https": 443}

UNREACHABLE: dict[str, str] = {}
"""Host -> why no connection to it came about: one attempt a run. Processes that a run starts are told what is here."""


def unreachable(error: BaseException | None) -> bool:
    """Tells whether there was no connection, so that the next file would fail as well, after the same wait."""
    while error is not None:
        if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
            return True
        reason = getattr(error, "reason", None)
        error = reason if isinstance(reason, BaseException) else error.__cause__ or error.__context__
    return False


def check_reachable(url: str) -> None:
    """Raises OSError where nothing takes a connection for this URL within `PROBE_SECONDS`; names are looked up in that
    time as well, which a socket's own limit does not cover.
    """
    parsed = urlparse(url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parsed.scheme) or proxies.get("all")
    if proxy and parsed.hostname and not urllib.request.proxy_bypass(parsed.hostname):
        parsed = urlparse(proxy if "//" in proxy else f"//{proxy}")
    if parsed.hostname is None:
        return  # a file: nothing to connect to
    address = parsed.hostname, parsed.port or PORTS.get(parsed.scheme, 80)
    failed: list[OSError] = []

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=PROBE_SECONDS).close()
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    if thread.is_alive():
        raise TimeoutError(f"no connection to {parsed.hostname} within {PROBE_SECONDS:g} s")
    if failed:
        raise failed[0]


def why_unreachable(url: str) -> str | None:
    """Says why nothing takes a connection for this URL, asked once a run; None where something does."""
    host = urlparse(url).netloc
    if host not in UNREACHABLE:
        try:
            check_reachable(url)
        except OSError as error:
            UNREACHABLE[host] = str(error.strerror or error)
    return UNREACHABLE.get(host)
