"""ops.radiomics: the IBSI's published values, its float64 twin, and what it refuses."""

from __future__ import annotations

import ibsi_phantom as ibsi
import numpy as np
import pytest
import torch
from skimage.feature import graycomatrix

from medtrust import ops
from medtrust.errors import DataError, NativeError
from medtrust.ops import _native, reference_radiomics
from medtrust.ops._radiomics_names import FAMILIES

needs_extension = pytest.mark.skipif(_native.extension is None, reason=f"no compiled kernels: {_native.absence}")


def smooth(shape: tuple[int, ...], seed: int) -> torch.Tensor:
    """Images with runs and zones of many sizes, values around -20..120."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((*shape[:-2], shape[-2] + 4, shape[-1] + 4), generator=generator)
    flat = noise.reshape(-1, 1, *noise.shape[-2:])
    return 50 + 90 * torch.nn.functional.avg_pool2d(flat, 5, 1).reshape(shape)


def some(shape: tuple[int, ...], seed: int, share: float = 0.7) -> torch.Tensor:
    """A ragged mask."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < share


def both(images: torch.Tensor, mask: torch.Tensor | None = None, **rules) -> tuple[torch.Tensor, torch.Tensor]:
    """Values of the kernels and of the float64 twin."""
    rules = {"lo": 0, "hi": 100, "dtype": torch.float64, **rules}
    exact = images.to(torch.int32).double() if images.dtype == torch.uint16 else images.double()
    return ops.radiomics(images, mask, **rules).values, ops.radiomics(exact, mask, **rules).values


def close(got: torch.Tensor, expected: torch.Tensor, scale: float = 1.0) -> None:
    torch.testing.assert_close(got, expected, rtol=2e-10 * scale, atol=1e-9 * scale)


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("family", "aggregation", "published"),
    [
        ("glcm", "averaged", ibsi.CO_OCCURRENCE_AVERAGED),
        ("glcm", "slice-merged", ibsi.CO_OCCURRENCE_MERGED),
        ("glrlm", "averaged", ibsi.RUN_LENGTH_AVERAGED),
        ("glrlm", "slice-merged", ibsi.RUN_LENGTH_MERGED),
        ("glszm", "averaged", ibsi.SIZE_ZONE),
        ("ngtdm", "averaged", ibsi.TONE_DIFFERENCE),
        ("gldm", "averaged", ibsi.DEPENDENCE),
    ],
)
def test_ibsi_texture(family, aggregation, published, dtype):
    """Every texture feature of the digital phantom has the IBSI's published 2-D value, in the kernels and the twin."""
    values, _ = ops.radiomics(
        ibsi.PHANTOM.to(dtype), ibsi.PHANTOM, lo=1, hi=7, width=1, families=(family,), aggregation=aggregation
    )
    assert [f"{value:.3g}" for value in values.double().mean(0).tolist()] == published.split()


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32, torch.float64])
def test_ibsi_first_order(dtype):
    """Every first-order feature of the phantom's volume has the IBSI's published value."""
    volume = ibsi.PHANTOM.reshape(1, 16, 5)
    values, _ = ops.radiomics(volume.to(dtype), volume, lo=1, hi=7, bins=6, families=("firstorder",))
    assert [f"{value:.3g}" for value in values[0].tolist()] == ibsi.FIRST_ORDER.split()


@pytest.mark.parametrize("aggregation", ["averaged", "slice-merged"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (7, 1), (2, 2), (13, 37), (64, 70)])
def test_twin(size, dtype, masked, aggregation):
    """Odd sizes, dtypes, masks and both aggregations equal the twin."""
    images = smooth((3, *size), seed=size[1])
    images = images if dtype == torch.float32 else images.round().clamp(0, 255).to(torch.int32).to(dtype)
    mask = some((3, *size), seed=size[0]) if masked else None
    if mask is not None:
        mask[:, 0, 0] = True
    close(*both(images, mask, bins=17, aggregation=aggregation))


