"""Radiomics against the packages people use: `python benchmarks/bench_radiomics.py`.

The value of a contender is the largest relative difference of its features from the float64 twin's, over the features
that it defines likewise; the error column shows it.
"""

from __future__ import annotations

import importlib.metadata
import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medtrust import ops
from peers import Contender, Row, compare, main, module

LEVELS = 32
MIRP_PREFIXES = {"glcm": "cm_", "glrlm": "rlm_", "glszm": "szm_", "ngtdm": "ngt_"}
RULES: dict[str, Any] = {"lo": 1, "hi": LEVELS + 1, "bins": LEVELS, "dtype": torch.float64}


def levels(count: int, size: int) -> Tensor:
    """Structure with noise, already in whole levels 1..LEVELS, so that no peer's binning differs, `[N, H, W]`."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn((count, 1, size + 14, size + 14), generator=generator)
    structure = torch.nn.functional.avg_pool2d(noise, 15, 1)[:, 0] + 0.02 * noise[:, 0, 7:-7, 7:-7]
    lowest, highest = structure.amin((1, 2), keepdim=True), structure.amax((1, 2), keepdim=True)
    return ((structure - lowest) / (highest - lowest) * LEVELS).floor().clamp(0, LEVELS - 1) + 1


def largest_difference(found: dict[str, float], exact: dict[str, float]) -> float:
    """Largest relative difference over the names that both have."""
    shared = [name for name in exact if name in found]
    return max(abs(found[name] - exact[name]) / max(abs(exact[name]), 1e-12) for name in shared)


def described(result: Any) -> dict[str, float]:
    return dict(zip(result.names, result.values[0].tolist(), strict=True))


def version(package: str) -> str:
    return f"{package} {importlib.metadata.version(package)}"


def pyradiomics(image: np.ndarray[Any, Any]) -> Contender | None:
    """PyRadiomics' six classes, each on the image as it is."""
    sitk, package = module("SimpleITK"), module("radiomics")
    if sitk is None or package is None:
        return None
    from radiomics import firstorder, glcm, gldm, glrlm, glszm, ngtdm

    package.setVerbosity(logging.ERROR)
    classes = (
        ("firstorder", firstorder.RadiomicsFirstOrder, {"mean": "Mean", "p10": "10Percentile", "energy": "Energy"}),
        ("glcm", glcm.RadiomicsGLCM, {"contrast": "Contrast", "correlation": "Correlation"}),
        ("glrlm", glrlm.RadiomicsGLRLM, {"short_run_emphasis": "ShortRunEmphasis", "run_entropy": "RunEntropy"}),
        ("glszm", glszm.RadiomicsGLSZM, {"small_zone_emphasis": "SmallAreaEmphasis", "zone_entropy": "ZoneEntropy"}),
        ("ngtdm", ngtdm.RadiomicsNGTDM, {"coarseness": "Coarseness", "complexity": "Complexity"}),
        ("gldm", gldm.RadiomicsGLDM, {"low_dependence_emphasis": "SmallDependenceEmphasis"}),
    )  # fmt: skip
    options = {"binWidth": 1, "force2D": True, "force2Ddimension": 0, "symmetricalGLCM": True, "distances": [1]}
    picture = sitk.GetImageFromArray(image[None].astype(np.float64))
    mask = sitk.GetImageFromArray(np.ones((1, *image.shape), np.uint8))

    def run() -> dict[str, float]:
        found = {}
        for family, extractor, names in classes:
            features = extractor(picture, mask, **options)
            features.enableAllFeatures()
            theirs = features.execute()
            found |= {f"{family}.{ours}": float(theirs[name]) for ours, name in names.items()}
        return found

    return Contender("PyRadiomics", run, note=version("pyradiomics"))


def mirp(image: np.ndarray[Any, Any]) -> Contender | None:
    """MIRP's features of one slice."""
    package = module("mirp")
    if package is None:
        return None
    mask = np.ones((1, *image.shape), np.uint8)
    exact = ops.radiomics(torch.from_numpy(image)[None].double(), **RULES)
    columns = {p: [n for n in exact.names if n.startswith(f"{family}.")] for family, p in MIRP_PREFIXES.items()}

    def run() -> dict[str, float]:
        table = package.extract_features(
            image=image[None],
            mask=mask,
            by_slice=True,
            base_discretisation_method="none",
            base_feature_families=["statistics", "glcm", "glrlm", "glszm", "ngtdm", "ngldm"],
            glcm_spatial_method="2d_average",
            glrlm_spatial_method="2d_average",
        )[0]
        found = {}
        for prefix, names in columns.items():
            theirs = [float(table[c].iloc[0]) for c in table.columns if c.startswith(prefix)]
            found |= dict(zip(names, theirs, strict=True))
        return found

    return Contender("MIRP", run, note=version("mirp"))


