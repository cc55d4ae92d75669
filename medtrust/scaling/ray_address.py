"""Where a Ray cluster is, whether anything answers there, and what reaches it."""

from __future__ import annotations

import ipaddress
import re
import socket
import subprocess
import sys

from medtrust.errors import ConfigError

__all__ = ["check_address", "check_health", "is_loopback", "note_of"]

_PATIENCE = 5.0
_MORE_PATIENCE = 45.0  # Ray itself waits for minutes, and imports slowly on a busy machine


def check_address(address: str, *, offline: bool) -> None:
    """Refuse an address that cannot be used, before Ray spends minutes on it.

    Args:
        address: `HOST:PORT` of the cluster's head (its GCS port, 6379 unless set otherwise).
        offline: Only this machine may be reached.

    Raises:
        ConfigError: It is malformed or forbidden, or nothing answers.
    """
    host, port = _parts(address)
    if offline and not is_loopback(host):
        raise ConfigError(
            f"--ray-address {address} is on another machine, which --offline forbids; run with --online, or leave the "
            "address out to work on this machine alone"
        )
    try:
        socket.create_connection((host, port), timeout=_PATIENCE).close()
    except OSError as error:
        reason = error.strerror or str(error) or type(error).__name__
        raise ConfigError(
            f"no Ray cluster answers at {address} ({reason}); start one with `ray start --head --port {port}`, correct "
            "the address, or leave it out to work on this machine alone"
        ) from error


def check_health(address: str) -> None:
    """Ask Ray, in a process that can be stopped, whether a cluster is behind an address.

    Raises:
        ConfigError: It is none, or asks for another token.
    """
    check = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        healthy = subprocess.run(check, capture_output=True, timeout=_MORE_PATIENCE).returncode == 0  # noqa: S603
    except subprocess.TimeoutExpired:
        healthy = False
    if not healthy:
        raise ConfigError(
            f"what answers at {address} is no healthy Ray cluster, or wants another token than RAY_AUTH_TOKEN holds; "
            "give HOST:PORT of the cluster's head, as `ray start --head` prints it"
        )


def _parts(address: str) -> tuple[str, int]:
    if address.startswith("ray://"):
        raise ConfigError(
            f"--ray-address {address} goes through Ray's client proxy; run medtrust on a machine of the cluster and "
            "give HOST:PORT of its head"
        )
    match = re.fullmatch(r"\[?([^\[\]/]+?)\]?:(\d{1,5})", address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise ConfigError(
            f"--ray-address is {address!r}, wanted HOST:PORT of the cluster's head, such as 10.0.0.5:6379"
        )
    return match[1], int(match[2])


def is_loopback(host: str) -> bool:
    """Whether a host is this machine's loopback, as far as its name or number says."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def note_of(address: str) -> str:
    """What the user must know when real images are worked on elsewhere."""
    return (
        f"the Ray cluster at {address} is given file paths, headers without patients, pixel digests and features of "
        "real images, and its workers read the images themselves; Ray encrypts none of this unless RAY_USE_TLS is set"
    )
