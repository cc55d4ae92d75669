"""How many synthetic images lie closer to train than any holdout patient, and what share of them must be copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, binom

from medtrust.seeding import derive_seed
from medtrust.stats import clopper_pearson, copy_score, extreme_count_tail
from medtrust.types import Estimate, Interval, MetricInput, Null, Resolution, Result, SelfTest, TestOutcome
from medtrust_privacy.common import Trio, effect_option, patient_codes
from medtrust_privacy.copies import BANK, edited_copies, one_image_per_patient

__all__ = ["CopyRate", "RateEstimate", "estimate_rate"]

Floats = npt.NDArray[np.float64]
MAX_FALSE = 0.05  # largest share of copy-free samples that the cut may let through
POWER, MAX_SIZE, REPETITIONS = 0.8, 0.09, 200
FIDELITY_NOTE = (
    "This compares synthetic with holdout images, so a generator of too little variety can raise it without copying "
    "anybody; privacy.cpm does not have that weakness."
)


class CopyRate:
    """Count synthetic images that are closer to train than holdout patients are, and turn the count into a copy rate.

    Reference: Bates et al. 2023, arXiv:2104.08279, for outliers against a reference sample; Rogan and Gladen 1978,
    doi:10.1093/oxfordjournals.aje.a112510, for a prevalence from an imperfect detector.
    """

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Score synthetic images, holdout patients and planted copies against train.

        Args:
            data: Train, holdout and synthetic with images and pixel features. Option `effect`: the share of copies that
                the self-tests must find (0.02).

        Raises:
            Insufficient: Unusable features or no holdout.
            ConfigError: The option is no share between 0 and 1.
        """
        effect = effect_option(data)
        sets = Trio(data)
        against = sets.against_train(data.seed)
        planted = _planted_scores(data, sets)
        real = (against.smallest, against.single)
        scores = Scores(against.synthetic, *real, planted, data.level, data.alpha, effect, data.seed)
        return {"privacy.extreme_count": _extreme(scores), "privacy.copy_rate": _rate(scores)}


@dataclass(frozen=True, slots=True)
class Scores:
    """Copy scores against train: [m] of samples, [N_H] of holdout patients (smallest, any one image), [b] of copies."""

    synthetic: Floats
    reference: Floats
    single: Floats
    planted: Floats
    level: float
    alpha: float
    effect: float
    seed: int


def _planted_scores(data: MetricInput, sets: Trio) -> Floats:
    rng = np.random.default_rng(derive_seed(data.seed, "bank"))
    codes, _ = patient_codes(sets.train)
    rows = one_image_per_patient(codes, BANK, rng)
    copies, _ = edited_copies(sets, [("train", int(row)) for row in rows], rng)
    return copy_score(copies, sets.train.values, codes, views=sets.views).score


def _extreme(scores: Scores) -> Result:
    m, n = len(scores.synthetic), len(scores.reference)
    alpha = scores.alpha
    cut = float(scores.reference.min())
    k = int((scores.synthetic < cut).sum())
    p = extreme_count_tail(k, m, n)
    needed = next(count for count in range(1, m + 2) if extreme_count_tail(count, m, n) <= alpha)
    found = float((scores.planted < cut).mean())
    rate = next((c / m for c in range(needed, m + 1) if binom.sf(needed - 1, c, found) >= POWER), None)
    resolution = (
        Resolution(1.0, 0.0, "No share of copies could have been seen: use a larger holdout.")
        if rate is None
        else Resolution(rate, POWER, f"Copies below {100 * rate:.2g} % could not have been seen reliably.")
    )
    lo, hi = clopper_pearson(k, m, scores.level)
    size = _extreme_size(scores, alpha)
    power = float(binom.sf(needed - 1, round(scores.effect * m), found))
    return Result(
        estimate=Estimate(k / m, "share", "lower"),
        interval=Interval(lo, hi, scores.level, "Clopper-Pearson", m, "image"),
        test=TestOutcome(float(k), p, p, "copying"),
        null=Null("expected share for samples as far from train as holdout patients are", 1 / (n + 1)),
        resolution=resolution,
        selftest=_judged(size, power, scores.effect, p <= alpha),
        facts={"count": k, "needed_to_reject": needed, "planted_found": found},
        notes=(FIDELITY_NOTE,),
        title="Closer to train than any holdout patient",
    )


def _extreme_size(scores: Scores, alpha: float) -> float:
    """How often half of the holdout patients raise an alarm against the other half."""
    rng = np.random.default_rng(derive_seed(scores.seed, "extreme"))
    half = len(scores.reference) // 2
    rejected = 0
    for _ in range(REPETITIONS):
        shuffled = rng.permutation(scores.reference)
        k = int((shuffled[:half] < shuffled[half:].min()).sum())
        rejected += extreme_count_tail(k, half, len(shuffled) - half) <= alpha
    return rejected / REPETITIONS


def _judged(size: float, power: float, effect: float, found: bool) -> SelfTest:
    problems = []
    if size > MAX_SIZE:
        problems.append(f"it raised an alarm on {size:.0%} of copy-free halves of the holdout")
    if power < POWER and not found:
        problems.append(f"it finds {effect:.1%} lightly edited copies in only {power:.0%} of audits")
    detail = f"size {size:.3f} on halves of the holdout, power {power:.2f} at {effect:.1%} lightly edited copies"
    return SelfTest("failed" if problems else "ok", "; ".join(problems) or detail, size=size, power=power)


