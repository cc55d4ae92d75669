"""Distances from pooled sums: train of all sites from synthetic, beside train from holdout pooled the same way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from medtrust import stats
from medtrust.errors import Insufficient
from medtrust.federated.noise import secret_normal
from medtrust.federated.sums import blocks_of
from medtrust.stats import Inference, frechet_distance
from medtrust.stats.sufficient import (
    BallCounts,
    Folds,
    FourierSums,
    Moments,
    folded_frechet,
    folded_mmd,
    folded_wasserstein,
    mean_noise_of,
    site_shares,
)
from medtrust.types import Estimate, Null, Resolution, Result, SetName

if TYPE_CHECKING:
    from medtrust.federated.pool import Pool

__all__ = ["POWER", "REFERENCE", "distance_rows", "identity", "intensity_row"]

REFERENCE = "train against holdout, both pooled over the sites"
POWER = 0.8
_NOISES = 32  # draws of the noise from which its bias is estimated
Facts = dict[str, float | int | str | bool]


def identity(result: str, title: str, citation: str, space: str = "") -> dict[str, Any]:
    """What names a row."""
    return {
        "id": f"{result}[{space}]" if space else result, "pillar": result.partition(".")[0], "title": title,
        "metric": f"medtrust/{result.partition('.')[2]}", "metric_version": "1", "features": space,
        "citation": citation,
    }  # fmt: skip


def distance_rows(pool: Pool, space: str) -> list[Result]:
    """The pooled distances in one space."""
    rows = [_frechet(pool, space)]
    if pool.study.asks("fidelity.mmd"):
        rows.append(_mmd(pool, space))
    if pool.study.asks("fidelity.precision"):
        rows += _balls(pool, space)
    return rows


def _balls(pool: Pool, space: str) -> list[Result]:
    weights = [float(sum(part.units for part in site)) for site in pool.moments(space, "train").sites]
    found, null = (
        site_shares(
            [BallCounts(*torch.from_numpy(arrays[f"{space}/balls.{name}"].copy())) for arrays in pool.arrays.values()],
            weights, units, shared=name == "synthetic", level=pool.study.level,
        )
        for name, units in (
            ("synthetic", int(pool.study.header["synthetic"]["images"])),
            ("holdout", pool.moments(space, "holdout").units),
        )
    )  # fmt: skip
    rows = []
    for name, title in (("precision", "Precision"), ("density", "Density")):
        here, real = found[name], null[name]
        smallest = min(real.value, stats.min_detectable(2**0.5 * real.se, pool.study.level, real.dof, POWER))
        rows.append(
            Result(
                estimate=Estimate(here.value, "share" if name == "precision" else "density", "higher"),
                interval=here.interval,
                null=Null("holdout in the place of the synthetic images, at each site", real.value, real.interval),
                resolution=Resolution(
                    smallest, POWER,
                    f"{title} less than {smallest:.3g} below that of real images could not have been shown (power "
                    f"{POWER:.0%}).",
                ),
                selftest=pool.validity(space),
                facts={"sites": len(pool.sites), "k": 5, "degrees_of_freedom": here.dof},
                notes=(
                    "approximate across sites: each site's balls reach among its own patients alone, so they are "
                    "larger than in one pool, and this is the mean of the sites' shares; compare it with its null",
                    *_space_notes(pool, space),
                ),
                **identity(f"fidelity.{name}", f"{title}, mean of the sites", "arXiv:2002.09797", space),
            )
        )  # fmt: skip
    return rows


def _frechet(pool: Pool, space: str) -> Result:
    names = identity("fidelity.fd", "Fréchet distance", "arXiv:1706.08500", space)
    train, holdout, synthetic = (pool.moments(space, name) for name in _SETS)
    level = pool.study.level
    try:
        found, null = (folded_frechet(train, other, level=level) for other in (synthetic, holdout))
    except Insufficient as shortage:
        return Result(status="insufficient", reason=str(shortage), **names)
    smallest = stats.min_detectable(null.se, level, null.dof, POWER, growth=4 * mean_noise_of(train, holdout))
    facts = _facts(pool, found, null, space)
    if found.plug_in > 0:
        facts["ratio"] = null.plug_in / found.plug_in
    added: tuple[str, ...] = ()
    if pool.study.privacy is not None:
        facts["bias_of_noise"], facts["null_bias_of_noise"] = (
            _bias_of_noise(pool, train, other, both) for other, both in ((synthetic, False), (holdout, True))
        )
        added = _noise_note(pool, facts["bias_of_noise"], facts["null_bias_of_noise"])
    return Result(
        estimate=Estimate(found.value, "feature²", "lower"),
        interval=found.interval,
        null=Null(REFERENCE, null.value, null.interval),
        resolution=_resolution(pool, train, holdout, smallest, "a shift of the mean that adds", "the distance"),
        selftest=pool.validity(space),
        facts=facts,
        notes=(*_space_notes(pool, space), *added),
        **names,
    )


def _mmd(pool: Pool, space: str) -> Result:
    names = identity("fidelity.mmd", "Gaussian kernel distance", "arXiv:2401.09603", space)
    train, holdout, synthetic = (pool.fourier(space, name) for name in _SETS)
    level = pool.study.level
    try:
        found, null = (folded_mmd(train, other, level=level) for other in (synthetic, holdout))
    except Insufficient as shortage:
        return Result(status="insufficient", reason=str(shortage), **names)
    smallest = stats.min_detectable(null.se, level, null.dof, POWER, growth=_kernel_growth(train, holdout))
    public = pool.study.header["spaces"][space]
    facts = _facts(pool, found, null, space) | {"bandwidth": public["bandwidth"], "frequencies": public["fourier"]}
    note = (
        f"the Gaussian kernel is the one of {public['fourier']} seeded random frequencies: the same at every site, so "
        "that sums decide everything, and close to the exact one"
    )
    return Result(
        estimate=Estimate(found.value, "kernel", "lower"),
        interval=found.interval,
        null=Null(REFERENCE, null.value, null.interval),
        resolution=_resolution(pool, train, holdout, smallest, "a difference that adds", "the kernel distance"),
        selftest=pool.validity(space),
        facts=facts,
        notes=(*_space_notes(pool, space), note),
        **names,
    )


def intensity_row(pool: Pool) -> Result:
    """The pooled distance between the distributions of intensities."""
    names = identity("fidelity.intensity", "Intensities", "doi:10.1023/A:1026543900054")
    train, holdout, synthetic = (pool.histograms(name) for name in _SETS)
    declared, level = pool.study.intensity, pool.study.level
    width = (declared.hi - declared.lo) / pool.study.bins
    try:
        found, null = (folded_wasserstein(train, other, width, level=level) for other in (synthetic, holdout))
    except Insufficient as shortage:
        return Result(status="insufficient", reason=str(shortage), **names)
    smallest = stats.min_detectable(null.se, level, null.dof, POWER)
    moved = {
        name: sum(float(arrays[f"intensity/{name}/histogram.moved"][0]) for arrays in pool.arrays.values())
        / pool.histograms(name).units
        for name in ("train", "holdout")
    }
    return Result(
        estimate=Estimate(found.value, declared.unit, "lower"),
        interval=found.interval,
        null=Null(REFERENCE, null.value, null.interval),
        resolution=_resolution(pool, train, holdout, smallest, "a shift that adds", "the distance"),
        facts={
            "sites": len(pool.sites), "bins": pool.study.bins, "bin_width": width, "plug_in": found.plug_in,
            "null_plug_in": null.plug_in, "degrees_of_freedom": found.dof,
            "moved_by_small_cells_train": moved["train"], "moved_by_small_cells_holdout": moved["holdout"],
        },
        notes=(
            f"bins that fewer than {pool.study.rules.cell} patients of a site reach were joined with their neighbours, "
            f"which moved intensities by {max(moved.values()):.3g} {declared.unit} on average, at most",
        ),
        **names,
    )  # fmt: skip


_SETS: tuple[SetName, ...] = ("train", "holdout", "synthetic")


def _facts(pool: Pool, found: Inference, null: Inference, space: str) -> Facts:
    public = pool.study.spaces[space]
    return {
        "sites": len(pool.sites),
        "plug_in": found.plug_in,
        "null_plug_in": null.plug_in,
        "degrees_of_freedom": found.dof,
        "features": len(public.centre),
        "dimensions": public.dim,
    }


def _resolution(
    pool: Pool, train: Folds[Any], holdout: Folds[Any], smallest: float, what: str, where: str
) -> Resolution:
    sentence = (
        f"With {train.units} train and {holdout.units} holdout patients at {len(pool.sites)} sites, {what} less than "
        f"{smallest:.3g} to {where} of real from real could not have been shown (power {POWER:.0%}; delete-a-fold "
        "standard error of real against real)."
    )
    return Resolution(smallest, POWER, sentence)


def _space_notes(pool: Pool, space: str) -> tuple[str, ...]:
    public, facts = pool.study.spaces[space], pool.study.header["spaces"][space]
    notes = []
    if facts["standardised"] and facts["scaled_by"] == "reference":
        notes.append("each feature is divided by its standard deviation in the study's public reference images")
    elif facts["standardised"]:
        notes.append(
            "each feature is divided by its standard deviation in the synthetic images, the only public ones: compare "
            "with the null, which is scaled alike, not with distances scaled otherwise"
        )
    if public.projection is not None:
        notes.append(
            f"the {len(public.centre)} features were projected to {public.dim} dimensions by seeded random signs"
        )
    return tuple(notes)


def _kernel_growth(train: Folds[FourierSums], holdout: Folds[FourierSums]) -> float:
    """Variance that MMD² gains per unit of itself: four times the noise of the difference of the mean embeddings.

    A mean over N patients of vectors of length 1 varies by at most 1/N in all directions together, of which a typical
    direction has the share that the folds show; the bound of one direction is used.
    """
    return 4 * (_largest(train) + _largest(holdout))


def _largest(folds: Folds[FourierSums]) -> float:
    parts = [part for site in folds.sites if len(site) > 1 for part in _centred(site)]
    if not parts:
        return 1.0 / folds.units
    rows = torch.stack(parts)
    dof = max(1, len(rows) - sum(len(site) > 1 for site in folds.sites))
    return float(torch.linalg.svdvals(rows)[0].square()) / dof / folds.units


def _centred(site: tuple[FourierSums, ...]) -> list[torch.Tensor]:
    """Fold means about the site's, times the root of their patients: their spread is that of one patient."""
    whole = FourierSums.merge(site)
    return [(part.total / part.n - whole.total / whole.n) * part.units**0.5 for part in site]


