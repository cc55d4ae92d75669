"""The frozen dataclasses that travel through an audit, and the protocols that plugins fill in.

Importing this package imports neither torch nor numpy, so that listing plugins stays instant.
"""

from medtrust.types.images import ImageHeader, ImageReader, ImageRecord, Intensity, Limits, SetName
from medtrust.types.protocols import (
    FeatureExtractor,
    FeatureMatrix,
    Generator,
    GeneratorFactory,
    Metric,
    MetricInput,
    SampleBatch,
    SetData,
)
from medtrust.types.results import (
    PILLARS,
    Direction,
    Estimate,
    Evidence,
    Interval,
    Null,
    Picture,
    Pillar,
    PluginFailure,
    Resolution,
    Result,
    SelfTest,
    Status,
    TestOutcome,
)
from medtrust.types.specs import (
    ExplainerSpec,
    FeatureSpec,
    FormatSpec,
    GeneratorSpec,
    MetricSpec,
    ReportFormat,
    Spec,
)

__all__ = [
    "PILLARS",
    "Direction",
    "Estimate",
    "Evidence",
    "ExplainerSpec",
    "FeatureExtractor",
    "FeatureMatrix",
    "FeatureSpec",
    "FormatSpec",
    "Generator",
    "GeneratorFactory",
    "GeneratorSpec",
    "ImageHeader",
    "ImageReader",
    "ImageRecord",
    "Intensity",
    "Interval",
    "Limits",
    "Metric",
    "MetricInput",
    "MetricSpec",
    "Null",
    "Picture",
    "Pillar",
    "PluginFailure",
    "ReportFormat",
    "Resolution",
    "Result",
    "SampleBatch",
    "SelfTest",
    "SetData",
    "SetName",
    "Spec",
    "Status",
    "TestOutcome",
]
