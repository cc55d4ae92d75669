"""The confined process: one artefact is opened here, after the doors were shut; started by `Sandbox`."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from medtrust_adapters.confine import confine

__all__ = ["main"]


def main() -> None:
    """Answer one line of JSON per line of JSON, until standard input ends."""
    # whatever the artefact prints goes to standard error; answers have a channel of their own
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    model: Any = None
    setup: dict[str, Any] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if not setup:
                setup = asked
                answer: dict[str, Any] = {"confined": confine(setup["readable"], setup["scratch"], setup["limits"])}
            elif model is None:
                from medtrust_adapters import worker_kinds

                model = worker_kinds.OPENERS[setup["kind"]](setup["config"])
                answer = {"facts": model.facts}
            else:
                _draw(model, asked)
                answer = {"drawn": True}
        except (Exception, SystemExit) as error:  # the parent decides what a failure means
            text = " ".join(f"{type(error).__name__}: {error}".split())[:1000]
            answer = {"error": text, "unsafe": type(error).__name__ == "SafetyError"}
        channel.write(json.dumps(answer) + "\n")
        channel.flush()


def _draw(model: Any, asked: dict[str, Any]) -> None:
    import numpy as np

    pixels = np.ascontiguousarray(model.draw(**asked["draw"]))
    if pixels.dtype.kind not in "fiu":
        raise TypeError(f"the model returned {pixels.dtype}, not numbers")
    np.save(asked["to"], pixels.astype(pixels.dtype.newbyteorder("=")), allow_pickle=False)