@dataclass(frozen=True, slots=True)
class RateEstimate:
    """Estimated share of copies with its interval, and what it rests on.

    Args:
        value: Share of copies among the samples.
        lo: Lower bound.
        hi: Upper bound.
        cut: Samples at or below this score are counted.
        below: How many there are.
        false_share: Share of copy-free samples expected at or below the cut.
        false_share_hi: Upper confidence bound of that share.
        sensitivity: Share of planted copies at or below the cut.
    """

    value: float
    lo: float
    hi: float
    cut: float
    below: int
    false_share: float
    false_share_hi: float
    sensitivity: float


def estimate_rate(synthetic: Floats, reference: Floats, planted: Floats, level: float) -> RateEstimate:
    """Estimate what share of the samples are copies, from scores that only partly tell copies from others.

    With β the share of the reference at or below a cut, p̂ that of the samples and Se that of planted copies, the rate
    is (p̂ - β) / (Se - β). The cut is the reference score that would give a copy-free generator the smallest upper
    bound. The interval joins exact intervals of p̂, Se and β by Bonferroni: it covers at least as often as stated, at
    small counts too.

    Args:
        synthetic: [m] scores of the samples.
        reference: [n] scores of units that are no copies, exchangeable with copy-free samples.
        planted: [b] scores of known copies.
        level: Confidence level.

    Returns:
        The rate in [0, 1]; an upper bound of 1 where planted copies are hardly found.

    Reference: Rogan and Gladen 1978, doi:10.1093/oxfordjournals.aje.a112510.
    """
    n, m = len(reference), len(synthetic)
    each = 1 - (1 - level) / 3
    ordered = np.sort(reference)

    def bounds(rank: int, below: int) -> RateEstimate:
        cut = float(ordered[rank - 1])
        hits = int((planted <= cut).sum())
        p_lo, p_hi = clopper_pearson(below, m, each)
        se_lo, se_hi = clopper_pearson(hits, len(planted), each)
        false_lo, false_hi = beta.ppf([(1 - each) / 2, (1 + each) / 2], rank, n + 1 - rank).tolist()
        expected, sensitivity = rank / (n + 1), hits / len(planted)
        return RateEstimate(
            _corrected(below / m, expected, sensitivity),
            _corrected(p_lo, false_hi, se_hi),
            _corrected(p_hi, false_lo, se_lo),
            cut,
            below,
            expected,
            false_hi,
            sensitivity,
        )

    ranks = range(1, max(1, int(MAX_FALSE * (n + 1))) + 1)
    rank = min(ranks, key=lambda r: bounds(r, round(m * r / (n + 1))).hi)
    return bounds(rank, int((synthetic <= ordered[rank - 1]).sum()))


def _corrected(observed: float, false: float, found: float) -> float:
    if observed <= false:
        return 0.0
    return min(1.0, (observed - false) / (found - false)) if found > false else 1.0


def _rate(scores: Scores) -> Result:
    found = estimate_rate(scores.synthetic, scores.single, scores.planted, scores.level)
    m = len(scores.synthetic)
    power = _rate_power(found, m, scores.level)
    smallest = next((c / m for c in range(1, m + 1) if power(c / m) >= POWER), None)
    resolution = (
        Resolution(1.0, power(1.0), "No share of copies could have been told from none: use a larger holdout.")
        if smallest is None
        else Resolution(smallest, POWER, f"Below {100 * smallest:.2g} % copies could not have been told from none.")
    )
    rng = np.random.default_rng(derive_seed(scores.seed, "rate"))
    half = len(scores.single) // 2
    clean = []
    for _ in range(REPETITIONS):
        shuffled = rng.permutation(scores.single)
        clean.append(estimate_rate(shuffled[:half], shuffled[half:], scores.planted, scores.level))
    values = [each.value for each in clean]
    lo, hi = np.quantile(values, [(1 - scores.level) / 2, (1 + scores.level) / 2]).tolist()
    size = float(np.mean([each.lo > 0 for each in clean]))
    return Result(
        estimate=Estimate(found.value, "share", "lower"),
        interval=Interval(found.lo, found.hi, scores.level, "Clopper-Pearson, joined by Bonferroni", m, "image"),
        null=Null(
            "one half of the holdout in place of the synthetic images",
            float(np.mean(values)),
            Interval(lo, hi, scores.level, "random halves", half),
        ),
        resolution=resolution,
        selftest=_judged(size, power(scores.effect), scores.effect, found.lo > 0),
        facts={
            "cut": found.cut,
            "samples_below_cut": found.below,
            "expected_share_below_cut": found.false_share,
            "planted_copies_below_cut": found.sensitivity,
        },
        notes=(FIDELITY_NOTE,),
        title="Share of copies",
    )


def _rate_power(found: RateEstimate, m: int, level: float) -> Callable[[float], float]:
    """Chance that the lower bound exceeds 0, as a function of the true rate."""
    each = 1 - (1 - level) / 3
    counts = range(int(found.false_share_hi * m), m + 1)
    needed = next((k for k in counts if clopper_pearson(k, m, each)[0] > found.false_share_hi), m + 1)

    def power(rate: float) -> float:
        below = rate * found.sensitivity + (1 - rate) * found.false_share
        return float(binom.sf(needed - 1, m, below))

    return power
