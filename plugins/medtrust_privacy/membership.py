"""Membership inference: can a holder of the synthetic images tell who was in the training set?"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import norm

from medtrust.errors import ConfigError, Insufficient
from medtrust.seeding import derive_seed
from medtrust.stats import EnrichmentTest, clopper_pearson, copy_score
from medtrust.types import (
    Estimate,
    FeatureMatrix,
    Interval,
    MetricInput,
    Null,
    Resolution,
    Result,
    SelfTest,
    TestOutcome,
)
from medtrust_privacy.common import Trio, effect_option, patient_codes, patient_minimum
from medtrust_privacy.copies import BANK, edited_copies, one_image_per_patient

__all__ = ["Membership", "auc_with_error", "claimed_privacy", "epsilon_lower_bound"]

Floats = npt.NDArray[np.float64]
DELTA = 1e-5
LOW_RATES = (0.01, 0.001)
MIN_POWER, MAX_SIZE, REPETITIONS = 0.8, 0.09, 200
SIZE_LEVEL, SIZE_REPETITIONS = 0.05, 1000  # where false alarms are common enough to be counted
LONGEST = 400  # the enrichment test looks no further down the ranking


class Membership:
    """Attack with distances: a patient is called a member if synthetic images come closer than unrelated real ones.

    Half of the holdout patients play non-members; the other half are the unrelated images that say how close to
    expect. The attack sees images only, as somebody would who was given the synthetic set.

    Reference: van Breugel et al. 2023, arXiv:2302.12580, for density-calibrated attacks on synthetic data.
    """

    def compute(self, data: MetricInput) -> Result:
        """Attack, and plant copies to see how strong the attack would have to be.

        Args:
            data: Train, holdout and synthetic with images and pixel features. Option `effect`: the share of copies that
                the self-test must find (0.02).

        Returns:
            Area under the ROC curve by patient: 0.5 is guessing, 1 gives every member away.

        Raises:
            Insufficient: Fewer than 10 holdout patients on either side, or unusable features.
            ConfigError: The option is no share between 0 and 1.
        """
        effect = effect_option(data)
        attack = _Attack(data)
        members, others = attack.margins(attack.to_synthetic)
        auc, se = auc_with_error(members, others)
        half = float(norm.ppf((1 + data.level) / 2)) * se
        test = EnrichmentTest(len(members), len(others), derive_seed(data.seed, "ranking"))
        found = test(_ranked(members, others))
        alpha = data.alpha
        selftest = _selftest(attack, test, data, effect, alpha, found.p)
        smallest = 0.5 + (float(norm.ppf(1 - alpha)) + float(norm.ppf(MIN_POWER))) * se
        facts = _low_rates(members, others, data.level)
        claim = claimed_privacy(data)
        delta = float(claim.get("claimed_delta", DELTA))
        bound = epsilon_lower_bound(members, others, data.level, data.seed, delta)
        facts |= {"epsilon_lower_bound": bound, "delta": delta, **claim}
        return Result(
            estimate=Estimate(auc, "AUC", "lower"),
            interval=Interval(
                max(0.0, auc - half), min(1.0, auc + half), data.level, "DeLong, by patient", len(members) + len(others)
            ),
            test=TestOutcome(found.statistic, found.p, found.p, "copying"),
            null=Null("guessing", 0.5),
            resolution=Resolution(
                min(1.0, smallest - 0.5),
                MIN_POWER,
                f"An area less than {smallest - 0.5:.2g} above 0.5 could not have been told from guessing.",
            ),
            selftest=selftest,
            facts={"members": len(members), "non_members": len(others), **facts},
            notes=(
                "A few copies among many faithful images hardly move this area. The p-value asks instead whether "
                "members gather among the patients whom the attack is surest of, which a few copies show.",
                "The bound on epsilon holds for this attack; a stronger one may show more.",
                *_of_claim(claim, bound),
            ),
        )


class _Attack:
    """Distances of every real patient to the synthetic images and to the reference half of the holdout."""

    def __init__(self, data: MetricInput) -> None:
        sets = Trio(data)
        codes, count = patient_codes(sets.holdout)
        if count < 20:
            raise Insufficient(f"needs 20 holdout patients, 10 to attack and 10 to compare with; there are {count}")
        drawn = np.random.default_rng(derive_seed(data.seed, "halves")).permutation(count) < count // 2
        reference = torch.from_numpy(drawn[codes])
        self.sets, self.train, self.others = sets, sets.train, _rows(sets.holdout, ~reference)
        self.reference = sets.holdout.values[reference]
        self.to_synthetic = self._distances(sets.synthetic.values)
        self.to_reference = self._distances(self.reference)

    def _distances(self, images: torch.Tensor) -> Floats:
        """Distance of each train image, then of each non-member's, to the nearest of `images`, in any view."""
        queries = torch.cat([self.train.values, self.others.values])
        # the views are made of the images that are searched; mirroring and cropping either side finds the same copies
        return copy_score(queries, images, np.arange(len(images)), views=self.sets.views).distance

    def margins(self, to_synthetic: Floats) -> tuple[Floats, Floats]:
        """How much closer each patient is to synthetic than to unrelated images: [N_T] members and others."""
        split = len(self.train)
        return (
            patient_minimum(to_synthetic[:split], self.train) - patient_minimum(self.to_reference[:split], self.train),
            patient_minimum(to_synthetic[split:], self.others)
            - patient_minimum(self.to_reference[split:], self.others),
        )


