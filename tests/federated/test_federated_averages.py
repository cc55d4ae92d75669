"""Averaging the sites' distances ranks generators wrongly; the pooled distance does not."""

from __future__ import annotations

import numpy as np
import torch

from medtrust import stats
from medtrust.stats.sufficient import Moments


def test_the_average_of_distances_ranks_two_generators_wrongly() -> None:
    """Three sites of one scanner each. One generator makes all three kinds; the other only what lies between them.

    The truth is known: the first one's distribution is exactly that of all sites together. Site by site it looks worse,
    because every single site holds a third of what it makes.

    Reference: arXiv:2310.11714, on Fréchet distances of distributed data.
    """
    rng = np.random.default_rng(0)
    centres = np.array([[-4.0, 0.0, 0.0], [0.0, 0.0, 0.0], [4.0, 0.0, 0.0]])
    sites = [torch.from_numpy(rng.normal(size=(2000, 3)) + centre) for centre in centres]
    whole = torch.from_numpy(np.vstack([rng.normal(size=(2000, 3)) + centre for centre in centres]))
    collapsed = torch.from_numpy(rng.normal(size=(6000, 3)))

    def averaged(made):
        return float(np.mean([stats.frechet_distance(site, made) for site in sites]))

    def pooled(made):
        return stats.frechet_distance(Moments.merge([Moments.of(site) for site in sites]), Moments.of(made))

    assert averaged(collapsed) < averaged(whole)  # wrong: the collapsed generator seems better
    assert pooled(whole) < 0.05 < 5 < pooled(collapsed)
