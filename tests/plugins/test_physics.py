"""Physics metrics tell a physical image from a broken one, hold their level, and refuse what they cannot answer."""

from __future__ import annotations

import numpy as np
import pytest

from medtrust import Insufficient, MetricInput
from medtrust.errors import ConfigError
from medtrust.host import build_host
from medtrust.types import ImageHeader, ImageRecord, Intensity, SetData
from medtrust_physics.background import RAYLEIGH, RayleighBackground
from medtrust_physics.compare import gap
from medtrust_physics.noise import NoiseShape, noise_shape
from medtrust_physics.signal import SignalResidual, inversion_recovery, spin_echo
from medtrust_physics.stain import StainRank
from medtrust_physics.tissues import TissueHu

HU = Intensity(-1024.0, 3071.0, "HU")
LEVELS = Intensity(0.0, 255.0, "level")
MAGNITUDE = Intensity(0.0, 4095.0, "a.u.")
SE = {"tr": (500.0, 1000.0, 2500.0, 4000.0, 4000.0), "te": (15.0, 15.0, 40.0, 80.0, 120.0)}


def records(images, name):
    header = ImageHeader(images[0].shape, str(images[0].dtype))
    return [ImageRecord(pixels, f"{name}-{i}", f"{name}{i // 2}", header, "") for i, pixels in enumerate(images)]


def audit(metric, train, holdout, synthetic, intensity, **options):
    def as_set(name, images):
        rows = records(images, name)
        return SetData(name, rows, tuple(r.patient for r in rows), tuple(r.name for r in rows))

    held = as_set("holdout", holdout) if holdout is not None else None
    return metric.compute(
        MetricInput(as_set("train", train), as_set("synthetic", synthetic), held, intensity, seed=3, options=options)
    )


def tells(metric, make, broken, intensity, n=40, **options):
    """Physical images stay within chance of real against real; broken ones do not, and the resolution allows it."""
    rng = np.random.default_rng(11)
    real, held, good = ([make(rng) for _ in range(n)] for _ in range(3))
    fine = audit(metric, real, held, good, intensity, **options)
    bad = audit(metric, real, held, [broken(rng) for _ in range(n)], intensity, **options)
    assert fine.interval.lo <= fine.null.interval.hi
    assert fine.estimate.value < bad.estimate.value / 3
    assert bad.interval.lo > fine.null.interval.hi
    assert bad.estimate.value > bad.resolution.min_detectable
    assert fine.estimate.direction == "lower"
    halves = audit(metric, real, None, good, intensity, **options)
    assert halves.null.reference == "train halves"
    return fine, bad


def anatomy(rng, size=96):
    y, x = np.mgrid[:size, :size] / size
    return 300 * np.exp(-((x - rng.uniform(0.3, 0.7)) ** 2 + (y - rng.uniform(0.3, 0.7)) ** 2) * 6)


def filtered_noise(rng, response, size=96):
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size))
    noise = np.fft.ifft2(np.fft.fft2(rng.normal(size=(size, size))) * response(radius)).real
    return noise / noise.std()


def ramp(radius):
    return np.sqrt(radius) * np.exp(-radius / 0.4)  # the amplitude that back-projection with a soft kernel leaves


def blur(radius):
    return np.exp(-((radius / 0.12) ** 2))


def ct(response):
    return lambda rng: (anatomy(rng) + 20 * filtered_noise(rng, response))[None].astype(np.float32)


@pytest.mark.parametrize("response", [lambda r: 1.0, blur], ids=["white", "blurred"])
def test_the_noise_spectrum_tells_back_projection_from(response):
    """Anatomy is the same in both; the noise alone has another colour."""
    fine, bad = tells(NoiseShape(), ct(ramp), ct(response), HU)
    assert fine.facts["train.band_2"] == pytest.approx(fine.facts["synthetic.band_2"], abs=0.05)
    assert bad.facts["train.band_2"] != pytest.approx(bad.facts["synthetic.band_2"], abs=0.05)


def test_the_noise_spectrum_is_the_one_that_was_put_in():
    """White noise is flat in all six bands, and anatomy beside it changes little."""
    rng = np.random.default_rng(0)
    rows = np.stack([noise_shape(records([ct(lambda r: 1.0)(rng)], "x")[0]) for _ in range(60)])
    assert np.abs(rows.mean(0) - 1).max() < 0.08


def magnitude(rng, complex_noise=True):
    signal = np.zeros((96, 96))
    signal[24:72, 24:72] = 400
    real, imaginary = rng.normal(0, 10, (2, 96, 96))
    return np.hypot(signal + real, imaginary if complex_noise else 0)[None].astype(np.float32)


def test_the_background_tells_rayleigh_from_folded_noise():
    """A magnitude of complex noise has 1.913, the absolute value of real noise 1.324."""
    fine, bad = tells(RayleighBackground(), magnitude, lambda rng: magnitude(rng, False), MAGNITUDE)
    assert fine.facts["synthetic.ratio"] == pytest.approx(RAYLEIGH, rel=0.03)
    assert bad.facts["synthetic.ratio"] == pytest.approx(1.3236, rel=0.03)