def _rows(features: FeatureMatrix, chosen: torch.Tensor) -> FeatureMatrix:
    keep = chosen.nonzero().flatten().tolist()
    return FeatureMatrix(
        features.values[chosen],
        tuple(features.patients[i] for i in keep),
        tuple(features.digests[i] for i in keep),
        features.space,
        features.space_digest,
    )


def auc_with_error(members: Floats, others: Floats) -> tuple[float, float]:
    """Estimate the chance that a member's margin is the smaller one, with DeLong's standard error.

    Args:
        members: [a] margins of patients in train; smaller looks more like a member.
        others: [b] margins of patients who are not.

    Returns:
        Area under the ROC curve in [0, 1], ties half, and its standard error.

    Reference: DeLong et al. 1988, doi:10.2307/2531595.
    """
    ordered_others, ordered_members = np.sort(others), np.sort(members)

    def above(values: Floats, ordered: Floats) -> Floats:
        left, right = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
        return np.asarray(1 - (left + right) / 2 / len(ordered))

    of_members, of_others = above(members, ordered_others), 1 - above(others, ordered_members)
    variance = of_members.var(ddof=1) / len(members) + of_others.var(ddof=1) / len(others)
    return float(of_members.mean()), float(np.sqrt(variance))


def claimed_privacy(data: MetricInput) -> dict[str, float | str]:
    """Read the differential privacy that somebody claims of the training: the option `dp`.

    Args:
        data: Option `dp`: a table with `epsilon`, `delta`, `unit` ("patient", "image" …), `accountant`, `claimed_by`.

    Returns:
        Facts `claimed_epsilon` … to record; empty where nothing is claimed.

    Raises:
        ConfigError: A field is missing, unknown, or no such number.
    """
    claim = data.options.get("dp")
    if claim is None:
        return {}
    fields = ("epsilon", "delta", "unit", "accountant", "claimed_by")
    if not isinstance(claim, Mapping) or set(claim) != set(fields):
        raise ConfigError(f"privacy option dp is {claim!r}; give a table with {', '.join(fields)}")
    for name in ("epsilon", "delta"):
        value = claim[name]
        low = isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0 and math.isfinite(value)
        if not low or (name == "delta" and value >= 1):
            raise ConfigError(
                f"privacy option dp.{name} is {value!r}; give a number from 0" + ", below 1" * (name == "delta")
            )
    for name in fields[2:]:
        if not isinstance(claim[name], str) or not claim[name].strip():
            raise ConfigError(f"privacy option dp.{name} is {claim[name]!r}; give a text")
    facts: dict[str, float | str] = {"claimed_epsilon": float(claim["epsilon"]), "claimed_delta": float(claim["delta"])}
    facts |= {f"claimed_{name}": claim[name].strip() for name in ("unit", "accountant")}
    return facts | {"claimed_by": claim["claimed_by"].strip()}


def _of_claim(claim: Mapping[str, float | str], bound: float) -> tuple[str, ...]:
    if not claim:
        return ()
    epsilon = float(claim["claimed_epsilon"])
    told = (
        f"Differential privacy is claimed by {claim['claimed_by']}: epsilon {epsilon:g}, delta "
        f"{claim['claimed_delta']:g} per {claim['claimed_unit']} ({claim['claimed_accountant']}). "
        "Images cannot prove it"
    )
    if bound > epsilon:
        return (f"{told}, and this attack contradicts it: it needs an epsilon of at least {bound:.2g}.",)
    return (f"{told}; this attack does not contradict it.",)