@pytest.mark.parametrize("rules", [{"bins": 1}, {"bins": 2}, {"bins": 256}, {"width": 7.3}, {"width": 1000.0}])
def test_levels(rules):
    """One level, the most levels, and bins by size equal the twin."""
    close(*both(smooth((2, 40, 41), seed=5), **rules), scale=100)


@pytest.mark.parametrize("pattern", ["noise", "constant", "stripes", "board", "spiral"])
def test_patterns(pattern):
    """Zones that meet late, runs as long as the image and single pixels equal the twin."""
    y, x = torch.meshgrid(torch.arange(67), torch.arange(130), indexing="ij")
    images = {
        "noise": torch.rand((67, 130), generator=torch.Generator().manual_seed(3)) * 100,
        "constant": torch.full((67, 130), 40.0),
        "stripes": 90.0 * ((x + y) % 2),
        "board": 30.0 * (x % 2 + 2 * (y % 2)),
        "spiral": 80.0 * ((torch.maximum((x - 65).abs(), (y - 33).abs()) + (x > y)) % 3 > 0),
    }[pattern]
    close(*both(images[None].float(), bins=4), scale=100)


def test_many_large_zones():
    """Zones beyond the counted sizes, several of one size, equal the twin."""
    images = torch.zeros((1, 96, 96))
    for i in range(10):
        images[0, 9 * i : 9 * i + 8, 2:94] = 10.0 * (i % 3 + 1)
        images[0, 9 * i : 9 * i + 8, 40:52] = 90.0
    close(*both(images, bins=10), scale=100)


