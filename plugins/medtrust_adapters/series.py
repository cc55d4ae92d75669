"""What every adapter shares: sample i depends on the seed, on i and on its condition, whatever is drawn around it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from medtrust.errors import ConfigError, DataError
from medtrust.seeding import derive_seed
from medtrust.types import Caps, ConditionSpec, ImageSpec, Intensity, SampleBatch
from medtrust_adapters.values import Values

__all__ = ["Series", "noise_rows"]


def noise_rows(seeds: Sequence[int], shape: Sequence[int]) -> np.ndarray[Any, Any]:
    """Draw standard normal noise, row i from seed i alone.

    Args:
        seeds: One per row.
        shape: Shape of one row.

    Returns:
        [N, *shape] float32.
    """
    import torch

    rows = [torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows).numpy() if rows else np.empty((0, *shape), np.float32)


class Series(ABC):
    """A generator that draws whole, aligned chunks, so that no batch size can change a sample.

    Args:
        values: How outputs become pixels.
        chunk: Images per evaluation.
        caps: What the generator is able to do.
        conditions: What it can be asked for.
        artifact: Further facts for the report.
    """

    spec: ImageSpec

    def __init__(
        self,
        values: Values,
        chunk: int,
        caps: Caps,
        conditions: ConditionSpec | None = None,
        artifact: Mapping[str, Any] | None = None,
    ) -> None:
        self.values, self.chunk, self.caps = values, chunk, caps
        self.conditions = conditions or ConditionSpec()
        self.artifact: dict[str, Any] = dict(artifact or {})

    @abstractmethod
    def draw(self, seeds: Sequence[int], condition: Sequence[Any] | None) -> np.ndarray[Any, Any]:
        """Evaluate one chunk.

        Args:
            seeds: Seed of each image, `chunk` of them; row i must depend on seed i and condition i alone.
            condition: Condition of each image; None where the generator takes none.

        Returns:
            The network's output [chunk, C, H, W], in whatever range `values.output` says.
        """

    def probe(self) -> None:
        """Learn the shape of the images by drawing one chunk."""
        condition = self._choose(0, range(self.chunk)) if self.conditions.kind != "none" else None
        output = self.draw([derive_seed(0, "sample", i) for i in range(self.chunk)], condition)
        self.spec = self.values.spec(self._checked(output).shape[1:])

    @property
    def intensity(self) -> Intensity:
        """What pixel values mean."""
        return self.values.intensity

    def sample(
        self, n: int, *, seed: int, condition: Sequence[Any] | None = None, first: int = 0, **opts: Any
    ) -> SampleBatch:
        """Draw samples first … first + n - 1.

        Args:
            n: How many.
            seed: Seed of the whole series.
            condition: Condition of each of these samples; None lets the generator choose, by the seed.
            first: Position of the first sample in the series.
            opts: None is known.

        Returns:
            [n, C, H, W] in the unit of `spec`; `meta` says which share of the pixels was clipped to the range.

        Raises:
            ConfigError: A negative number, an unknown option, or a condition that does not fit.
            DataError: The artefact returned something else than such images.
        """
        if opts:
            raise ConfigError(f"this generator knows no option {sorted(opts)[0]!r} when sampling")
        if n < 0 or first < 0:
            raise ConfigError(f"cannot draw {n} samples from number {first} on; both numbers must be at least 0")
        began = time.perf_counter()
        places = range(first, first + n)
        chosen = self._conditions(seed, places, condition)
        parts = [np.empty((0, *self.spec.shape), self.spec.dtype)]
        outside = 0.0
        for start in range(first - first % self.chunk, first + n, self.chunk):
            here = range(max(start, first), min(start + self.chunk, first + n))
            pixels, share = self.values.pixels(self._chunk(seed, start, here, chosen, first))
            rows = slice(here.start - start, here.stop - start)
            parts.append(pixels[rows])
            outside += float(share[rows].sum())
        meta: dict[str, float | int | str] = {"outside": outside / max(n, 1), "wall_s": time.perf_counter() - began}
        if self.caps.steps is not None:
            meta["nfe"] = self.caps.steps
        seeds = tuple(derive_seed(seed, "sample", i) for i in places)
        return SampleBatch(np.concatenate(parts), seeds, meta, chosen)

    def _chunk(self, seed: int, start: int, here: range, chosen: Sequence[Any] | None, first: int) -> Any:
        around = range(start, start + self.chunk)
        wanted = None
        if chosen is not None:
            # the rows around the wanted ones are thrown away, so any valid condition does for them
            wanted = [chosen[i - first] if i in here else chosen[here.start - first] for i in around]
        output = self.draw([derive_seed(seed, "sample", i) for i in around], wanted)
        return self._checked(output)

    def _checked(self, output: Any) -> np.ndarray[Any, Any]:
        output = np.asarray(output)
        shape = getattr(self, "spec", None)
        wanted = (self.chunk, *shape.shape) if shape is not None else None
        if output.ndim != 4 or len(output) != self.chunk or (wanted is not None and output.shape != wanted):
            expected = list(wanted) if wanted is not None else f"[{self.chunk}, C, H, W]"
            raise DataError(f"the artefact returned {list(output.shape)} where {expected} was asked for")
        if not np.isfinite(output).all():
            raise DataError("the artefact returned pixels that are not numbers (NaN or infinite)")
        return output

    def _conditions(self, seed: int, places: range, condition: Sequence[Any] | None) -> Sequence[Any] | None:
        if self.conditions.kind == "none":
            if condition is not None:
                raise ConfigError("this generator takes no condition")
            return None
        if condition is None:
            return self._choose(seed, places)
        if len(condition) != len(places):
            raise ConfigError(f"{len(condition)} conditions were given for {len(places)} samples; give one for each")
        if self.conditions.kind == "label":
            return [self._named(label) for label in condition]
        return list(condition)

    def _choose(self, seed: int, places: range) -> list[Any]:
        classes = self.conditions.classes
        if self.conditions.kind != "label" or not classes:
            raise ConfigError(f"this generator needs a condition of kind {self.conditions.kind} for each sample")
        return [classes[derive_seed(seed, "condition", i) % len(classes)] for i in places]

    def _named(self, label: Any) -> str:
        classes = self.conditions.classes
        if isinstance(label, int) and 0 <= label < len(classes):
            return classes[label]
        if str(label) not in classes:
            raise ConfigError(f"{label!r} is no class of this generator; it has {', '.join(classes)}")
        return str(label)
