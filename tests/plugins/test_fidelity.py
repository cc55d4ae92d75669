"""The fidelity and diversity metrics as the host calls them."""

from __future__ import annotations

import importlib
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from medtrust import FeatureMatrix, ImageHeader, Insufficient, Intensity, MetricInput, MetricSpec, Result, ops, stats
from medtrust.errors import ConfigError
from medtrust.types import ImageRecord, SetData
from medtrust_fidelity import plugin

GREY = Intensity(0, 255, "level")
SPECS = {spec.name: spec for spec in plugin.medtrust_metrics()}


def compute(name: str, data: MetricInput) -> Mapping[str, Result]:
    """Call a metric as the host does, and hold every result to what its specification promises."""
    spec = SPECS[name]
    module, _, attribute = spec.factory.partition(":")
    answer = getattr(importlib.import_module(module), attribute)().compute(data)
    results = {spec.result_ids[0]: answer} if isinstance(answer, Result) else dict(answer)
    assert set(results) == set(spec.result_ids)
    for result in results.values():
        check(result, spec)
    return results


def check(result: Result, spec: MetricSpec) -> None:
    assert result.estimate
    assert result.interval
    assert result.null
    assert result.null.interval
    assert result.resolution
    numbers = [result.resolution.min_detectable, *(v for v in result.facts.values() if not isinstance(v, str))]
    for value, interval in ((result.estimate.value, result.interval), (result.null.value, result.null.interval)):
        assert interval.lo <= value <= interval.hi
        numbers += [value, interval.lo, interval.hi]
    assert all(math.isfinite(number) for number in numbers)
    lo, hi = spec.range
    assert lo is None or result.estimate.value >= lo
    assert hi is None or result.estimate.value <= hi
    assert result.resolution.min_detectable >= 0


def set_of(
    name: Any, values: torch.Tensor, per_patient: int = 1, images: Any = (), names: tuple[str, ...] = ()
) -> SetData:
    n = len(values)
    patients = tuple(f"{name}-{i // per_patient}" for i in range(n))
    digests = tuple(f"{name}{i}" for i in range(n))
    return SetData(name, images, patients, digests, FeatureMatrix(values.float(), patients, digests, "x", "0", names))


def features(
    seed: int, sizes: tuple[int, int, int] = (120, 100, 110), d: int = 6, shift: float = 0.0, per_patient: int = 1,
    names: tuple[str, ...] = (),
) -> MetricInput:  # fmt: skip
    rng = np.random.default_rng(seed)
    train, holdout, synthetic = (torch.from_numpy(rng.standard_normal((n, d))) for n in sizes)
    return MetricInput(
        train=set_of("train", train, per_patient, names=names),
        synthetic=set_of("synthetic", synthetic + shift, names=names),
        holdout=set_of("holdout", holdout, per_patient, names=names),
        intensity=GREY,
        seed=seed,
        space="x",
    )


def image_set(name: Any, pixels: np.ndarray[Any, Any], per_patient: int = 1) -> SetData:
    header = ImageHeader(pixels.shape[1:], str(pixels.dtype), intensity=GREY)
    patients = tuple(f"{name}-{i // per_patient}" for i in range(len(pixels)))
    records = [
        ImageRecord(p, f"{name}/{i}.png", patients[i], header, f"{name}{i}") for i, p in enumerate(pixels)
    ]  # fmt: skip
    return SetData(name, records, patients, tuple(r.digest for r in records))


