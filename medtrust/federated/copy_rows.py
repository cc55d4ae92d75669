"""Copies, from what the sites counted: close-pair membership over all sites, and C_T by van Elteren's weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from medtrust.federated.distance_rows import identity
from medtrust.federated.packing import Arrays
from medtrust.federated.study import RATES
from medtrust.seeding import derive_seed
from medtrust.stats import clopper_pearson
from medtrust.stats.enrichment import EnrichmentTest
from medtrust.stats.sufficient import EnrichmentCounts, RankSum, StratifiedEnrichment, fisher_p, van_elteren
from medtrust.types import Demand, Estimate, Interval, Null, Resolution, Result, SelfTest, TestOutcome

if TYPE_CHECKING:
    from medtrust.federated.pool import Pool

__all__ = ["membership_row", "pooled_ranking", "ranks_row"]

_MIN_POWER, _MAX_SIZE, _SIZE_LEVEL, _SPLIT_ALPHA = 0.8, 0.09, 0.05, 0.01
_REFERENCE = "training patients' share of all real patients of each site: what a generator that copied nobody shows"
_WHY = (
    "it confuses fidelity with copying: a generator of too little variety, which copies nobody, looks like one that "
    "copies, and one of too much variety hides copies. Ask privacy.cpm"
)
_CROSSING = (
    "A person who was seen at two sites counts at each of them: nobody can see that from counts.",
    "The test assumes that train and holdout patients were assigned at random within every site.",
)
Floats = npt.NDArray[np.float64]


def membership_row(pool: Pool, demand: Demand) -> Result:
    """Do training patients top the sites' rankings more often than chance allows?"""
    alpha = 1 - pool.study.level if demand.alpha is None else demand.alpha
    effect = 0.02 if demand.effect is None else demand.effect
    return _of_sum(pool, alpha, effect) if pool.study.secure_sums else _of_counts(pool, alpha, effect)


def _names() -> dict[str, Any]:
    return identity("privacy.cpm", "Copies of training patients", "arXiv:2004.05675")


def _of_counts(pool: Pool, alpha: float, effect: float) -> Result:
    counts = [_counts(arrays) for arrays in pool.arrays.values()]
    test = StratifiedEnrichment(counts, derive_seed(pool.study.seed, "copies"))
    outcome = test()
    planted = [arrays["copies/counts.planted"] for arrays in pool.arrays.values()]
    p_values = np.stack([test.p_of(test.statistics([each[at] for each in planted])) for at in range(len(RATES))])
    unfair = [
        site for site, arrays in pool.arrays.items()
        if arrays["copies/counts.split_p"][0] < _SPLIT_ALPHA / len(pool.arrays)
    ]  # fmt: skip
    p = outcome.p
    named = zip(pool.arrays, counts, strict=True)
    facts = {f"p_at_{site}": _own_p(each, pool, at) for at, (site, each) in enumerate(named)}
    notes: tuple[str, ...] = _CROSSING
    if pool.study.header["copies"]["reveal"] == "distances":
        ranked, n_train, n_holdout = pooled_ranking(pool)
        pooled = EnrichmentTest(n_train, n_holdout, derive_seed(pool.study.seed, "copies"))(ranked)
        facts["p_of_one_pool"] = pooled.p
        notes += (
            "the sites told how near their patients come to every synthetic image: in one pool of all patients, "
            "without "
            f"strata, the test gives p = {pooled.p:.3g}; it is exact only if all sites split their patients alike",
        )
    lo, hi = clopper_pearson(outcome.in_train, outcome.counted, pool.study.level)
    selftest, resolution, powers = _self_test(p_values, p, alpha, effect, unfair)
    return Result(
        estimate=Estimate(outcome.in_train / outcome.counted, "share", "lower"),
        interval=Interval(
            lo, hi, pool.study.level,
            f"Clopper-Pearson among the {outcome.count} closest patients of each site", outcome.counted,
        ),
        test=TestOutcome(outcome.statistic, p, p, "copying"),
        null=Null(
            _REFERENCE, outcome.expected,
            Interval(*outcome.spread, 0.95, "hypergeometric by site", outcome.counted),
        ),
        resolution=resolution,
        selftest=selftest,
        facts={
            "sites": len(pool.sites), "deciding_count": outcome.count, "counted_patients": outcome.counted,
            "train_patients_among_them": outcome.in_train, "alpha": alpha,
            "train_patients": sum(each.n_train for each in counts),
            "holdout_patients": sum(each.n_holdout for each in counts), **facts, **powers,
        },
        notes=notes,
        **_names(),
    )  # fmt: skip


