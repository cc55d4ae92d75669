"""Radiomics against independent implementations, and the promises every feature space makes."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from skimage.feature import graycomatrix, graycoprops

from medtrust.errors import DataError
from medtrust.types import Intensity
from medtrust_features.phash import PerceptualHash
from medtrust_features.pixels import Pixels
from medtrust_features.radiomics import Radiomics
from medtrust_features.texture import glcm_features, quantise

LEVELS = Intensity(0, 255, "level")
HU = Intensity(-1024, 3071, "HU")
SPACES = [Radiomics, PerceptualHash, Pixels]


def column(values: torch.Tensor, name: str) -> np.ndarray:
    return values[:, Radiomics.names.index(name)].numpy()


def smooth(rng: np.random.Generator, n: int, channels: int, height: int, width: int) -> torch.Tensor:
    """Random images with neighbours alike, as uint8."""
    noise = rng.normal(size=(n, channels, height + 2, width + 2))
    mean = (noise[..., 1:-1, 1:-1] + noise[..., 2:, 1:-1] + noise[..., :-2, 1:-1] + noise[..., 1:-1, 2:]) * 30 + 128
    return torch.from_numpy(np.clip(mean, 0, 255).astype(np.uint8))


@pytest.mark.parametrize("shape", [(17, 23), (32, 32), (2, 9)])
def test_glcm_agrees_with_skimage(shape: tuple[int, int]) -> None:
    """Every property that scikit-image has comes out the same on random planes."""
    rng = np.random.default_rng(1)
    bins = 32
    plane = np.clip(rng.normal(0.5, 0.2, size=(5, *shape)), -0.2, 1.2)
    ours = glcm_features(plane, bins)
    names = [name.removeprefix("glcm.") for name in Radiomics.names if name.startswith("glcm.")]
    for i in range(len(plane)):
        angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
        matrix = graycomatrix(quantise(plane[i : i + 1], bins)[0].astype(np.uint8), [1], angles, bins, True, True)
        expected = {
            "contrast": graycoprops(matrix, "contrast").mean() / (bins - 1) ** 2,
            "difference_average": graycoprops(matrix, "dissimilarity").mean() / (bins - 1),
            "inverse_difference_moment": graycoprops(matrix, "homogeneity").mean(),
            "angular_second_moment": graycoprops(matrix, "ASM").mean(),
            "correlation": graycoprops(matrix, "correlation").mean(),
            "joint_entropy": graycoprops(matrix, "entropy").mean() / np.log(2) / (2 * np.log2(bins)),
        }
        for name, value in expected.items():
            assert ours[i, names.index(name)] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def test_remaining_glcm_features_follow_their_definitions() -> None:
    """Features that scikit-image lacks agree with the IBSI formulas, written as plain sums over the matrix."""
    rng = np.random.default_rng(2)
    bins = 16
    plane = rng.uniform(size=(1, 11, 13)) ** 2
    ours = dict(zip([n for n in Radiomics.names if n.startswith("glcm.")], glcm_features(plane, bins)[0], strict=True))
    matrices = graycomatrix(quantise(plane, bins)[0].astype(np.uint8), [1], np.arange(4) * np.pi / 4, bins, True, True)
    sums: dict[str, float] = {}
    for d in range(4):
        p = matrices[:, :, 0, d]
        px = p.sum(axis=1)
        mu = sum(i * px[i] for i in range(bins))
        by_sum, by_difference = np.zeros(2 * bins - 1), np.zeros(bins)
        for i in range(bins):
            for j in range(bins):
                by_sum[i + j] += p[i, j]
                by_difference[abs(i - j)] += p[i, j]
        crossed = -sum(p[i, j] * np.log2(px[i] * px[j]) for i in range(bins) for j in range(bins) if p[i, j] > 0)
        joint, marginal = (scipy.stats.entropy(q.ravel(), base=2) for q in (p, px))
        one = {
            "joint_maximum": p.max(),
            "difference_entropy": scipy.stats.entropy(by_difference, base=2) / np.log2(bins),
            "inverse_difference": sum(by_difference[k] / (1 + k) for k in range(bins)),
            "sum_entropy": scipy.stats.entropy(by_sum, base=2) / np.log2(2 * bins - 1),
            "cluster_shade": sum((k - 2 * mu) ** 3 * by_sum[k] for k in range(2 * bins - 1)) / (bins - 1) ** 3,
            "cluster_prominence": sum((k - 2 * mu) ** 4 * by_sum[k] for k in range(2 * bins - 1)) / (bins - 1) ** 4,
            "information_correlation_1": (joint - crossed) / marginal,
        }
        for name, value in one.items():
            sums[name] = sums.get(name, 0.0) + value / 4
    for name, value in sums.items():
        if name.startswith("cluster"):
            name, value = f"{name}_root", np.cbrt(value) if name == "cluster_shade" else value**0.25
        assert ours[f"glcm.{name}"] == pytest.approx(value, rel=1e-9, abs=1e-12), name


def signed_log1p(values):
    """The compression of third and fourth moments, written out anew."""
    return np.sign(values) * np.log1p(np.abs(values))


def test_one_odd_image_among_a_thousand_does_not_own_a_column() -> None:
    """A flat patch with one bright spot lies ten times nearer to the others than its raw moments would put it."""
    images = smooth(np.random.default_rng(21), 999, 1, 32, 32)
    odd = torch.full((1, 1, 32, 32), 120, dtype=images.dtype)
    odd[0, :, 5, 7] = 250
    everything = torch.cat([images, odd])
    values = Radiomics().extract(everything, LEVELS)
    rows = everything.double().flatten(1).numpy()
    raw = {"log_skewness": scipy.stats.skew(rows, axis=1), "log_kurtosis": scipy.stats.kurtosis(rows, axis=1)}
    for name, moment in raw.items():
        tamed = column(values, f"firstorder.{name}")
        assert far(tamed) < far(moment) / (10 if name == "log_kurtosis" else 3)
        np.testing.assert_array_equal(np.argsort(tamed), np.argsort(moment.astype(np.float32)))


def far(values: np.ndarray) -> float:
    """Standard deviations between the last value and the mean of the others."""
    return abs(float((values[-1] - values[:-1].mean()) / values[:-1].std()))


def test_first_order_agrees_with_numpy_and_scipy() -> None:
    """Moments, percentiles, entropy and the rest agree with the libraries on signed 16-bit images."""
    rng = np.random.default_rng(3)
    pixels = rng.gamma(2.0, 300.0, size=(4, 1, 19, 31)).astype(np.int16) - np.int16(900)
    values = Radiomics().extract(torch.from_numpy(pixels), HU)
    unit = ((pixels.astype(np.float64) + 1024) / 4095).reshape(4, -1)
    counts = np.stack([np.histogram(np.clip(row, 0, 1), bins=32, range=(0, 1))[0] for row in unit])
    expected = {
        "mean": unit.mean(axis=1),
        "sd": unit.std(axis=1),
        "log_skewness": signed_log1p(scipy.stats.skew(unit, axis=1)),
        "log_kurtosis": signed_log1p(scipy.stats.kurtosis(unit, axis=1)),
        "minimum": unit.min(axis=1),
        "maximum": unit.max(axis=1),
        "p10": np.percentile(unit, 10, axis=1),
        "p25": np.percentile(unit, 25, axis=1),
        "median": np.median(unit, axis=1),
        "p75": np.percentile(unit, 75, axis=1),
        "p90": np.percentile(unit, 90, axis=1),
        "mean_absolute_deviation": np.abs(unit - unit.mean(axis=1, keepdims=True)).mean(axis=1),
        "root_mean_square": np.sqrt((unit**2).mean(axis=1)),
        "entropy": scipy.stats.entropy(counts, base=2, axis=1) / 5,
        "uniformity": ((counts / counts.sum(axis=1, keepdims=True)) ** 2).sum(axis=1),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(column(values, f"firstorder.{name}"), value, rtol=2e-6, err_msg=name)


def test_gradients_agree_with_scipy() -> None:
    """Sobel, Laplacian and the noise filter agree with scipy's convolutions inside the image."""
    rng = np.random.default_rng(4)
    images = smooth(rng, 3, 1, 21, 17)
    values = Radiomics().extract(images, LEVELS)
    for i in range(3):
        u = images[i, 0].numpy() / 255.0
        magnitude = (np.hypot(scipy.ndimage.sobel(u, 0), scipy.ndimage.sobel(u, 1)) / 8)[1:-1, 1:-1].ravel()
        laplacian = scipy.ndimage.laplace(u)[1:-1, 1:-1]
        kernel = np.outer([1, -2, 1], [1, -2, 1])
        noise = np.abs(scipy.ndimage.convolve(u, kernel)[1:-1, 1:-1]).mean() * np.sqrt(np.pi / 2) / 6
        expected = {
            "gradient.magnitude_mean": magnitude.mean(),
            "gradient.magnitude_sd": magnitude.std(),
            "gradient.magnitude_log_skewness": signed_log1p(scipy.stats.skew(magnitude)),
            "gradient.magnitude_log_kurtosis": signed_log1p(scipy.stats.kurtosis(magnitude)),
            "gradient.laplacian_mean_absolute": np.abs(laplacian).mean(),
            "gradient.laplacian_sd": laplacian.std(),
            "gradient.noise": noise,
            "scale.sd_4": u[:20, :16].reshape(5, 4, 4, 4).mean(axis=(1, 3)).std(),
        }
        for name, value in expected.items():
            assert column(values, name)[i] == pytest.approx(value, rel=2e-6), name