def test_a_blanked_background_is_no_answer():
    blank = [np.pad(np.full((1, 40, 40), 7.0), ((0, 0), (20, 20), (20, 20))) for _ in range(40)]
    with pytest.raises(Insufficient, match="train has 0"):
        audit(RayleighBackground(), blank, blank, blank, MAGNITUDE)
    with pytest.raises(Insufficient, match="negative"):
        audit(RayleighBackground(), blank, blank, blank, HU)


def thorax(rng, shift=0.0):
    image = np.full((64, 64), -1000.0)
    for rows, level in (((4, 60), -100), ((8, 56), 40), ((16, 40), -820), ((46, 52), 500)):
        image[slice(*rows), 8:56] = level
    return (image + shift * (np.abs(image + 100) < 1) + rng.normal(0, 8, image.shape))[None].astype(np.float32)


def test_tissues_tell_a_shifted_fat():
    """Fat 20 HU too high is seen, and named."""
    fine, bad = tells(TissueHu(), thorax, lambda rng: thorax(rng, 20), HU)
    assert bad.facts["synthetic.fat"] - bad.facts["train.fat"] == pytest.approx(20, abs=1)
    assert abs(fine.facts["synthetic.fat"] - fine.facts["train.fat"]) < 1
    with pytest.raises(Insufficient, match="HU"):
        audit(
            TissueHu(), [thorax(np.random.default_rng(0))] * 40, None, [thorax(np.random.default_rng(0))] * 40, LEVELS
        )


def stained(rng, third=0.0):
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])  # haematoxylin and eosin
    amounts = rng.gamma(2, 0.4, (2, 64, 64))
    density = np.einsum("sc,shw->chw", stains, amounts) + third * rng.gamma(2, 0.3, (3, 64, 64))
    return (255 * np.exp(-density)).clip(0, 255).round().astype(np.uint8)


def test_the_stain_rank_tells_two_stains_from_colour_noise():
    tells(StainRank(), stained, lambda rng: stained(rng, 0.5), LEVELS)
    white = [np.full((3, 32, 32), 255, np.uint8)] * 40
    with pytest.raises(Insufficient, match="can be measured"):
        audit(StainRank(), white, white, white, LEVELS)


def contrasts(rng, broken=0.0):
    pd, t1, t2 = rng.uniform(500, 1000, (32, 32)), rng.uniform(300, 2000, (32, 32)), rng.uniform(40, 150, (32, 32))
    tr, te = (np.array(SE[name])[:, None, None] for name in ("tr", "te"))
    signal = spin_echo(pd, t1, t2, tr, te) * (1 + broken * rng.normal(size=(5, 1, 1)))
    return (signal + rng.normal(0, 2, signal.shape)).astype(np.float32)


def test_the_signal_equation_tells_contrasts_that_do_not_belong_together():
    """Each contrast scaled by its own factor is no longer one slice's."""
    tells(SignalResidual(), contrasts, lambda rng: contrasts(rng, 0.2), MAGNITUDE, **SE)
    images = [contrasts(np.random.default_rng(i)) for i in range(40)]
    with pytest.raises(Insufficient, match="at least 4 contrasts"):
        audit(SignalResidual(), images, None, images, MAGNITUDE)
    with pytest.raises(ConfigError, match="one length"):
        audit(SignalResidual(), images, None, images, MAGNITUDE, tr=(1, 2, 3, 4), te=(1,))


def test_the_signal_equations():
    """Known limits, and torch's gradient through them."""
    import torch

    assert spin_echo(100.0, 800.0, 80.0, 1e9, 0.0) == pytest.approx(100)
    assert spin_echo(100.0, 800.0, 80.0, 800.0, 80.0) == pytest.approx(100 * (1 - np.exp(-1)) * np.exp(-1))
    null = 800.0 * np.log(2)
    assert inversion_recovery(100.0, 800.0, 80.0, 1e9, 0.0, null) == pytest.approx(0, abs=1e-9)
    maps = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (90.0, 700.0, 60.0)]
    assert torch.autograd.gradcheck(lambda *m: spin_echo(*m, 500.0, 20.0), maps)
    assert torch.autograd.gradcheck(lambda *m: inversion_recovery(*m, 3000.0, 20.0, 500.0), maps)


@pytest.mark.parametrize("true", [0.0, 0.4])
def test_the_interval_covers(true):
    """Over 300 draws of small sets, the 90 % interval misses the true gap in at most 13 %, with entries missing."""
    rng = np.random.default_rng(5)
    missed = 0
    for i in range(300):
        real, other = rng.normal(size=(12, 3)), rng.normal(size=(15, 3)) + true
        real[rng.random((12, 3)) < 0.1] = np.nan
        found = gap(real, other, 0.9, i).interval
        missed += not found.lo <= true <= found.hi
    assert missed / 300 <= 0.13


def test_the_metrics_are_listed_and_wait_to_be_named():
    """They belong to one modality each, so `--metrics all` leaves them out."""
    specs = [c.spec for c in build_host().contributions("metric") if c.spec.pillar == "physics"]
    names = {spec.name for spec in specs}
    assert names >= {"noise_shape", "rayleigh_background", "tissue_hu", "stain_rank", "signal_residual"}
    assert all(spec.optional for spec in specs if spec.factory.startswith("medtrust_physics"))
