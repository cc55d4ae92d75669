"""Residual risk: how much better can an attacker complete the image of somebody who was in train?"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import norm

from medtrust import ops
from medtrust.errors import Insufficient
from medtrust.seeding import derive_seed
from medtrust.types import Estimate, Interval, MetricInput, Null, Resolution, Result, SelfTest
from medtrust_privacy.common import Trio, patient_codes
from medtrust_privacy.copies import BANK, edited_copies, one_image_per_patient

__all__ = ["ResidualRisk", "residual_risk", "wilson"]

Bools = npt.NDArray[np.bool_]
BASELINE = 0.05  # share of blind guesses that count as right
MIN_PATIENTS, POWER, MAX_SIZE, REPETITIONS = 50, 0.8, 0.09, 1000


def wilson(hits: int, n: int, level: float) -> tuple[float, float]:
    """Wilson's interval of a share.

    Reference: Wilson 1927, doi:10.1080/01621459.1927.10502953.
    """
    z = float(norm.ppf((1 + level) / 2))
    middle = (hits + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(hits * (n - hits) / n + z * z / 4)
    return max(0.0, middle - half), min(1.0, middle + half)


def residual_risk(attack: int, control: int, n: int, level: float) -> tuple[float, float, float]:
    """How much the attack gains on train over what it gains on people who were not in train.

    Args:
        attack: Successes against n training patients.
        control: Successes against n holdout patients.
        n: Attacks on each side.
        level: Confidence level.

    Returns:
        (r_attack - r_control) / (1 - r_control) and its bounds, from Wilson intervals of both rates by the square-root
        rule; at most 1, below 0 where the holdout was easier.

    Reference: Giomi et al. 2022, arXiv:2211.10459 (anonymeter); Newcombe 1998, method 10,
    doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I.
    """
    a, c = attack / n, control / n
    if c >= 1:
        return 0.0, -1.0, 1.0
    (a_lo, a_hi), (c_lo, c_hi) = wilson(attack, n, level), wilson(control, n, level)
    lo = a - c - math.hypot(a - a_lo, c_hi - c)
    hi = a - c + math.hypot(a_hi - a, c - c_lo)
    return max(-1.0, (a - c) / (1 - c)), max(-1.0, lo / (1 - c)), min(1.0, hi / (1 - c))


class ResidualRisk:
    """Inference attack: one half of a person's image is known, the synthetic set is asked for the other half.

    The attacker takes the sample whose left half is nearest to the known one and guesses its right half. A guess is
    right if it comes nearer to the truth than 95 % of blind guesses (right halves of random samples). The pools are of
    equal size: as many training patients are attacked as holdout patients.

    Reference: Giomi et al. 2022, arXiv:2211.10459.
    """

    def compute(self, data: MetricInput) -> Result:
        """Attack training and holdout patients.

        Args:
            data: Train, holdout and synthetic with images and pixel features.

        Returns:
            Residual risk with its interval; INCONCLUSIVE by its self-test where the attack is no better than guessing.

        Raises:
            Insufficient: Fewer than 50 patients a side, features of another space, or unusable features.
        """
        sets = Trio(data)
        if sets.views is None:
            raise Insufficient("needs medtrust's own pixel space: halves of other features are no halves of an image")
        channels, height, width = data.train.images[0].pixels.shape
        shape = (channels, min(height, 32), min(width, 32))
        if shape[2] < 2:
            raise Insufficient("images of one column have no halves")
        rng = np.random.default_rng(derive_seed(data.seed, "targets"))
        targets = {}
        for name, features in (("train", sets.train), ("holdout", sets.holdout)):
            codes, _ = patient_codes(features)
            targets[name] = one_image_per_patient(codes, len(codes), rng)
        n = min(map(len, targets.values()))
        if n < MIN_PATIENTS:
            raise Insufficient(f"needs {MIN_PATIENTS} patients on each side to attack, the smaller side has {n}")
        known, hidden = _halves(sets.synthetic.values, shape)
        hits = {}
        for name, features in (("train", sets.train), ("holdout", sets.holdout)):
            rows = torch.from_numpy(targets[name][:n])
            hits[name] = _attack(features.values[rows], known, hidden, shape)
        attack, control = int(hits["train"].sum()), int(hits["holdout"].sum())
        risk, lo, hi = residual_risk(attack, control, n, data.level)
        bank = targets["train"][: min(BANK, n)]
        copies, _ = edited_copies(sets, [("train", int(row)) for row in bank], rng)
        found = _attack_copies(sets.train.values[torch.from_numpy(bank)], copies, known, hidden, shape)
        size = _size(np.r_[hits["train"], hits["holdout"]], n, derive_seed(data.seed, "size"))
        se = (hi - lo) / 2 / float(norm.ppf((1 + data.level) / 2))
        smallest = min(1.0, (float(norm.ppf((1 + data.level) / 2)) + float(norm.ppf(POWER))) * se)
        baseline = wilson(attack, n, data.level)
        return Result(
            estimate=Estimate(risk, "risk", "lower"),
            interval=Interval(lo, hi, data.level, "Wilson, Newcombe's difference", 2 * n),
            null=Null(
                "success against holdout patients",
                control / n,
                Interval(*wilson(control, n, data.level), data.level, "Wilson", n),
            ),
            resolution=Resolution(
                smallest, POWER, f"A residual risk below {smallest:.2g} could not have been told from none."
            ),
            selftest=_judged(size, found, attack / n, baseline[0]),
            facts={
                "attacks": n,
                "success_on_train": attack / n,
                "success_on_holdout": control / n,
                "baseline_of_guessing": BASELINE,
                "success_on_planted_copies": found,
            },
            notes=(
                "The risk is that of this attack; a stronger attacker may do better. It is an average over patients: a "
                "few copied ones hardly move it.",
            ),
        )


def _halves(rows: torch.Tensor, shape: tuple[int, int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Left and right half of each row, each centred and of unit length."""
    images = rows.double().reshape(len(rows), *shape)
    cut = shape[2] // 2
    return _unit(images[..., :cut].flatten(1)), _unit(images[..., cut:].flatten(1))


