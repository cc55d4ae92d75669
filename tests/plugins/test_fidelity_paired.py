"""Paired metrics: pairs by name and by column, known damage, the body mask, the null, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from test_fidelity import GREY, SPECS, check, image_set, pictures

from medtrust import Insufficient, MetricInput, Result
from medtrust.errors import ConfigError
from medtrust_fidelity.paired import PairedLikeness

N = 24


def named(name: Any, pixels: np.ndarray, keys: list[str], per_patient: int = 1, column: str = "") -> Any:
    data = image_set(name, pixels, per_patient)
    rows = tuple({column: key} for key in keys) if column else ()
    return replace(data, names=tuple(f"{key}.png" for key in keys), attributes=rows)


def given(synthetic: np.ndarray, *, side: int = 24, per_patient: int = 1, **options: Any) -> MetricInput:
    """Holdout images and what was made of them, in another order."""
    keys = [f"case-{i:02d}" for i in range(N)]
    return MetricInput(
        train=named("train", pictures(1, 30, side), [f"train-{i}" for i in range(30)]),
        holdout=named("holdout", pictures(2, N, side), keys, per_patient),
        synthetic=named("synthetic", synthetic[::-1].copy(), keys[::-1][: len(synthetic)]),
        intensity=GREY,
        seed=3,
        options={"paired": {"pair_by": "name", **options}},
    )


def ask(data: MetricInput) -> Mapping[str, Result]:
    """All results by short name; those that are ok keep what the specification promises."""
    answer = PairedLikeness().compute(data)
    assert set(answer) == set(SPECS["paired"].result_ids)
    for result in answer.values():
        if result.status == "ok":
            check(result, SPECS["paired"])
        else:
            assert result.reason
    return {name.removeprefix("fidelity.paired_"): result for name, result in answer.items()}


def value(data: MetricInput, name: str) -> float:
    result = ask(data)[name]
    assert result.estimate, result.reason
    return result.estimate.value


def test_identical_pairs_are_perfect_whatever_the_order() -> None:
    """The same images under the same names: 1, 100 dB, 1, 0, and the null is far away."""
    found = ask(given(pictures(2, N)))
    assert {n: r.estimate.value for n, r in found.items() if r.estimate} == pytest.approx(
        {"ssim": 1, "psnr": 100, "ncc": 1, "mae": 0}, abs=1e-6
    )
    assert "24 pairs are identical" in found["psnr"].notes[0]
    assert found["ms_ssim"].status == "insufficient"
    assert "161 pixels" in found["ms_ssim"].reason
    for name, better in (("ssim", 1), ("psnr", 1), ("ncc", 1), ("mae", -1)):
        result = found[name]
        assert result.null
        assert result.null.interval
        assert result.estimate
        assert better * (result.estimate.value - result.null.value) > 0


def test_known_damage_has_its_known_size() -> None:
    """A shift by 10 levels is an MAE of 10 and 20 log10(255/10) dB, and changes no correlation."""
    moved = np.clip(pictures(2, N) // 2, 0, 255)
    keep = given(moved + 10)
    data = replace(keep, holdout=replace(keep.holdout, images=image_set("holdout", moved).images))
    assert value(data, "mae") == pytest.approx(10)
    assert value(data, "psnr") == pytest.approx(20 * np.log10(255 / 10))
    assert value(data, "ncc") == pytest.approx(1)


@pytest.mark.parametrize("name", ["ssim", "psnr", "ncc", "mae"])
def test_more_noise_is_worse(name: str) -> None:
    """Every measure falls, or rises, with the noise."""
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 1, (N, 1, 24, 24))
    found = [value(given(np.clip(pictures(2, N) + s * noise, 0, 255).astype(np.uint8)), name) for s in (5, 20, 60)]
    assert found == sorted(found, reverse=name != "mae")


def test_five_scales_run_on_large_images_and_volumes_have_three_axes() -> None:
    """MS-SSIM from 161 pixels a side; a volume is compared as a volume."""
    large = ask(given(pictures(2, N, 161), side=161))
    assert large["ms_ssim"].estimate
    assert large["ms_ssim"].estimate.value == pytest.approx(1)
    flat = given(pictures(2, N))
    thick = {}
    for name in ("train", "holdout", "synthetic"):
        stack = np.stack([np.repeat(r.pixels[:, None], 12, axis=1) for r in getattr(flat, name).images])
        thick[name] = replace(getattr(flat, name), images=image_set(name, stack).images)
    assert value(replace(flat, **thick), "ssim") == pytest.approx(1)


def test_pairs_are_found_by_a_column_and_what_is_alone_is_counted() -> None:
    """A manifest column pairs files of other names; synthetic images without a partner are left out with a note."""
    data = given(pictures(2, N), pair_by="case")
    rows = {"holdout": [f"c{i}" for i in range(N)], "synthetic": [f"c{i}" for i in range(N)][::-1]}
    rows["synthetic"][0] = "unknown"
    sets = {
        n: named(n, np.stack([r.pixels for r in getattr(data, n).images]), k, column="case") for n, k in rows.items()
    }
    found = ask(replace(data, **sets))
    assert found["mae"].facts["pairs"] == N - 1
    assert found["mae"].facts["paired_by"] == "column case, with holdout"
    assert "1 synthetic images have no partner" in found["mae"].notes[0]
    with pytest.raises(Insufficient, match="24 images of holdout have no value in the column 'nothing'"):
        ask(replace(data, options={"paired": {"pair_by": "nothing"}}))


def test_the_body_mask_leaves_the_air_out() -> None:
    """Damage in the air does not count inside the body; five scales have no masked form."""
    real = np.zeros((N, 1, 24, 24), np.uint8)
    real[:, :, 4:20, 4:20] = 100 + pictures(5, N, 16) // 4
    real[:, :, 10:12, 10:12] = 0  # a hole inside the body belongs to it
    damaged = real.copy()
    damaged[:, :, :3] = 200
    base = given(damaged)
    data = replace(base, holdout=replace(base.holdout, images=image_set("holdout", real).images))
    assert value(data, "mae") > 10
    masked = replace(data, options={"paired": {"pair_by": "name", "body_above": 50}})
    assert value(masked, "mae") == 0
    assert value(masked, "ssim") == pytest.approx(1, abs=0.05)
    assert "no form inside a mask" in ask(masked)["ms_ssim"].reason
    damaged[:, :, 10:12, 10:12] = 90
    holed = replace(masked, synthetic=replace(masked.synthetic, images=image_set("s", damaged[::-1].copy()).images))
    assert value(holed, "mae") == pytest.approx(90 * 4 / 256)
    with pytest.raises(Insufficient, match="nothing above body_above"):
        ask(replace(data, options={"paired": {"pair_by": "name", "body_above": 255}}))


def test_the_interval_is_by_patient() -> None:
    """Eight images of each patient, alike in their error, widen the interval."""
    error = np.repeat(np.random.default_rng(6).integers(0, 40, N // 8), 8)[:, None, None, None]
    pixels = (np.clip(pictures(2, N), 40, 200) + error).astype(np.uint8)
    wide = []
    for per_patient in (1, 8):
        data = given(pixels, per_patient=per_patient)
        interval = ask(data)["mae"].interval
        assert interval
        wide.append(interval.hi - interval.lo)
        assert interval.n_units == N // per_patient
    assert wide[1] > 1.5 * wide[0]


def test_what_cannot_be_paired_is_refused() -> None:
    """No partners, doubled names, other sizes, few patients, a wrong set."""
    data = given(pictures(2, N))
    with pytest.raises(Insufficient, match="nobody has said how synthetic images are paired"):
        ask(replace(data, options={}))
    with pytest.raises(Insufficient, match="no synthetic image has a partner in train by file name"):
        ask(replace(data, options={"paired": {"pair_by": "name", "pair_with": "train"}}))
    with pytest.raises(ConfigError, match="pair_with is 'test'"):
        ask(replace(data, options={"paired": {"pair_with": "test"}}))
    with pytest.raises(ConfigError, match="body_above is 'air'"):
        ask(replace(data, options={"paired": {"pair_by": "name", "body_above": "air"}}))
    twice = replace(data.synthetic, names=("case-01.png",) * N)
    with pytest.raises(Insufficient, match="two images of synthetic have the same key 'case-01'"):
        ask(replace(data, synthetic=twice))
    with pytest.raises(Insufficient, match=r"differ in shape \(1 x 24 x 24 and 1 x 30 x 30\)"):
        ask(given(pictures(2, N, 30)))
    with pytest.raises(Insufficient, match="the pairs are of 2 patients"):
        ask(given(pictures(2, N), per_patient=12))
    broken = pictures(2, N).astype(np.float32)
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(Insufficient, match="not finite"):
        ask(given(broken))


def test_constant_images_correlate_only_with_their_like() -> None:
    """Constants have no NaN: correlation 1 with the same constant, 0 with another."""
    grey = np.full((N, 1, 24, 24), 7, np.uint8)
    base = given(grey)
    same = replace(base, holdout=replace(base.holdout, images=image_set("holdout", grey).images))
    assert value(same, "ncc") == 1
    assert value(base, "ncc") == 0
