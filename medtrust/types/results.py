"""Results: what a metric answers, and what the host adds to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from medtrust.types.images import SetName

if TYPE_CHECKING:
    from medtrust.types.explaining import Target

__all__ = [
    "PILLARS",
    "Direction",
    "Estimate",
    "Evidence",
    "Interval",
    "Null",
    "Picture",
    "Pillar",
    "PluginFailure",
    "Resolution",
    "Result",
    "SelfTest",
    "Status",
    "TestOutcome",
]

Pillar = Literal["fidelity", "diversity", "privacy", "explanation", "equity", "utility", "physics"]
Direction = Literal["lower", "higher", "none"]
Status = Literal["ok", "insufficient", "error", "skipped"]

PILLARS: tuple[Pillar, ...] = (
    "fidelity", "diversity", "privacy", "explanation", "equity", "utility", "physics",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Estimate:
    """A point estimate with its unit and the direction in which it is better."""

    value: float
    unit: str = ""
    direction: Direction = "none"


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval estimate, and what was resampled or counted to get it."""

    lo: float
    hi: float
    level: float
    method: str
    n_units: int
    unit: str = "patient"


@dataclass(frozen=True, slots=True)
class TestOutcome:
    """A hypothesis test: its statistic, its p-value, and the p-value adjusted within its family."""

    statistic: float
    p: float
    p_adj: float
    family: str
    __test__ = False  # not a test case, whatever pytest makes of the name


@dataclass(frozen=True, slots=True)
class Null:
    """What the same number is when real is compared with real."""

    reference: str
    value: float
    interval: Interval | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """The smallest effect that this sample size could have shown, at the stated power."""

    min_detectable: float
    power: float
    sentence: str


@dataclass(frozen=True, slots=True)
class SelfTest:
    """Did the detector find what was planted, and leave alone what was clean, on this audit's own data?"""

    status: Literal["ok", "failed", "not_run"]
    detail: str
    auc: float | None = None
    size: float | None = None
    power: float | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of an evidence item.

    A metric names `sources`, (set name, image index) pairs: one source shows that image, two show their absolute
    difference. A metric that draws its own picture gives `png` and says whether real pixels can be seen in it. The host
    fills `name`, `path` and `sha256`, and leaves the picture out when the evidence policy forbids it. `heat` is a map
    [h, w], at least 0, that the host draws over the one source, or alone where there is none, with a scale bar that
    ends at `heat_top`.
    """

    role: str
    alt: str
    sources: tuple[tuple[SetName, int], ...] = ()
    png: bytes | None = None
    contains_real: bool = False
    name: str = ""
    path: str = ""
    sha256: str = ""
    heat: Any = field(default=None, compare=False, repr=False)
    heat_top: float = 1.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Something a reader can look at, such as a synthetic image beside its nearest training image.

    Args:
        kind: "pair", "curve", "heat map" …
        title: One line.
        rank: 1 is the most telling.
        facts: Numbers and short texts to print with it.
        pictures: Pictures, in the order to show them.
    """

    kind: str
    title: str
    rank: int
    facts: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to one question. Metrics fill the answer; the host fills the identity (id, pillar, metric …).

    A result without an interval is shown but cannot pass a gate in `ci` mode. One whose `diagnostic` is not empty
    counts neither for nor against in any gate: the text says why. `target` is what
    explainers may explain; it does not enter the report.
    """

    estimate: Estimate | None = None
    interval: Interval | None = None
    test: TestOutcome | None = None
    null: Null | None = None
    resolution: Resolution | None = None
    selftest: SelfTest | None = None
    evidence: tuple[Evidence, ...] = ()
    facts: Mapping[str, float | int | str | bool] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    status: Status = "ok"
    reason: str = ""
    id: str = ""
    pillar: str = ""
    title: str = ""
    metric: str = ""
    metric_version: str = ""
    features: str = ""
    citation: str = ""
    subgroup: str = ""
    diagnostic: str = ""
    target: Target | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class PluginFailure:
    """A plugin, or one call of it, that failed: who, where and why.

    Args:
        plugin: Entry-point name.
        distribution: Distribution that installed it, with version.
        stage: discover | import | register | hook | contract | run.
        error: Exception type and message, one line.
        remedy: What to do next.
    """

    plugin: str
    distribution: str
    stage: str
    error: str
    remedy: str = ""
