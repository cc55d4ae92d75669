"""Fidelity from pooled sums: distance of the synthetic images from all sites' train images, beside its null."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medtrust import stats
from medtrust.errors import Insufficient
from medtrust.stats.sufficient import folded_frechet, mean_noise_of
from medtrust.types import Estimate, Null, Resolution, Result

if TYPE_CHECKING:
    from medtrust.federated.pool import Pool

__all__ = ["REFERENCE", "frechet_rows"]

REFERENCE = "train against holdout, both pooled over the sites"
_POWER = 0.8


def frechet_rows(pool: Pool, space: str) -> list[Result]:
    """The pooled Fréchet distance in one space."""
    train, holdout, synthetic = (pool.moments(space, name) for name in ("train", "holdout", "synthetic"))
    identity = {
        "id": f"fidelity.fd[{space}]", "pillar": "fidelity", "title": "Fréchet distance", "metric": "medtrust/fd",
        "metric_version": "1", "features": space, "citation": "arXiv:1706.08500",
    }  # fmt: skip
    level = pool.study.level
    try:
        found = folded_frechet(train, synthetic, level=level)
        null = folded_frechet(train, holdout, level=level)
    except Insufficient as shortage:
        return [Result(status="insufficient", reason=str(shortage), **identity)]  # type: ignore[arg-type]
    smallest = stats.min_detectable(null.se, level, null.dof, _POWER, growth=4 * mean_noise_of(train, holdout))
    sentence = (
        f"With {train.units} train and {holdout.units} holdout patients at {len(pool.sites)} sites, a shift of the "
        f"mean that adds less than {smallest:.3g} to the distance of real from real could not have been shown (power "
        f"{_POWER:.0%}; delete-a-fold standard error of real against real, plus the noise of a mean shift)."
    )
    public = pool.study.spaces[space]
    notes: tuple[str, ...] = (_scaling(pool, space),) if pool.study.header["spaces"][space]["standardised"] else ()
    if public.projection is not None:
        notes += (
            f"the {len(public.centre)} features were projected to {public.dim} dimensions by seeded random signs",
        )
    return [
        Result(
            estimate=Estimate(found.value, "feature²", "lower"),
            interval=found.interval,
            null=Null(REFERENCE, null.value, null.interval),
            resolution=Resolution(smallest, _POWER, sentence),
            facts={
                "sites": len(pool.sites),
                "plug_in": found.plug_in,
                "null_plug_in": null.plug_in,
                "degrees_of_freedom": found.dof,
                "features": len(public.centre),
                "dimensions": public.dim,
            },
            notes=notes,
            **identity,  # type: ignore[arg-type]
        )
    ]


def _scaling(pool: Pool, space: str) -> str:
    by = pool.study.header["spaces"][space]["scaled_by"]
    if by == "reference":
        return "each feature is divided by its standard deviation in the study's public reference images"
    return (
        "each feature is divided by its standard deviation in the synthetic images, the only public ones: compare with "
        "the null, which is scaled alike, not with distances scaled otherwise"
    )