def _unit(rows: torch.Tensor) -> torch.Tensor:
    rows = rows - rows.mean(1, keepdim=True)
    length = rows.norm(dim=1, keepdim=True)
    return rows / length.masked_fill(length < 1e-9, torch.inf)


def _attack(targets: torch.Tensor, known: torch.Tensor, hidden: torch.Tensor, shape: tuple[int, int, int]) -> Bools:
    """Whether the guess for each target is among the best 5 % of blind ones [n]."""
    left, right = _halves(targets, shape)
    guess = ops.nearest(left, known, 1).indices[:, 0]
    return _right(right, hidden, (right - hidden[guess]).norm(dim=1))


def _right(truth: torch.Tensor, hidden: torch.Tensor, distance: torch.Tensor) -> Bools:
    blind = torch.quantile(torch.cdist(truth, hidden), BASELINE, dim=1)
    right: Bools = (distance <= blind).numpy()
    return right


def _attack_copies(
    targets: torch.Tensor, copies: torch.Tensor, known: torch.Tensor, hidden: torch.Tensor, shape: tuple[int, int, int]
) -> float:
    """Success where a copy of each target, and of it alone, is added to the samples."""
    left, right = _halves(targets, shape)
    copied, completion = _halves(copies, shape)
    nearest = ops.nearest(left, known, 1)
    takes_copy = (left - copied).norm(dim=1) < nearest.distances[:, 0]
    guess = torch.where(takes_copy[:, None], completion, hidden[nearest.indices[:, 0]])
    return float(_right(right, hidden, (right - guess).norm(dim=1)).mean())


def _size(hits: Bools, n: int, seed: int) -> float:
    """How often the lower bound exceeds 0 when the roles are dealt anew."""
    rng = np.random.default_rng(seed)
    total, wrong = int(hits.sum()), 0
    for first in rng.hypergeometric(total, len(hits) - total, n, REPETITIONS).tolist():
        wrong += residual_risk(first, total - first, n, 0.9)[1] > 0  # one-sided 5 %
    return wrong / REPETITIONS


def _judged(size: float, found: float, success: float, lowest: float) -> SelfTest:
    problems = []
    if size > MAX_SIZE:
        problems.append(f"it saw a risk in {size:.0%} of audits without one")
    if found < POWER:
        problems.append(f"it succeeds on only {found:.0%} of patients whose image was copied")
    if lowest <= BASELINE:
        problems.append(
            f"the attack succeeds on {success:.1%} of training patients, no better than guessing ({BASELINE:.0%}), so "
            "that its failure shows nothing"
        )
    detail = f"size {size:.3f} at 5 %, success {found:.0%} where the image was copied"
    return SelfTest("failed" if problems else "ok", "; ".join(problems) or detail, size=size, power=found)
