"""The confined process: one artefact is opened here, after the doors were shut; started by `Sandbox`."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from typing import IO, Any

from medtrust.sandbox.confine import confine

__all__ = ["main"]


def main() -> None:
    """Answer one line of JSON per line of JSON, each with an array behind it if it says so, until the input ends."""
    # whatever the artefact reads or prints has nothing to do with the channels of questions and answers
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    model: Any = None
    setup: dict[str, Any] = {}
    for line in questions:
        asked = json.loads(line)
        content = b""
        try:
            if not setup:
                setup = asked
                tempfile.tempdir = setup["scratch"]  # found without the trial file that a limit may forbid
                answer: dict[str, Any] = {"confined": confine(setup["readable"], setup["scratch"], setup["limits"])}
            elif model is None:
                module, _, table = setup["openers"].partition(":")
                model = getattr(importlib.import_module(module), table)[setup["kind"]](setup["config"])
                answer = {"facts": model.facts}
            else:
                answer, content = _run(model, asked, questions)
        except (Exception, SystemExit) as error:  # the parent decides what a failure means
            text = " ".join(f"{type(error).__name__}: {error}".split())[:1000]
            answer, content = {"error": text, "unsafe": type(error).__name__ == "SafetyError"}, b""
        answers.write(json.dumps(answer).encode() + b"\n" + content)
        answers.flush()


def _run(model: Any, asked: dict[str, Any], questions: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    import numpy as np

    request = asked["request"]
    if asked["given"] is not None:
        dtype, shape = np.dtype(asked["given"]["dtype"]), asked["given"]["shape"]
        content = questions.read(dtype.itemsize * int(np.prod(shape)))
        request["given"] = np.frombuffer(content, dtype).reshape(shape)
    found = np.ascontiguousarray(model.run(**request))
    if found.dtype.kind not in "fiu":
        raise TypeError(f"it returned {found.dtype}, not numbers")
    found = found.astype(found.dtype.newbyteorder("<"), copy=False)
    return {"array": {"shape": list(found.shape), "dtype": found.dtype.str}}, found.tobytes()
