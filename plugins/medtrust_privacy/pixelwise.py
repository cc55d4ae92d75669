"""Copies seen pixel by pixel: correlation under shifts, the worst tile, and samples that are one image many times."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch

from medtrust import ops
from medtrust.errors import Insufficient
from medtrust.seeding import derive_seed
from medtrust.stats import edit_image
from medtrust.stats.embedding import pixel_embedding
from medtrust.types import Estimate, Evidence, MetricInput, Null, Resolution, Result, SelfTest, SetData
from medtrust_privacy.common import Trio, effect_option, interval_of_share, patient_codes, patient_minimum
from medtrust_privacy.copies import BANK, edits_for, one_image_per_patient
from medtrust_privacy.pairs import MOST, pair
from medtrust_privacy.rates import FIDELITY_NOTE, Scores, extreme_result

__all__ = ["PixelCopies", "cliques"]

Floats = npt.NDArray[np.float64]
SIDE, RADIUS, TILE = 64, 2, 8  # images are looked at this small; shifts and tiles in these pixels
CANDIDATES = 5  # real images of the pixel space whose pixels are compared with each sample's
CLIQUE = 10  # samples within τ of each other that make a clique, as in the paper
NEIGHBOURS = 48
PLANTED_CLIQUES = 5
_BATCH = 64


class PixelCopies:
    """Compare pixels of the closest pairs, and look for cliques among the samples.

    Candidates come from the pixel space; correlation and tiles decide on the pixels themselves. Cliques need no real
    image to be suspicious: a generator that makes one image ten times has learnt it by heart or has collapsed.

    Reference: Carlini et al. 2023, arXiv:2301.13188, section 4.2.
    """

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Score samples, holdout patients and planted copies against train; then look for cliques.

        Args:
            data: Train, holdout and synthetic with images of one shape and pixel features. Option `effect` as for
                `privacy.cpm`.

        Raises:
            Insufficient: Images of several shapes, or unusable features.
            ConfigError: The option is no share between 0 and 1.
        """
        effect, sets = effect_option(data), Trio(data)
        sets.refuse_few_patients()
        assert data.holdout is not None
        small = {each.name: _small(each) for each in (data.train, data.holdout, data.synthetic)}
        if len({images.shape[1:] for images in small.values()}) > 1:
            raise Insufficient(
                "the three sets differ in image size or channels: pixels can only be compared at one size"
            )
        train = small["train"][torch.from_numpy(sets.index["train"])]
        holdout = small["holdout"][torch.from_numpy(sets.index["holdout"])]
        rng = np.random.default_rng(derive_seed(data.seed, "bank"))
        rows = one_image_per_patient(patient_codes(sets.train)[0], BANK, rng)
        known = edits_for(sets.search)
        planted = torch.stack(
            [
                _one_small(
                    edit_image(data.train.images[sets.image("train", int(row))].pixels, known[i % len(known)], rng)
                )
                for i, row in enumerate(rows)
            ]
        )
        embedded = pixel_embedding(planted, data.intensity) if _plain(sets, planted) else sets.embed(planted)
        groups = {
            "synthetic": _score(small["synthetic"], sets.synthetic.values, train, sets.train.values),
            "holdout": _score(holdout, sets.holdout.values, train, sets.train.values),
            "planted": _score(planted, embedded, train, sets.train.values),
        }
        order = np.random.default_rng(data.seed).permutation(len(holdout))
        codes, _ = patient_codes(sets.holdout)
        single = order[np.unique(codes[order], return_index=True)[1]]
        out: dict[str, Result] = {}
        for at, (name, title) in enumerate(
            (("max_ncc", "Correlation of the closest pairs"), ("tile_l2", "Worst tile of the closest pairs"))
        ):
            real = groups["holdout"][at]
            scores = Scores(
                groups["synthetic"][at],
                patient_minimum(real, sets.holdout),
                real[single],
                groups["planted"][at],
                data.level,
                data.alpha,
                effect,
                derive_seed(data.seed, name),
            )
            found = extreme_result(scores, title, FIDELITY_NOTE)
            facts = {**found.facts, "smallest_synthetic": float(scores.synthetic.min())}
            facts["smallest_holdout"] = float(scores.reference.min())
            out[f"privacy.{name}"] = _with_facts(found, facts)
        out["privacy.cliques"] = _cliques(data, sets, small["synthetic"], train)
        return out


def _with_facts(result: Result, facts: Mapping[str, float | int | str | bool]) -> Result:
    from dataclasses import replace

    return replace(result, facts=facts)


def _plain(sets: Trio, images: torch.Tensor) -> bool:
    return sets.views is not None and max(images.shape[2:]) >= 32


def _one_small(pixels: npt.NDArray[np.float64]) -> torch.Tensor:
    image = torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float64))
    sides = (min(image.shape[1], SIDE), min(image.shape[2], SIDE))
    return torch.nn.functional.adaptive_avg_pool2d(image, sides) if sides != tuple(image.shape[1:]) else image


def _small(data: SetData) -> torch.Tensor:
    """All images of a set [N, C, h, w] float32, at most 64 on a side, each centred and of unit contrast."""
    shapes = set()
    rows = []
    for record in data.images:
        shapes.add(record.pixels.shape)
        if len(shapes) > 1:
            raise Insufficient(f"{data.name} holds images of several sizes: pixels can only be compared at one size")
        rows.append(_one_small(record.pixels).float())
    return torch.stack(rows)


