"""What a plugin's author runs: checks that raise an AssertionError with a sentence."""

from medtrust.testing.explainers import EXPLAINER_CHECKS, check_explainer

__all__ = ["EXPLAINER_CHECKS", "check_explainer"]
