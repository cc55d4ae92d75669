"""What all sites revealed, put together: from their statements, or from their sum alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from medtrust.errors import DataError, SafetyError
from medtrust.federated.checking import complaint
from medtrust.federated.layout import (
    REAL_SETS,
    Layout,
    expected_arrays,
    from_sums,
    public_folds,
    read_fourier,
    read_histograms,
    read_moments,
    to_sums,
)
from medtrust.federated.packing import Arrays
from medtrust.federated.statement import Statement
from medtrust.federated.study import Study
from medtrust.federated.sums import clipped
from medtrust.stats.sufficient import Folds, FourierSums, Histogram, Moments, fourier_features
from medtrust.types import SelfTest, SetName

__all__ = ["SUMMED", "Pool", "from_sum", "pool_statements"]

SUMMED = "all sites together"


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
            rows = self.synthetic(space)
            return _dealt([Moments.of(rows[at]) for at in public_folds(len(rows))])
        return self._folds(name, lambda arrays: read_moments(f"{space}/{name}", arrays))

    def fourier(self, space: str, name: SetName) -> Folds[FourierSums]:
        """Fourier sums likewise."""
        if name == "synthetic":
            frequencies = torch.from_numpy(self.study.spaces[space].frequencies)
            waves = fourier_features(self.synthetic(space), frequencies)
            return _dealt([FourierSums.of(waves[at]) for at in public_folds(len(waves))])
        return self._folds(name, lambda arrays: read_fourier(f"{space}/{name}", arrays))

    def histograms(self, name: SetName) -> Folds[Histogram]:
        """Histograms of intensities likewise."""
        if name == "synthetic":
            shares = torch.from_numpy(self.study.arrays["intensity/synthetic"].copy())
            return _dealt([Histogram(len(at), shares[at].sum(0)) for at in public_folds(len(shares))])
        return self._folds(name, lambda arrays: read_histograms(f"intensity/{name}", arrays))

    def synthetic(self, space: str) -> torch.Tensor:
        """Projected features of the synthetic images, clipped where the real ones were."""
        public = self.study.spaces[space]
        return clipped(public.project(torch.from_numpy(public.synthetic.copy())), self.study.privacy)

    def validity(self, space: str) -> SelfTest | None:
        """Does the space notice what it should, at every site that tried?"""
        found = {site: facts["validity"].get(space) for site, facts in self.facts.items() if "validity" in facts}
        tried = {site: each for site, each in found.items() if each}
        if not tried:
            return None
        worst = min(tried, key=lambda site: ("failed", "not_run", "ok").index(tried[site][0]))
        status, sentence = tried[worst]
        if status == "ok" and len(tried) == len(found):
            return SelfTest("ok", f"at each of {len(tried)} sites: such as at {worst}, {sentence}")
        if status == "ok":
            return SelfTest("not_run", f"not checked at {', '.join(site for site in found if site not in tried)}")
        return SelfTest(status, f"at {worst}: {sentence}")

    def _folds(self, name: str, read: Callable[[Arrays], tuple[Any, ...]]) -> Folds[Any]:
        return Folds(tuple(read(arrays) for arrays in self.arrays.values()), tuple(self.arrays))


def _dealt(parts: list[Any]) -> Folds[Any]:
    return Folds((tuple(parts),), ("synthetic",))


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
    wanted = expected_arrays(study, facts)
    try:
        arrays = from_sums(layout, vector.astype(np.float64), wanted)
    except (KeyError, ValueError, ZeroDivisionError, OverflowError) as error:
        raise DataError(
            f"the sum cannot be read ({type(error).__name__}: {error}): add the sites' vectors again"
        ) from error
    problem = complaint(arrays, wanted, noisy=study.privacy is not None) or _other_layout(arrays, layout)
    if problem:
        raise DataError(f"the sum does not fit the study: {problem}")
    for kind, part in (("patients", "units"), ("images", "n")):
        facts[kind] = {
            name: int(arrays[f"{next(iter(study.spaces))}/{name}/moments.{part}"].sum()) for name in REAL_SETS
        }
    return Pool(study, tuple(sorted(set(sites))), {SUMMED: facts}, {SUMMED: arrays}, {SUMMED: 8 * size})


def _other_layout(arrays: Arrays, layout: Layout) -> str:
    return "" if to_sums(arrays)[0] == layout else "its layout is not that of a statement"
