"""The numbers that are usually reported for copying, each beside what it says of a copy-free fault."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import norm

from medtrust import ops
from medtrust.seeding import derive_seed
from medtrust.stats import authentic, closer_records, copying_z, fld_gap, groups, nearest_cell
from medtrust.types import Estimate, FeatureMatrix, Interval, MetricInput, Null, Result, SelfTest
from medtrust_privacy.common import Trio, patient_codes

__all__ = ["UsualNumbers"]

Floats = npt.NDArray[np.float64]
CELLS, QUANTILE, RESAMPLES = 5, 0.05, 200
SHRUNK = 0.5
WHY = (
    "it confuses fidelity with copying: a generator of too little variety, which copies nobody, looks like one that "
    "copies, and one of too much variety hides copies. Ask privacy.cpm"
)
_CITED = {
    "privacy.ct": "arXiv:2004.05675",
    "privacy.authenticity": "arXiv:2102.08921",
    "privacy.dcr": "arXiv:2311.14621",
    "privacy.nndr": "arXiv:2311.14621",
    "privacy.fld_gap": "arXiv:2302.04440",
}
_TITLES = {
    "privacy.ct": "Data-copying statistic C_T",
    "privacy.authenticity": "Authenticity",
    "privacy.dcr": "Distance to the closest record",
    "privacy.nndr": "Nearest-neighbour distance ratio",
    "privacy.fld_gap": "Likelihood gap between train and holdout (FLD)",
}


@dataclass(frozen=True, slots=True)
class Near:
    """Distances of some images to train: to the nearest, to the second nearest, and which is nearest."""

    first: Floats
    second: Floats
    row: npt.NDArray[np.int64]

    def take(self, rows: npt.NDArray[np.int64]) -> Near:
        """Some of the images."""
        return Near(self.first[rows], self.second[rows], self.row[rows])


class UsualNumbers:
    """Report C_T, authenticity, DCR, NNDR and the FLD gap; none of them counts in a gate.

    Every number stands beside the same number of the holdout, and beside that of a copy-free negative of half the
    holdout's spread: where the negative is accused, the self-test has failed on the audit's own data.
    """

    def compute(self, data: MetricInput) -> Mapping[str, Result]:
        """Compute each number of the samples, of one half of the holdout, and of the shrunken half.

        Args:
            data: Train, holdout and synthetic with features.

        Raises:
            Insufficient: Unusable features, or no cell with enough images.
        """
        sets = Trio(data)
        rng = np.random.default_rng(derive_seed(data.seed, "halves"))
        codes, count = patient_codes(sets.holdout)
        half = rng.permutation(count) < count // 2
        left, right = np.flatnonzero(half[codes]), np.flatnonzero(~half[codes])
        values = sets.holdout.values
        centre = values.mean(0)
        shrunk = centre + SHRUNK * (values[torch.from_numpy(left)] - centre)
        train = sets.train.values
        own_codes = torch.from_numpy(patient_codes(sets.train)[0])
        own = ops.nearest(train, train, 1, (own_codes, own_codes)).distances[:, 0].numpy()
        near = {name: _near(rows, train) for name, rows in (("s", sets.synthetic.values), ("h", values), ("x", shrunk))}
        centres = train[torch.from_numpy(rng.choice(len(train), min(CELLS, len(train)), replace=False))]
        cell = {
            "s": nearest_cell(sets.synthetic.values, centres),
            "h": nearest_cell(values, centres),
            "x": nearest_cell(shrunk, centres),
        }

        def z(name: str, rows: npt.NDArray[np.int64], against: npt.NDArray[np.int64]) -> float:
            other, cells = near["h"].take(against), cell["h"][against]
            return copying_z(near[name].first[rows], other.first, cell[name][rows], cells, smallest=10)[0]

        def share(name: str, rows: npt.NDArray[np.int64], against: npt.NDArray[np.int64]) -> float:
            some = near[name].take(rows)
            return float(authentic(some.first, some.row, own).mean())

        def low(of: Callable[[Near], Floats]) -> Callable[..., float]:
            def value(name: str, rows: npt.NDArray[np.int64], against: npt.NDArray[np.int64]) -> float:
                return closer_records(of(near[name].take(rows)), of(near["h"].take(against)), QUANTILE)[0]

            return value

        def gap(name: str, rows: npt.NDArray[np.int64], against: npt.NDArray[np.int64]) -> float:
            made = {"s": sets.synthetic.values, "h": values, "x": shrunk}[name]
            found = fld_gap(train, values[torch.from_numpy(against)], made[torch.from_numpy(rows)])
            return found[0]

        numbers = {
            "privacy.ct": (z, "Z", "higher", 0.0),
            "privacy.authenticity": (share, "share", "higher", None),
            "privacy.dcr": (low(lambda n: n.first), "distance", "higher", None),
            "privacy.nndr": (low(lambda n: n.first / np.maximum(n.second, 1e-300)), "ratio", "higher", None),
            "privacy.fld_gap": (gap, "100 nats per dimension", "lower", None),
        }
        every = {name: np.arange(len(n.first)) for name, n in near.items()}
        results = {}
        for name, (number, unit, direction, _) in numbers.items():
            value = number("s", every["s"], every["h"])
            real, faulty = number("h", left, right), number("x", every["x"], right)
            interval = (
                _z_interval(value, data.level, len(sets.holdout))
                if name == "privacy.ct"
                else self._interval(name, number, sets.synthetic, every, data.level, derive_seed(data.seed, name))
            )
            worse = faulty < real if direction == "higher" else faulty > real
            results[name] = Result(
                estimate=Estimate(value, unit, direction),  # type: ignore[arg-type]
                interval=interval,
                null=Null("one half of the holdout in place of the samples", real),
                selftest=SelfTest(
                    "failed" if worse else "not_run",
                    f"a copy-free set of half the holdout's spread gives {faulty:.3g} where the holdout gives "
                    f"{real:.3g}" + (": it is taken for a copier" if worse else ""),
                ),
                facts={"shrunken_holdout": faulty, "other_half_of_holdout": real, "quantile": QUANTILE}
                if "dcr" in name or "nndr" in name
                else {"shrunken_holdout": faulty, "other_half_of_holdout": real},
                notes=(f"This number never grants a PASS: {WHY}.",),
                title=_TITLES[name],
                citation=_CITED[name],
                diagnostic=WHY,
            )
        return results

    def _interval(
        self,
        name: str,
        number: Callable[..., float],
        synthetic: FeatureMatrix,
        every: Mapping[str, npt.NDArray[np.int64]],
        level: float,
        seed: int,
    ) -> Interval:
        """Half-sampling of the samples and of the holdout by patient, recentred on the estimate."""
        rng = np.random.default_rng(seed)
        whole = number("s", every["s"], every["h"])
        times = 20 if "fld" in name else RESAMPLES
        drawn = []
        of_row, count = groups(synthetic.patients, len(synthetic))
        for _ in range(times):
            chosen = rng.permutation(count) < max(2, count // 2)
            rows = np.flatnonzero(chosen[of_row.numpy()])
            against = rng.permutation(every["h"])[: max(20, len(every["h"]) // 2)]
            drawn.append(number("s", rows, against))
        # the error of a half drawn without replacement is as large as that of the whole set
        spread = np.quantile(np.array(drawn) - np.mean(drawn), [(1 - level) / 2, (1 + level) / 2])
        return Interval(whole + spread[0], whole + spread[1], level, "half-sampling", count, "image")


def _z_interval(value: float, level: float, n: int) -> Interval:
    """A weighted mean of Z values varies by at most one."""
    half = float(norm.ppf((1 + level) / 2))
    return Interval(value - half, value + half, level, "variance of the rank sum, at most 1", n, "image")


def _near(rows: torch.Tensor, train: torch.Tensor) -> Near:
    found = ops.nearest(rows, train, 2)
    return Near(found.distances[:, 0].numpy(), found.distances[:, 1].numpy(), found.indices[:, 0].numpy())