def test_noise_feature_estimates_the_noise() -> None:
    """On a flat image with Gaussian noise, the noise column is its standard deviation in declared ranges."""
    rng = np.random.default_rng(5)
    images = torch.from_numpy(rng.normal(500, 12, size=(2, 1, 256, 256)))
    noise = column(Radiomics().extract(images, Intensity(0, 1000, "a.u.")), "gradient.noise")
    np.testing.assert_allclose(noise, 0.012, rtol=0.02)


def test_colour_is_the_bt601_difference() -> None:
    """Colour columns agree with the textbook matrix; luminance columns with the grey image of the same luma."""
    rng = np.random.default_rng(6)
    images = smooth(rng, 4, 3, 15, 14)
    values = Radiomics().extract(images, LEVELS)
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    ycc = np.einsum("rc,nchw->nrhw", matrix, images.numpy() / 255.0).reshape(4, 3, -1)
    np.testing.assert_allclose(column(values, "firstorder.mean"), ycc[:, 0].mean(axis=1), rtol=1e-5)
    for row, name in ((1, "cb"), (2, "cr")):
        np.testing.assert_allclose(column(values, f"colour.{name}_mean"), ycc[:, row].mean(axis=1), atol=2e-6)
        np.testing.assert_allclose(column(values, f"colour.{name}_sd"), ycc[:, row].std(axis=1), rtol=1e-4)
        np.testing.assert_allclose(
            column(values, f"colour.{name}_p90"), np.percentile(ycc[:, row], 90, axis=1), atol=2e-6
        )
    expected = [np.corrcoef(ycc[i])[0, 2] for i in range(4)]
    np.testing.assert_allclose(column(values, "colour.correlation_y_cr"), expected, atol=1e-4)


