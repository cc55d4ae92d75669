"""Take away from this process, for good, what arithmetic does not need: network, files, memory, time.

Imports the standard library alone, because it runs before anything else in the process that opens an artefact.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterable, Mapping

__all__ = ["confine"]

_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_O_PATH = getattr(os, "O_PATH", 0)
# linux/landlock.h: execute, write file, read file, read dir, remove …, make …, refer, truncate
_EXECUTE, _WRITE, _READ, _LIST, _TRUNCATE = 1 << 0, 1 << 1, 1 << 2, 1 << 3, 1 << 14
_ALL = {1: (1 << 13) - 1, 2: (1 << 14) - 1}
_FILE_RIGHTS = _EXECUTE | _WRITE | _READ | _TRUNCATE


def confine(readable: Iterable[str], writable: str, limits: Mapping[str, int]) -> dict[str, str]:
    """Confine this process and whatever it starts; there is no way back.

    Args:
        readable: Files and folders that may be read.
        writable: The one folder that may be written.
        limits: `memory` (bytes of address space), `cpu` (seconds), `file` (bytes of one file), `files` (open at once).

    Returns:
        What holds now: `network` "none" or "open", `files` "confined" or "open" (kernels without user namespaces or
        Landlock cannot do more), `memory` and `cpu` as they were limited.
    """
    network = "none" if _cut_network() else "open"
    files = "confined" if _landlock(readable, writable) else "open"
    for kind, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, limits["file"]),
        (resource.RLIMIT_NOFILE, limits["files"]),
        (resource.RLIMIT_CPU, limits["cpu"]),
        (resource.RLIMIT_AS, limits["memory"]),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))
    return {"network": network, "files": files, "memory": f"{limits['memory'] >> 20} MiB", "cpu": f"{limits['cpu']} s"}


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if os.uname().sysname == "Linux" else None


def _cut_network() -> bool:
    """Move into a network namespace of our own, which has no interface but a dead loopback."""
    libc = _libc()
    return libc is not None and (libc.unshare(_NEWUSER | _NEWNET) == 0 or libc.unshare(_NEWNET) == 0)


def _landlock(readable: Iterable[str], writable: str) -> bool:
    libc = _libc()
    if libc is None:
        return False
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if version < 1:
        return False
    handled = _ALL.get(version, (1 << 15) - 1)
    ruleset = ctypes.create_string_buffer(handled.to_bytes(8, "little"), 8)
    rules = libc.syscall(_CREATE_RULESET, ruleset, ctypes.c_size_t(8), ctypes.c_uint32(0))
    if rules < 0:
        return False
    try:
        for path in readable:
            _allow(libc, rules, path, (_EXECUTE | _READ | _LIST) & handled)
        _allow(libc, rules, "/dev/null", (_READ | _WRITE) & handled)
        _allow(libc, rules, writable, handled)
        if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            return False
        return bool(libc.syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint32(0)) == 0)
    finally:
        os.close(rules)


def _allow(libc: ctypes.CDLL, rules: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, _O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # of the usual places of libraries, not every system has each
    try:
        rights = rights if os.path.isdir(path) else rights & _FILE_RIGHTS
        rule = rights.to_bytes(8, "little") + place.to_bytes(4, "little", signed=True)
        if libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint32(0)) != 0:
            raise OSError(ctypes.get_errno(), f"cannot allow {path}")
    finally:
        os.close(place)
