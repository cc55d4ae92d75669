"""The IBSI digital phantom and its published 2-D reference values.

Source: Zwanenburg et al., Image biomarker standardisation initiative, reference manual, arXiv:1612.07003v11, section
5.1 (phantom) and the tables of reference values; CC BY 4.0. Values are rounded to three significant digits there.
"""

from __future__ import annotations

import torch

# [slices, rows, columns]; 0 is outside the region of interest.
PHANTOM = torch.tensor(
    [
        [[1, 4, 4, 1, 1], [1, 4, 6, 1, 1], [4, 1, 6, 4, 1], [4, 4, 6, 4, 1]],
        [[1, 4, 4, 1, 1], [1, 1, 6, 1, 1], [0, 1, 3, 1, 1], [4, 4, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 1, 1], [1, 1, 6, 1, 1]],
        [[1, 4, 4, 0, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 6, 1, 1]],
    ],
    dtype=torch.int16,
)

# Of the whole volume: intensity statistics, and entropy and uniformity of its histogram.
FIRST_ORDER = (
    "2.15 3.05 1.08 -0.355 1 1 1 4 6 3 5 1.55 1.11 1.15 0.812 0.6 567 2.77 1.27 0.512"
)  # fmt: skip

# Mean over the slices: "2D, averaged", "2D, slice-merged", or 2D where there are no directions.
CO_OCCURRENCE_AVERAGED = (
    "0.519 2.14 2.69 2.05 1.42 2.9 1.4 4.28 5.47 1.6 0.368 5.28 1.42 0.678 0.851 0.619 0.899 0.0567 -0.0121 5.09 "
    "5.47 7 79.1 -0.155 0.487"
)
CO_OCCURRENCE_MERGED = (
    "0.512 2.14 2.71 2.24 1.4 3.06 1.49 4.29 5.66 1.79 0.352 5.19 1.4 0.683 0.854 0.625 0.901 0.0553 0.0173 5.14 "
    "5.66 6.98 80.4 -0.0341 0.263"
)
RUN_LENGTH_AVERAGED = (
    "0.641 3.78 0.604 9.82 0.294 8.57 3.14 17.4 5.2 0.46 6.12 0.492 0.627 3.35 0.761 2.17"
)  # fmt: skip
RUN_LENGTH_MERGED = (
    "0.661 3.51 0.609 9.74 0.311 8.67 2.92 16.1 20.5 0.456 21.6 0.441 0.627 3.37 0.778 2.57"
)  # fmt: skip
SIZE_ZONE = "0.363 43.9 0.371 16.4 0.0259 10.3 40.4 113 1.41 0.323 1.49 0.333 0.24 3.97 21 1.93"
TONE_DIFFERENCE = "0.121 0.925 2.99 10.4 2.88"
# The manual's dependence count percentage is 1 by definition and left out; its energy stands in that place here.
DEPENDENCE = (
    "0.158 19.2 0.702 7.49 0.0473 3.06 17.6 49.5 10.2 0.562 3.96 0.212 0.17 2.7 2.73 2.71"
)  # fmt: skip
