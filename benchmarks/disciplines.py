"""Does what was shown on dermoscopy hold in other disciplines? `python benchmarks/disciplines.py --work DIR`

In each discipline: which degradations each feature space notices (`medtrust selftest --suite features`), and whether
each copy detector stays quiet on copy-free sets and finds planted copies (`--suite privacy`). The result file grows by
one discipline at a time; `python benchmarks/tables.py` writes docs/disciplines.md from it.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from discipline_sets import DISCIPLINES, discipline

from medtrust.cache import FeatureStore
from medtrust.host import build_host
from medtrust.progress import make_progress
from medtrust.recipes import cache_folder
from medtrust.spaces import load_spaces
from medtrust.suites import as_plain, run_suites
from medtrust.types import SuiteInput

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "disciplines.json"
SPACES = ("radiomics", "efficientnet-lite0")
LOOKED_AT = 640  # images that each network reads: 64 to degrade and as many others as the check compares with


def measure(name: str, work: Path, spaces: list[str]) -> dict[str, Any]:
    """Run both suites on one discipline.

    Args:
        name: One of DISCIPLINES.
        work: Folder for patches and features.
        spaces: Feature spaces.
    """
    host, train = build_host(), discipline(name, work)
    found = {space: host.find("features", space) for space in spaces}
    data = SuiteInput(
        train=train.take(list(range(0, len(train), -(-len(train) // LOOKED_AT)))),
        holdout=None,
        synthetic=None,
        intensity=train.intensity,
        spaces=load_spaces(found, host, {}, offline=True, cache_dir=cache_folder()),
        store=FeatureStore(work / "features"),
        seed=0,
        progress=make_progress(),
    )
    suites = as_plain(run_suites(host, ["features"], data))
    suites |= as_plain(run_suites(host, ["privacy"], replace(data, train=train)))
    return {"images": len(train), "units": len(set(train.patients)), "suites": suites}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("disciplines"))
    parser.add_argument("--features", default=",".join(SPACES))
    parser.add_argument("--only", choices=list(DISCIPLINES), action="append")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    found = json.loads(options.out.read_text()) if options.out.is_file() else {"disciplines": {}}
    torch.set_num_threads(1)
    for name in options.only or DISCIPLINES:
        if name not in found["disciplines"]:
            found["disciplines"][name] = measure(name, options.work, options.features.split(","))
            found |= {"torch": torch.__version__, "machine": platform.machine()}
            options.out.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
            print(name, "done", flush=True)


if __name__ == "__main__":
    main()
