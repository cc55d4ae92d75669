"""Close-pair membership (CPM): the headline test for copies of training patients."""

from __future__ import annotations

import numpy as np
import torch
from scipy.stats import hypergeom

from medtrust.errors import Insufficient
from medtrust.stats import CopyTest, benjamini_hochberg, clopper_pearson, copy_score, copy_test, fewest_flagged
from medtrust.stats.exact import hypergeometric_tail
from medtrust.types import Estimate, Evidence, Interval, MetricInput, Null, Resolution, Result, TestOutcome
from medtrust_privacy.common import Trio, effect_option, share_option
from medtrust_privacy.pairs import MOST, pair
from medtrust_privacy.selftest import check_on_planted_copies

__all__ = ["ClosePairMembership", "refuse_hopeless"]

FDR = 0.1  # false discovery rate of the list of offenders
SHOWN_ANYWAY = 6  # pairs to show even where none is flagged
FIXED_COUNTS = (5, 10, 20, 50)


class ClosePairMembership:
    """Ask whether the synthetic images that come closest to a real patient come closest to training patients.

    Reference: Meehan, Chaudhuri and Dasgupta 2020, arXiv:2004.05675, for testing copies against a holdout.
    """

    def compute(self, data: MetricInput) -> Result:
        """Run the test, list the offenders, and plant copies to see what the test would have found.

        Args:
            data: Train, holdout and synthetic with images and pixel features. Options: `effect`, the share of copies
                that the self-test must find (the policy's, else 0.02), and `fdr`, the false discovery rate of the
                offenders (0.1).

        Returns:
            Share of training patients among the closest pairs, against their share in the pool.

        Raises:
            Insufficient: Too few patients for any outcome to be significant, or unusable features.
            ConfigError: An option is no share between 0 and 1.
        """
        effect, fdr = effect_option(data), share_option(data, "fdr", FDR)
        sets = Trio(data)
        alpha = data.alpha
        outcome = copy_test(sets.train, sets.holdout_versions, sets.synthetic, seed=data.seed, views=sets.views)
        needed = refuse_hopeless(outcome, alpha)
        selftest, resolution, checked = check_on_planted_copies(outcome, sets, alpha, effect)
        found = outcome.enrichment
        share, count = found.in_train / found.count, found.count
        lo, hi = clopper_pearson(found.in_train, count, data.level)
        evidence, listed = self._offenders(outcome, sets, fdr, data.seed, outcome.p <= alpha)
        at_fixed = {
            f"p_at_{k}": float(
                hypergeometric_tail(outcome.in_train[:k].sum(), outcome.test.n_train, outcome.test.n_holdout, k)
            )
            for k in FIXED_COUNTS
            if k <= len(outcome.in_train)
        }
        return Result(
            estimate=Estimate(share, "share", "lower"),
            interval=Interval(lo, hi, data.level, f"Clopper-Pearson among the {count} closest patients", count),
            test=TestOutcome(found.statistic, found.p, found.p, "copying"),
            null=_null(outcome, count, data.level),
            resolution=resolution,
            selftest=selftest,
            evidence=evidence,
            facts={
                "deciding_count": count,
                "train_patients_among_them": found.in_train,
                "train_patients": outcome.test.n_train,
                "holdout_patients": outcome.test.n_holdout,
                "matched_patients": len(outcome.ranked),
                "closest_needed_to_reject": needed,
                "alpha": alpha,
                "linked_patients_left_out": sets.linked.left_out,
                "linked_across_train_and_holdout": sets.linked.across,
                **at_fixed,
                **listed,
                **checked,
            },
            notes=_notes(outcome, resolution, sets),
        )

    def _offenders(
        self, outcome: CopyTest, sets: Trio, fdr: float, seed: int, rejected: bool
    ) -> tuple[tuple[Evidence, ...], dict[str, float | int]]:
        against = sets.against_train(seed)
        p = against.p
        flagged = benjamini_hochberg(p) <= fdr
        suspect = flagged.copy()
        if rejected:  # the pairs that decided
            top = outcome.ranked[: outcome.enrichment.count]
            suspect[top[outcome.in_train[: len(top)]]] = True
        order = np.lexsort((outcome.matches.score, ~flagged, ~suspect))
        chosen = order[: min(MOST, max(SHOWN_ANYWAY, int(suspect.sum())))]
        queries = sets.synthetic.values[torch.from_numpy(chosen)]
        near = {
            name: copy_score(queries, features.values, np.arange(len(features)), views=sets.views)
            for name, features in (("train", sets.train), ("holdout", sets.holdout_versions))
        }
        evidence = []
        for at, sample in enumerate(chosen.tolist()):
            matched = "train" if outcome.pool.in_train[outcome.matches.patient[sample]] else "holdout"
            nearest = sorted(
                ((name, sets.image(name, int(m.row[at]))) for name, m in near.items()),
                key=lambda each: each[0] != matched,
            )
            verdict = "suspected copy of" if suspect[sample] else "close pair with"
            facts = {
                "rho": float(outcome.matches.score[sample]),
                "conformal_p": float(p[sample]),
                "matched_set": matched,
                "flagged": bool(flagged[sample]),
                "distance_train": float(near["train"].distance[at]),
                "distance_holdout": float(near["holdout"].distance[at]),
            }
            evidence.append(pair(at + 1, f"{verdict} a {matched} image", sample, nearest, facts))
        return tuple(evidence), {
            "flagged_samples": int(flagged.sum()),
            "fewest_that_could_be_flagged": fewest_flagged(len(p), len(against.smallest), fdr),
        }


def refuse_hopeless(outcome: CopyTest, alpha: float) -> int:
    """Return how many closest patients, all from train, it takes to reject.

    Raises:
        Insufficient: More than there are.
    """
    needed = outcome.test.smallest_count(alpha)
    split = f"{outcome.test.n_train} train and {outcome.test.n_holdout} holdout patients"
    if needed is None:
        raise Insufficient(f"with {split} no outcome could be significant: move patients from train to holdout")
    if len(outcome.ranked) < needed:
        raise Insufficient(
            f"the synthetic images come closest to only {len(outcome.ranked)} patients, and with {split} it takes "
            f"{needed} to show anything: add samples, or look whether the generator has collapsed"
        )
    return needed


def _null(outcome: CopyTest, count: int, level: float) -> Null:
    n_train, n = outcome.test.n_train, len(outcome.pool.in_train)
    lo, hi = hypergeom.interval(level, n, n_train, count)
    return Null(
        "training patients' share of all real patients: what a generator that copied nobody shows",
        outcome.test.share,
        Interval(float(lo) / count, float(hi) / count, level, f"hypergeometric, {count} patients", count),
    )


def _notes(outcome: CopyTest, resolution: Resolution, sets: Trio) -> tuple[str, ...]:
    notes = [resolution.sentence, "The test assumes that train and holdout patients were assigned at random."]
    if sets.linked.left_out:
        notes.append(
            f"{sets.linked.left_out} patients were left out, because they share an image with another one "
            f"({sets.linked.across} of these groups reach over train and holdout)."
        )
    if outcome.test.share > 2 / 3:
        notes.append(
            f"{outcome.test.share:.0%} of the real patients are in train; a holdout of as many patients as train "
            "would make fewer copies visible."
        )
    return tuple(notes)
