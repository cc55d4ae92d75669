"""`medtrust selftest --suite explain`: do the maps find artefacts that were planted in this user's own images?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from medtrust import Insufficient, stats
from medtrust.explaining import attribute
from medtrust.images import normalise
from medtrust.seeding import derive_seed
from medtrust.stats import attribution
from medtrust.types import Score, SuiteInput, SuiteRow
from medtrust_explain.artefacts import plant_artefact
from medtrust_explain.cam import gradcam, hirescam, layercam
from medtrust_explain.gradients import expected_gradients
from medtrust_explain.network import train_all

__all__ = ["ExplainSuite"]

_MAPS = {"gradcam": gradcam, "hirescam": hirescam, "layercam": layercam, "expected_gradients": expected_gradients}
_KINDS = ("checkerboard", "text", "seam")  # "duplicate" is published but not asked for: no local map sees repetition
_MOST, _JUDGED, _SIDE = 300, 32, 64
_LEAST = 80  # images with a common shape


class ExplainSuite:
    """Plant each artefact in half of the real images, train a network to see it, mark every map on held-back ones."""

    def run(self, data: SuiteInput) -> Iterator[SuiteRow]:
        """One row per artefact and map: average precision against random, centred and edge maps.

        Raises:
            Insufficient: Fewer than 80 images of one shape.
        """
        torch.set_num_threads(1)
        images, patients = _real(data)
        half, other = (part.numpy() for part in stats.split_patients(patients, len(images), data.seed))
        for kind in _KINDS:
            yield from self._artefact(kind, images, half, other, derive_seed(data.seed, "suite", kind))

    def _artefact(self, kind: str, images: torch.Tensor, learn: Any, judge: Any, seed: int) -> Iterator[SuiteRow]:
        rng = np.random.default_rng(seed)
        touched = learn[: len(learn) // 2]
        planted = torch.stack([plant_artefact(images[i], kind, rng).image for i in touched])
        clean = images[torch.from_numpy(learn[len(learn) // 2 :])]
        labels = torch.cat([torch.ones(len(planted)), torch.zeros(len(clean))])
        (network,) = train_all([(torch.cat([planted, clean]), labels)], None, [seed])
        changed = [plant_artefact(images[i], kind, rng) for i in judge[:_JUDGED]]
        x, masks = torch.stack([c.image for c in changed]), torch.stack([c.mask for c in changed])
        score = Score(network, network, network.layer, clean)
        rivals = {
            "centred": attribution.centre_map(*x.shape[-2:]).expand_as(masks),
            "edge": attribution.edge_map(x),
        }
        for name, method in _MAPS.items():
            maps, _ = attribute(method, score, x)
            against = {"random": attribution.random_maps(maps, seed), **rivals}
            own = attribution.average_precision(maps, masks)
            gains = {k: own - attribution.average_precision(rival, masks) for k, rival in against.items()}
            lows = {k: _lower(gain) for k, gain in gains.items()}
            missed = [k for k, low in lows.items() if low <= 0]
            words = f"average precision {own.mean():.2f} on a planted {kind}"
            detail = f"{words}, no better than {' and '.join(missed)} maps" if missed else words
            facts = {"average_precision": float(own.mean())}
            facts |= {f"gain_over_{k}": float(g.mean()) for k, g in gains.items()}
            yield SuiteRow(f"{name}: {kind}", "failed" if missed else "ok", detail, facts)


def _lower(gain: Any) -> float:
    n = len(gain)
    return float(gain.mean() - stats.t_quantile(0.95, n - 1) * gain.std(ddof=1) / n**0.5)


def _real(data: SuiteInput) -> tuple[torch.Tensor, list[str]]:
    from torch.nn import functional

    found: list[torch.Tensor] = []
    patients: list[str] = []
    for record in data.train[:_MOST]:
        if record.pixels.ndim != 3 or (found and found[0].shape[1] != len(record.pixels)):
            continue
        one = torch.from_numpy(np.ascontiguousarray(normalise(record.pixels, data.intensity)))[None]
        if max(one.shape[-2:]) > _SIDE:
            one = functional.interpolate(one, size=(_SIDE, _SIDE), mode="area")
        if found and one.shape != found[0].shape:
            continue
        found.append(one)
        patients.append(record.patient)
    if len(found) < _LEAST or min(found[0].shape[-2:]) < 16:
        raise Insufficient(
            f"needs {_LEAST} real images of one shape, at least 16 pixels a side; there are {len(found)}"
        )
    return torch.cat(found), patients
