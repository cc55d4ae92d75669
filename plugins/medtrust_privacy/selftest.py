"""The copy test's self-test: plant edited copies among the audit's own images and see what is found."""

from __future__ import annotations

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

__all__ = ["check_on_planted_copies"]

REAL = 400  # patients whose images stand for a perfect generator
RATES = (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1)
MIN_POWER, MAX_SIZE, SPLIT_ALPHA = 0.8, 0.09, 0.01
SIZE_LEVEL = 0.05  # that MAX_SIZE belongs to


def check_on_planted_copies(
    outcome: CopyTest, sets: Trio, alpha: float, effect: float
) -> tuple[SelfTest, Resolution, dict[str, float | str]]:
    """Measure size and power of the copy test on this audit's own data.

    The background is the audit's own synthetic set under random labels. Where the test has already rejected, that set
    is suspected of holding copies, real images matched to other patients take its place, and a lack of power no
    longer fails the self-test: it could only explain why nothing was found.

    Args:
        outcome: The audit's copy test.
        sets: Its sets; a sample of the real images is decoded, edited and embedded.
        alpha: Level of the test.
        effect: Share of copies that must be found with a power of 0.8.

    Returns:
        Self-test, resolution, and facts for the report.
    """
    planted, by_edit = _bank(outcome, sets)
    root = sets.data.seed
    own, real = real_matches(outcome.pool, REAL, derive_seed(root, "real"), sets.views)
    seed = derive_seed(root, "power")
    background = real if outcome.p <= alpha else outcome.matches
    # the size is measured where false alarms are common enough to be counted; the power where the gate stands
    size = max(copy_size(outcome, each, alpha=SIZE_LEVEL, seed=seed) for each in (outcome.matches, real))
    rates = sorted({*RATES, effect})
    powers = dict(zip(rates, copy_power(outcome, background, planted, rates, alpha=alpha, seed=seed), strict=True))
    split = split_p(own, real, outcome.pool, derive_seed(root, "split"))
    auc = detection_auc(planted, background)
    problems = []
    if size > MAX_SIZE:
        problems.append(f"it raised an alarm in {size:.0%} of audits without copies")
    if powers[effect] < MIN_POWER and outcome.p > alpha:  # a test that did find something need not prove that it can
        problems.append(f"it found {effect:.1%} lightly edited copies in only {powers[effect]:.0%} of audits")
    if split < SPLIT_ALPHA:
        problems.append(
            f"train and holdout are not a random split (p = {split:.2g}): draw the holdout from the same patients"
        )
    passed = f"size {size:.3f} at 5 % without copies, power {powers[effect]:.2f} at {effect:.1%} lightly edited copies"
    selftest = SelfTest(
        "failed" if problems else "ok", "; ".join(problems) or passed, auc=auc, size=size, power=powers[effect]
    )
    facts: dict[str, float | str] = {f"power_at_{100 * rate:g}_percent": power for rate, power in powers.items()}
    facts |= {f"auc_{edit}": detection_auc(each, background) for edit, each in by_edit.items()}
    facts["split_p"] = split
    facts["power_background"] = "real images" if background is real else "the audited synthetic images"
    return selftest, _resolution(powers), facts


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


def _resolution(powers: dict[float, float]) -> Resolution:
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
