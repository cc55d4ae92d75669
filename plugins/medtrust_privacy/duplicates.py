"""Exact and near duplicates: the copies that need no statistics to be seen."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from medtrust.errors import Insufficient
from medtrust.types import Estimate, Evidence, MetricInput, Null, Resolution, Result, SelfTest, SetData
from medtrust_privacy.common import interval_of_share
from medtrust_privacy.pairs import MOST, pair

__all__ = ["Duplicates", "nearest_hash"]

Ints = npt.NDArray[np.int64]
MAX_BITS = 4  # of 64: pairs of hashes that differ in at most so many bits are near duplicates
MAX_SIZE = 0.09
_QUERY_ROWS, _REFERENCE_ROWS = 1024, 8192
POWER = 0.8


class Duplicates:
    """Count images of one set that are in another one, pixel by pixel or by perceptual hash.

    Reference: Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010, for the hash.
    """

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Count exact duplicates by digest and near duplicates by Hamming distance.

        Args:
            data: Train and synthetic, and holdout where there is one, with 64-bit hashes as features.

        Returns:
            Share of synthetic images that are in train, exactly and nearly, against the same share of the holdout.

        Raises:
            Insufficient: A set is empty, or hashes are not finite.
        """
        for each in (data.train, data.synthetic):
            if not len(each):
                raise Insufficient(f"needs images to compare; {each.name} is empty")
        return {"privacy.duplicates": _exact(data), "privacy.near_duplicates": _near(data)}


def _exact(data: MetricInput) -> Result:
    where: dict[str, int] = {}
    for index, digest in enumerate(data.train.digests):
        where.setdefault(digest, index)
    hits = np.array([digest in where for digest in data.synthetic.digests])
    share, interval = interval_of_share(hits, data.synthetic.patients, data.level)
    evidence = [
        pair(
            rank, "exact copy of a train image", sample, [("train", where[data.synthetic.digests[sample]])], {"bits": 0}
        )
        for rank, sample in enumerate(np.flatnonzero(hits)[:MOST].tolist(), start=1)
    ]
    facts: dict[str, float | int | str | bool] = {
        "train_synthetic": int(hits.sum()),
        "within_train": len(data.train) - len(where),
        "within_train_across_patients": _across_patients(data.train),
        "within_synthetic": len(data.synthetic) - len(set(data.synthetic.digests)),
    }
    notes: list[str] = []
    null = None
    if data.holdout is not None and len(data.holdout):
        shared = np.array([digest in where for digest in data.holdout.digests])
        value, spread = interval_of_share(shared, data.holdout.patients, data.level)
        null = Null("share of holdout images that are in train", value, spread)
        patients = set(data.train.patients) & set(data.holdout.patients)
        facts["train_holdout"] = int(shared.sum())
        facts["train_holdout_patients"] = len(patients)
        facts["holdout_synthetic"] = sum(d in set(data.holdout.digests) for d in data.synthetic.digests)
        if patients:
            notes.append(
                f"{len(patients)} patients are in both train and holdout: no privacy test of this report is valid."
            )
        if shared.any():
            notes.append(
                f"{int(shared.sum())} holdout images are pixel for pixel in train under another patient name: "
                "the split is leaking, so copies of these images cannot be told from chance."
            )
    return Result(
        estimate=Estimate(share, "share", "lower"),
        interval=interval,
        null=null,
        resolution=_resolution(len(hits), "Exact copies"),
        selftest=_selftest_exact(data),
        evidence=tuple(evidence),
        facts=facts,
        notes=tuple(notes),
    )


def _across_patients(data: SetData) -> int:
    """Count images whose exact pixels also belong to another patient of the set."""
    owners: dict[str, set[str]] = defaultdict(set)
    for digest, patient in zip(data.digests, data.patients, strict=True):
        owners[digest].add(patient)
    return sum(count for digest, count in Counter(data.digests).items() if len(owners[digest]) > 1)


def _selftest_exact(data: MetricInput) -> SelfTest:
    """Decode some train images again: each must be found, and with one pixel changed in the data it must not be."""
    picked = np.random.default_rng(data.seed).permutation(len(data.train))[:20].tolist()
    known = set(data.train.digests)
    found = np.mean([data.train.images[i].digest in known for i in picked])
    if found < 1:
        return SelfTest("failed", f"only {found:.0%} of planted exact copies were found", power=float(found))
    return SelfTest("ok", f"{len(picked)} of {len(picked)} planted exact copies were found", power=1.0)


def _resolution(n: int, what: str) -> Resolution:
    rate = 1 - (1 - POWER) ** (1 / n)
    return Resolution(rate, POWER, f"{what} rarer than {100 * rate:.2g} % may be missing among {n} samples by chance.")


