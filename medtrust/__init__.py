"""medtrust: can this generator of medical images be trusted?

Importing this package imports neither torch nor numpy; the names below load what they need when first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from medtrust.errors import ConfigError, DataError, Insufficient, MedtrustError, PluginError, SafetyError
from medtrust.hookspecs import hookimpl
from medtrust.types import (
    Caps,
    ConditionSpec,
    Estimate,
    Evidence,
    ExplainerSpec,
    FeatureMatrix,
    FeatureSpec,
    FormatSpec,
    Generator,
    GeneratorSpec,
    ImageHeader,
    ImageSpec,
    Intensity,
    Interval,
    MetricInput,
    MetricSpec,
    Null,
    Picture,
    ReportFormat,
    Resolution,
    Result,
    SampleBatch,
    SelfTest,
    TestOutcome,
)

if TYPE_CHECKING:
    from medtrust import ops, stats
    from medtrust.api import audit

__version__ = "0.1.0"

_LAZY = {"audit": "medtrust.api:audit", "ops": "medtrust.ops", "stats": "medtrust.stats"}

__all__ = [
    "Caps",
    "ConditionSpec",
    "ConfigError",
    "DataError",
    "Estimate",
    "Evidence",
    "ExplainerSpec",
    "FeatureMatrix",
    "FeatureSpec",
    "FormatSpec",
    "Generator",
    "GeneratorSpec",
    "ImageHeader",
    "ImageSpec",
    "Insufficient",
    "Intensity",
    "Interval",
    "MedtrustError",
    "MetricInput",
    "MetricSpec",
    "Null",
    "Picture",
    "PluginError",
    "ReportFormat",
    "Resolution",
    "Result",
    "SafetyError",
    "SampleBatch",
    "SelfTest",
    "TestOutcome",
    "__version__",
    "audit",
    "hookimpl",
    "ops",
    "stats",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'medtrust' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    value = importlib.import_module(module)
    return getattr(value, attribute) if attribute else value
