"""Which images are told apart: synthetic from train, and real from real at the same size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from medtrust import Insufficient, MetricInput, stats
from medtrust.seeding import derive_seed
from medtrust.types import ImageRecord, SetData

__all__ = ["Sides", "sides"]

Edit = Callable[[ImageRecord], npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Sides:
    """Two groups of images, by set and row.

    Args:
        first: The set in question, with `first_rows` of it.
        second: The real set, with `second_rows` of it.
        reference: What real is compared with for the null, in words.
        notes: What a reader must know of the comparison.
        real: The null's two sides: set, rows, set, rows.
    """

    first: SetData
    first_rows: list[int]
    second: SetData
    second_rows: list[int]
    reference: str
    notes: tuple[str, ...]
    real: tuple[SetData, list[int], SetData, list[int]]

    def null(self) -> Sides:
        """Real against real, at the size of this comparison where there are as many."""
        return Sides(*self.real, self.reference, self.notes, self.real)

    def edited(self, edit: Edit) -> Sides:
        """The same with the pixels of the first side changed."""
        images = _Edited(self.first.images, edit)
        return replace(self, first=replace(self.first, images=images))

    @staticmethod
    def patients(data: SetData, rows: Sequence[int]) -> list[str]:
        """Patient of each row; every synthetic image counts as its own."""
        return [str(i) if data.name == "synthetic" else data.patients[i] for i in rows]


class _Edited(Sequence[ImageRecord]):
    """Records of another set with their pixels changed when they are looked at."""

    def __init__(self, images: Sequence[ImageRecord], edit: Edit) -> None:
        self._images, self._edit = images, edit

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self._images[index]
        return replace(record, pixels=self._edit(record))


def sides(data: MetricInput, most: int, least: int = 20) -> Sides:
    """Draw equally many synthetic and train images, and equally many of two real groups without a common patient.

    Args:
        data: The metric's input.
        most: Images per side at most, drawn patient by patient.
        least: Patients that each real side must have.

    Raises:
        Insufficient: Too few patients.
    """
    train, synthetic, seed = data.train, data.synthetic, data.seed
    size = min(most, len(train), len(synthetic))
    first = stats.subsample(None, size, len(synthetic), derive_seed(seed, "rows", "synthetic")).tolist()
    second = _drawn(train, np.arange(len(train)), size, derive_seed(seed, "rows", "train"))
    notes: tuple[str, ...] = ()
    if data.holdout is not None:
        other, reference = data.holdout, "holdout against train"
        size = min(size, len(other))
        one = _drawn(other, np.arange(len(other)), size, derive_seed(seed, "rows", "holdout"))
        real = (other, one, train, second)
    else:
        halves = stats.split_patients(train.patients, len(train), derive_seed(seed, "halves"))
        one, two = (
            _drawn(train, h.numpy(), min(size, len(h)), derive_seed(seed, "rows", i)) for i, h in enumerate(halves)
        )
        real, reference = (train, one, train, two), "half of train against the other"
        notes = ("there is no holdout: the null compares two halves of train, split by patients",)
    for owner, rows in ((real[0], real[1]), (real[2], real[3])):
        patients = len({owner.patients[i] for i in rows})
        if patients < least:
            raise Insufficient(
                f"needs {least} patients on either side of real against real; {owner.name} has {patients}"
            )
    return Sides(synthetic, first, train, second, reference, notes, real)


def _drawn(data: SetData, rows: npt.NDArray[np.int64], n: int, seed: int) -> list[int]:
    chosen = stats.subsample([data.patients[i] for i in rows], n, len(rows), seed)
    return [int(rows[i]) for i in chosen]
