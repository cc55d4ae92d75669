"""ops.radiomics against PyRadiomics and MIRP, where they are installed."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from medtrust import ops
from medtrust.ops._radiomics_names import FAMILIES

LEVELS = 24
MIRP_PREFIXES = {
    "firstorder": "stat_",
    "glcm": "cm_",
    "glrlm": "rlm_",
    "glszm": "szm_",
    "ngtdm": "ngt_",
    "gldm": "ngl_",
}
RUNS = """
ShortRunEmphasis LongRunEmphasis LowGrayLevelRunEmphasis HighGrayLevelRunEmphasis ShortRunLowGrayLevelEmphasis
ShortRunHighGrayLevelEmphasis LongRunLowGrayLevelEmphasis LongRunHighGrayLevelEmphasis GrayLevelNonUniformity
GrayLevelNonUniformityNormalized RunLengthNonUniformity RunLengthNonUniformityNormalized RunPercentage
GrayLevelVariance RunVariance RunEntropy
"""
ZONES = """
SmallAreaEmphasis LargeAreaEmphasis LowGrayLevelZoneEmphasis HighGrayLevelZoneEmphasis
SmallAreaLowGrayLevelEmphasis SmallAreaHighGrayLevelEmphasis LargeAreaLowGrayLevelEmphasis
LargeAreaHighGrayLevelEmphasis GrayLevelNonUniformity GrayLevelNonUniformityNormalized SizeZoneNonUniformity
SizeZoneNonUniformityNormalized ZonePercentage GrayLevelVariance ZoneVariance ZoneEntropy
"""
PYRADIOMICS = {  # by family: their class, and their names of our features
    "firstorder": (
        "RadiomicsFirstOrder",
        {
            "mean": "Mean",
            "variance": "Variance",
            "skewness": "Skewness",
            "median": "Median",
            "minimum": "Minimum",
            "p10": "10Percentile",
            "p90": "90Percentile",
            "maximum": "Maximum",
            "interquartile_range": "InterquartileRange",
            "range": "Range",
            "mean_absolute_deviation": "MeanAbsoluteDeviation",
            "robust_mean_absolute_deviation": "RobustMeanAbsoluteDeviation",
            "energy": "Energy",
            "root_mean_square": "RootMeanSquared",
            "entropy": "Entropy",
            "uniformity": "Uniformity",
        },
    ),
    "glcm": (
        "RadiomicsGLCM",
        {
            "joint_maximum": "MaximumProbability",
            "joint_average": "JointAverage",
            "joint_variance": "SumSquares",
            "joint_entropy": "JointEntropy",
            "difference_average": "DifferenceAverage",
            "difference_variance": "DifferenceVariance",
            "difference_entropy": "DifferenceEntropy",
            "sum_average": "SumAverage",
            "sum_entropy": "SumEntropy",
            "angular_second_moment": "JointEnergy",
            "contrast": "Contrast",
            "inverse_difference": "Id",
            "normalised_inverse_difference": "Idn",
            "inverse_difference_moment": "Idm",
            "normalised_inverse_difference_moment": "Idmn",
            "inverse_variance": "InverseVariance",
            "correlation": "Correlation",
            "autocorrelation": "Autocorrelation",
            "cluster_tendency": "ClusterTendency",
            "cluster_shade": "ClusterShade",
            "cluster_prominence": "ClusterProminence",
            "information_correlation_1": "Imc1",
            "information_correlation_2": "Imc2",
        },
    ),
    "glrlm": (
        "RadiomicsGLRLM",
        dict(zip(FAMILIES["glrlm"], RUNS.split(), strict=True)),
    ),
    "glszm": (
        "RadiomicsGLSZM",
        dict(zip(FAMILIES["glszm"], ZONES.split(), strict=True)),
    ),
    "ngtdm": ("RadiomicsNGTDM", {name: name.capitalize() for name in FAMILIES["ngtdm"]}),
    "gldm": (
        "RadiomicsGLDM",
        {
            "low_dependence_emphasis": "SmallDependenceEmphasis",
            "high_dependence_emphasis": "LargeDependenceEmphasis",
            "low_grey_level_emphasis": "LowGrayLevelEmphasis",
            "high_grey_level_emphasis": "HighGrayLevelEmphasis",
            "low_dependence_low_grey_level_emphasis": "SmallDependenceLowGrayLevelEmphasis",
            "low_dependence_high_grey_level_emphasis": "SmallDependenceHighGrayLevelEmphasis",
            "high_dependence_low_grey_level_emphasis": "LargeDependenceLowGrayLevelEmphasis",
            "high_dependence_high_grey_level_emphasis": "LargeDependenceHighGrayLevelEmphasis",
            "grey_level_non_uniformity": "GrayLevelNonUniformity",
            "dependence_non_uniformity": "DependenceNonUniformity",
            "normalised_dependence_non_uniformity": "DependenceNonUniformityNormalized",
            "grey_level_variance": "GrayLevelVariance",
            "dependence_variance": "DependenceVariance",
            "dependence_entropy": "DependenceEntropy",
        },
    ),
}


@pytest.fixture(scope="module")
def region() -> tuple[torch.Tensor, torch.Tensor]:
    """An image of levels 1..LEVELS with runs and zones, the lowest and highest among them, and a ragged mask."""
    generator = torch.Generator().manual_seed(11)
    noise = torch.nn.functional.avg_pool2d(torch.randn((1, 1, 74, 87), generator=generator), 5, 1)[0, 0]
    image = ((noise - noise.min()) / (noise.max() - noise.min()) * LEVELS).floor().clamp(0, LEVELS - 1) + 1
    mask = torch.rand(image.shape, generator=generator) < 0.9
    mask[(image == 1) | (image == LEVELS)] = True
    return image, mask


def ours(region: tuple[torch.Tensor, torch.Tensor], **rules) -> dict[str, float]:
    image, mask = region
    values, names = ops.radiomics(
        image[None], mask[None], lo=1, hi=LEVELS + 1, bins=LEVELS, dtype=torch.float64, **rules
    )
    return dict(zip(names, values[0].tolist(), strict=True))


@pytest.mark.parametrize("family", list(FAMILIES))
def test_pyradiomics(region, family):
    """Each feature that PyRadiomics defines likewise has its value (2-D, symmetric, distance 1, bins of 1)."""
    sitk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed; PyRadiomics needs it")
    package = pytest.importorskip("radiomics", reason="PyRadiomics is not installed")
    from radiomics import firstorder, glcm, gldm, glrlm, glszm, ngtdm

    package.setVerbosity(logging.ERROR)
    modules = {"firstorder": firstorder, "glcm": glcm, "glrlm": glrlm, "glszm": glszm, "ngtdm": ngtdm, "gldm": gldm}
    name, pairs = PYRADIOMICS[family]
    image, mask = (
        sitk.GetImageFromArray(t.numpy()[None].astype(kind)) for t, kind in zip(region, ("f8", "u1"), strict=True)
    )
    options = {"binWidth": 1, "force2D": True, "force2Ddimension": 0, "symmetricalGLCM": True, "distances": [1]}
    extractor = getattr(modules[family], name)(image, mask, **options)
    extractor.enableAllFeatures()
    theirs = extractor.execute()
    mine = ours(region, families=(family,))
    for feature, their_name in pairs.items():
        assert mine[f"{family}.{feature}"] == pytest.approx(float(theirs[their_name]), rel=1e-9), feature
    if family == "firstorder":
        assert mine["firstorder.excess_kurtosis"] == pytest.approx(float(theirs["Kurtosis"]) - 3, abs=1e-9)


@pytest.mark.parametrize(("aggregation", "method"), [("averaged", "2d_average"), ("slice-merged", "2d_slice_merge")])
def test_mirp(region, aggregation, method):
    """Each feature has the value of MIRP, an implementation that took part in the IBSI, in both aggregations."""
    mirp = pytest.importorskip("mirp", reason="MIRP is not installed")
    image, mask = region
    table = mirp.extract_features(
        image=image.numpy()[None],
        mask=mask.numpy()[None].astype(np.uint8),
        by_slice=True,
        base_discretisation_method="none",
        base_feature_families=["statistics", "glcm", "glrlm", "glszm", "ngtdm", "ngldm"],
        glcm_spatial_method=method,
        glrlm_spatial_method=method,
    )[0]
    mine = ours(region, aggregation=aggregation)
    for family, prefix in MIRP_PREFIXES.items():
        theirs = [float(table[c].iloc[0]) for c in table.columns if c.startswith(prefix) and "dc_perc" not in c]
        features = list(FAMILIES[family])
        if family == "firstorder":
            features = features[:-2]  # entropy and uniformity belong to MIRP's histogram features
        if family == "gldm":
            features.append(features.pop(features.index("dependence_energy")))  # last in MIRP
        assert len(theirs) == len(features)
        # MIRP keeps intensities and some variances in float32.
        rel = 2e-5 if family == "firstorder" else 1e-6
        expected = dict(zip(features, theirs, strict=True))
        assert {f: mine[f"{family}.{f}"] for f in features} == pytest.approx(expected, rel=rel, abs=1e-6)