def _unit(images: torch.Tensor) -> torch.Tensor:
    """Centre each image and divide it by its root-mean-square contrast; a flat image becomes zero."""
    flat = images.double().flatten(1)
    flat = flat - flat.mean(1, keepdim=True)
    scale = flat.square().mean(1, keepdim=True).sqrt()
    return (flat / scale.masked_fill(scale == 0, torch.inf)).reshape(images.shape).float()


def _score(
    images: torch.Tensor, features: torch.Tensor, train: torch.Tensor, train_features: torch.Tensor
) -> tuple[Floats, Floats]:
    """Smallest 1 - NCC and smallest tile distance of each image to its candidates in train, mirrored ones included."""
    k = min(CANDIDATES, len(train))
    near = ops.nearest(features.float(), train_features.float()[: len(train)], k).indices
    radius = min(RADIUS, min(images.shape[2:]) - 1)
    apart, worst = [], []
    for at in range(0, len(images), _BATCH):
        some = images[at : at + _BATCH].float()
        best = torch.full((len(some), 2), torch.inf, dtype=torch.float64)
        for column in range(k):
            other = train[near[at : at + _BATCH, column]].float()
            for version in (other, other.flip(3)):
                ncc = ops.max_ncc(some.contiguous(), version.contiguous(), radius)
                tile = ops.tile_l2(_unit(some), _unit(version), TILE)
                best = torch.minimum(best, torch.stack([1 - ncc, tile], dim=1))
        apart.append(best[:, 0])
        worst.append(best[:, 1])
    return torch.cat(apart).numpy(), torch.cat(worst).numpy()


def cliques(features: torch.Tensor, tau: float, size: int = CLIQUE) -> list[list[int]]:
    """Find disjoint groups of rows that all lie within `tau` of each other, greedily, the densest rows first.

    Args:
        features: [n, d].
        tau: Largest distance within a clique.
        size: Smallest clique.

    Returns:
        Cliques of at least `size` rows, the largest first. Of more than 48 rows, a clique shows 49.
    """
    n = len(features)
    if n < size:
        return []
    itself = torch.arange(n)
    near = ops.nearest(features, features, min(NEIGHBOURS, n - 1), (itself, itself))
    inside = near.distances <= tau
    found: list[list[int]] = []
    taken: set[int] = set()
    for row in inside.sum(1).argsort(descending=True, stable=True).tolist():
        if int(inside[row].sum()) < size - 1:
            break
        if row in taken:
            continue
        members = [row]
        for other in near.indices[row][inside[row]].tolist():
            if other not in taken and bool(torch.cdist(features[[other]], features[members]).max() <= tau):
                members.append(other)
        if len(members) >= size:
            found.append(members)
            taken.update(members)
    return sorted(found, key=len, reverse=True)


def _cliques(data: MetricInput, sets: Trio, synthetic: torch.Tensor, train: torch.Tensor) -> Result:
    """Cliques among the samples, at a τ that the nearest pairs of real patients hardly reach."""
    values, own = sets.synthetic.values, torch.from_numpy(patient_codes(sets.train)[0])
    real = ops.nearest(sets.train.values, sets.train.values, 1, (own, own)).distances[:, 0]
    tau = float(torch.quantile(real, 0.01))
    found = cliques(values, tau)
    hits = np.zeros(len(values), dtype=bool)
    hits[[row for clique in found for row in clique]] = True
    share, interval = interval_of_share(hits, sets.synthetic.patients, data.level)
    of_train = cliques(sets.train.values[: len(values)], tau)
    power = _clique_power(data, sets, tau)
    evidence: list[Evidence] = []
    nearest = ops.nearest(values, sets.train.values, 1).indices[:, 0]
    for rank, clique in enumerate(found[:MOST], start=1):
        head = clique[0]
        evidence.append(
            pair(rank, f"one of {len(clique)} samples that are nearly one image", head,
                 [("train", sets.image("train", int(nearest[head])))], {"samples": len(clique), "tau": tau})
        )  # fmt: skip
    status = "ok" if power >= 0.8 else "failed"
    return Result(
        estimate=Estimate(share, "share", "lower"),
        interval=interval,
        null=Null("share of as many train images that are in cliques", sum(map(len, of_train)) / len(values)),
        resolution=Resolution(
            CLIQUE / len(values), power, f"An image made fewer than {CLIQUE} times makes no clique and is not counted."
        ),
        selftest=SelfTest(
            status,
            f"{power:.0%} of {PLANTED_CLIQUES} planted cliques of {CLIQUE} edited copies were found",
            power=power,
        ),
        evidence=tuple(evidence),
        facts={
            "cliques": len(found),
            "largest": max(map(len, found), default=0),
            "tau": tau,
            "smallest_clique": CLIQUE,
        },
        notes=("Samples in a clique are one image made many times: memorised, or the generator has collapsed.",),
        title="Cliques of samples",
    )


def _clique_power(data: MetricInput, sets: Trio, tau: float) -> float:
    """Plant ten edited copies of one train image at a time, and see whether they are found."""
    rng = np.random.default_rng(derive_seed(data.seed, "cliques"))
    rows = one_image_per_patient(patient_codes(sets.train)[0], PLANTED_CLIQUES, rng)
    hits = 0
    for row in rows.tolist():
        pixels = data.train.images[sets.image("train", row)].pixels
        edits = [edit_image(pixels, ("exact", "jpeg", "intensity", "noise")[i % 4], rng) for i in range(CLIQUE)]
        copies = sets.embed(torch.from_numpy(np.stack(edits)))
        count = len(sets.synthetic.values)
        found = cliques(torch.cat([sets.synthetic.values, copies.to(sets.synthetic.values.dtype)]), tau)
        hits += any(sum(member >= count for member in clique) >= CLIQUE - 1 for clique in found)
    return hits / max(1, len(rows))
