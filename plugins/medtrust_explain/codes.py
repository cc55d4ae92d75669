"""What the code of an autoencoder means: the metric over `medtrust_explain.latents`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from medtrust import Estimate, Evidence, Insufficient, MetricInput, Null, Picture, Resolution, Result, SelfTest, stats
from medtrust.images import normalise, strip
from medtrust.seeding import derive_seed
from medtrust.types import Decoder, Encoder, Interval
from medtrust_explain.latents import (
    SIGMAS,
    active_units,
    disentanglement,
    spearman_consistency,
    traverse,
)

__all__ = ["LatentCode"]

_MOST = 1000  # images that are encoded
_CHUNK = 64
_SHOWN = 5  # units drawn
_HEIGHT = 64  # pixels of a strip
_MOVES = 0.2  # standard deviations that an attribute must move along a strip to be seen there


class LatentCode:
    """Encode real images, see which units are in use, what each does and which named attribute it follows.

    Reference: Burda et al. 2016, arXiv:1509.00519 (active units); Pati and Lerch 2021, doi:10.1007/s00521-020-05270-2
    (SCC, the estimate).
    """

    def compute(self, data: MetricInput) -> Result:
        """Encode up to 1000 holdout images, or train images where there is no holdout.

        Raises:
            Insufficient: The generator has no encoder and decoder, the code is not used, or too few images.
        """
        model = data.generator
        if not (isinstance(model, Encoder) and isinstance(model, Decoder)):
            raise Insufficient("the generator has no encoder and decoder, so there is no code to explain")
        features = data.train.features
        if features is None or not features.names:
            raise Insufficient("the meaning of a code is told by features that have names; give such a space")
        real = data.holdout if data.holdout is not None else data.train
        rows = stats.subsample(real.patients, min(_MOST, len(real)), len(real), derive_seed(data.seed, "rows"))
        mean = _encoded(model, real, rows.tolist())
        attributes = real.matrix[rows]
        found = disentanglement(mean, attributes, derive_seed(data.seed, "permute"))
        units = active_units(mean)
        patients = tuple(real.patients[i] for i in rows.tolist())
        scc = found["SCC"]
        interval, se, dof = _interval(mean[:, units.copy()], attributes, patients, scc.value, data)
        facts: dict[str, Any] = {"units": mean.shape[1], "active_units": len(units), "images": len(mean)}
        for name, measure in found.items():
            key = name.lower().replace(" ", "_")
            facts[key] = measure.value
            facts[f"{key}_of_permuted_attributes"] = measure.null
        reach = stats.min_detectable(se, data.level, dof)
        told = scc.value > scc.upper
        words = f"attributes permuted over the images give SCC {scc.null:.3f} (95 % below {scc.upper:.3f})"
        return Result(
            estimate=Estimate(scc.value, "rank correlation", "higher"),
            interval=interval,
            null=Null("attributes permuted over the images", scc.null),
            resolution=Resolution(
                reach, 0.8, f"With {len(set(patients))} patients, a rank correlation {reach:.2g} above that of "
                "permuted attributes could have been seen.",
            ),
            selftest=SelfTest("ok" if told else "failed", words + ("" if told else ", no less than the true ones")),
            evidence=_strips(model, mean, attributes.numpy(), units.tolist(), features.names, data),
            facts=facts,
        )  # fmt: skip


def _encoded(model: Encoder, real: Any, rows: list[int]) -> torch.Tensor:
    parts = []
    for start in range(0, len(rows), _CHUNK):
        pixels = np.stack([np.asarray(real.images[i].pixels, np.float32) for i in rows[start : start + _CHUNK]])
        with torch.no_grad():
            parts.append(model.encode(torch.from_numpy(pixels))[0].cpu())
    mean = torch.cat(parts)
    if not bool(mean.isfinite().all()):
        raise Insufficient("the encoder gives codes that are not finite")
    return mean


def _interval(
    codes: torch.Tensor, attributes: torch.Tensor, patients: tuple[str, ...], value: float, data: MetricInput
) -> tuple[Interval, float, int]:
    """Half-sampling by patient: the strongest of many correlations is biased, which halves of one size share."""
    splits = 20
    x, y = codes.double().numpy(), attributes.double().numpy()
    y = y[:, y.std(0) > 1e-9]
    _, spread = stats.half_sampling(
        lambda a, _: (spearman_consistency(x[a.numpy()], y[a.numpy()]),),
        patients,
        patients,
        (len(x), len(x)),
        splits=splits,
        seed=derive_seed(data.seed, "halves"),
    )
    se = max(float(spread[0]), 1e-6)
    reach = stats.t_quantile(data.level, splits) * se
    low, high = max(0.0, value - reach), min(1.0, value + reach)
    units = len(set(patients))
    return Interval(low, high, data.level, "delete-half by patient, t", units), se, splits


def _strips(
    model: Decoder, mean: torch.Tensor, attributes: Any, units: list[int], names: tuple[str, ...], data: MetricInput
) -> tuple[Evidence, ...]:
    """One strip per active unit: decoded images from -3 to +3 standard deviations, and the attribute it moves most."""
    shown = []
    codes = mean.double().numpy()
    for rank, unit in enumerate(units[:_SHOWN], start=1):
        images = traverse(model.decode, mean, unit).cpu().numpy()
        ranks = np.array([_correlation(codes[:, unit], column) for column in attributes.T])
        best = int(np.argmax(np.abs(ranks)))
        curve = _curve(images, best, data)
        alt = (
            f"decoded images as unit {unit} moves from -3 to +3 standard deviations; {names[best]} goes from "
            f"{curve[0]:.2g} to {curve[-1]:.2g}" if curve else f"decoded images as unit {unit} moves"
        )  # fmt: skip
        facts: dict[str, Any] = {"unit": unit, "follows": names[best], "rank_correlation": float(ranks[best])}
        facts |= {f"at_{sigma:+.0f}_sd": value for sigma, value in zip(SIGMAS, curve, strict=False)}
        # a decoder of means draws no texture: what a unit goes with in real images need not show when it is decoded
        drawn = not curve or max(curve) - min(curve) >= _MOVES
        title = f"Unit {unit} follows {names[best]}" + ("" if drawn else ", which its decoded images do not show")
        picture = Picture("traversal", alt, png=strip(normalise(images, data.intensity), _HEIGHT))
        shown.append(Evidence("traversal", title, rank, facts, (picture,)))
    return tuple(shown)


def _curve(images: Any, column: int, data: MetricInput) -> list[float]:
    """The attribute measured on the decoded images."""
    if data.embed is None:
        return []
    measured = data.embed(torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32)))
    return [float(v) for v in measured[:, column]]


def _correlation(a: Any, b: Any) -> float:
    from scipy.stats import rankdata

    x, y = rankdata(a) - (len(a) + 1) / 2, rankdata(b) - (len(b) + 1) / 2
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else 0.0
