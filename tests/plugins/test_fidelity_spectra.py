"""Power and noise spectra: known spectra, known damage, sizes, units, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from test_fidelity import compute, image_set, pictures

from medtrust import Insufficient, Intensity, MetricInput
from medtrust_fidelity.spectral import noise_spectrum, radial_spectrum

RANGE = Intensity(-1000, 1000, "HU")


def scans(seed: int, n: int, noise: float = 40.0, side: int = 48) -> np.ndarray:
    """Smooth float images with white noise, in HU."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(0, 8000, (n, 1, side, side)), (0, 0, 10, 10))
    return (smooth + rng.normal(0, noise, smooth.shape)).astype(np.float32)


def given(synthetic: np.ndarray, seed: int = 1, per_patient: int = 2) -> MetricInput:
    return MetricInput(
        train=image_set("train", scans(seed, 40), per_patient),
        synthetic=image_set("synthetic", synthetic),
        holdout=image_set("holdout", scans(seed + 1, 30), per_patient),
        intensity=RANGE,
        seed=seed,
    )


def value(name: str, data: MetricInput) -> float:
    (result,) = compute(name, data).values()
    assert result.estimate
    return result.estimate.value


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 48, 65), (5, 33, 40)])
def test_white_noise_has_a_flat_spectrum_of_its_variance(shape: tuple[int, int, int]) -> None:
    """Variance σ² of white noise is 10 log10 σ² dB at every frequency, in the image and in patches."""
    planes = np.stack([np.random.default_rng(i).normal(0.5, 0.1, shape) for i in range(30)]).reshape(-1, *shape[1:])
    frequency, level = radial_spectrum(planes)
    assert frequency[-1] <= 0.5
    assert (np.diff(frequency) > 0).all()
    np.testing.assert_allclose(level[1:], -20, atol=0.6)
    assert -22 < level[0] < -19  # the mean under the window takes some of the first ring
    found = noise_spectrum(planes, 8)
    assert found
    # the quadratic trend and the choice of flat patches take some of the low frequencies
    np.testing.assert_allclose(found[1][1:], -20, atol=1.6)


def test_a_wave_is_found_at_its_frequency() -> None:
    """A sinusoid of 12 cycles per 64 pixels peaks at 12/64."""
    x = np.arange(64)
    frequency, level = radial_spectrum(np.sin(2 * np.pi * 12 * x / 64)[None, None, :].repeat(64, 1))
    assert frequency[level.argmax()] == pytest.approx(12 / 64, abs=1 / 64)


@pytest.mark.parametrize("name", ["spectrum", "noise_spectrum"])
def test_fresh_real_images_are_within_the_resolution_and_repeat(name: str) -> None:
    """A perfect generator is near the null; the same call gives the same bits; no holdout is said."""
    data = given(scans(9, 40))
    (result,) = compute(name, data).values()
    assert result.estimate
    assert result.resolution
    assert result.estimate.value <= 1.5 * result.resolution.min_detectable
    assert compute(name, data) == compute(name, data)
    (alone,) = compute(name, replace(data, holdout=None)).values()
    assert any("no holdout" in note for note in alone.notes)


def test_blur_takes_high_frequencies_and_the_distance_grows_with_it() -> None:
    """Blur in growing strength, an ever larger distance, and the fact that names where."""
    sharp = scans(10, 40)
    found = [value("spectrum", given(gaussian_filter(sharp, (0, 0, s, s)))) for s in (0.0, 0.5, 0.8, 1.2, 2.0)]
    assert found == sorted(found)
    (result,) = compute("spectrum", given(gaussian_filter(sharp, (0, 0, 1, 1)))).values()
    assert float(result.facts["high_frequencies_db"]) < -5
    assert abs(float(result.facts["low_frequencies_db"])) < 3


def test_the_noise_spectrum_sees_noise_and_not_contrast() -> None:
    """Twice the noise is 6 dB in the noise spectrum; three times the structure is not."""
    louder = value("noise_spectrum", given(scans(11, 40, noise=80)))
    assert louder == pytest.approx(6.02, abs=1.0)
    base = scans(12, 40, noise=0)
    rng = np.random.default_rng(13)
    contrast = value("noise_spectrum", given((1.5 * base + rng.normal(0, 40, base.shape)).astype(np.float32)))
    assert contrast < 1.5
    assert value("spectrum", given(scans(11, 40, noise=80))) > 3


def test_images_without_noise_are_counted_and_a_train_set_without_is_refused() -> None:
    """Constant images give a number, a fact and no NaN; nothing to compare with is refused."""
    flat = np.zeros((40, 1, 48, 48), np.float32)
    (result,) = compute("noise_spectrum", given(flat)).values()
    assert result.facts["without_noise_synthetic"] == 1
    assert value("spectrum", given(flat)) > 10
    silent = replace(given(scans(1, 20)), train=image_set("train", flat))
    with pytest.raises(Insufficient, match="no train image has noise"):
        compute("noise_spectrum", silent)
    everywhere = replace(silent, synthetic=image_set("synthetic", flat), holdout=image_set("holdout", flat))
    assert value("spectrum", everywhere) == 0


def test_sizes_may_differ_and_small_or_broken_images_are_refused() -> None:
    """Another size compares on the frequencies that both have; a tiny image, NaN and one patch are refused by name."""
    assert value("spectrum", given(scans(14, 40, side=70))) < value("spectrum", given(scans(14, 40, noise=120)))
    with pytest.raises(Insufficient, match="8 x 8 pixels; 16 a side"):
        compute("spectrum", given(scans(1, 10, side=8)))
    with pytest.raises(Insufficient, match="24 x 24 pixels; 32 a side"):
        compute("noise_spectrum", given(pictures(1, 10, 24).astype(np.float32)))
    compute("noise_spectrum", replace(given(scans(1, 10, side=20)), options={"noise_spectrum": {"patch": 8}}))
    broken = scans(1, 10)
    broken[3, 0, 2, 2] = np.nan
    for name in ("spectrum", "noise_spectrum"):
        with pytest.raises(Insufficient, match=r"synthetic/3.png .* not finite"):
            compute(name, given(broken))
