"""Images that were made elsewhere, as a generator: drawn without replacement, in an order that the seed decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medtrust.errors import ConfigError, DataError
from medtrust.host import build_host
from medtrust.images import ImageSet, open_set, parse_intensity
from medtrust.seeding import derive_seed
from medtrust.sources import readers_of
from medtrust.types import Caps, ConditionSpec, ImageSpec, Intensity, SampleBatch
from medtrust_generators.options import Options

__all__ = ["Folder", "FolderSeries"]


class FolderSeries:
    """Draws from a fixed set of images.

    Args:
        images: The set; all of one shape and dtype.
        where: What to call it in messages.
    """

    caps = Caps(family="folder", trust="data")
    conditions = ConditionSpec()

    def __init__(self, images: ImageSet, where: str) -> None:
        header = images.headers[0]
        odd = next((h for h in images.headers if (h.shape, h.dtype) != (header.shape, header.dtype)), None)
        if odd is not None:
            raise DataError(
                f"{where} holds {header.dtype} {list(header.shape)} and {odd.dtype} {list(odd.shape)}; a generator has "
                "one shape, so audit the folder itself with --synthetic, or split it"
            )
        self._images, self._where = images, where
        i = images.intensity
        spacing = {h.spacing_mm for h in images.headers}
        self.spec = ImageSpec(
            tuple(header.shape), header.dtype, (i.lo, i.hi), i.unit, i.window,
            spacing.pop() if len(spacing) == 1 else None, images.modality,
        )  # fmt: skip

    @property
    def intensity(self) -> Intensity:
        """What pixel values mean."""
        return self._images.intensity

    def sample(
        self, n: int, *, seed: int, condition: Sequence[Any] | None = None, first: int = 0, **opts: Any
    ) -> SampleBatch:
        """Draw samples first … first + n - 1 of the order that `seed` decides.

        Raises:
            ConfigError: A condition or an option.
            DataError: The folder has fewer images.
        """
        if condition is not None or opts:
            raise ConfigError("a folder takes no condition and no option when sampling")
        if n < 0 or first < 0:
            raise ConfigError(f"cannot draw {n} samples from number {first} on; both numbers must be at least 0")
        if first + n > len(self._images):
            raise DataError(
                f"{self._where} has {len(self._images)} images; samples up to number {first + n} were asked for"
            )
        order = np.random.default_rng(derive_seed(seed, "order")).permutation(len(self._images))
        pixels = [record.pixels for record in self._images.take(order[first : first + n])]
        empty = np.empty((0, *self.spec.shape), self.spec.dtype)
        seeds = tuple(derive_seed(seed, "sample", i) for i in range(first, first + n))
        return SampleBatch(np.concatenate([empty, *(p[None] for p in pixels)]), seeds, {})


class Folder:
    """Opens a folder, manifest.csv, npz, DICOM or NIfTI tree: the `factory` of the spec `folder`."""

    def open(self, path: Path | None, options: Mapping[str, str], device: str) -> FolderSeries:
        """Scan the headers.

        Args:
            path: As for `medtrust audit --synthetic`.
            options: `range` where the files leave it open.
            device: Any; nothing is computed.

        Raises:
            ConfigError: No path, or an unknown option.
            DataError: No images, or images of several shapes.
            SafetyError: A file beyond the limits, or a path that leaves the folder.
        """
        if path is None:
            raise ConfigError("generator folder needs a path: write folder:PATH")
        given = Options("folder", {"range": ""}, options)
        declared = parse_intensity(str(given.values["range"])) if given.values["range"] else None
        images = open_set(path, "synthetic", readers_of(build_host()), intensity=declared)
        return FolderSeries(images, str(path))
