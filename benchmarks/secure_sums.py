"""Cost and error of a secure sum, beside Flower's own SecAgg+: `python benchmarks/secure_sums.py [--write]`.

For vectors as long as those of a study of Fréchet distances in 10 folds with 64 to 256 dimensions: bytes that each site
sends and receives, seconds of one site and of the coordinator, and the largest error against math.fsum. The peer masks
the same vectors with Flower's functions, at its default grid and at the finest that its 32-bit words allow.
"""

from __future__ import annotations

import argparse
import json
import math
import secrets
import statistics
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.common import ndarrays_to_parameters
from flwr.common.secure_aggregation.quantization import dequantize, quantize
from flwr.common.secure_aggregation.secaggplus_constants import Key

from medtrust.secagg import Participant, Summation

# the package hides this module behind its function of the same name
peer = import_module("flwr.client.mod.secure_aggregation.secaggplus_mod")
HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "flower.md"
SETS, FOLDS = 2, 10
CASES = ((64, 3), (64, 5), (64, 20), (128, 3), (128, 5), (256, 3))
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def vectors(sites: int, dim: int, seed: int) -> np.ndarray:
    """Counts, sums and outer products of 2 sets in 10 folds of 50 images each, around a centre that is not theirs."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(sites):
        parts = []
        for _ in range(SETS * FOLDS):
            rows = rng.normal(size=(50, dim)) + rng.normal(size=dim) * 0.3
            parts += [[50.0, 40.0], rows.sum(0), (rows.T @ rows)[np.triu_indices(dim)]]
        out.append(np.concatenate(parts))
    return np.array(out)


def run(values: np.ndarray, folder: Path) -> dict[str, float]:
    """One secure sum; seconds are those of the slowest site, and of the coordinator."""
    names = [f"site-{k:02d}" for k in range(len(values))]
    keys = {name: Ed25519PrivateKey.generate() for name in names}
    public = {name: key.public_key() for name, key in keys.items()}
    study = "00" * 32
    spent, masked = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    sites = {}
    for name, vector in zip(names, values, strict=True):
        began = time.perf_counter()
        sites[name] = Participant(
            study=study, site=name, key=keys[name], keys=public, vector=vector, layout=b"[]", folder=folder / name
        )
        spent[name] += time.perf_counter() - began
    up, down, at = 0, 0, 0.0
    began = time.perf_counter()
    coordinator = Summation(study=study, keys=public, run=secrets.token_hex(16))
    while coordinator.stage is not None:
        stage = coordinator.stage
        for name, request in coordinator.requests().items():
            asked = time.perf_counter()
            reply = sites[name].answer(request)
            took = time.perf_counter() - asked
            spent[name] += took
            at += took
            if stage == "masked":
                masked[name] = took
            if name == names[0]:
                up, down = up + len(reply), down + len(request)
            coordinator.accept(name, reply)
        coordinator.advance()
    exact = np.array([math.fsum(column) for column in values.T])
    return {
        "sent": up,
        "received": down,
        "site_s": max(spent.values()),
        "masking_s": statistics.median(masked.values()),
        "coordinator_s": time.perf_counter() - began - at,
        "error": float(np.max(np.abs(coordinator.vector - exact) / np.maximum(np.abs(exact), 1.0))),
    }


def run_peer(values: np.ndarray) -> dict[str, float]:
    """Flower's SecAgg+: seconds to mask one site's vector, bytes of it, and the error of its grid."""
    clip = float(2 ** math.ceil(math.log2(np.abs(values).max())))
    fine = 2 ** (31 - math.ceil(math.log2(len(values))) - 1)
    exact = values.sum(0)
    errors = []
    for target, range_ in ((4194304, clip), (fine, clip)):
        total = sum(quantize([vector], range_, target)[0].astype(np.int64) for vector in values)
        mean = dequantize([total / len(values)], range_, target)[0]
        errors.append(float(np.max(np.abs(mean * len(values) - exact) / np.maximum(np.abs(exact), 1.0))))
    state = peer.SecAggPlusState()
    configs = {
        Key.SAMPLE_NUMBER: len(values), Key.SHARE_NUMBER: len(values), Key.THRESHOLD: 2 * len(values) // 3 + 1,
        Key.CLIPPING_RANGE: clip, Key.TARGET_RANGE: 4194304, Key.MOD_RANGE: 2**32, Key.MAX_WEIGHT: 1.0,
    }  # fmt: skip
    others = [peer.SecAggPlusState() for _ in values[1:]]
    keys = {}
    for nid, each in enumerate([state, *others], 1):
        each.nid = nid
        said = peer._setup(each, dict(configs))
        keys[str(nid)] = [said[Key.PUBLIC_KEY_1], said[Key.PUBLIC_KEY_2]]
    shared = {each.nid: peer._share_keys(each, dict(keys)) for each in [state, *others]}
    mine = {Key.CIPHERTEXT_LIST: [], Key.SOURCE_LIST: []}
    for nid, said in shared.items():
        if nid != 1:
            mine[Key.SOURCE_LIST].append(nid)
            mine[Key.CIPHERTEXT_LIST].append(said[Key.CIPHERTEXT_LIST][said[Key.DESTINATION_LIST].index(1)])
    began = time.perf_counter()
    masked = peer._collect_masked_vectors(state, mine, 1, ndarrays_to_parameters([values[0]]))
    return {
        "masking_s": time.perf_counter() - began,
        "sent": sum(map(len, masked[Key.MASKED_PARAMETERS])),
        "error": errors[0],
        "finest_error": errors[1],
    }


def measure(rounds: int) -> list[dict[str, float]]:
    """All cases, ours and the peer's in turn."""
    rows = []
    for dim, sites in CASES:
        ours, theirs = [], []
        for seed in range(rounds):
            values = vectors(sites, dim, seed)
            with tempfile.TemporaryDirectory() as folder:
                ours.append(run(values, Path(folder)))
            theirs.append(run_peer(values))
        median = {key: statistics.median(each[key] for each in ours) for key in ours[0]}
        median["error"] = max(each["error"] for each in ours)
        other = {f"peer_{key}": statistics.median(each[key] for each in theirs) for key in theirs[0]}
        rows.append({"dim": dim, "sites": sites, "length": len(values[0]), **median, **other})
        print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, float]]) -> str:
    """The figures as Markdown."""
    lines = [
        "| dimensions | numbers | sites | a site sends | and receives | site, s | coordinator, s | error |"
        " Flower's own: masking, × ours | its error | at its finest |",
        f"|{'---|' * 11}",
    ]
    for row in rows:
        lines.append(
            f"| {row['dim']} | {row['length']} | {row['sites']} | {row['sent'] / 1024:.0f} KiB |"
            f" {row['received'] / 1024:.1f} KiB | {row['site_s']:.2f} | {row['coordinator_s']:.2f} |"
            f" {row['error']:.0e} | {row['peer_masking_s'] / row['masking_s']:.2f} | {row['peer_error']:.0e} |"
            f" {row['peer_finest_error']:.0e} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="write the result file and the table of docs/flower.md")
    options = parser.parse_args()
    rows = measure(options.rounds)
    print(table(rows))
    if options.write:
        (HERE / "results" / "secure_sums.json").write_text(json.dumps(rows, indent=1) + "\n")
        head, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{table(rows)}{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
