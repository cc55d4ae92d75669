"""Membership from the inside: does the generator's own network treat its training images differently?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import norm

from medtrust.errors import Insufficient
from medtrust.seeding import derive_seed
from medtrust.stats import EnrichmentTest
from medtrust.types import Estimate, Interval, MetricInput, Null, Resolution, Result, SelfTest, SetData, TestOutcome
from medtrust_privacy.copies import one_image_per_patient
from medtrust_privacy.membership import auc_with_error, epsilon_lower_bound

__all__ = ["WhiteBox", "noise_of", "pia_scores", "reconstruction_scores", "sima_scores"]

Floats = npt.NDArray[np.float64]
MOST = 500  # patients asked on each side
MIN_PATIENTS, REPETITIONS, MAX_SIZE, POWER = 20, 400, 0.09, 0.8
SIMA_SIGMA, PIA_SIGMA = 0.2, 0.5  # noise levels at which the network is asked, as a share of signal and noise
CLEAN_SIGMA = 0.02
_BATCH = 32
_TIMES = 400


class WhiteBox:
    """Attack the generator itself: a denoiser by SimA and PIA, an encoder with a decoder by reconstruction.

    Reference: Kong et al. 2023, arXiv:2305.18355 (PIA); Rao et al. 2025, arXiv:2509.25003 (SimA); Hilprecht et al.
    2019, doi:10.2478/popets-2019-0067 (reconstruction).
    """

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Ask the generator about one image of each training and each holdout patient.

        Args:
            data: Train, holdout and synthetic with images, and the generator.

        Returns:
            Area under the ROC curve of each attack; one that the generator does not allow is skipped with the reason.

        Raises:
            Insufficient: No holdout, or fewer than 20 patients a side.
        """
        if data.holdout is None:
            raise Insufficient("needs a holdout set: real images of patients whom the generator never saw")
        rng = np.random.default_rng(derive_seed(data.seed, "targets"))
        sides = [_targets(each, rng) for each in (data.train, data.holdout)]
        images = torch.stack([torch.from_numpy(np.ascontiguousarray(p)).float() for side in sides for p in side])
        split = len(sides[0])
        generator = data.generator
        attacks: dict[str, tuple[str, Callable[[Any, torch.Tensor], Floats], tuple[str, ...]]] = {
            "privacy.sima": ("Membership by the predicted noise (SimA)", sima_scores, ("denoise", "noise_level")),
            "privacy.pia": ("Membership by proximal initialisation (PIA)", pia_scores, ("denoise", "noise_level")),
            "privacy.reconstruction": ("Membership by reconstruction", reconstruction_scores, ("encode", "decode")),
        }
        out: dict[str, Result] = {}
        for name, (title, scores, asked) in attacks.items():
            missing = [each for each in asked if not hasattr(generator, each)]
            if missing:
                out[name] = Result(
                    status="skipped",
                    reason=f"the generator offers no {' and no '.join(missing)}, which this attack looks through",
                    title=title,
                )
                continue
            try:
                found = scores(generator, images)
            except Insufficient as reason:
                out[name] = Result(status="skipped", reason=str(reason), title=title)
                continue
            out[name] = _result(found[:split], found[split:], data, title, derive_seed(data.seed, name))
        return out


def _targets(data: SetData, rng: np.random.Generator) -> list[npt.NDArray[Any]]:
    codes = np.unique(np.array(data.patients), return_inverse=True)[1]
    rows = one_image_per_patient(codes, MOST, rng)
    if len(rows) < MIN_PATIENTS:
        raise Insufficient(f"needs {MIN_PATIENTS} patients on each side, {data.name} has {len(rows)}")
    return [data.images[int(row)].pixels for row in rows]


def _time_of(generator: Any, sigma: float) -> float:
    """Time in 0 … 1 at which noise is about `sigma` of signal and noise together."""
    times = torch.linspace(0, 1, _TIMES + 1)[1:]
    alpha, noise = generator.noise_level(times)
    share = noise.double() / torch.sqrt(alpha.double() ** 2 + noise.double() ** 2)
    return float(times[int((share - sigma).abs().argmin())])


