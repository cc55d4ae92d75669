"""Image sets and feature spaces for tests of the engines; a worker's process imports them from here."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import torch

from medtrust import FeatureSpec, hookimpl
from medtrust.errors import DataError
from medtrust.images.imageset import Entry, ImageSet
from medtrust.types import ImageHeader, Intensity, Limits

LEVELS = Intensity(0, 255, "level")


class Made:
    """Image `index` is noise with that seed; every 50th repeats image 3; `broken` cannot be read."""

    def __init__(self, broken: int = -1, log: Path | None = None) -> None:
        self.broken, self.log = broken, log

    def scan(self, path: Path, limits: Limits) -> list[ImageHeader]:
        raise NotImplementedError("the entries are made by hand")

    def read(self, path: Path, header: ImageHeader, limits: Limits) -> np.ndarray:
        if self.log is not None:
            with self.log.open("a") as log:
                log.write(f"{os.getpid()} {header.index} {header.patient} {sorted(header.attributes)}\n")
        if header.index == self.broken:
            raise DataError(f"{path}: image {header.index} is cut off; copy it again.")
        seed = 3 if header.index % 50 == 49 else header.index
        return np.random.default_rng(seed).integers(0, 256, header.shape, dtype=np.uint8)


def made_set(n: int, reader: Made | None = None, *, shapes: bool = False) -> ImageSet:
    """A set of n images, with patients and private header fields; from the middle on of another shape if asked."""
    reader = reader or Made()
    entries = []
    for i in range(n):
        shape = (1, 6, 5) if shapes and i >= n // 2 else (1, 8, 8)
        facts = {"site": "A", "phi.name": f"Doe {i}"}
        header = ImageHeader(shape, "uint8", i, LEVELS, patient=f"patient {i // 4}", attributes=facts)
        entries.append(Entry(Path("made"), f"image{i:04d}.png", f"patient {i // 4}", header, reader, "made"))
    return ImageSet("train", entries, LEVELS, Limits(), patients_known=True)


class Corners:
    """The first pixel and the mean."""

    names: tuple[str, ...] = ("first", "mean")
    standardise = False

    def __init__(self, *, device: str = "cpu") -> None:
        self.device = device

    @property
    def digest(self) -> str:
        return "c0" * 32

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        flat = images.double().flatten(1)
        return torch.stack([flat[:, 0], flat.mean(1)], 1).float()


class Mortal(Corners):
    """Kills its process with SIGKILL, as long as the file MORTAL_TALLY holds fewer than MORTAL_DEATHS lines."""

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        tally = os.environ.get("MORTAL_TALLY")
        if tally:
            with open(tally, "a+") as file:
                file.seek(0)
                if len(file.readlines()) < int(os.environ["MORTAL_DEATHS"]):
                    file.write(f"{os.getpid()}\n")
                    file.flush()
                    os.kill(os.getpid(), signal.SIGKILL)
        return super().extract(images, intensity)


class Sociable(Corners):
    """Breaks its contract: a row depends on the images beside it."""

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        rows = super().extract(images, intensity)
        return rows + rows.mean(0)


class Faulty(Corners):
    """Raises what nobody expects."""

    def extract(self, images: torch.Tensor, intensity: Intensity) -> torch.Tensor:
        raise ZeroDivisionError("by nothing")


class MortalPlugin:
    """Offers `mortal`, under which nothing else is to be found."""

    @hookimpl
    def medtrust_features(self) -> list[FeatureSpec]:
        return [FeatureSpec(name="mortal", version="1", factory="scale_sets:Mortal", summary="dies once, then works")]