def _counts(arrays: Arrays) -> EnrichmentCounts:
    n_train, n_holdout = arrays["copies/counts.patients"].tolist()
    lengths, hits = (tuple(arrays[f"copies/counts.{part}"].tolist()) for part in ("lengths", "hits"))
    return EnrichmentCounts(n_train, n_holdout, lengths, hits)


def _own_p(counts: EnrichmentCounts, pool: Pool, at: int) -> float:
    return StratifiedEnrichment([counts], derive_seed(pool.study.seed, "copies", at))().p


def pooled_ranking(pool: Pool) -> tuple[npt.NDArray[np.bool_], int, int]:
    """Rank all sites' patients in one pool, from the distances that the sites revealed.

    Returns:
        [M] whether each ranked patient is a training patient, and the numbers of training and holdout patients.
    """
    tables = list(pool.arrays.values())
    distance = np.stack([arrays["copies/nearest.distance"] for arrays in tables], axis=1)  # [m, sites, k]
    k = distance.shape[2]
    nearest = np.sort(distance.reshape(len(distance), -1), axis=1)[:, :k]
    scale = nearest[:, 1:].mean(axis=1)
    score = np.where(scale > 0, nearest[:, 0] / np.where(scale > 0, scale, 1), 1.0)
    site = distance[:, :, 0].argmin(axis=1)
    rows = np.arange(len(distance))
    patient = np.stack([arrays["copies/nearest.patient"] for arrays in tables], axis=1)[rows, site]
    train = np.stack([arrays["copies/nearest.train"] for arrays in tables], axis=1)[rows, site]
    seen: set[tuple[int, int]] = set()
    ranked = []
    for row in np.argsort(score, kind="stable").tolist():
        who = (int(site[row]), int(patient[row]))
        if who not in seen:
            seen.add(who)
            ranked.append(bool(train[row]))
    sizes = np.sum([arrays["copies/counts.patients"] for arrays in tables], axis=0)
    return np.array(ranked), int(sizes[0]), int(sizes[1])


def _of_sum(pool: Pool, alpha: float, effect: float) -> Result:
    (arrays,) = pool.arrays.values()
    sites = len(pool.sites)
    p = fisher_p(float(arrays["copies/fisher.total"][0]), sites)
    p_values = np.vectorize(lambda total: fisher_p(total, sites))(arrays["copies/fisher.planted"])
    hits, counted, expected = arrays["copies/fisher.top"].tolist()
    lo, hi = clopper_pearson(hits, counted, pool.study.level)
    unfair = (
        [f"{arrays['copies/fisher.unfair'][0]:.0f} of the sites"] if arrays["copies/fisher.unfair"][0] > 0.5 else []
    )
    selftest, resolution, powers = _self_test(p_values, p, alpha, effect, unfair)
    return Result(
        estimate=Estimate(hits / counted, "share", "lower"),
        interval=Interval(lo, hi, pool.study.level, "Clopper-Pearson among the closest patients", round(counted)),
        test=TestOutcome(float(arrays["copies/fisher.total"][0]), p, p, "copying"),
        null=Null(_REFERENCE, expected / counted),
        resolution=resolution,
        selftest=selftest,
        facts={"sites": sites, "counted_patients": round(counted), "train_patients_among_them": round(hits),
               "alpha": alpha, **powers},
        notes=(*_CROSSING, ("only the sum of -2 ln p over the sites is known: Fisher's combination of their "
                           "exact tests")),
        **_names(),
    )  # fmt: skip