def pictures(seed: int, n: int, side: int = 24, channels: int = 1) -> np.ndarray[Any, Any]:
    """Smooth random pictures, each of its own."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.uniform(0, 255, (n, channels, 5, 5)))
    fine = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bilinear")
    return np.rint(fine.numpy()).clip(0, 255).astype(np.uint8)


def image_input(seed: int, synthetic: np.ndarray[Any, Any], side: int = 24) -> MetricInput:
    return MetricInput(
        train=image_set("train", pictures(seed, 40, side), per_patient=2),
        synthetic=image_set("synthetic", synthetic),
        holdout=image_set("holdout", pictures(seed + 1, 24, side)),
        intensity=GREY,
        seed=seed,
    )


CONDITIONAL = ("label_consistency", "mask_consistency", "text_consistency")
ELSEWHERE = ("inception_score", "noise_spectrum", "paired", "subgroups", *CONDITIONAL)  # tested in files of their own
FEATURE_METRICS = [name for name, spec in SPECS.items() if "features" in spec.needs and name not in ELSEWHERE]
IMAGE_METRICS = [name for name, spec in SPECS.items() if "images" in spec.needs and name not in ELSEWHERE]
GENERAL = FEATURE_METRICS + IMAGE_METRICS


def test_registration_needs_neither_torch_nor_numpy() -> None:
    """Listing the metrics imports neither torch nor numpy."""
    code = (
        "import sys, medtrust_fidelity.plugin as p; n = len(list(p.medtrust_metrics()));"
        "print(n, 'torch' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(SPECS)), "False", "False"]


@pytest.mark.parametrize("name", FEATURE_METRICS)
@pytest.mark.parametrize("per_patient", [1, 2])
@pytest.mark.parametrize("seed", [1, 2])
def test_a_good_generator_is_near_its_null(name: str, per_patient: int, seed: int) -> None:
    """Synthetic features drawn from the population of train lie within the resolution of the null."""
    for result in compute(name, features(seed, per_patient=per_patient)).values():
        assert result.estimate
        assert result.null
        assert result.resolution
        assert abs(result.estimate.value - result.null.value) <= 1.5 * result.resolution.min_detectable


@pytest.mark.parametrize("name", FEATURE_METRICS)
def test_a_shifted_generator_is_found(name: str) -> None:
    """Features far from train are worse than the null by more than the resolution."""
    for result_id, result in compute(name, features(3, shift=2.0)).items():
        assert result.estimate
        assert result.null
        assert result.resolution
        assert result.interval
        gap = result.estimate.value - result.null.value
        worse = gap if result.estimate.direction == "lower" else -gap
        assert worse > result.resolution.min_detectable, result_id
        if result.estimate.direction == "lower":
            assert result.interval.lo > result.null.value


@pytest.mark.parametrize("name", GENERAL)
def test_the_same_input_gives_the_same_result(name: str) -> None:
    """A metric repeats itself to the bit."""
    data = features(4) if name in FEATURE_METRICS else image_input(4, pictures(9, 30))
    assert compute(name, data) == compute(name, data)


@pytest.mark.parametrize("name", GENERAL)
def test_without_a_holdout_train_is_split_and_the_result_says_so(name: str) -> None:
    """The null comes from two halves of train by patients, with a note."""
    data = features(5, per_patient=2) if name in FEATURE_METRICS else image_input(5, pictures(9, 30))
    for result in compute(name, replace(data, holdout=None)).values():
        assert any("no holdout" in note for note in result.notes)
        assert result.null
        assert "half" in result.null.reference


@pytest.mark.parametrize("name", FEATURE_METRICS)
def test_too_few_patients_to_split_are_counted_in_the_reason(name: str) -> None:
    """Without a holdout, the reason speaks of train and its patients, not of its halves."""
    data = replace(features(5, sizes=(20, 20, 20), per_patient=4), holdout=None)
    with pytest.raises(Insufficient, match=r"train needs \d+ patients; it has 5"):
        compute(name, data)


@pytest.mark.parametrize("name", FEATURE_METRICS)
@pytest.mark.parametrize("case", ["constant", "two", "collapsed", "wide", "nan", "huge"])
def test_degenerate_features_give_a_number_or_a_reason(name: str, case: str) -> None:
    """Whatever the features, there is a finite number or a refusal with a sentence."""
    data = features(6, d=200 if case == "wide" else 6, sizes=(40, 40, 40))
    if case == "two":
        data = features(6, sizes=(2, 2, 2))
    if case == "huge":
        data = features(6, sizes=(40, 40, 40), shift=1e12)
    if case == "constant":
        data = replace(data, **{s: set_of(s, torch.ones(40, 6)) for s in ("train", "holdout", "synthetic")})
    if case == "collapsed":
        data = replace(data, synthetic=set_of("synthetic", data.train.matrix[:1].repeat(40, 1)))
    if case == "nan":
        values = data.synthetic.matrix.clone()
        values[3, 2] = torch.nan
        data = replace(data, synthetic=set_of("synthetic", values))
    refused = {
        "fd_ratio": ("constant",),
        "fd_infinity": ("wide",),
        "mmd": ("constant",),
        "prdc": ("constant",),
        "clipped": ("constant",),
    }
    if case in ("two", "nan", *refused.get(name, ())):
        with pytest.raises(Insufficient, match=r"\w+ \w+ \w+"):
            compute(name, data)
    else:
        assert compute(name, data)


def test_a_collapsed_generator_has_no_recall() -> None:
    """Copies of one train image are precise, recall nothing, and are far in distribution."""
    data = features(7)
    data = replace(data, synthetic=set_of("synthetic", data.train.matrix[:1].repeat(50, 1)))
    shares = compute("prdc", data)
    assert shares["fidelity.precision"].estimate.value == 1  # type: ignore[union-attr]
    assert shares["diversity.recall"].interval.hi < 0.2  # type: ignore[union-attr]
    distance = compute("fd", data)["fidelity.fd"]
    assert distance.interval.lo > distance.null.interval.hi  # type: ignore[union-attr]


def test_facts_hold_the_numbers_of_other_packages() -> None:
    """With as many images in every set, the usual packages' numbers are among the facts."""
    data = features(8, sizes=(90, 90, 90))
    train, synthetic = data.train.matrix, data.synthetic.matrix
    assert compute("fd", data)["fidelity.fd"].facts["plug_in"] == stats.frechet_distance(train, synthetic)
    assert compute("kid", data)["fidelity.kid"].estimate.value == stats.kid(train, synthetic)  # type: ignore[union-attr]
    shares = compute("prdc", data)
    assert shares["fidelity.density"].estimate.value == stats.manifold(train, synthetic).density  # type: ignore[union-attr]


