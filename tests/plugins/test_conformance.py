"""Every built-in plugin goes through the kit that strangers' plugins go through; what fails has its reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from test_physics import HU, LEVELS, MAGNITUDE, SE, contrasts, ct, magnitude, ramp, stained, thorax
from test_privacy_whitebox import Memoriser

from medtrust import FeatureSpec
from medtrust.host import KINDS, build_host
from medtrust.images import write_set
from medtrust.testing import (
    Example,
    Images,
    check_explainer,
    check_features,
    check_format,
    check_generator,
    check_metric,
    check_report_format,
)

ROWS = "it splits, samples or pairs rows by their position under its seed; its interval covers that choice"
GRAIN = "noise makes images of one set less alike, which is what it calls better; fidelity metrics see the noise"
HEAD = "the four classes of this made-up head are means of quarters, which noise does not blur"
PAIRS = "the kit pairs unrelated images, whose likeness is chance before noise and after"


class Logits:
    """A feature space that looks like a class head."""

    names = ("logit.a", "logit.b", "logit.c", "logit.d")
    digest = "logits-1"

    def __init__(self, device="cpu"):
        pass

    def extract(self, images, intensity):
        x = images.double()
        parts = [x[..., :12, :12], x[..., :12, 12:], x[..., 12:, :12], x[..., 12:, 12:]]
        return torch.stack([(part.flatten(1).mean(1) - 128) / 8 for part in parts], 1).float()


def one_by_one(make):
    return lambda rng, n: np.stack([make(rng) for _ in range(n)])


def larger(rng, n):
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(rng.normal(size=(n, 1, 40, 40)), (0, 0, 1.5, 1.5))
    return np.clip(np.rint(128 + 250 * noise + rng.normal(0, 4, noise.shape)), 0, 255).astype(np.uint8)


def memoriser(train):
    known = torch.from_numpy(train[:20].astype(np.float32)) / 127.5 - 1
    return Memoriser(known, 0.5, "x0")


LOGITS = FeatureSpec(name="logits", version="1", factory=f"{__name__}:Logits")
METRICS: dict[str, dict[str, Any]] = {
    "clipped": {}, "copy_rate": {}, "copying": {}, "cpm": {}, "duplicates": {}, "fd": {}, "fd_ratio": {}, "frd": {},
    "intensity": {}, "kid": {}, "mmd": {}, "pixel_copies": {}, "prdc": {}, "spectrum": {}, "vendi": {},
    "fd_infinity": {"n": 40, "expected_failures": {"order_invariance": ROWS}},
    "inception_score": {"features": LOGITS, "expected_failures": {"noise_is_worse": HEAD}},
    "noise_spectrum": {"images": Images(draw=larger)},
    "paired": {"options": {"paired": {"pair_by": "name"}}, "expected_failures": {"noise_is_worse": PAIRS}},
    "subgroups": {"n": 140},
    "membership": {"expected_failures": {"order_invariance": ROWS}},
    "residual_risk": {"expected_failures": {"order_invariance": ROWS}},
    "ssim_diversity": {"expected_failures": {"order_invariance": ROWS, "noise_is_worse": GRAIN}},
    "tissue_hu": {"images": Images(draw=one_by_one(thorax), intensity=HU)},
    "stain_rank": {"images": Images(draw=one_by_one(stained), intensity=LEVELS)},
    "signal_residual": {"images": Images(draw=one_by_one(contrasts), intensity=MAGNITUDE), "options": SE},
    "rayleigh_background": {"images": Images(draw=one_by_one(magnitude), intensity=MAGNITUDE)},
    "noise_shape": {"images": Images(draw=one_by_one(ct(ramp)), intensity=HU)},
    "diagnostics": {"n": 160, "expected_failures": {"order_invariance": ROWS}},
    "whitebox": {"generator": memoriser, "expected_failures": {"order_invariance": ROWS}},
    "shortcut": {"expected_failures": {"order_invariance": ROWS}},
    "c2st": {"expected_failures": {"order_invariance": ROWS}},
    "rules": {},
}  # fmt: skip
SLOW = {"c2st", "rules", "shortcut", "residual_risk", "copy_rate", "membership", "whitebox", "subgroups", "diagnostics",
        "noise_shape", "copying", "pixel_copies", "prdc", "rayleigh_background", "stain_rank"}  # fmt: skip


def marked(names, slow):
    return [pytest.param(name, marks=pytest.mark.slow) if name in slow else name for name in names]


def built_in(kind: str) -> set[str]:
    return {c.spec.name for c in build_host(allow=["medtrust"]).contributions(kind)}


@pytest.mark.parametrize("name", marked(METRICS, SLOW))
def test_metrics_conform(name):
    """Each metric passes, on images that it can measure."""
    check_metric(f"medtrust/{name}", **METRICS[name])


def test_no_metric_is_forgotten():
    """A metric whose input the kit cannot make, such as a trained generator, has tests of its own in this folder."""
    others = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py") if path != Path(__file__))
    left = built_in("metric") - METRICS.keys()
    assert METRICS.keys() <= built_in("metric")
    assert not [name for name in left if name not in others]
    assert len(METRICS) > 4 * len(left)


SPACES = sorted(c for c in ("radiomics", "pixels", "phash"))


@pytest.mark.parametrize("name", SPACES)
def test_feature_spaces_conform(name):
    """Spaces without weights; those with weights have tests of their own, which fetch them."""
    check_features(f"medtrust/{name}")


@pytest.mark.parametrize("name", marked(sorted(built_in("explainer")), {"expected_gradients"}))
def test_explainers_conform(name):
    """Each passes every check that applies."""
    check_explainer(f"medtrust/{name}")


@pytest.mark.parametrize("name", sorted(built_in("report_format")))
def test_report_formats_conform(name):
    """Each passes every check that applies."""
    check_report_format(f"medtrust/{name}")


def grey(folder: Path, name: str, dtype=np.uint8) -> Example:
    top = int(np.iinfo(dtype).max)
    pixels = np.random.default_rng(3).integers(0, top, (1, 9, 7), dtype=dtype)
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, pixels[0])
    elif path.suffix == ".tif":
        import tifffile

        tifffile.imwrite(path, pixels[0])
    else:
        Image.fromarray(pixels[0]).save(path)
    return Example(path, None if path.suffix == ".jpg" else [pixels])


def volume(folder: Path) -> list[Example]:
    import nibabel

    voxels = np.random.default_rng(3).integers(-500, 500, (6, 5, 2)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / "a.nii")
    return [Example(folder / "a.nii")]


def slice_of_ct(folder: Path) -> list[Example]:
    from pydicom.data import get_testdata_file

    path = folder / "a.dcm"
    path.write_bytes(Path(str(get_testdata_file("CT_small.dcm"))).read_bytes())
    return [Example(path)]


FORMATS: dict[str, Any] = {
    "png": lambda folder: [grey(folder, "a.png"), grey(folder, "b.png", np.uint16)],
    "jpeg": lambda folder: [grey(folder, "a.jpg")],
    "bmp": lambda folder: [grey(folder, "a.bmp")],
    "tiff": lambda folder: [grey(folder, "a.tif"), grey(folder, "b.tif", np.uint16)],
    "numpy": lambda folder: [grey(folder, "a.npy"), grey(folder, "b.npy", np.uint16)],
    "nifti": volume,
    "dicom": slice_of_ct,
}


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_formats_conform(name):
    """Each reads what was written, and nothing damaged does harm."""
    check_format(f"medtrust/{name}", examples=FORMATS[name])


def test_every_kind_is_looked_at():
    """Formats, explainers, spaces: what is installed is checked here."""
    assert built_in("format") == FORMATS.keys()
    assert set(SPACES) <= built_in("features")
    assert {"metric", "features", "explainer", "format", "report_format", "generator"} <= KINDS.keys()


def test_a_folder_conforms_as_a_generator(tmp_path):
    """The adapter that draws from a folder; the trained ones are checked where they are trained."""
    pixels = np.random.default_rng(1).integers(0, 256, (12, 1, 8, 8), dtype=np.uint8)
    write_set(tmp_path / "images", ((f"i{i}", image) for i, image in enumerate(pixels)), LEVELS)
    check_generator("medtrust/folder", path=tmp_path / "images")
