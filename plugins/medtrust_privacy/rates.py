"""How many synthetic images lie closer to train than any holdout patient, and what share of them must be copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, binom

from medtrust.seeding import derive_seed
from medtrust.stats import clopper_pearson, copy_score, extreme_count_tail, hypergeometric_tail
from medtrust.types import Estimate, Interval, MetricInput, Null, Resolution, Result, SelfTest, TestOutcome
from medtrust_privacy.common import Trio, effect_option, patient_codes
from medtrust_privacy.copies import BANK, edited_copies, one_image_per_patient

__all__ = [
    "FIDELITY_NOTE",
    "CopyRate",
    "RateEstimate",
    "Scores",
    "estimate_rate",
    "extreme_check",
    "extreme_result",
    "planted_scores",
]

Floats = npt.NDArray[np.float64]
MAX_FALSE = 0.05  # largest share of copy-free samples that the cut may let through
POWER, MAX_SIZE, REPETITIONS = 0.8, 0.09, 1000
SIZE_LEVEL = 0.05  # that MAX_SIZE belongs to
RATES = (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)
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
        sets.refuse_few_patients()
        against = sets.against_train(data.seed)
        planted = planted_scores(data, sets)
        real = (against.smallest, against.single)
        scores = Scores(against.synthetic, *real, planted, data.level, data.alpha, effect, data.seed)
        return {
            "privacy.extreme_count": extreme_result(scores, "Closer to train than any holdout patient", FIDELITY_NOTE),
            "privacy.copy_rate": _rate(scores),
        }


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


def planted_scores(data: MetricInput, sets: Trio) -> Floats:
    """Copy scores against train of edited copies of train images [b]."""
    rng = np.random.default_rng(derive_seed(data.seed, "bank"))
    codes, _ = patient_codes(sets.train)
    rows = one_image_per_patient(codes, BANK, rng)
    copies, _ = edited_copies(sets, [("train", int(row)) for row in rows], rng)
    return copy_score(copies, sets.train.values, codes, views=sets.views).score


def extreme_result(scores: Scores, title: str, note: str) -> Result:
    """Count the samples that score below every holdout patient, and ask whether chance explains the count."""
    m, n = len(scores.synthetic), len(scores.reference)
    cut = float(scores.reference.min())
    k = int((scores.synthetic < cut).sum())
    p = extreme_count_tail(k, m, n)
    alpha = scores.alpha
    size, power = extreme_check(scores.reference, scores.planted, m, alpha, SIZE_LEVEL, scores.seed)
    rate = next((c / m for c in range(1, m + 1) if power(c / m) >= POWER), None)
    resolution = (
        Resolution(1.0, 0.0, "No share of copies could have been seen: use a larger holdout.")
        if rate is None
        else Resolution(rate, POWER, f"Copies below {100 * rate:.2g} % could not have been seen reliably.")
    )
    lo, hi = clopper_pearson(k, m, scores.level)
    curve = {f"power_at_{100 * each:g}_percent": power(each) for each in RATES}
    return Result(
        estimate=Estimate(k / m, "share", "lower"),
        interval=Interval(lo, hi, scores.level, "Clopper-Pearson", m, "image"),
        test=TestOutcome(float(k), p, p, "copying"),
        null=Null("expected share for samples as far from train as holdout patients are", 1 / (n + 1)),
        resolution=resolution,
        selftest=_judged(size, power(scores.effect), scores.effect, p <= alpha),
        facts={
            "count": k,
            "needed_to_reject": fewest_below(m, n, 1, alpha),
            "planted_found": float((scores.planted < cut).mean()),
            **curve,
        },
        notes=(note,),
        title=title,
    )


def extreme_check(
    reference: Floats, planted: Floats, m: int, alpha: float, size_level: float, seed: int
) -> tuple[float, Callable[[float], float]]:
    """Size of the extreme count on halves of the holdout, and its power by the share of copies.

    Args:
        reference: [n] scores of holdout patients.
        planted: [b] scores of known copies.
        m: Samples under test.
        alpha: Level at which the power is wanted.
        size_level: Level at which the size is counted.
        seed: Seed of the halves.
    """
    rng = np.random.default_rng(derive_seed(seed, "extreme"))
    half = len(reference) // 2
    rejected = 0
    for _ in range(REPETITIONS):
        shuffled = rng.permutation(reference)
        k = int((shuffled[:half] < shuffled[half:].min()).sum())
        rejected += extreme_count_tail(k, half, len(shuffled) - half) <= size_level
    needed = fewest_below(m, len(reference), 1, alpha)
    found = float((planted < reference.min()).mean())
    return rejected / REPETITIONS, lambda rate: float(binom.sf(needed - 1, round(rate * m), found))


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
        sensitivity: Share of planted copies at or below the cut.
        rank: Reference scores at or below the cut.
    """

    value: float
    lo: float
    hi: float
    cut: float
    below: int
    false_share: float
    sensitivity: float
    rank: int