def test_named_features_are_standardised_unless_told_otherwise() -> None:
    """The unit of a measured feature does not matter; that of an embedding does."""
    names = tuple("abcdef")
    data = features(9, names=names)
    scale = torch.tensor([1, 1e3, 1, 1e-3, 1, 1], dtype=torch.float64)
    other = replace(
        data, **{s: set_of(s, getattr(data, s).matrix * scale, names=names) for s in ("train", "holdout", "synthetic")}
    )
    here, there = (compute("fd", d)["fidelity.fd"] for d in (data, other))
    assert here.estimate.value == pytest.approx(there.estimate.value, rel=1e-4, abs=1e-6)  # type: ignore[union-attr]
    assert any("standard deviation" in note for note in here.notes)
    raw = compute("fd", replace(other, options={"standardise": "false"}))["fidelity.fd"]
    assert raw.facts["plug_in"] > 100 * here.facts["plug_in"]  # type: ignore[operator]
    with pytest.raises(ConfigError, match="true or false"):
        compute("fd", replace(data, options={"standardise": "maybe"}))


def test_few_patients_in_many_dimensions_are_bracketed_with_a_note() -> None:
    """Where the bias cannot be removed, the result says so and gives both plug-ins at one size."""
    result = compute("fd", features(10, sizes=(60, 40, 60), d=80))["fidelity.fd"]
    assert result.facts["extrapolated"] is False
    assert any("bracketed" in note for note in result.notes)
    assert result.facts["n_null"] == 40
    assert 0.5 < result.facts["ratio"] < 2  # type: ignore[operator]


def test_wrong_options_are_refused() -> None:
    """An option that makes no sense is named in the error."""
    with pytest.raises(ConfigError, match="option k"):
        compute("prdc", replace(features(1), options={"k": "0"}))
    with pytest.raises(ConfigError, match="convention"):
        compute("kid", replace(features(1), options={"convention": "x"}))
    with pytest.raises(ConfigError, match="option pairs"):
        compute("ssim_diversity", replace(image_input(1, pictures(2, 20)), options={"pairs": "many"}))
    with pytest.raises(Insufficient, match="1000 samples"):
        compute("kid", replace(features(1), options={"convention": "torch-fidelity"}))


@pytest.mark.parametrize("side", [24, 161])
def test_ssim_sees_a_generator_that_repeats_itself(side: int) -> None:
    """Near-copies of one picture are more alike than real pairs; independent ones are not."""
    rng = np.random.default_rng(2)
    one = pictures(77, 1, side).astype(int)
    repeated = (one + rng.integers(-4, 5, (30, 1, side, side))).clip(0, 255).astype(np.uint8)
    options = {"pairs": 60}
    found = compute("ssim_diversity", replace(image_input(11, repeated, side), options=options))["diversity.ssim"]
    assert found.interval.lo > found.null.interval.hi  # type: ignore[union-attr]
    assert found.facts["measure"] == ("SSIM, one scale" if side == 24 else "MS-SSIM, five scales")
    assert len(found.evidence) == 3
    fresh = compute("ssim_diversity", replace(image_input(11, pictures(78, 30, side), side), options=options))
    assert fresh["diversity.ssim"].interval.lo <= 0 <= fresh["diversity.ssim"].interval.hi  # type: ignore[union-attr]


