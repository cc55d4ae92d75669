"""`medtrust selftest --suite features`: does each chosen feature space notice known degradations of these images?"""

from __future__ import annotations

from collections.abc import Iterator

from medtrust.extraction import survey
from medtrust.types import SuiteInput, SuiteRow
from medtrust.validity import check_spaces

__all__ = ["FeatureSuite"]

IMAGES = 64  # twice what an audit takes, for a steadier answer


class FeatureSuite:
    """Blur, noise, bias field, gamma, downsampling and texture swap at five strengths, in each feature space."""

    def run(self, data: SuiteInput) -> Iterator[SuiteRow]:
        """Check each space; one row per space."""
        train = survey(data.train, data.spaces, data.intensity, data.store, progress=data.progress)  # type: ignore[arg-type]
        checks = check_spaces(
            data.train,  # type: ignore[arg-type]
            train.features,
            data.spaces,
            data.intensity,
            data.store,
            images=IMAGES,
            seed=data.seed,
            progress=data.progress,
        )
        for space, check in checks.items():
            yield SuiteRow(space, check.selftest.status, check.selftest.detail, check.as_dict())
