"""Pickles from strangers: read which objects one would import, without running it."""

from __future__ import annotations

import pickletools
import re
from collections.abc import Iterator, Sequence

from medtrust.errors import SafetyError

__all__ = ["TENSOR_GLOBALS", "check_pickle", "looks_like_pickle"]

# What torch writes for tensors and plain containers, and nothing that runs anything else.
TENSOR_GLOBALS: tuple[str, ...] = (
    r"collections OrderedDict",
    r"torch\._utils _rebuild_(tensor|tensor_v2|parameter|parameter_with_state)",
    r"torch (\w+Storage|Size|device|(b?float|int|uint|bool|complex|half|double|long)\w*)",
    r"torch\.storage (Untyped|Typed)Storage",
    r"torch\.nn\.parameter Parameter",
    r"torch\.jit\._pickle build_(intlist|tensorlist|doublelist|boollist|tensor_from_id)",
    r"torch\.serialization _get_layout",
)

# The opcodes of the protocol that torch writes. STACK_GLOBAL, INST and OBJ name what they import by the state of the
# stack, which no reader can know without running the pickle; the EXT codes import by a table outside of it.
_LOOK = 16 * 1024**2
_SAFE = frozenset(
    {
        "PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP", "NONE", "NEWTRUE", "NEWFALSE", "BININT",
        "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "BINFLOAT", "FLOAT", "BINUNICODE",
        "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "SHORT_BINSTRING",
        "BINSTRING", "EMPTY_LIST", "APPEND", "APPENDS", "LIST", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2",
        "TUPLE3", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET", "BINPUT",
        "LONG_BINPUT", "PUT", "BINGET", "LONG_BINGET", "GET", "MEMOIZE", "GLOBAL", "REDUCE", "BUILD", "NEWOBJ",
        "BINPERSID",
    }
)  # fmt: skip


def looks_like_pickle(content: bytes) -> bool:
    """Say whether bytes that nobody should unpickle are a pickle all the same: they parse, and would import or call.

    Raw numbers can begin like a pickle by chance; that they also parse to the end is as good as impossible.
    """
    if b"." not in content[:_LOOK]:
        return False
    try:
        names = {code.name for code, _, _ in pickletools.genops(content[:_LOOK])}
    except Exception:  # any error of the parser means the same: no pickle
        return False
    return bool(names & {"GLOBAL", "STACK_GLOBAL", "INST", "OBJ", "REDUCE", "BUILD"})


def check_pickle(content: bytes, name: str, allowed: Sequence[str] = TENSOR_GLOBALS) -> None:
    """Refuse a pickle that could do anything but rebuild tensors and plain containers.

    Args:
        content: One pickle, and nothing behind it.
        name: What to call it in a message.
        allowed: Regular expressions for "module name" pairs that it may import.

    Raises:
        SafetyError: An opcode beyond the known-safe set, an import beyond `allowed`, or bytes that do not parse.
    """
    patterns = [re.compile(pattern) for pattern in allowed]
    for code, argument, position in _codes(content, name):
        if code.name not in _SAFE:
            raise SafetyError(f"{name} holds a pickle with the opcode {code.name} at byte {position}; do not use it")
        if code.name == "GLOBAL" and not any(pattern.fullmatch(str(argument)) for pattern in patterns):
            dotted = str(argument).replace(" ", ".")
            raise SafetyError(f"{name} holds a pickle that would import {dotted!r}; do not use it")


def _codes(content: bytes, name: str) -> Iterator[tuple[pickletools.OpcodeInfo, object, int | None]]:
    end = 0
    try:
        for code, argument, position in pickletools.genops(content):
            end = (position or 0) + 1
            yield code, argument, position
    except (ValueError, AttributeError, IndexError, KeyError, OverflowError, EOFError) as error:
        raise SafetyError(f"{name} holds a damaged pickle ({type(error).__name__}); do not use it") from error
    if end != len(content):
        raise SafetyError(f"{name} holds {len(content) - end} bytes behind its pickle; do not use it")