def test_ssim_is_the_mean_over_pairs() -> None:
    """With three images per set every pair is drawn, and the facts are the plain means."""
    train, synthetic = pictures(1, 3, 16, 3), pictures(2, 3, 16, 3)
    data = MetricInput(
        image_set("train", train), image_set("synthetic", synthetic), image_set("holdout", train), GREY, seed=3
    )
    found = compute("ssim_diversity", data)["diversity.ssim"]
    for pixels, fact in ((train, "mean_train"), (synthetic, "mean_synthetic")):
        x = torch.from_numpy(pixels)
        plain = ops.ssim(x[[0, 0, 1]], x[[1, 2, 2]], data_range=255.0).double().mean()
        assert found.facts[fact] == pytest.approx(float(plain), rel=1e-6)
    assert found.null.value == pytest.approx(0, abs=1e-6)  # type: ignore[union-attr]


def test_images_that_cannot_be_compared_are_refused() -> None:
    """Two shapes, tiny images and NaN are refused with the name of the image."""
    data = image_input(1, pictures(2, 20))
    mixed = [*data.synthetic.images[:10], *image_set("synthetic", pictures(3, 10, 30)).images]
    unlike = replace(data, synthetic=replace(data.synthetic, images=mixed))
    with pytest.raises(Insufficient, match=r"differ in shape .* 1 x 24 x 24 uint8"):
        compute("ssim_diversity", unlike)
    tiny = replace(data, train=image_set("train", pictures(2, 20, 8)))
    with pytest.raises(Insufficient, match="smaller than the 11-pixel window"):
        compute("ssim_diversity", tiny)
    broken = pictures(2, 20).astype(np.float32)
    broken[:, 0, 0, 0] = np.nan
    for name in IMAGE_METRICS:
        with pytest.raises(Insufficient, match=r"synthetic/\d+.png .* not finite"):
            compute(name, replace(data, synthetic=image_set("synthetic", broken)))


def test_intensity_is_the_shift_in_the_declared_unit() -> None:
    """Brighter images are at the distance by which they are brighter, and the interval holds it."""
    darker = pictures(5, 60) // 2
    data = image_input(12, darker)
    bright = replace(
        data,
        train=image_set("train", darker),
        holdout=image_set("holdout", pictures(6, 60) // 2),
        synthetic=image_set("synthetic", pictures(7, 60) // 2 + 40),
    )
    found = compute("intensity", bright)["fidelity.intensity"]
    assert found.estimate.unit == "level"  # type: ignore[union-attr]
    assert found.estimate.value == pytest.approx(40, abs=4)  # type: ignore[union-attr]
    assert found.interval.lo < 40 < found.interval.hi  # type: ignore[union-attr]
    assert found.null.value < 4  # type: ignore[union-attr]


def test_intensity_agrees_with_scipy_and_keeps_negative_units() -> None:
    """In Hounsfield units, on images of unequal sizes per patient, the distance is SciPy's up to the bin width."""
    from scipy.stats import wasserstein_distance

    ct = Intensity(-1000, 3000, "HU")
    rng = np.random.default_rng(0)
    train, other = rng.normal(-200, 300, (8, 1, 9, 11)), rng.normal(40, 500, (8, 1, 9, 11))
    sets = [image_set(n, p.astype(np.int16)) for n, p in (("train", train), ("synthetic", other), ("holdout", train))]
    data = MetricInput(sets[0], sets[1], sets[2], ct, seed=1)
    found = compute("intensity", data)["fidelity.intensity"]
    clipped = [np.clip(p.astype(np.int16).ravel(), -1000, 3000) for p in (train, other)]
    assert found.estimate.value == pytest.approx(wasserstein_distance(*clipped), abs=4000 / 1024)  # type: ignore[union-attr]
    assert found.facts["mean_train"] == pytest.approx(clipped[0].mean(), abs=4000 / 1024)
    assert any("outside the declared range" in note for note in found.notes)


def test_intensity_bracket_covers() -> None:
    """The bracket holds the distance of the populations, equal or shifted."""
    from medtrust_fidelity.comparison import Rows
    from medtrust_fidelity.intensity import _infer

    edges = torch.linspace(0, 255, 1025, dtype=torch.float64)[1:]
    rng = np.random.default_rng(3)

    def patients(n: int, mean: float) -> Rows:
        centres = torch.from_numpy(rng.normal(mean, 15, n))
        cumulative = torch.special.ndtr((edges[None] - centres[:, None]) / 20)
        return Rows(cumulative, tuple(str(i) for i in range(n)))

    for shift in (0.0, 8.0):
        data = features(1)
        hits = []
        for seed in range(60):
            found = _infer(patients(60, 120), patients(50, 120 + shift), replace(data, seed=seed), "x")
            hits.append(found.interval.lo <= shift <= found.interval.hi)
        assert np.mean(hits) >= 0.88