def epsilon_lower_bound(members: Floats, others: Floats, level: float, seed: int, delta: float = DELTA) -> float:
    """Bound from below the ε that any (ε, δ)-differentially private generator with this leak must have.

    The cut is chosen on one half of the patients; the rates are bounded on the other half.

    Args:
        members: [a] margins of patients in train.
        others: [b] margins of patients who are not.
        level: Confidence level of the bound.
        seed: Seed of the halves.
        delta: The δ of the bound.

    Returns:
        max(0, ln((TPR_lo - δ) / FPR_hi)) with Clopper-Pearson bounds; 0 shows nothing.

    Reference: Jagielski et al. 2020, arXiv:2006.07709.
    """
    rng = np.random.default_rng(seed)
    halves = [np.array_split(rng.permutation(values), 2) for values in (members, others)]

    def bound(inside: Floats, outside: Floats, cut: float) -> float:
        caught, _ = clopper_pearson(int((inside <= cut).sum()), len(inside), level)
        _, wrong = clopper_pearson(int((outside <= cut).sum()), len(outside), level)
        return math.log((caught - delta) / wrong) if caught > delta else -math.inf

    cuts = np.quantile(halves[0][0], np.linspace(0.005, 0.5, 40))
    best = max(cuts.tolist(), key=lambda cut: bound(halves[0][0], halves[1][0], cut))
    return max(0.0, bound(halves[0][1], halves[1][1], best))


def _low_rates(members: Floats, others: Floats, level: float) -> dict[str, float | int | str | bool]:
    """True positive rates at low false positive rates, where there are patients enough to speak of them."""
    facts: dict[str, float | int | str | bool] = {}
    for rate in LOW_RATES:
        name = f"tpr_at_fpr_{100 * rate:g}_percent"
        allowed = int(rate * len(others))
        if allowed < 1:
            facts[name] = f"needs {math.ceil(1 / rate)} non-members, there are {len(others)}"
            continue
        caught = int((members < np.sort(others)[allowed]).sum())
        facts[name] = caught / len(members)
        facts[f"{name}_lo"], facts[f"{name}_hi"] = clopper_pearson(caught, len(members), level)
    return facts


def _ranked(members: Floats, others: Floats) -> npt.NDArray[np.bool_]:
    """Which patients are members, in the order of the attack's confidence; ties count against the attack."""
    margins, member = np.r_[others, members], np.r_[np.zeros(len(others), bool), np.ones(len(members), bool)]
    return np.asarray(member[np.argsort(margins, kind="stable")])


def _selftest(
    attack: _Attack, test: EnrichmentTest, data: MetricInput, effect: float, alpha: float, p: float
) -> SelfTest:
    """Deal the roles anew for the size, and bring copied members closer for the power."""
    rng = np.random.default_rng(derive_seed(data.seed, "selftest"))
    members, others = attack.margins(attack.to_synthetic)
    everyone = np.concatenate([members, others])
    reach = _reach_of_copies(attack, data, rng)
    copies = max(1, round(effect * len(data.synthetic)))

    def rejects(change: Callable[[Floats], None], repetitions: int, level: float) -> float:
        hits = 0
        for _ in range(repetitions):
            dealt = rng.permutation(everyone)
            inside = dealt[: len(members)].copy()
            change(inside)
            hits += test.p_values(_ranked(inside, dealt[len(members) :])[None, :LONGEST])[0] <= level
        return hits / repetitions

    def plant(inside: Floats) -> None:
        at = rng.choice(len(inside), min(copies, len(inside)), replace=False)
        inside[at] = np.minimum(inside[at], rng.choice(reach, len(at)))

    size = rejects(lambda inside: None, SIZE_REPETITIONS, SIZE_LEVEL)
    power = rejects(plant, REPETITIONS, alpha)
    problems = []
    if size > MAX_SIZE:
        problems.append(f"it raised an alarm in {size:.0%} of audits without members")
    if power < MIN_POWER and p > alpha:
        problems.append(f"it notices {effect:.1%} copies in only {power:.0%} of audits")
    detail = f"size {size:.3f} at 5 %, power {power:.2f} at {effect:.1%} lightly edited copies"
    return SelfTest("failed" if problems else "ok", "; ".join(problems) or detail, size=size, power=power)


def _reach_of_copies(attack: _Attack, data: MetricInput, rng: np.random.Generator) -> Floats:
    """Margins of members of whom a lightly edited copy was made."""
    codes, _ = patient_codes(attack.train)
    rows = one_image_per_patient(codes, BANK, rng)
    copies, _ = edited_copies(attack.sets, [("train", int(row)) for row in rows], rng)
    originals = attack.train.values[torch.from_numpy(rows)].double()
    distance = (copies.double() - originals).norm(dim=1).numpy()
    margins: Floats = distance - attack.to_reference[rows]
    return margins
