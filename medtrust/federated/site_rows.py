"""Rows about the sites: each one's excess, whether they differ, and what is found without one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtrust.errors import Insufficient
from medtrust.federated.distance_rows import POWER, identity
from medtrust.stats import min_detectable
from medtrust.stats.sufficient import Folds, Moments, folded_frechet, frechet_excess, site_difference
from medtrust.stats.sufficient.sites import FoldMeans
from medtrust.types import Estimate, Interval, Null, Resolution, Result, TestOutcome

if TYPE_CHECKING:
    from medtrust.federated.pool import Pool

__all__ = ["site_rows"]

_CITED = "arXiv:1706.08500"


def site_rows(pool: Pool, space: str) -> list[Result]:
    """Everything about single sites in one space; nothing where only their sum is known."""
    if pool.study.secure_sums or len(pool.sites) < 2:
        return []
    train, holdout, synthetic = (pool.moments(space, name) for name in ("train", "holdout", "synthetic"))
    rows = [_difference(pool, space)]
    for site in pool.sites:
        rows.append(_excess(pool, space, site, train.only(site), holdout.only(site), synthetic))
        rows.append(_without(pool, space, site, train.without(site), holdout.without(site), synthetic))
    return rows


def _excess(
    pool: Pool, space: str, site: str, train: Folds[Moments], holdout: Folds[Moments], synthetic: Folds[Moments]
) -> Result:
    names = identity("equity.site_fd_excess", "Distance beyond real from real, by site", _CITED, space)
    names["subgroup"] = f"site={site}"
    level = pool.study.level
    try:
        found = frechet_excess(train, holdout, synthetic, level=level)
        floor = folded_frechet(train, holdout, level=level)
    except Insufficient as shortage:
        return Result(status="insufficient", reason=str(shortage), **names)
    smallest = min_detectable(floor.se, level, floor.dof, POWER)
    return Result(
        estimate=Estimate(found.value, "feature²", "lower"),
        interval=found.interval,
        null=Null("this site's train against its holdout", floor.value, floor.interval),
        resolution=Resolution(
            smallest, POWER,
            f"With {train.units} train and {holdout.units} holdout patients, {site} could not have shown an "
            f"excess below "
            f"{smallest:.3g} (power {POWER:.0%}).",
        ),
        facts={"train_patients": train.units, "holdout_patients": holdout.units, "plug_in": found.plug_in},
        notes=("the synthetic images are those for all sites: a site whose patients differ has an excess for "
               "that alone",),
        **names,
    )  # fmt: skip


def _without(
    pool: Pool, space: str, site: str, train: Folds[Moments], holdout: Folds[Moments], synthetic: Folds[Moments]
) -> Result:
    names = identity("equity.fd_without_site", "Fréchet distance without one site", _CITED, space)
    names["subgroup"] = f"all but {site}"
    level = pool.study.level
    try:
        found, null = (folded_frechet(train, other, level=level) for other in (synthetic, holdout))
    except Insufficient as shortage:
        return Result(status="insufficient", reason=str(shortage), **names)
    smallest = min_detectable(null.se, level, null.dof, POWER)
    return Result(
        estimate=Estimate(found.value, "feature²", "lower"),
        interval=found.interval,
        null=Null("train against holdout of the other sites", null.value, null.interval),
        resolution=Resolution(
            smallest, POWER,
            f"Without {site}, a distance less than {smallest:.3g} above real from real could not have been "
            f"shown (power "
            f"{POWER:.0%}).",
        ),
        facts={"train_patients": train.units, "holdout_patients": holdout.units, "plug_in": found.plug_in},
        **names,
    )  # fmt: skip


def _difference(pool: Pool, space: str) -> Result:
    names = identity("equity.site_difference", "Do the sites' patients differ?", "doi:10.1214/aoms/1177728786", space)
    level = pool.study.level
    try:
        means = _fold_means(pool, space)
        found = site_difference(means, level=level, power=POWER)
    except Insufficient as shortage:
        return Result(status="insufficient", reason=str(shortage), **names)
    return Result(
        estimate=Estimate(found.value, "distance²", "none"),
        interval=Interval(*found.interval, level, "noncentral pseudo-F", pool.moments(space, "train").units),
        test=TestOutcome(found.statistic, found.p, found.p, "site differences"),
        null=Null("sites whose patients are alike", 0.0),
        resolution=Resolution(
            found.detectable, POWER,
            f"Sites that lie less than {found.detectable:.3g} from their pool, squared and on average, could not have "
            f"been told apart (power {POWER:.0%}, pseudo-F in {found.dimensions:.1f} effective directions).",
        ),
        facts={"sites": len(pool.sites), "effective_directions": found.dimensions, "pseudo_f": found.statistic},
        notes=("measured on the sites' train images; scanners, protocols and patients all make sites differ",),
        **names,
    )  # fmt: skip


def _fold_means(pool: Pool, space: str) -> FoldMeans:
    """Means of the folds' Fourier features, which notice any difference, or of the features themselves."""
    if pool.study.asks("fidelity.mmd"):
        return [[(part.units, part.total / part.n) for part in site] for site in pool.fourier(space, "train").sites]
    return [[(part.units, part.mean) for part in site] for site in pool.moments(space, "train").sites]