def _bias_of_noise(pool: Pool, a: Folds[Moments], b: Folds[Moments], both: bool) -> float:
    """What the noise adds to a distance, from adding as much noise again."""
    privacy = pool.study.privacy
    assert privacy is not None
    sigma = privacy.sigma(blocks_of(pool.study))

    def again(folds: Folds[Moments], draw: int, name: str) -> Moments:
        whole = Moments.merge(folds.parts)
        d, count = len(whole.mean), len(folds.parts)
        noise = torch.from_numpy(secret_normal(f"public {name} {draw}".encode(), d + d * d)) * sigma * count**0.5
        square = noise[d:].reshape(d, d).triu(1) / 2**0.5
        square = square + square.T + torch.diag(noise[d:].reshape(d, d).diagonal())
        return _shaken(whole, noise[:d] * privacy.clip, square * privacy.clip**2)

    joined: tuple[Callable[[int], Moments], ...] = (
        lambda draw: again(a, draw, "a"),
        (lambda draw: again(b, draw, "b")) if both else (lambda _: Moments.merge(b.parts)),
    )
    before = frechet_distance(Moments.merge(a.parts), Moments.merge(b.parts))
    return sum(frechet_distance(*(make(i) for make in joined)) - before for i in range(_NOISES)) / _NOISES


def _shaken(whole: Moments, total: torch.Tensor, outer: torch.Tensor) -> Moments:
    n, sums, squares = whole.sums()
    return Moments.from_sums(n, whole.units, sums + total, squares + outer)


def _noise_note(pool: Pool, bias: float | int | str | bool, null: float | int | str | bool) -> tuple[str, ...]:
    privacy = pool.study.privacy
    assert privacy is not None
    return (
        f"every site added Gaussian noise that gives each patient differential privacy (ε = {privacy.epsilon:g}, δ = "
        f"{privacy.delta:g}), and rows longer than {privacy.clip:g} were shortened, real and synthetic alike; as much "
        f"noise again changes the distance by {bias:.3g} and its null by {null:.3g} on average, an estimate of "
        f"the bias "
        "that the noise has added. Compare the distance with its null, not with one without noise",
    )