def test_grey_and_grey_valued_colour_agree() -> None:
    """Three equal channels say exactly what one channel says, and nothing about colour."""
    grey = smooth(np.random.default_rng(7), 5, 1, 16, 16)
    one, three = (Radiomics().extract(x, LEVELS) for x in (grey, grey.expand(-1, 3, -1, -1)))
    colour = [i for i, name in enumerate(Radiomics.names) if name.startswith("colour.")]
    assert not three[:, colour].any()
    # A pixel on the edge of a bin may change bins by the rounding of the luma weights, hence not bit for bit.
    smooth_columns = [i for i, n in enumerate(Radiomics.names) if not n.startswith("glcm.") and "entropy" not in n]
    smooth_columns = [i for i in smooth_columns if "uniformity" not in Radiomics.names[i]]
    torch.testing.assert_close(one[:, smooth_columns], three[:, smooth_columns])


@pytest.mark.parametrize("make", SPACES)
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 32, 32), (1, 37, 29), (1, 300, 260)])
def test_a_row_depends_on_its_image_alone(make: type, channels: int, height: int, width: int) -> None:
    """The same image has the same bits in batches of 1, 7 and 64."""
    n = 64 if height < 100 else 9
    images = smooth(np.random.default_rng(8), n, channels, height, width)
    space = make()
    whole = space.extract(images, LEVELS)
    assert whole.dtype == torch.float32
    for size in (1, 7, 64):
        assert torch.equal(torch.cat([space.extract(part, LEVELS) for part in images.split(size)]), whole)
    order = torch.from_numpy(np.random.default_rng(9).permutation(n))
    assert torch.equal(space.extract(images[order], LEVELS), whole[order])


@pytest.mark.parametrize("make", SPACES)
def test_dtype_and_layout_change_nothing(make: type) -> None:
    """uint8, int16, float32, float64 and a transposed view of the same numbers give the same bits."""
    images = smooth(np.random.default_rng(10), 6, 3, 12, 18)
    space = make()
    expected = space.extract(images, LEVELS)
    for dtype in (torch.int16, torch.uint16, torch.int32, torch.float32, torch.float64):
        assert torch.equal(space.extract(images.to(dtype), LEVELS), expected)
    view = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    assert not view.is_contiguous()
    assert torch.equal(space.extract(view, LEVELS), expected)


@pytest.mark.parametrize("make", SPACES)
def test_input_is_left_alone(make: type) -> None:
    """Extraction does not write into float64 input, which needs no conversion."""
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 255
    images[1, 0, 0, 0] = float("nan")
    before = images.clone()
    make().extract(images, LEVELS)
    torch.testing.assert_close(images, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("make", SPACES)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 9), (3, 2, 2), (1, 16, 16), (3, 33, 7)])
