"""Reduced chi-squared against the generator's scanner: its null holds; alterations are found, and shown."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from medtrust import Caps, ConditionSpec, Generator, ImageSpec, Insufficient, MetricInput, SampleBatch
from medtrust.errors import ConfigError
from medtrust.types import Intensity, SetData
from medtrust_physics.rescanning import ScanResidual, scan_residuals

SIDE = 24


class Scans:
    """Tissue is a ramp; noise grows with it; `alter` is what somebody does to the images afterwards."""

    spec = ImageSpec((1, SIDE, SIDE), "float32", (0, 1000), "a.u.")
    conditions, caps = ConditionSpec(), Caps()

    def __init__(self, alter=lambda x: x, noise=1.0):
        self.alter, self.noise = alter, noise

    def scan(self, n, seed, repeat):
        tissue = np.linspace(100, 500, SIDE) * np.ones((n, 1, SIDE, 1)) + np.arange(n)[:, None, None, None]
        draw = np.random.default_rng([seed, repeat])
        return (tissue + self.noise * np.sqrt(tissue) * draw.normal(size=tissue.shape)).astype(np.float32)

    def sample(self, n, *, seed, condition=None, first=0, **opts):
        return SampleBatch(self.alter(self.scan(n, seed, 0)), tuple(range(n)))

    def rescan(self, n, *, seed, repeat, first=0):
        return SampleBatch(self.scan(n, seed, repeat), tuple(range(n)))


def ask(generator, seed=1, **options):
    nobody = SetData("train", (), (), ())
    return ScanResidual().compute(
        MetricInput(nobody, nobody, None, Intensity(0, 1000, "a.u."), seed=seed, generator=generator, options=options)
    )


def smooth(images):
    return (images + np.roll(images, 1, 2) + np.roll(images, 1, 3)) / 3


def lesion(images):
    images[:, :, 6:10, 12:16] += 120
    return images


def test_a_scan_is_like_its_further_scans():
    """χ² is 1, and outside the range of 39 others in one of twenty draws."""
    outside = 0
    for seed in range(60):
        found = ask(Scans(), seed, scan_residual={"images": 8})
        outside += found.facts["outside_null"]
        assert found.interval.lo <= found.estimate.value <= found.interval.hi
        assert found.estimate.value == pytest.approx(1, abs=0.15)
    assert outside <= 8  # 3 expected; more than 8 has a chance below 1 %


@pytest.mark.parametrize(
    "alter",
    [smooth, lesion, lambda x: x + 5, lambda x: np.round(x / 40) * 40],
    ids=["smoothed", "lesion", "offset", "rounded"],
)
def test_what_was_done_after_the_scan_is_found(alter):
    found = ask(Scans(alter))
    assert found.facts["outside_null"]
    away = abs(found.estimate.value - found.null.value)
    assert away > found.resolution.min_detectable


def test_the_map_shows_where():
    """The brightest spot of the z-map is the lesion."""
    found = ask(Scans(lesion))
    assert [item.rank for item in found.evidence] == [1, 2, 3]
    picture = np.asarray(Image.open(io.BytesIO(found.evidence[0].pictures[0].png)).convert("L"), float)
    scale = len(picture) // SIDE
    inside = picture[6 * scale : 10 * scale, 12 * scale : 16 * scale]
    assert inside.mean() > picture.mean() + 60
    assert not found.evidence[0].pictures[0].contains_real


def test_pixels_that_never_change_are_left_out():
    """Blank air tells nothing; an image without any noise is refused."""
    rng = np.random.default_rng(0)
    scans = rng.normal(size=(20, 3, 1, 8, 8))
    scans[..., :4] = 7
    values, z = scan_residuals(scans, 1e-6)
    assert values.shape == (20, 3)
    assert values.mean() == pytest.approx(1, abs=0.1)
    assert not z[..., :4].any()
    with pytest.raises(Insufficient, match="no noise"):
        ask(Scans(noise=0.0))


def test_without_a_scanner_it_is_skipped():
    class Plain(Generator):
        spec = Scans.spec

        def sample(self, n, *, seed, condition=None, first=0, **opts):
            return SampleBatch(np.zeros((n, 1, SIDE, SIDE)), tuple(range(n)))

    found = ask(Plain())
    assert (found.status, found.estimate) == ("skipped", None)
    assert "rescan" in found.reason
    with pytest.raises(ConfigError, match="8 to 32"):
        ask(Scans(), scan_residual={"images": 4})
