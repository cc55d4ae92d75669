"""TorchScript and .pt2 files from strangers: look for whatever is not arithmetic before torch opens the file."""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from medtrust.errors import DataError, SafetyError
from medtrust_adapters.archives import check_zip, read_member
from medtrust_adapters.pickles import TENSOR_GLOBALS, check_pickle, looks_like_pickle

__all__ = ["check_pt2", "check_torchscript"]

_TEXT_LIMIT = 256 * 1024**2
_DEEPEST = 3
_PICKLED = (".pkl", ".pt", ".pth", ".ckpt")

# TorchScript is its own language without imports, but some of its operators reach files, processes and the network.
_REACHING = re.compile(r"\btorch\.(from_file|save|load|_pickle\w*|_load\w*|rpc\w*|dist\w*|jit\w*|classes\b[\w.]*)\b")
_NAMESPACES = re.compile(
    r"\bops\.(?!(?:aten|prim|prims|quantized|torchvision)\.)(\w+)|\bops\.\w+\.(from_file|save|load)"
)

# torch.export resolves a node's target by getattr from the torch, operator and math modules: "torch.os.system" works.
_TARGET = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!from_file\b|save\b|load\b)\w+\.\w+"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|lt|le|gt|ge|eq|ne|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt|log2?)"
    r"|torch\.sym_(not|float|int|max|min|ite|sum|sqrt)"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|wrap_with_set_grad_enabled|wrap_with_autocast)"
)
# … and evaluates a symbolic size as Python, through sympy.
_CALLS = frozenset(
    {
        "Symbol", "Integer", "Float", "Rational", "Max", "Min", "Mod", "Add", "Mul", "Pow", "Abs", "Eq", "Ne", "Le",
        "Lt", "Ge", "Gt", "And", "Or", "Not", "Piecewise", "ExprCondPair", "FloorDiv", "ModularIndexing", "Where",
        "PythonMod", "CleanDiv", "CeilToInt", "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural",
        "FloatTrueDiv", "IntTrueDiv", "TruncToInt", "TruncToFloat", "RoundToInt", "ToFloat", "Identity",
    }
)  # fmt: skip
_WORDS = re.compile(r"[A-Za-z]\w{0,63}")
_NODES = (
    ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.Tuple, ast.BinOp, ast.UnaryOp,
    ast.Compare, ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop,
)  # fmt: skip


def check_torchscript(path: Path) -> None:
    """Refuse a TorchScript archive that holds anything but arithmetic and tensors.

    Raises:
        SafetyError: A pickle that imports more than tensors and the archive's own types, an operator that reaches
            beyond memory, a custom class, or an archive that is unsafe as a zip.
        DataError: It is no TorchScript archive.
    """
    members = check_zip(path)
    if not any(re.fullmatch(r"[^/]+/code/.*\.py", info.filename) for info in members):
        raise DataError(f"{path} holds no TorchScript code; give a file written by torch.jit.save")
    for info in members:
        content = read_member(path, info)
        where = f"{path}: {info.filename}"
        if info.filename.endswith("pkl") or looks_like_pickle(content):
            check_pickle(content, where, (*TENSOR_GLOBALS, r"__torch__(?!\.torch\.classes)[\w.]* \w+"))
        if info.filename.endswith(".py"):
            code = content.decode("utf-8", "replace")
            found = _REACHING.search(code) or _NAMESPACES.search(code) or re.search(r"__torch__\.torch\.classes", code)
            if found:
                raise SafetyError(f"{where} uses {found.group()!r}, which reaches beyond tensors; do not use it")


def check_pt2(path: Path) -> None:
    """Refuse a torch.export archive that holds anything but a graph of tensor operators and tensors.

    Raises:
        SafetyError: A pickle that imports more than tensors, an operator, symbolic size or guard that is not plain
            arithmetic, compiled code, or an archive that is unsafe as a zip.
        DataError: It is no torch.export archive.
    """
    members = check_zip(path)
    graphs = 0
    for info in members:
        content = read_member(path, info)
        where = f"{path}: {info.filename}"
        inside = info.filename.partition("/")[2]
        if content[:4] == b"\x7fELF" or inside.startswith(("data/aotinductor", "data/executorch", "data/mtia")):
            raise SafetyError(f"{where} is compiled code; export the model with torch.export.save instead")
        _check_content(content, where, _DEEPEST, inside.endswith(_PICKLED) or inside.startswith("data/sample_inputs"))
        if inside.endswith(".json"):
            graph = _parsed(content, where)
            _check_graph(graph, where)
            graphs += inside.startswith("models/")
    if not graphs:
        raise DataError(f"{path} holds no exported graph; give a file written by torch.export.save")


def _check_content(content: bytes, where: str, deeper: int, pickled: bool) -> None:
    """Check the pickles in a member, in a zip inside it too: torch.save writes one."""
    if content[:4] == b"PK\x03\x04":
        if not deeper:
            raise SafetyError(f"{where} nests archives too deep; do not use it")
        try:
            with zipfile.ZipFile(io.BytesIO(content)) as inner:
                for info in inner.infolist():
                    if info.file_size > len(content) * 20 + _TEXT_LIMIT:
                        raise SafetyError(f"{where}: {info.filename!r} is a zip bomb")
                    part = inner.read(info)
                    _check_content(part, f"{where}: {info.filename}", deeper - 1, info.filename.endswith(_PICKLED))
        except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
            raise SafetyError(f"{where} looks like an archive but is damaged ({error}); do not use it") from error
    elif pickled or looks_like_pickle(content):
        check_pickle(content, where)


def _parsed(content: bytes, where: str) -> Any:
    if len(content) > _TEXT_LIMIT:
        raise SafetyError(f"{where} has {len(content)} bytes of text; do not use it")
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where} is not JSON ({type(error).__name__}); export the model again") from error


def _check_graph(graph: Any, where: str) -> None:
    for key, value in _pairs(graph):
        if key == "target" and isinstance(value, str) and not _TARGET.fullmatch(value):
            raise SafetyError(f"{where} would call {value!r}, which is no tensor operator; do not use it")
        if key == "expr_str" and not _is_arithmetic(str(value)):
            raise SafetyError(f"{where} would evaluate {str(value)[:200]!r} as a size; do not use it")
        if key == "guards_code" and value:
            raise SafetyError(f"{where} would run {str(value)[:200]!r} as guards; export the model without guards")
        if key == "use_pickle" and value is True:
            raise SafetyError(f"{where} keeps weights as a pickle; export the model with plain tensors")
        if key == "custom_obj_values" and value:
            raise SafetyError(f"{where} holds custom objects, which only their own code can rebuild; do not use it")


def _pairs(value: Any) -> Iterator[tuple[str, Any]]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            yield from item.items()
            pending += item.values()
        elif isinstance(item, list):
            pending += item


def _is_arithmetic(text: str) -> bool:
    """Say whether a text is an expression of numbers, names and the known functions, without attributes or strings."""
    if len(text) > 10_000:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _NODES):
            return False
        if isinstance(node, ast.Call) and not (isinstance(node.func, ast.Name) and node.func.id in _CALLS):
            return False
        if isinstance(node, ast.Name) and (not _WORDS.fullmatch(node.id) or "__" in node.id):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not _WORDS.fullmatch(node.value):
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, bytes):
            return False
    return True