def test_constant_and_tiny_images_give_finite_features(make: type, shape: tuple[int, int, int]) -> None:
    """A constant image of any size, down to one pixel, has finite features."""
    value = 0.1 if shape[0] == 1 else 77.7
    assert torch.isfinite(make().extract(torch.full((3, *shape), value), LEVELS)).all()


def test_conventions_for_a_constant_image() -> None:
    """Where a formula divides by zero variance, the documented number stands."""
    values = Radiomics().extract(torch.full((1, 3, 9, 9), 0.1), Intensity(0, 1, "a.u."))[0]
    got = dict(zip(Radiomics.names, values.tolist(), strict=True))
    zeros = (
        "firstorder.sd",
        "firstorder.log_skewness",
        "firstorder.log_kurtosis",
        "firstorder.entropy",
        "glcm.contrast",
        "glcm.joint_entropy",
        "glcm.information_correlation_1",
        "gradient.magnitude_log_skewness",
        "colour.correlation_y_cb",
    )
    ones = ("firstorder.uniformity", "glcm.correlation", "glcm.angular_second_moment", "glcm.joint_maximum")
    assert {name: got[name] for name in zeros} == pytest.approx(dict.fromkeys(zeros, 0.0), abs=1e-8)
    assert {name: got[name] for name in ones} == dict.fromkeys(ones, 1.0)
    one_pixel = Radiomics().extract(torch.full((1, 1, 1, 1), 0.1), Intensity(0, 1, "a.u."))[0]
    grey = [i for i, name in enumerate(Radiomics.names) if name.startswith(("firstorder", "glcm"))]
    torch.testing.assert_close(one_pixel[grey], values[grey])


@pytest.mark.parametrize("make", SPACES)
def test_a_non_finite_pixel_spoils_its_own_row_only(make: type) -> None:
    """NaN or infinity shows as NaN in that image's row, and the other rows keep their bits."""
    images = smooth(np.random.default_rng(11), 4, 1, 10, 10).float()
    clean = make().extract(images, LEVELS)
    images[1, 0, 3, 3], images[2, 0, 0, 0] = float("nan"), float("inf")
    values = make().extract(images, LEVELS)
    assert torch.isnan(values[1:3]).all()
    assert torch.equal(values[[0, 3]], clean[[0, 3]])


@pytest.mark.parametrize("make", SPACES)
def test_no_image_gives_no_row(make: type) -> None:
    """An empty batch gives [0, d] with the usual d."""
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    assert make().extract(images[:0], LEVELS).shape == (0, make().extract(images, LEVELS).shape[1])


@pytest.mark.parametrize("make", SPACES)
def test_impossible_input_is_refused(make: type) -> None:
    """A wrong number of axes and an empty declared range are errors with a sentence."""
    with pytest.raises(DataError, match="N, C, H, W"):
        make().extract(torch.zeros(3, 8, 8), LEVELS)
    with pytest.raises(DataError, match="declared range"):
        make().extract(torch.zeros(1, 1, 8, 8), Intensity(5, 5, "HU"))


@pytest.mark.parametrize("make", [Radiomics, PerceptualHash])
def test_two_channels_are_refused(make: type) -> None:
    """Two channels are neither grey nor colour."""
    with pytest.raises(DataError, match="1 or 3 channels"):
        make().extract(torch.zeros(1, 2, 8, 8), LEVELS)


def test_names_fit_the_columns_and_the_digest_the_options() -> None:
    """Every column has a name of its own, and other bins are another space."""
    assert Radiomics().extract(torch.zeros(1, 1, 4, 4), LEVELS).shape[1] == len(set(Radiomics.names))
    assert Radiomics().digest == Radiomics().digest != Radiomics(bins=64).digest
    assert len({make().digest for make in SPACES}) == len(SPACES)
    with pytest.raises(ValueError, match="multiple of 16"):
        Radiomics(bins=10)


def test_columns_are_of_order_one() -> None:
    """No column dwarfs another: on textured images all stay within a few units."""
    values = Radiomics().extract(smooth(np.random.default_rng(12), 50, 3, 32, 32), LEVELS)
    assert values.abs().max() < 10


def test_blur_is_seen() -> None:
    """Blurred copies are told from their originals by gradient, contrast and noise in every single pair."""
    images = smooth(np.random.default_rng(13), 20, 1, 32, 32).float()
    blurred = torch.nn.functional.avg_pool2d(images, 3, 1, 1, count_include_pad=False)
    sharp, soft = (Radiomics().extract(x, LEVELS) for x in (images, blurred))
    for name in ("gradient.magnitude_mean", "gradient.noise", "glcm.contrast"):
        assert (column(soft, name) < column(sharp, name)).all(), name
