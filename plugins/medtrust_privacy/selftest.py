"""The copy test's self-test: plant edited copies among the audit's own images and see what is found."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medtrust.seeding import derive_seed
from medtrust.stats import (
    CopyTest,
    Matches,
    Planted,
    copy_power,
    copy_size,
    detection_auc,
    plant,
    real_matches,
    split_p,
)
from medtrust.types import Resolution, SelfTest
from medtrust_privacy.common import Trio
from medtrust_privacy.copies import BANK, edited_copies, edits_for, one_image_per_patient

__all__ = ["Measured", "check_on_planted_copies", "measure", "resolution_of"]

REAL = 400  # patients whose images stand for a perfect generator
RATES = (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)
MIN_POWER, MAX_SIZE, SPLIT_ALPHA = 0.8, 0.09, 0.01
SIZE_LEVEL = 0.05  # that MAX_SIZE belongs to


@dataclass(frozen=True, slots=True)
class Measured:
    """What planted copies and copy-free backgrounds showed.

    Args:
        size: Rejection rate without copies, the larger of two backgrounds.
        powers: Rejection rate by share of planted copies.
        split: p-value of the hypothesis that train and holdout are a random split.
        auc: Chance that a planted copy scores as more suspicious than the background.
        facts: For the report.
    """

    size: float
    powers: dict[float, float]
    split: float
    auc: float
    facts: dict[str, float | str]


def measure(outcome: CopyTest, sets: Trio, alpha: float, effect: float, size_level: float = SIZE_LEVEL) -> Measured:
    """Measure size and power of the copy test on this audit's own data.

    The background is the audit's own synthetic set under random labels. Where the test has already rejected, that set
    is suspected of holding copies, and real images matched to other patients take its place.

    Args:
        outcome: The audit's copy test.
        sets: Its sets; a sample of the real images is decoded, edited and embedded.
        alpha: Level of the test, at which the power is measured.
        effect: A share of copies whose power is wanted beside the usual ones.
        size_level: Level at which the size is measured, where false alarms are common enough to be counted.
    """
    planted, by_edit = _bank(outcome, sets)
    root = sets.data.seed
    own, real = real_matches(outcome.pool, REAL, derive_seed(root, "real"), sets.views)
    seed = derive_seed(root, "power")
    background = real if outcome.p <= alpha else outcome.matches
    size = max(copy_size(outcome, each, alpha=size_level, seed=seed) for each in (outcome.matches, real))
    rates = sorted({*RATES, effect})
    powers = dict(zip(rates, copy_power(outcome, background, planted, rates, alpha=alpha, seed=seed), strict=True))
    split = split_p(own, real, outcome.pool, derive_seed(root, "split"))
    facts: dict[str, float | str] = {f"power_at_{100 * rate:g}_percent": power for rate, power in powers.items()}
    facts |= {f"auc_{edit}": detection_auc(each, background) for edit, each in by_edit.items()}
    facts["split_p"] = split
    facts["power_background"] = "real images" if background is real else "the audited synthetic images"
    return Measured(size, powers, split, detection_auc(planted, background), facts)


def check_on_planted_copies(
    outcome: CopyTest, sets: Trio, alpha: float, effect: float
) -> tuple[SelfTest, Resolution, dict[str, float | str]]:
    """Judge the copy test by what it makes of planted copies and of copy-free sets.

    Where the test has rejected, a lack of power no longer fails the self-test: it could only explain why nothing was
    found.

    Args:
        outcome: The audit's copy test.
        sets: Its sets.
        alpha: Level of the test.
        effect: Share of copies that must be found with a power of 0.8.

    Returns:
        Self-test, resolution, and facts for the report.
    """
    found = measure(outcome, sets, alpha, effect)
    size, power = found.size, found.powers[effect]
    problems = []
    if size > MAX_SIZE:
        problems.append(f"it raised an alarm in {size:.0%} of audits without copies")
    if power < MIN_POWER and outcome.p > alpha:
        problems.append(f"it found {effect:.1%} lightly edited copies in only {power:.0%} of audits")
    if found.split < SPLIT_ALPHA:
        problems.append(
            f"train and holdout are not a random split (p = {found.split:.2g}): draw the holdout from the same patients"
        )
    passed = f"size {size:.3f} at 5 % without copies, power {power:.2f} at {effect:.1%} lightly edited copies"
    status = "failed" if problems else "ok"
    selftest = SelfTest(status, "; ".join(problems) or passed, auc=found.auc, size=size, power=power)
    return selftest, resolution_of(found.powers), found.facts


def _bank(outcome: CopyTest, sets: Trio) -> tuple[Planted, dict[str, Planted]]:
    """Copy real images of different patients, each with one edit."""
    rng = np.random.default_rng(derive_seed(sets.data.seed, "bank"))
    pool = outcome.pool
    rows = one_image_per_patient(pool.codes, BANK, rng)
    where = [int(pool.source[row]) for row in rows]
    sources = [("train", at) if at >= 0 else ("holdout", -1 - at) for at in where]
    copies, edits = edited_copies(sets, sources, rng)
    planted = plant(copies, rows, pool, sets.views)
    by_edit = {}
    for edit in edits_for(sets.search):
        which = np.array([each == edit for each in edits])
        m = planted.matches
        part = Matches(m.patient[which], m.row[which], m.distance[which], m.score[which])
        by_edit[edit] = Planted(planted.source[which], part)
    return planted, by_edit


def resolution_of(powers: dict[float, float]) -> Resolution:
    """Find the smallest rate from which on the power stays at 0.8 or above."""
    smallest = None
    for rate in sorted(powers, reverse=True):
        if powers[rate] < MIN_POWER:
            break
        smallest = rate
    if smallest is None:
        most = max(powers)
        return Resolution(
            1.0,
            powers[most],
            f"Even {most:.0%} copies could not have been seen: use more patients or a larger holdout.",
        )
    return Resolution(
        smallest,
        powers[smallest],
        f"Copies below {100 * smallest:.3g} % of the synthetic images could not have been seen reliably.",
    )