def _self_test(
    p_values: Floats, p: float, alpha: float, effect: float, unfair: list[str]
) -> tuple[SelfTest, Resolution, dict[str, float]]:
    """Judge the test by copies planted at all sites at once, and by experiments without any.

    Args:
        p_values: [P, R] by rate and repetition.
        p: Of the study itself.
        alpha: Level of the gate.
        effect: Share of copies that must be found.
        unfair: Sites where train and holdout are no random split.
    """
    size = float((p_values[0] <= _SIZE_LEVEL).mean())
    powers = {rate: float((p_values[at] <= alpha).mean()) for at, rate in enumerate(RATES) if rate}
    reached = max((rate for rate in powers if rate <= effect + 1e-12), default=min(powers))
    problems = []
    if size > _MAX_SIZE:
        problems.append(f"it raised an alarm in {size:.0%} of experiments without copies")
    if powers[reached] < _MIN_POWER and p > alpha:
        problems.append(f"it found {reached:.1%} lightly edited copies in only {powers[reached]:.0%} of experiments")
    if unfair:
        problems.append(
            f"train and holdout are not a random split at {', '.join(unfair)}: draw them from the same patients"
        )
    passed = (
        f"size {size:.3f} at 5 % without copies, power {powers[reached]:.2f} at {reached:.1%} lightly edited copies"
    )
    selftest = SelfTest("failed" if problems else "ok", "; ".join(problems) or passed, size=size, power=powers[reached])
    seen = [rate for rate in sorted(powers) if all(powers[r] >= _MIN_POWER for r in powers if r >= rate)]
    smallest = seen[0] if seen else 1.0
    sentence = (
        f"Copies below {100 * smallest:.3g} % of the synthetic images, spread over the sites, could not have been seen "
        "reliably."
        if seen
        else f"Even {max(powers):.0%} copies could not have been seen: use more patients or larger holdouts."
    )
    resolution = Resolution(smallest, powers[smallest] if seen else powers[max(powers)], sentence)
    return selftest, resolution, {f"power_at_{100 * rate:g}_percent": power for rate, power in powers.items()}


def ranks_row(pool: Pool) -> Result:
    """C_T over all sites: shown because others report it, never a proof."""
    facts: dict[str, float | int | str | bool] = {"sites": len(pool.sites)}
    if pool.study.secure_sums:
        excess, variance = next(iter(pool.arrays.values()))["copies/elteren.sums"].tolist()
        z = excess / variance**0.5
        units = sum(facts_["patients"]["holdout"] for facts_ in pool.facts.values())
    else:
        sites = {
            site: RankSum(float(arrays["copies/ranks.u"][0]), *arrays["copies/ranks.n"].tolist())
            for site, arrays in pool.arrays.items()
        }
        z = van_elteren(list(sites.values())).z
        units = sum(each.n_holdout for each in sites.values())
        facts |= {f"z_at_{site}": van_elteren([each]).z for site, each in sites.items()}
    return Result(
        estimate=Estimate(z, "Z", "higher"),
        interval=Interval(z - 1.96, z + 1.96, 0.95, "variance of the rank sum, 1", units),
        null=Null(
            "holdout in place of the samples: a standard normal", 0.0, Interval(-1.96, 1.96, 0.95, "normal", units)
        ),
        facts=facts,
        notes=(
            f"This number never grants a PASS: {_WHY}.",
            "each synthetic image is compared at one site, drawn by the seed, with one image of each holdout "
            "patient; the "
            "sites are the cells",
        ),
        diagnostic=_WHY,
        **identity("privacy.ct", "Data-copying statistic C_T, by site", "arXiv:2004.05675"),
    )
