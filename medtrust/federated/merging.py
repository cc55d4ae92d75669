"""The coordinator's part: from what the sites revealed to an ordinary trust report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medtrust import __version__
from medtrust.federated.copy_rows import membership_row, ranks_row
from medtrust.federated.distance_rows import distance_rows, intensity_row
from medtrust.federated.layout import REAL_SETS
from medtrust.federated.pool import Pool, pool_statements
from medtrust.federated.site_rows import site_rows
from medtrust.federated.statement import Statement
from medtrust.federated.study import Study
from medtrust.report import TrustReport, build_report
from medtrust.stats.sufficient import membership_auc
from medtrust.types import Demand, Result

__all__ = ["membership_of", "merge"]


def merge(
    study: Study,
    statements: Sequence[Statement] | Pool,
    *,
    policy: str | Path = "research",
    strict: bool = False,
    transport: Mapping[str, Any] | None = None,
) -> TrustReport:
    """Join what the sites revealed into a judged trust report.

    Args:
        study: The study.
        statements: The sites' statements in any order, or a pool.
        policy: A policy file or the name of a ready one.
        strict: A WARN exits 1.
        transport: How the statements travelled and what was refused on the way; None where files were handed over.

    Returns:
        The report; the same statements give the same bytes.
    """
    from medtrust import gate

    pool = statements if isinstance(statements, Pool) else pool_statements(study, statements)
    rules = gate.load_policy(policy)
    asked = gate.demands(rules)
    results: list[Result] = []
    for space in study.spaces:
        results += distance_rows(pool, space)
        results += site_rows(pool, space)
    if study.asks("fidelity.intensity"):
        results.append(intensity_row(pool))
    if study.asks("privacy.cpm"):
        results.append(membership_row(pool, asked.get("privacy.cpm", Demand())))
    if study.asks("privacy.ct"):
        results.append(ranks_row(pool))
    report = build_report(
        run=_run(pool, transport or {"kind": "files"}),
        subject=study.header["subject"],
        data=_data(pool),
        results=results,
        failures=[],
    )
    return gate.judge(report, rules, strict=strict)


def _run(pool: Pool, transport: Mapping[str, Any]) -> dict[str, Any]:
    study = pool.study
    return {
        "tool": {"name": "medtrust", "version": __version__},
        "seed": {"root": study.seed},
        "level": study.level,
        "evidence": "none",
        "features": {name: space.digest for name, space in study.spaces.items()},
        "federated": {
            "study": {"name": study.name, "sha256": study.digest, "release": study.header["release"]},
            "rules": study.rules.as_dict(),
            "below": list(study.rules.below()),
            "privacy": study.privacy.as_dict() if study.privacy else None,
            "sites": {name: _revealed(pool, name) for name in pool.facts},
            "took_part": list(pool.sites),
            "absent": sorted(set(study.keys) - set(pool.sites)),
            "transport": dict(transport),
        },
    }


def membership_of(study: Study, facts: Mapping[str, Any]) -> float | None:
    """How well somebody who holds an image can tell that it is in the sums: None where noise hides it or none are told.

    Args:
        study: The study.
        facts: Of a statement: images and folds by set.

    Returns:
        Area under the curve for the smallest fold and the widest space, see `membership_auc`.
    """
    if study.privacy is not None or not study.asks("fidelity.fd"):
        return None
    widest = max(space.dim for space in study.spaces.values())
    rows = min(int(facts["images"][name]) // int(facts["folds"][name]) for name in REAL_SETS)
    return round(membership_auc(rows, widest), 3)


def _revealed(pool: Pool, name: str) -> dict[str, Any]:
    arrays = pool.arrays[name]
    return {
        "membership_auc": membership_of(pool.study, pool.facts[name]),
        **{key: pool.facts[name][key] for key in ("patients", "images", "folds")},
        "numbers": sum(array.size for array in arrays.values()),
        "bytes": pool.sizes[name],
    }


def _data(pool: Pool) -> dict[str, Any]:
    described: dict[str, Any] = {}
    for name in REAL_SETS:
        described[name] = {
            f"n_{kind}": sum(int(facts[kind][name]) for facts in pool.facts.values()) for kind in ("images", "patients")
        }
        described[name]["patients_known"] = all(facts["patients_known"] for facts in pool.facts.values())
        described[name]["intensity"] = {**pool.study.header["intensity"], "window": None}
    public = pool.study.header["synthetic"]
    return {
        **described,
        "synthetic": {
            "n_images": public["images"],
            "digests_sha256": public["sha256"],
            "intensity": {**pool.study.header["intensity"], "window": None},
        },
    }