def nearest_hash(
    queries: torch.Tensor, reference: torch.Tensor, apart: tuple[tuple[str, ...], tuple[str, ...]] | None = None
) -> tuple[Ints, Ints]:
    """Find the nearest hash of the reference for each query.

    Args:
        queries: [m, b] of 0 and 1.
        reference: [n, b] of 0 and 1.
        apart: Patients of queries and of reference; hashes of one patient are not compared.

    Returns:
        [m] Hamming distance, b + 1 where there is nothing to compare with, and [m] row of the reference, -1 likewise.
        Hashes of images without structure are not compared.
    """
    m, bits = queries.shape
    best = torch.full((m,), bits + 1.0)
    row = torch.full((m,), -1)
    codes = [torch.zeros(len(each), dtype=torch.int64) for each in (queries, reference)]
    if apart is not None:
        numbers: dict[str, int] = {}
        codes = [
            torch.tensor([numbers.setdefault(p, len(numbers)) for p in names], dtype=torch.int64) for names in apart
        ]
    for start in range(0, len(reference), _REFERENCE_ROWS):
        other = reference[start : start + _REFERENCE_ROWS].float()
        for at in range(0, m, _QUERY_ROWS):
            own = queries[at : at + _QUERY_ROWS].float()
            distance = own.sum(1, keepdim=True) + other.sum(1) - 2 * own @ other.T
            barred = _structureless(own)[:, None] | _structureless(other)
            if apart is not None:
                barred |= codes[0][at : at + len(own), None] == codes[1][start : start + len(other)]
            distance[barred] = bits + 1.0
            value, index = distance.min(dim=1)
            better = value < best[at : at + len(own)]
            best[at : at + len(own)][better] = value[better]
            row[at : at + len(own)][better] = index[better] + start
    return best.long().numpy(), row.numpy()


def _structureless(hashes: torch.Tensor) -> torch.Tensor:
    """Tell [n] hashes of flat images, of whose coefficients only the mean brightness can exceed the median, zero."""
    return hashes.sum(1) <= 1


def _near(data: MetricInput) -> Result:
    train, synthetic = _hashes(data.train), _hashes(data.synthetic)
    distance, row = nearest_hash(synthetic, train)
    hits = distance <= MAX_BITS
    share, interval = interval_of_share(hits, data.synthetic.patients, data.level)
    within, _ = nearest_hash(train, train, (data.train.patients, data.train.patients))
    facts: dict[str, float | int | str | bool] = {
        "max_bits": MAX_BITS,
        "train_synthetic": int(hits.sum()),
        "within_train_across_patients": int((within <= MAX_BITS).sum()),
        "train_without_structure": int(_structureless(train).sum()),
        "synthetic_without_structure": int(_structureless(synthetic).sum()),
    }
    null, selftest = None, SelfTest("not_run", "there is no holdout to see how often unrelated patients look alike")
    if data.holdout is not None and len(data.holdout):
        alike = nearest_hash(_hashes(data.holdout), train)[0] <= MAX_BITS
        value, spread = interval_of_share(alike, data.holdout.patients, data.level)
        null = Null("share of holdout images with a near duplicate in train", value, spread)
        facts["train_holdout"] = int(alike.sum())
        selftest = _selftest_near(value)
    order = np.argsort(distance, kind="stable")
    evidence: list[Evidence] = []
    for sample in order[: min(MOST, int(hits.sum()))].tolist():
        nearest = [("train", int(row[sample]))]
        evidence.append(
            pair(len(evidence) + 1, "near duplicate of a train image", sample, nearest, {"bits": int(distance[sample])})
        )
    return Result(
        estimate=Estimate(share, "share", "lower"),
        interval=interval,
        null=null,
        resolution=_resolution(len(hits), "Near duplicates"),
        selftest=selftest,
        evidence=tuple(evidence),
        facts=facts,
        notes=("Images that differ in at most 4 of 64 bits of a perceptual hash count as near duplicates.",),
    )


def _hashes(data: SetData) -> torch.Tensor:
    if data.features is None:
        raise ValueError(f"no features of {data.name}: add 'features' to the metric's needs")
    broken = int((~torch.isfinite(data.features.values).all(dim=1)).sum())
    if broken:
        raise Insufficient(f"{broken} images of {data.name} have hashes that are not finite: look for broken pixels")
    return data.features.values


def _selftest_near(alike: float) -> SelfTest:
    """Patients who never met must not look like duplicates; that copies are found is left to `privacy.cpm`."""
    if alike > MAX_SIZE:
        return SelfTest("failed", f"{alike:.0%} of holdout images also pass for near duplicates of train", size=alike)
    detail = f"{alike:.1%} of holdout images pass for near duplicates; edited copies are planted by privacy.cpm only"
    return SelfTest("not_run", detail, size=alike)