@pytest.mark.parametrize("spread", [0.0, 1.0, 1e-3, 1e30])
def test_quantiles(spread):
    """Quantiles of few, many, equal and far-out values equal numpy's."""
    for count in (1, 2, 3, 10, 5000):
        x = 7 + spread * torch.randn((1, 1, count), generator=torch.Generator().manual_seed(count))
        x[0, 0, 0] += 1e6 * spread
        values, names = ops.radiomics(x, lo=0, hi=1, families=("firstorder",), dtype=torch.float64)
        found = dict(zip(names, values[0].tolist(), strict=True))
        expected = np.percentile(x.double().numpy(), (10, 50, 90, 75, 25))
        assert found["firstorder.p10"] == pytest.approx(expected[0], rel=1e-12)
        assert found["firstorder.median"] == pytest.approx(expected[1], rel=1e-12)
        assert found["firstorder.p90"] == pytest.approx(expected[2], rel=1e-12)
        spread_found = found["firstorder.interquartile_range"]
        assert spread_found == pytest.approx(expected[3] - expected[4], rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("span", [1, 4095, 4096, 60000])
def test_quantiles_of_integers(span):
    """Integers have numpy's quantiles, whether or not each of them gets a bin of its own."""
    generator = torch.Generator().manual_seed(span)
    x = torch.randint(0, span + 1, (1, 30, 41), generator=generator, dtype=torch.int32)
    x[0, 0, :2] = torch.tensor([0, span])
    for images in (x.to(torch.uint16), x.float() - 20000, x.float() + 0.5):
        values, names = ops.radiomics(images, lo=0, hi=1, families=("firstorder",), dtype=torch.float64)
        expected = np.percentile(images.numpy().astype(float), (10, 50, 90))
        found = [values[0, names.index(f"firstorder.{name}")].item() for name in ("p10", "median", "p90")]
        assert found == pytest.approx(expected.tolist(), rel=1e-12)


def test_large_offset():
    """A small spread far from zero keeps its moments: CT numbers stored with an offset of 60000."""
    generator = torch.Generator().manual_seed(2)
    images = (60000 + 5 * torch.randn((2, 80, 80), generator=generator)).round().to(torch.int32).to(torch.uint16)
    got, expected = both(images, lo=59900, hi=60100, families=("firstorder",))
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


@needs_extension
def test_threads_and_batches_change_no_bit():
    """One thread, two threads, single images and another order give the same bits."""
    images, mask = smooth((6, 50, 61), seed=9), some((6, 50, 61), seed=9)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(ops.radiomics(images, mask, lo=0, hi=100, dtype=torch.float64).values)
    finally:
        torch.set_num_threads(before)
    singles = [ops.radiomics(images[i : i + 1], mask[i : i + 1], lo=0, hi=100, dtype=torch.float64) for i in range(6)]
    reversed_ = ops.radiomics(images.flip(0), mask.flip(0), lo=0, hi=100, dtype=torch.float64).values.flip(0)
    for other in (*results[1:], torch.cat([single.values for single in singles]), reversed_):
        assert torch.equal(results[0], other)


@needs_extension
@pytest.mark.parametrize("choice", ["scalar", "avx2", "avx512"])
def test_every_instruction_set(choice, monkeypatch):
    """Each instruction set gives the twin's values."""
    monkeypatch.setenv("MEDTRUST_CPU", choice)
    try:
        assert ops.info()["isa"] == choice
    except NativeError as error:
        pytest.skip(f"cannot be forced here: {error}")
    close(*both(smooth((2, 45, 83), seed=1), some((2, 45, 83), seed=1)))
    close(*both(smooth((2, 45, 83), seed=2)))


def test_layouts():
    """Slices, transposes and channels-last images give the values of their contiguous copies."""
    images = smooth((2, 3, 30, 44), seed=4)
    expected = ops.radiomics(images, lo=0, hi=100).values
    assert torch.equal(ops.radiomics(images.to(memory_format=torch.channels_last), lo=0, hi=100).values, expected)
    wide = torch.zeros((4, 3, 30, 88))
    wide[::2, :, :, ::2] = images
    assert torch.equal(ops.radiomics(wide[::2, :, :, ::2], lo=0, hi=100).values, expected)
    turned = images.transpose(2, 3).contiguous().transpose(2, 3)
    mask = some((2, 44, 30), seed=4).transpose(1, 2)
    a, b = ops.radiomics(turned, mask, lo=0, hi=100), ops.radiomics(images, mask.contiguous(), lo=0, hi=100)
    assert torch.equal(a.values, b.values)


def test_channels():
    """Several channels are described one by one under one mask, and named."""
    images, mask = smooth((2, 3, 20, 21), seed=6), some((2, 1, 20, 21), seed=6)
    values, names = ops.radiomics(images, mask, lo=0, hi=100, families=("ngtdm", "firstorder"))
    assert values.shape == (2, 75)
    assert values.dtype == torch.float32
    assert names[0] == "channel0.firstorder.mean"
    assert names[-1] == "channel2.ngtdm.strength"
    alone = ops.radiomics(images[:, 1], mask, lo=0, hi=100, families=("firstorder", "ngtdm"))
    assert torch.equal(values[:, 25:50], alone.values)
    assert alone.names[0] == "firstorder.mean"


@pytest.mark.parametrize("family", list(FAMILIES))
def test_families_alone(family):
    """A family asked for alone has the columns it has among all."""
    images = smooth((2, 33, 34), seed=8)
    everything = ops.radiomics(images, lo=0, hi=100)
    alone = ops.radiomics(images, lo=0, hi=100, families=(family,))
    places = [everything.names.index(name) for name in alone.names]
    assert alone.names == tuple(f"{family}.{feature}" for feature in FAMILIES[family])
    assert torch.equal(alone.values, everything.values[:, places])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_level(dtype):
    """A constant image has finite features: no entropy, no contrast, no spread, correlation 1."""
    values, names = ops.radiomics(torch.full((1, 12, 9), 0.1, dtype=dtype), lo=0, hi=1, dtype=torch.float64)
    found = dict(zip(names, values[0].tolist(), strict=True))
    assert np.isfinite(list(found.values())).all()
    for name in ("firstorder.variance", "firstorder.skewness", "glcm.joint_entropy", "glcm.contrast", "ngtdm.contrast"):
        assert found[name] == 0
    assert found["firstorder.excess_kurtosis"] == 0
    assert found["glcm.correlation"] == found["glcm.joint_maximum"] == found["firstorder.uniformity"] == 1
    assert found["ngtdm.coarseness"] == 1e6
    assert found["glszm.zone_percentage"] == pytest.approx(1 / 108)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_single_pixel(dtype):
    """A region of one pixel is a region of one level: finite, and each matrix holds that one entry."""
    images = smooth((1, 12, 9), seed=1).to(dtype)
    images[0, 3, 4] = 77
    mask = torch.zeros((1, 12, 9), dtype=torch.bool)
    mask[0, 3, 4] = True
    values, names = ops.radiomics(images, mask, lo=0, hi=100, bins=100, dtype=torch.float64)
    found = dict(zip(names, values[0].tolist(), strict=True))
    assert np.isfinite(list(found.values())).all()
    assert found["firstorder.mean"] == found["firstorder.p10"] == 77
    assert found["glcm.joint_average"] == 78
    assert found["glrlm.run_percentage"] == found["glszm.small_zone_emphasis"] == 1
    assert found["gldm.low_dependence_emphasis"] == 1


def test_pixels_outside_do_not_matter():
    """What lies outside the mask, be it NaN, changes no bit."""
    images, mask = smooth((2, 31, 32), seed=3), some((2, 31, 32), seed=3)
    expected = ops.radiomics(images, mask, lo=0, hi=100).values
    images[~mask] = torch.nan
    assert torch.equal(ops.radiomics(images, mask, lo=0, hi=100).values, expected)
    assert torch.equal(ops.radiomics(images, mask.to(torch.uint8) * 7, lo=0, hi=100).values, expected)


def test_values_beyond_the_range():
    """Values outside the declared range go to the end levels."""
    images = smooth((1, 40, 40), seed=3)
    inside = ops.radiomics(images.clamp(20, 80), lo=20, hi=80, families=("glcm", "glszm")).values
    assert torch.equal(ops.radiomics(images, lo=20, hi=80, families=("glcm", "glszm")).values, inside)


@pytest.mark.parametrize("symmetric", [True])
def test_cooccurrence_against_skimage(symmetric):
    """The twin's matrices are scikit-image's, direction by direction, and so is the contrast."""
    generator = torch.Generator().manual_seed(4)
    images = torch.randint(0, 16, (1, 37, 50), generator=generator, dtype=torch.uint8)
    level = images[0].numpy()
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
    theirs = graycomatrix(level, [1], angles, levels=16, symmetric=symmetric)[:, :, 0]
    ours = reference_radiomics.pairs(level.astype(int) + 1, 16)
    for mine in ours:
        assert any(np.array_equal(mine, theirs[:, :, a]) for a in range(4))
    values, names = ops.radiomics(images, lo=0, hi=16, bins=16, families=("glcm",), dtype=torch.float64)
    i, j = np.indices((16, 16))
    contrast = np.mean([((i - j) ** 2 * m).sum() / m.sum() for m in np.moveaxis(theirs.astype(float), -1, 0)])
    assert values[0, names.index("glcm.contrast")].item() == pytest.approx(contrast, rel=1e-13)


def test_no_images():
    """An empty batch gives an empty table with its names."""
    for dtype in (torch.float32, torch.float64):
        values, names = ops.radiomics(torch.zeros((0, 1, 8, 8), dtype=dtype), lo=0, hi=1)
        assert values.shape == (0, len(names)) == (0, 98)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_not_finite_is_refused(dtype, bad):
    """A NaN or an infinity in the region is refused, and the message names the image."""
    images = smooth((4, 2, 9, 9), seed=1).to(dtype)
    images[2, 1, 5, 5] = bad
    with pytest.raises(DataError, match="image 2 holds a NaN or an infinity"):
        ops.radiomics(images, lo=0, hi=100)
    with pytest.raises(DataError, match="image 2 holds a NaN or an infinity"):
        ops.radiomics(images, torch.ones((4, 9, 9), dtype=torch.bool), lo=0, hi=100)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
def test_empty_mask_is_refused(dtype):
    """An empty mask is refused, and the message names the image."""
    mask = torch.ones((3, 9, 9), dtype=torch.bool)
    mask[1] = False
    with pytest.raises(DataError, match="the mask of image 1 is empty"):
        ops.radiomics(torch.ones((3, 9, 9), dtype=dtype), mask, lo=0, hi=1)


@pytest.mark.parametrize(
    ("images", "mask", "rules", "words"),
    [
        (np.zeros((1, 4, 4)), None, {}, "images is a ndarray"),
        (torch.zeros((1, 4, 4), dtype=torch.int64), None, {}, "images is torch.int64"),
        (torch.zeros((1, 4, 4)).to_sparse(), None, {}, "layout torch.sparse_coo"),
        (torch.zeros((4, 4)), None, {}, r"shape \[4, 4\]"),
        (torch.zeros((1, 0, 4)), None, {}, "at least one pixel"),
        (torch.zeros((1, 1, 70000)), None, {}, "sides up to 65535"),
        (torch.zeros((1, 4, 4)), torch.ones((1, 4, 5), dtype=torch.bool), {}, r"mask has shape \[1, 4, 5\]"),
        (torch.zeros((1, 4, 4)), torch.ones((1, 4, 4)), {}, "mask is torch.float32"),
        (torch.zeros((1, 4, 4)), None, {"hi": 0.0}, "the range 0.0 to 0.0 is empty"),
        (torch.zeros((1, 4, 4)), None, {"hi": float("nan")}, "range 0.0 to nan"),
        (torch.zeros((1, 4, 4)), None, {"bins": 0}, "bins is 0"),
        (torch.zeros((1, 4, 4)), None, {"bins": 257}, "bins is 257"),
        (torch.zeros((1, 4, 4)), None, {"width": 0.0}, "width is 0.0"),
        (torch.zeros((1, 4, 4)), None, {"width": 0.001}, "into 1000 levels"),
        (torch.zeros((1, 4, 4)), None, {"width": 0.1, "bins": 3}, "both bins and width"),
        (torch.zeros((1, 4, 4)), None, {"families": ("glcm", "shape")}, "'shape' is not a family"),
        (torch.zeros((1, 4, 4)), None, {"families": ()}, "families is empty"),
        (torch.zeros((1, 4, 4)), None, {"aggregation": "3D"}, "aggregation '3D'"),
        (torch.zeros((1, 4, 4)), None, {"dtype": torch.float16}, "dtype torch.float16"),
    ],
)
def test_wrong_arguments(images, mask, rules, words):
    """Each wrong argument is refused by a sentence that says what is wrong."""
    with pytest.raises(DataError, match=words):
        ops.radiomics(images, mask, **{"lo": 0.0, "hi": 1.0, **rules})


def test_width_is_not_misled_by_rounding():
    """Three bins of 0.1 cover 0 to 0.3, although 0.3 / 0.1 is not 3 in binary."""
    x = torch.tensor([[[0.05, 0.15, 0.25, 0.3]]])
    values, names = ops.radiomics(x, lo=0, hi=0.3, width=0.1, families=("glcm",), dtype=torch.float64)
    assert values[0, names.index("glcm.normalised_inverse_difference")] == pytest.approx((3 / 4 + 3 / 4 + 1) / 3)


def test_operator_contract():
    """torch's own check of the operator: schema, fake tensors, registration."""
    images, mask = smooth((2, 1, 12, 13), seed=1), some((2, 12, 13), seed=1)
    arguments = ([0.0, 8.0, 100.0], 8, False, "glcm,ngtdm")
    for region in (None, mask):
        torch.library.opcheck(torch.ops.medtrust.radiomics.default, (images, region, *arguments))
