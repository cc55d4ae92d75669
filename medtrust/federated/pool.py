"""The coordinator's part: from statements, or from their sum, to an ordinary trust report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust import __version__
from medtrust.errors import DataError, SafetyError
from medtrust.federated.fidelity import frechet_rows
from medtrust.federated.layout import REAL_SETS, Layout, check_arrays, expected_arrays, from_sums, read_moments, to_sums
from medtrust.federated.packing import Arrays
from medtrust.federated.statement import Statement
from medtrust.federated.study import Study
from medtrust.report import TrustReport, build_report
from medtrust.stats.sufficient import Folds, Moments
from medtrust.types import Result, SetName

__all__ = ["SUMMED", "Pool", "from_sum", "merge", "pool_statements"]

SUMMED = "all sites together"
_SYNTHETIC_FOLDS = 20


@dataclass(frozen=True)
class Pool:
    """What all sites revealed.

    Args:
        study: The study.
        sites: Names of the sites that took part, sorted.
        facts: Facts by site; of the sum alone where only that is known.
        arrays: Arrays by site, or of the sum.
        sizes: Bytes of each site's statement.
    """

    study: Study
    sites: tuple[str, ...]
    facts: Mapping[str, Mapping[str, Any]]
    arrays: Mapping[str, Arrays]
    sizes: Mapping[str, int]

    def moments(self, space: str, name: SetName) -> Folds[Moments]:
        """Moments of a set by site and fold; the synthetic set is public and dealt to folds here."""
        if name == "synthetic":
            rows = self.study.spaces[space].project(torch.from_numpy(self.study.spaces[space].synthetic))
            count = max(2, min(_SYNTHETIC_FOLDS, len(rows) // 2))
            return Folds((tuple(Moments.of(rows[f::count]) for f in range(count)),), ("synthetic",))
        found = tuple(read_moments(f"{space}/{name}", arrays) for arrays in self.arrays.values())
        return Folds(found, tuple(self.arrays))


def pool_statements(study: Study, statements: Sequence[Statement]) -> Pool:
    """Put statements together, whatever their order.

    Raises:
        SafetyError: Two of one site, or one of another study.
        DataError: None at all, or a study of secure sums, in which no single statement may be shown.
    """
    if study.secure_sums:
        raise DataError('the study has release = "sums": only the sum of its statements may be merged')
    by_site: dict[str, Statement] = {}
    for statement in statements:
        if statement.study != study.digest:
            raise SafetyError(f"the statement of site {statement.site} was refused: it belongs to another study")
        if statement.site in by_site:
            raise SafetyError(f"site {statement.site} has two statements; which one is meant? Remove the other")
        by_site[statement.site] = statement
    if not by_site:
        raise DataError("there is no statement to merge: collect the sites' files first")
    ordered = dict(sorted(by_site.items()))
    return Pool(
        study, tuple(ordered), {name: each.facts for name, each in ordered.items()},
        {name: each.arrays for name, each in ordered.items()},
        {name: len(each.sealed) for name, each in ordered.items()},
    )  # fmt: skip


def from_sum(study: Study, layout: Layout, vector: npt.NDArray[np.float64], sites: Sequence[str]) -> Pool:
    """Read the sum of the vectors of `Statement.summable`, of which the coordinator learns nothing else.

    Args:
        study: A study with release = "sums".
        layout: Of any of the statements: it is the same for all.
        vector: Sum of the sites' vectors.
        sites: Names of the sites in it.

    Raises:
        DataError: The sum does not fit the study.
        SafetyError: Fewer than two sites, whose sum would be a statement.
    """
    if not study.secure_sums:
        raise DataError('the study has release = "statements"; sums are merged in a study with release = "sums"')
    strangers = sorted(set(sites) - set(study.keys))
    if strangers or len(set(sites)) < 2:
        raise SafetyError(
            f"the sum names sites that the study does not know: {', '.join(strangers)}"
            if strangers
            else "a sum over fewer than two sites would be a single site's statement: it was refused"
        )
    size = sum(int(np.prod(shape)) for _, shape in layout)
    if vector.shape != (size,) or not np.isfinite(vector).all():
        raise DataError(f"the sum holds {vector.size} numbers or such as are not finite; its layout asks for {size}")
    facts: dict[str, Any] = {"folds": dict.fromkeys(REAL_SETS, study.folds), "release": "sums", "patients_known": True}
    try:
        arrays = from_sums(layout, vector.astype(np.float64))
    except (KeyError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise DataError(
            f"the sum cannot be read ({type(error).__name__}: {error}): add the sites' vectors again"
        ) from error
    problem = check_arrays(arrays, expected_arrays(study, facts)) or _other_layout(arrays, layout)
    if problem:
        raise DataError(f"the sum does not fit the study: {problem}")
    for kind, part in (("patients", "units"), ("images", "n")):
        facts[kind] = {
            name: int(arrays[f"{next(iter(study.spaces))}/{name}/moments.{part}"].sum()) for name in REAL_SETS
        }
    return Pool(study, tuple(sorted(set(sites))), {SUMMED: facts}, {SUMMED: arrays}, {SUMMED: 8 * size})


def _other_layout(arrays: Arrays, layout: Layout) -> str:
    return "" if to_sums(arrays)[0] == layout else "its layout is not that of a statement"


def merge(
    study: Study, statements: Sequence[Statement] | Pool, *, policy: str | Path = "research", strict: bool = False
) -> TrustReport:
    """Join what the sites revealed into a judged trust report.

    Args:
        study: The study.
        statements: The sites' statements in any order, or a pool.
        policy: A policy file or the name of a ready one.
        strict: A WARN exits 1.

    Returns:
        The report; the same statements give the same bytes.
    """
    from medtrust import gate

    pool = statements if isinstance(statements, Pool) else pool_statements(study, statements)
    results: list[Result] = []
    for space in study.spaces:
        results += frechet_rows(pool, space)
    report = build_report(
        run=_run(pool), subject=study.header["subject"], data=_data(pool), results=results, failures=[]
    )
    return gate.judge(report, gate.load_policy(policy), strict=strict)


def _run(pool: Pool) -> dict[str, Any]:
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
            "sites": {name: _revealed(pool, name) for name in pool.facts},
            "took_part": list(pool.sites),
            "absent": sorted(set(study.keys) - set(pool.sites)),
        },
    }


def _revealed(pool: Pool, name: str) -> dict[str, Any]:
    arrays = pool.arrays[name]
    return {
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
    public = pool.study.header["synthetic"]
    return {**described, "synthetic": {"n_images": public["images"], "digests_sha256": public["sha256"]}}
