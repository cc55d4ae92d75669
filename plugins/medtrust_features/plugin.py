"""Registers the built-in feature spaces; importing it loads neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Iterable

from medtrust import FeatureSpec, hookimpl
from medtrust.types import SuiteSpec

MEDTRUST_API = 1


@hookimpl
def medtrust_features() -> Iterable[FeatureSpec]:
    """Offer the feature spaces that docs/features.md describes."""
    yield FeatureSpec(
        name="radiomics",
        version="1",
        factory="medtrust_features.radiomics:Radiomics",
        summary="brightness, texture, edges and colour over the declared range; needs no weights",
    )
    yield FeatureSpec(
        name="inception",
        version="1",
        factory="medtrust_features.inception:Inception",
        summary="2048 pool3 features of the FID Inception network, prepared as pytorch-fid does",
        requires=("torchvision", "pytorch_fid"),
        weights="inception",
    )
    for convention, who, factory in (
        ("clean-fid", "clean-fid does: Pillow's bicubic", "CleanFidInception"),
        ("torch-fidelity", "TTUR and torch-fidelity do: TensorFlow's bilinear", "TorchFidelityInception"),
        ("torchmetrics", "torchmetrics does since 1.8: bilinear with antialias", "TorchmetricsInception"),
    ):
        yield FeatureSpec(
            name=f"inception-{convention}",
            version="1",
            factory=f"medtrust_features.inception:{factory}",
            summary=f"the same 2048 features, images prepared as {who}",
            requires=("torchvision", "pytorch_fid"),
            weights="inception",
        )
    yield FeatureSpec(
        name="inception-logits",
        version="1",
        factory="medtrust_features.inception:InceptionLogits",
        summary="logits of its 1008 classes, for the Inception Score; needs weights with the class head",
        requires=("torchvision", "pytorch_fid"),
        weights="inception",
    )
    yield FeatureSpec(
        name="efficientnet-lite0",
        version="1",
        factory="medtrust_features.efficientnet:EfficientNetLite0",
        summary="1280 pooled features of EfficientNet-Lite0 (ImageNet): a second, faster family beside inception",
        weights="efficientnet-lite0",
    )
    yield FeatureSpec(
        name="dinov2",
        version="1",
        factory="medtrust_features.dinov2:Dinov2",
        summary="class token of a DINOv2 checkpoint of any size; give one with --weights dinov2=PATH",
        weights="dinov2",
    )
    yield FeatureSpec(
        name="xrayvision",
        version="1",
        factory="medtrust_features.xrayvision:XRayVision",
        summary="pooled features of a torchxrayvision DenseNet; give its state dict with --weights xrayvision=PATH",
        weights="xrayvision",
    )
    yield FeatureSpec(
        name="custom",
        version="1",
        factory="medtrust_features.custom:Custom",
        summary="your own TorchScript, pt2 or ONNX network with a card, --weights custom=PATH",
        weights="custom",
    )
    yield FeatureSpec(
        name="pixels",
        version="1",
        factory="medtrust_features.pixels:Pixels",
        summary="the image itself at 32 x 32, centred and of unit length: for finding copies",
    )
    yield FeatureSpec(
        name="phash",
        version="1",
        factory="medtrust_features.phash:PerceptualHash",
        summary="64 bits of the coarse luminance pattern: survives recompression and rescaling",
    )


@hookimpl
def medtrust_suites() -> Iterable[SuiteSpec]:
    """Offer the check of feature spaces."""
    yield SuiteSpec(
        name="features",
        version="1",
        factory="medtrust_features.suite:FeatureSuite",
        summary="does each feature space notice blur, noise, bias field, gamma, downsampling and texture swap?",
    )
