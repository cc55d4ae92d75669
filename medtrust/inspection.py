"""Declared against observed: does a generator make the images, and keep the promises, that it states?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from medtrust.types import Estimate, Result

if TYPE_CHECKING:
    import numpy as np

    from medtrust.images import ImageSet
    from medtrust.types import Generator, SampleBatch

__all__ = ["DECLARED", "Observation", "hold_against"]

DECLARED = "fidelity.declared"


@dataclass
class Observation:
    """What came out of a generator: collected while it is sampled."""

    images: int = 0
    shapes: set[tuple[int, ...]] = field(default_factory=set)
    dtypes: set[str] = field(default_factory=set)
    lo: float = math.inf
    hi: float = -math.inf
    not_finite: int = 0
    seconds: float = 0.0
    head: list[bytes] = field(default_factory=list)
    nfe: int | None = None

    def see(self, batch: SampleBatch, first: int, seconds: float) -> None:
        """Take one batch into account.

        Args:
            batch: As the generator returned it.
            first: Position of its first image.
            seconds: How long it took.
        """
        import numpy as np

        pixels = batch.pixels
        self.images += len(pixels)
        self.seconds += seconds
        self.shapes.add(tuple(pixels.shape[1:]))
        self.dtypes.add(str(pixels.dtype))
        finite = np.isfinite(pixels)
        self.not_finite += int((~finite.all(axis=tuple(range(1, pixels.ndim)))).sum())
        if finite.any():
            self.lo = min(self.lo, float(pixels[finite].min()))
            self.hi = max(self.hi, float(pixels[finite].max()))
        if first == 0:
            self.head = _digests(pixels)
        if "nfe" in batch.meta:
            self.nfe = int(batch.meta["nfe"])

    @property
    def rate(self) -> float:
        """Images per second."""
        return self.images / self.seconds if self.seconds else math.nan


@dataclass
class _Findings:
    facts: dict[str, float | int | str | bool] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    checked: int = 0

    def hold(self, what: str, declared: Any, observed: Any, kept: bool) -> None:
        self.checked += 1
        self.facts[f"{what}, declared"] = str(declared)
        self.facts[f"{what}, observed"] = str(observed)
        if not kept:
            self.broken.append(f"{what}: declared {declared}, observed {observed}")


def hold_against(
    generator: Generator, seen: Observation, train: ImageSet, *, seed: int, condition: Sequence[Any] | None = None
) -> Result:
    """Compare what a generator declares with what it made, and with the images it claims to resemble.

    The first request is made again and one of its images is drawn alone, to check repeatability and batch invariance.

    Args:
        generator: The generator that `seen` watched.
        seen: What came out.
        train: The real images; their size, spacing, modality and unit are what the declared ones must equal.
        seed: Seed of the series that was watched.
        condition: Conditions of that series.

    Returns:
        A result whose estimate counts the declarations that observation contradicts: 0 is best.
    """
    spec, found = generator.spec, _Findings()
    found.hold(
        "size [C, H, W]", list(spec.shape), _several(seen.shapes), all(_fits(spec.shape, s) for s in seen.shapes)
    )
    found.hold("pixel type", spec.dtype, _several(seen.dtypes), seen.dtypes <= {spec.dtype})
    inside = spec.range[0] <= seen.lo and seen.hi <= spec.range[1]
    found.hold(f"range in {spec.unit}", f"{spec.range[0]:g} … {spec.range[1]:g}", f"{seen.lo:g} … {seen.hi:g}", inside)
    found.hold("images with NaN or infinity", 0, seen.not_finite, not seen.not_finite)
    real = {tuple(header.shape) for header in train.headers}
    found.hold("size against train", list(spec.shape), _several(real), all(_fits(spec.shape, shape) for shape in real))
    found.hold("unit against train", spec.unit, train.intensity.unit, spec.unit == train.intensity.unit)
    if spec.modality and train.modality:
        found.hold("modality against train", spec.modality, train.modality, spec.modality == train.modality)
    spacings = {tuple(header.spacing_mm) for header in train.headers if header.spacing_mm}
    if spec.spacing_mm and spacings:
        close = all(_close(spec.spacing_mm, spacing) for spacing in spacings)
        found.hold("spacing in mm against train", list(spec.spacing_mm), _several(spacings), close)
    if generator.caps.steps is not None and seen.nfe is not None:
        found.hold("network evaluations per image", generator.caps.steps, seen.nfe, generator.caps.steps == seen.nfe)
    _repeat(generator, seen, seed, condition, found)
    found.facts["declarations checked"] = found.checked
    found.facts["trust tier"] = generator.caps.trust
    for i, line in enumerate(generator.caps.ancestors, 1):
        found.facts[f"ancestor {i}"] = line
    return Result(
        estimate=Estimate(float(len(found.broken)), "declarations", "lower"),
        facts=found.facts,
        notes=(
            *(f"Contradicted. {line}." for line in found.broken),
            *(
                f"Its weights began as those of a {line}. Whether it copies those patients is another question: "
                "audit it with their images as --train."
                for line in generator.caps.ancestors
            ),
        ),
        id=DECLARED,
        pillar="fidelity",
        title="declared against observed",
        metric="medtrust/declared",
        metric_version="1",
    )


def _repeat(
    generator: Generator, seen: Observation, seed: int, condition: Sequence[Any] | None, found: _Findings
) -> None:
    """Make the first request again, and one for an image of it alone."""
    count = len(seen.head)
    if not count:
        return
    place = min(2, count - 1)

    def draw(n: int, first: int) -> list[bytes]:
        if condition is None:
            batch = generator.sample(n, seed=seed, first=first)
        else:
            asked = [condition[i % len(condition)] for i in range(first, first + n)]
            batch = generator.sample(n, seed=seed, first=first, condition=asked)
        return _digests(batch.pixels)

    try:
        again, alone = draw(count, 0), draw(1, place)
    except Exception as error:  # a plugin's code: whatever it raises is a finding, not the end of the audit
        found.broken.append(f"drawing the first images again failed with {type(error).__name__}: {error}")
        return
    repeats, invariant = again == seen.head, alone[0] == again[place]
    caps = generator.caps
    found.hold("same seed, same bytes", caps.seedable, repeats, repeats or not caps.seedable)
    found.hold("same bytes in any batch", caps.batch_invariant, invariant, invariant or not caps.batch_invariant)


def _digests(pixels: np.ndarray[Any, Any]) -> list[bytes]:
    return [hashlib.sha256(image.tobytes()).digest() for image in pixels]


def _fits(declared: Sequence[int], shape: Sequence[int]) -> bool:
    return len(declared) == len(shape) and all(a in (-1, b) for a, b in zip(declared, shape, strict=True))


def _close(a: Sequence[float], b: Sequence[float]) -> bool:
    return len(a) == len(b) and all(math.isclose(x, y, rel_tol=0.02) for x, y in zip(a, b, strict=True))


def _several(values: set[Any]) -> str:
    shown = [str(list(v)) if isinstance(v, tuple) else str(v) for v in sorted(values)]
    return ", ".join(shown[:3]) + (f" and {len(shown) - 3} more" if len(shown) > 3 else "")
