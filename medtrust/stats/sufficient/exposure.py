"""What mean and covariance tell of a person to somebody who already holds the person's image."""

from __future__ import annotations

import numpy as np

__all__ = ["membership_auc"]

_POINTS = 4000  # quantiles of the distance of members; the area is known to a thousandth


def membership_auc(n: int, d: int) -> float:
    """Area under the curve of the test "is this row among the n whose mean and covariance I see?", by distance.

    For Gaussian rows the squared Mahalanobis distance of a member is (n-1)/n times a Beta(d/2, (n-d-1)/2), that of
    another row (1 + 1/n) d/(n-d) times an F(d, n-d), both in units of the scatter matrix. A fold's sums of one image a
    patient are this case; several images a patient tell at most as much as that many rows.

    Args:
        n: Rows behind the sums.
        d: Dimensions.

    Returns:
        0.5 where nothing can be told, 1 where every member is found; 1 where the scatter matrix is singular.

    Reference:
        Wilks 1962, Mathematical Statistics, section 18.2 (both distributions); Homer et al. 2008,
        doi:10.1371/journal.pgen.1000167 (the attack).
    """
    from scipy import stats

    if n <= d + 1:
        return 1.0
    share = (np.arange(_POINTS) + 0.5) / _POINTS
    member = (n - 1) / n * stats.beta.ppf(share, d / 2, (n - d - 1) / 2)
    return float(stats.f.sf(member / ((1 + 1 / n) * d / (n - d)), d, n - d).mean())
