"""The noise of the difference of two means, by patient."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medtrust.stats import mean_noise


@pytest.mark.parametrize("d", [3, 500])
def test_noise_is_that_of_the_means(d: int) -> None:
    """Typical and largest variance are those of the difference of the means, patient by patient."""
    rng = np.random.default_rng(d)
    patients = [i // 4 for i in range(120)]
    between = torch.from_numpy(rng.standard_normal((30, d)))
    a, b = between.repeat_interleave(4, 0), torch.from_numpy(rng.standard_normal((50, d)))
    found = mean_noise(a, b, patients)
    cov = torch.cov(between.T) / 30 + torch.cov(b.T) / 50
    assert found.typical == pytest.approx(float(cov.square().sum() / cov.trace()), rel=1e-9)
    assert found.largest == pytest.approx(float(torch.linalg.eigvalsh(cov)[-1]), rel=0.02)
    assert float(found.direction @ cov @ found.direction) == pytest.approx(found.largest, rel=1e-9)
    assert float(found.direction.norm()) == pytest.approx(1)


def test_constant_features_have_no_noise() -> None:
    """Without spread there is neither noise nor a direction."""
    found = mean_noise(torch.ones(4, 3), torch.ones(5, 3))
    assert found.typical == found.largest == 0
    assert not found.direction.isnan().any()
