"""Every check of medtrust's conformance kit, one test each."""

from collections.abc import Callable

from medtrust.testing import parametrize_with_checks


@parametrize_with_checks("edge-sharpness/edge_sharpness", kind="metric")
def test_conforms(check: Callable[[], None]) -> None:
    check()
