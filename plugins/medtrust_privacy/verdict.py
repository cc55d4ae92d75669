"""The combined verdict on copying: every declared test in every declared embedding, corrected together."""

from __future__ import annotations

import math

from medtrust.stats import copy_test, extreme_count_tail, holm
from medtrust.types import Estimate, MetricInput, Null, Result, SelfTest, TestOutcome
from medtrust_privacy.common import Trio, effect_option
from medtrust_privacy.cpm import refuse_hopeless
from medtrust_privacy.rates import extreme_check, planted_scores
from medtrust_privacy.selftest import MAX_SIZE, MIN_POWER, SIZE_LEVEL, SPLIT_ALPHA, measure, resolution_of

__all__ = ["Copying"]


class Copying:
    """Combine close-pair membership and the extreme count over all declared embeddings by Holm's procedure.

    What is combined is declared before anything is looked at: two tests in every space that the option `embeddings`
    names, `pixels` alone by default. A false alarm of any of them is rarer than α, whatever hangs together.

    Reference: Holm, A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6 (1979).
    """

    def compute(self, data: MetricInput) -> Result:
        """Run every declared test and correct for their number.

        Args:
            data: Train, holdout and synthetic with images and features in every declared space, in `by_space`. Options
                as for `privacy.cpm`.

        Returns:
            Share of the declared tests that raise an alarm after correction; the test's p is the smallest adjusted one.

        Raises:
            Insufficient: A space cannot be tested: a verdict over the rest was not declared.
        """
        effect = effect_option(data)
        inputs = data.by_space or {data.space or "pixels": data}
        count = 2 * len(inputs)
        alpha, size_level = data.alpha / count, SIZE_LEVEL / count
        p: dict[str, float] = {}
        powers: dict[float, float] = {}
        splits: dict[str, float] = {}
        size = 0.0
        for space, given in inputs.items():
            sets = Trio(given)
            outcome = copy_test(sets.train, sets.holdout_versions, sets.synthetic, seed=given.seed, views=sets.views)
            refuse_hopeless(outcome, alpha)
            against = sets.against_train(given.seed)
            below = int((against.synthetic < against.smallest.min()).sum())
            p[f"cpm[{space}]"] = outcome.p
            p[f"extreme count[{space}]"] = extreme_count_tail(below, len(against.synthetic), len(against.smallest))
            found = measure(outcome, sets, alpha, effect, size_level)
            extreme_size, extreme_power = extreme_check(
                against.smallest, planted_scores(given, sets), len(against.synthetic), alpha, size_level, given.seed
            )
            size += found.size + extreme_size
            splits[space] = found.split
            for rate, power in found.powers.items():
                powers[rate] = max(powers.get(rate, 0.0), power, extreme_power(rate))
        adjusted = dict(zip(p, holm(list(p.values())).tolist(), strict=True))
        alarms = [name for name, value in adjusted.items() if value <= data.alpha]
        smallest = min(adjusted.values())
        resolution = resolution_of(powers)
        return Result(
            estimate=Estimate(len(alarms) / count, "share", "lower"),
            test=TestOutcome(-math.log10(smallest), smallest, smallest, "copying, combined"),
            null=Null("chance of any alarm without copies, at most", data.alpha),
            resolution=resolution,
            selftest=_judged(size, powers[effect], effect, splits, bool(alarms)),
            facts={
                "declared_tests": count,
                "alarms": ", ".join(alarms) or "none",
                **{f"p_{name}": value for name, value in p.items()},
                **{f"adjusted_p_{name}": value for name, value in adjusted.items()},
                **{f"power_at_{100 * rate:g}_percent": power for rate, power in sorted(powers.items())},
            },
            notes=(
                resolution.sentence,
                f"The {count} tests were declared before the images were looked at and are corrected by Holm's "
                "procedure; their power here is that of the best of them at its corrected level, so the true one is "
                "no smaller.",
            ),
        )


def _judged(size: float, power: float, effect: float, splits: dict[str, float], found: bool) -> SelfTest:
    problems = []
    if size > MAX_SIZE:
        problems.append(f"its tests together raised an alarm in up to {size:.0%} of audits without copies")
    if power < MIN_POWER and not found:
        problems.append(f"it found {effect:.1%} lightly edited copies in only {power:.0%} of audits")
    for space, split in splits.items():
        if split < SPLIT_ALPHA / len(splits):
            problems.append(f"train and holdout are not a random split in {space} (p = {split:.2g})")
    passed = f"size at most {size:.3f} at 5 % without copies, power {power:.2f} at {effect:.1%} lightly edited copies"
    return SelfTest("failed" if problems else "ok", "; ".join(problems) or passed, size=min(1.0, size), power=power)