def nyxus(image: np.ndarray[Any, Any]) -> Contender | None:
    """Nyxus' compiled features; its zones differ from everyone's, so they are timed but not compared."""
    package = module("nyxus")
    if package is None:
        return None
    families = ("INTENSITY", "GLCM", "GLRLM", "GLSZM", "NGTDM", "GLDM")
    extractor = package.Nyxus(
        [f"*ALL_{family}*" for family in families],
        coarse_gray_depth=LEVELS,
        ibsi=True,
        n_feature_calc_threads=torch.get_num_threads(),
    )
    extractor.set_metaparam("glcm/offset=1")
    names = {
        "firstorder.mean": "MEAN",
        "glcm.contrast": "GLCM_CONTRAST_AVE",
        "glcm.correlation": "GLCM_CORRELATION_AVE",
        "glrlm.short_run_emphasis": "GLRLM_SRE_AVE",
        "ngtdm.coarseness": "NGTDM_COARSENESS",
        "gldm.low_dependence_emphasis": "GLDM_SDE",
    }
    picture, mask = image[None].astype(np.uint32), np.ones((1, *image.shape), np.uint32)

    def run() -> dict[str, float]:
        table = extractor.featurize(picture, mask)
        return {ours: float(table[theirs].iloc[0]) for ours, theirs in names.items()}

    return Contender("Nyxus", run, note=version("nyxus"))


def whole(rounds: int) -> list[Row]:
    """All six families of one image, for every peer that is installed."""
    rows = []
    for size in (128, 512):
        images = levels(1, size)
        exact = described(ops.radiomics(images.double(), **RULES))
        found = [peer(images[0].numpy()) for peer in (pyradiomics, mirp, nyxus)]
        contenders = [Contender("medtrust", lambda x=images: described(ops.radiomics(x, **RULES)), note="float32")]
        contenders.append(
            Contender("medtrust's twin", lambda x=images: described(ops.radiomics(x.double(), **RULES)), note="numpy")
        )
        contenders += [peer for peer in found if peer is not None]
        measured = [Contender(c.name, c.run, lambda r, e=exact: largest_difference(r, e), c.note) for c in contenders]
        rows += compare(f"98 features, one image, {size} px", 0.0, measured, rounds)
    return rows


def batch(rounds: int) -> list[Row]:
    """A batch of 16 at 512 pixels: what one image costs where there are many. The times are those of the batch."""
    images = levels(16, 512)
    exact = described(ops.radiomics(images[:1].double(), **RULES))
    contenders = [
        Contender("medtrust", lambda: ops.radiomics(images, **RULES), note="float32"),
        Contender("medtrust", lambda: [ops.radiomics(x[None], **RULES) for x in images], note="one by one"),
    ]
    measured = [
        Contender(
            c.name,
            c.run,
            lambda r: largest_difference(described(r[0] if isinstance(r, list) else r), exact),
            c.note,
        )
        for c in contenders
    ]
    return compare("98 features, 16 images, 512 px", 0.0, measured, rounds)


def cooccurrence(rounds: int) -> list[Row]:
    """The co-occurrence matrix and its contrast, for scikit-image, whose matrix is compiled."""
    feature = module("skimage.feature")
    if feature is None:
        return []
    images = levels(1, 512)
    exact = described(ops.radiomics(images.double(), families=("glcm",), **RULES))["glcm.contrast"]
    small = (images[0] - 1).to(torch.uint8).numpy()
    angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]

    def run() -> float:
        matrices = feature.graycomatrix(small, [1], angles, levels=LEVELS, symmetric=True, normed=True)
        return float(feature.graycoprops(matrices, "contrast").mean())

    contenders = [
        Contender(
            "medtrust",
            lambda: described(ops.radiomics(images, families=("glcm",), **RULES))["glcm.contrast"],
            note="25 features",
        ),
        Contender("scikit-image", run, note="1 feature"),
    ]
    return compare("GLCM, one image, 512 px", exact, contenders, rounds)


if __name__ == "__main__":
    main("radiomics", lambda rounds: whole(max(3, rounds // 3)) + batch(rounds) + cooccurrence(rounds), rounds=15)