def estimate_rate(synthetic: Floats, reference: Floats, planted: Floats, level: float) -> RateEstimate:
    """Estimate what share of the samples are copies, from scores that only partly tell copies from others.

    With β the share of the reference at or below a cut, p̂ that of the samples and Se that of planted copies, the rate
    is (p̂ - β) / (Se - β). The cut is the reference score at which the fewest planted copies would be significant. The
    lower bound is exact and needs no Se: it is the smallest number of copies without which the rest of the samples
    would not lie significantly more often at or below the cut than the reference does. The upper bound joins exact
    bounds of p̂, Se and β by Bonferroni. Both cover at least as often as stated, at small counts too.

    Args:
        synthetic: [m] scores of the samples.
        reference: [n] scores of units that are no copies, exchangeable with copy-free samples.
        planted: [b] scores of known copies.
        level: Confidence level.

    Returns:
        The rate in [0, 1]; an upper bound of 1 where planted copies are hardly found.

    Reference: Rogan and Gladen 1978, doi:10.1093/oxfordjournals.aje.a112510; Bates et al. 2023, arXiv:2104.08279.
    """
    n, m, alpha = len(reference), len(synthetic), (1 - level) / 2
    each = alpha / 3
    ordered = np.sort(reference)
    ranks = range(1, max(1, int(MAX_FALSE * (n + 1))) + 1)

    def price(rank: int) -> float:
        """How many copies it takes to be noticed at this cut."""
        sensitivity = max(float((planted <= ordered[rank - 1]).mean()), 1e-9)
        return (fewest_below(m, n, rank, alpha) - m * rank / (n + 1)) / sensitivity

    rank = min(ranks, key=price)
    cut = float(ordered[rank - 1])
    below, hits = int((synthetic <= cut).sum()), int((planted <= cut).sum())
    expected, sensitivity = rank / (n + 1), hits / len(planted)
    p_hi = clopper_pearson(below, m, 1 - 2 * each)[1]
    se_lo = clopper_pearson(hits, len(planted), 1 - 2 * each)[0]
    false_lo = float(beta.ppf(each, rank, n + 1 - rank))
    value = _corrected(below / m, expected, sensitivity)
    copies = next(c for c in range(below + 1) if below_tail(below - c, m - c, n, rank) > alpha)
    return RateEstimate(
        value,
        min(value, copies / m),
        max(value, _corrected(p_hi, false_lo, se_lo)),
        cut,
        below,
        expected,
        sensitivity,
        rank,
    )


@lru_cache(maxsize=2**16)  # a thousand halves of the holdout ask the same few questions
def below_tail(k: int, m: int, n: int, rank: int) -> float:
    """Chance that at least `k` of m copy-free samples lie below the reference score of rank `rank` among n."""
    return float(hypergeometric_tail(k, m, n, min(k + rank - 1, m + n))) if k > 0 else 1.0


@lru_cache(maxsize=2**12)
def fewest_below(m: int, n: int, rank: int, alpha: float) -> int:
    """Fewest samples below the cut that chance explains in at most a share alpha; m + 1 where none do."""
    return next((k for k in range(1, m + 1) if below_tail(k, m, n, rank) <= alpha), m + 1)


def _corrected(observed: float, false: float, found: float) -> float:
    if observed <= false:
        return 0.0
    return min(1.0, (observed - false) / (found - false)) if found > false else 1.0


def _rate(scores: Scores) -> Result:
    found = estimate_rate(scores.synthetic, scores.single, scores.planted, scores.level)
    m = len(scores.synthetic)
    power = _rate_power(found, m, len(scores.single), scores.level)
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
        interval=Interval(
            found.lo,
            found.hi,
            scores.level,
            "exact count below, Clopper-Pearson joined by Bonferroni above",
            m,
            "image",
        ),
        null=Null(
            "one half of the holdout in place of the synthetic images",
            float(np.mean(values)),
            Interval(lo, hi, scores.level, "random halves", half),
        ),
        resolution=resolution,
        selftest=_judged(size, power(scores.effect), scores.effect, found.lo > 0),
        facts={
            **{f"power_at_{100 * each:g}_percent": power(each) for each in RATES},
            "cut": found.cut,
            "samples_below_cut": found.below,
            "expected_share_below_cut": found.false_share,
            "planted_copies_below_cut": found.sensitivity,
        },
        notes=(FIDELITY_NOTE,),
        title="Share of copies",
    )


def _rate_power(found: RateEstimate, m: int, n: int, level: float) -> Callable[[float], float]:
    """Chance that the lower bound exceeds 0, as a function of the true rate."""
    needed = fewest_below(m, n, found.rank, (1 - level) / 2)

    def power(rate: float) -> float:
        below = rate * found.sensitivity + (1 - rate) * found.false_share
        return float(binom.sf(needed - 1, m, below))

    return power
