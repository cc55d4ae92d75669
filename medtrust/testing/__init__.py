"""The conformance kit: what a plugin's author runs to learn what an audit would find wrong.

    from medtrust.testing import check_metric

    def test_brightness_conforms():
        check_metric("my-plugin/brightness")

Each check is a plain function with a readable name; a failure says what is wrong in a sentence. A check that is known
to fail is named in `expected_failures` with its reason, and is an error once it passes. The kit counts the checks that
ran and fails where they are too few to mean anything.
"""

from medtrust.testing.cases import Images
from medtrust.testing.explainers import EXPLAINER_CHECKS, check_explainer
from medtrust.testing.features import FEATURES_CHECKS, check_features
from medtrust.testing.formats import FORMAT_CHECKS, Example, check_format
from medtrust.testing.generators import GENERATOR_CHECKS, check_generator
from medtrust.testing.kit import Check, Conformance, NotApplicable, Outcome
from medtrust.testing.metrics import METRIC_CHECKS, check_metric
from medtrust.testing.report_formats import REPORT_FORMAT_CHECKS, check_report_format
from medtrust.testing.running import CHECKS, check, parametrize_with_checks

__all__ = [
    "CHECKS",
    "EXPLAINER_CHECKS",
    "FEATURES_CHECKS",
    "FORMAT_CHECKS",
    "GENERATOR_CHECKS",
    "METRIC_CHECKS",
    "REPORT_FORMAT_CHECKS",
    "Check",
    "Conformance",
    "Example",
    "Images",
    "NotApplicable",
    "Outcome",
    "check",
    "check_explainer",
    "check_features",
    "check_format",
    "check_generator",
    "check_metric",
    "check_report_format",
    "parametrize_with_checks",
]