def noise_of(generator: Any, x_t: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The noise that a denoiser sees in x_t, whatever it predicts.

    Args:
        generator: Offers `denoise`, `noise_level` and `prediction`.
        x_t: [N, C, H, W] float32.
        t: [N].

    Raises:
        Insufficient: It predicts something that no noise can be read from.
    """
    alpha, sigma = (each.to(x_t.dtype).reshape(-1, 1, 1, 1) for each in generator.noise_level(t))
    with torch.no_grad():
        answer = generator.denoise(x_t, t)
    kind = generator.prediction
    if kind == "epsilon":
        noise: torch.Tensor = answer
    elif kind == "v":
        noise = (alpha * answer + sigma * x_t) / (alpha**2 + sigma**2)
    elif kind == "x0":
        noise = (x_t - alpha * answer) / sigma
    elif kind == "flow":  # answer = noise - clean
        noise = (x_t + alpha * answer) / (alpha + sigma)
    else:
        raise Insufficient(f"the generator predicts {kind!r}, from which this attack cannot read the noise")
    return noise


def _in_batches(images: torch.Tensor, of: Callable[[torch.Tensor], torch.Tensor]) -> Floats:
    parts = [of(images[at : at + _BATCH]) for at in range(0, len(images), _BATCH)]
    return np.asarray(torch.cat(parts).double().numpy(), dtype=np.float64)


def sima_scores(generator: Any, images: torch.Tensor) -> Floats:
    """Length of the noise that the network sees in the clean image, asked once; members sit where it is short.

    Args:
        generator: A denoiser.
        images: [N, C, H, W] in the generator's unit.

    Returns:
        [N], smaller looks more like a member.

    Reference: Rao et al. 2025, arXiv:2509.25003.
    """
    time = _time_of(generator, SIMA_SIGMA)

    def score(some: torch.Tensor) -> torch.Tensor:
        x = generator.normalise(some)
        return noise_of(generator, x, torch.full((len(x),), time)).flatten(1).norm(dim=1)

    return _in_batches(images, score)


def pia_scores(generator: Any, images: torch.Tensor) -> Floats:
    """How far the noise seen at a later time is from the noise seen in the clean image, which is used to get there.

    Returns:
        [N] L4 distances, smaller looks more like a member.

    Reference: Kong et al. 2023, arXiv:2305.18355, equation 9.
    """
    clean, later = _time_of(generator, CLEAN_SIGMA), _time_of(generator, PIA_SIGMA)

    def score(some: torch.Tensor) -> torch.Tensor:
        x = generator.normalise(some)
        first = noise_of(generator, x, torch.full((len(x),), clean))
        t = torch.full((len(x),), later)
        alpha, sigma = (each.to(x.dtype).reshape(-1, 1, 1, 1) for each in generator.noise_level(t))
        second = noise_of(generator, alpha * x + sigma * first, t)
        return torch.linalg.vector_norm((first - second).flatten(1), ord=4, dim=1)

    return _in_batches(images, score)


def reconstruction_scores(generator: Any, images: torch.Tensor) -> Floats:
    """Root-mean-square error of decoding the mean code of an image; members are reconstructed better.

    Returns:
        [N] in the generator's unit, smaller looks more like a member.
    """

    def score(some: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            mean, _ = generator.encode(some)
            return (generator.decode(mean).float() - some.float()).flatten(1).square().mean(1).sqrt()

    return _in_batches(images, score)


def _result(members: Floats, others: Floats, data: MetricInput, title: str, seed: int) -> Result:
    auc, se = auc_with_error(members, others)
    half = float(norm.ppf((1 + data.level) / 2)) * se
    test = EnrichmentTest(len(members), len(others), seed)
    scores = np.r_[others, members]
    member = np.r_[np.zeros(len(others), bool), np.ones(len(members), bool)]
    found = test(member[np.argsort(scores, kind="stable")])
    area_p = float(norm.sf((auc - 0.5) / se)) if se > 0 else 1.0
    p = min(1.0, 2 * min(found.p, area_p))  # a few members told surely, or all of them a little
    rng = np.random.default_rng(seed)
    size = float((test.p_values(rng.permuted(np.tile(member, (REPETITIONS, 1)), axis=1)) <= 0.05).mean())
    smallest = (float(norm.ppf(1 - data.alpha / 2)) + float(norm.ppf(POWER))) * se
    return Result(
        estimate=Estimate(auc, "AUC", "lower"),
        interval=Interval(max(0.0, auc - half), min(1.0, auc + half), data.level, "DeLong, by patient", len(scores)),
        test=TestOutcome(auc, p, p, "membership, inside"),
        null=Null("guessing", 0.5),
        resolution=Resolution(
            min(0.5, smallest),
            POWER,
            f"An area less than {smallest:.2g} above 0.5 could not have been told from guessing.",
        ),
        selftest=SelfTest(
            "not_run" if size <= MAX_SIZE else "failed",
            "members cannot be planted in a trained network, so a quiet attack shows nothing; "
            f"size {size:.3f} at 5 % when the roles are dealt anew",
            size=size,
        ),
        facts={
            "members": len(members),
            "non_members": len(others),
            "epsilon_lower_bound": epsilon_lower_bound(members, others, data.level, seed),
            "p_gathering": found.p,
            "p_area": area_p,
        },
        notes=("This attack reads the network; somebody who holds the images alone cannot run it.",),
        title=title,
    )
