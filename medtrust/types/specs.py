"""Specs: what a plugin declares of each thing it contributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from medtrust.types.results import Direction, Pillar

__all__ = [
    "TRUST_TIERS",
    "ExplainerSpec",
    "FeatureSpec",
    "FormatSpec",
    "GeneratorSpec",
    "MetricSpec",
    "ReportFormat",
    "Spec",
]

TRUST_TIERS = ("data", "graph", "code")  # the most trusted first


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What every kind of plugin contribution declares.

    Args:
        name: Short name; the full name is `<distribution>/<name>`.
        version: Version of this contribution, recorded in the report.
        factory: Lazy "package.module:attribute", imported when first used.
        summary: One line for `medtrust plugins list`.
        requires: Importable packages that the factory needs beyond medtrust's own dependencies.
        extra: The extra, as in `pip install medtrust[extra]`, that brings `requires`.
    """

    name: str
    version: str
    factory: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    extra: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FormatSpec(Spec):
    """A file format: which suffixes and first bytes it reads."""

    suffixes: tuple[str, ...]
    magic: tuple[tuple[int, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSpec(Spec):
    """A feature space. `weights` names the weight file it needs (see `--weights NAME=PATH`), empty for none."""

    weights: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSpec(Spec):
    """A metric.

    Args:
        pillar: The question it belongs to.
        needs: Any of train, holdout, synthetic, images, features, generator, subgroups. Without a generator, where the
            synthetic set is a folder, the metric is skipped and the report says why; without named subgroups it is not
            planned.
        results: Ids it returns, "<pillar>.<name>"; empty means the one id made of pillar and name.
        spaces: Feature spaces it computes in; empty means every space the user chose, and the id gets "[space]".
        spaces_option: Option of the plugin, a list of names, that replaces `spaces`; ids of spaces that `spaces` does
            not name get "[space]".
        together: One call sees all its spaces, in `MetricInput.by_space`, and answers once.
        direction: Which way is better.
        range: Smallest and largest possible value; None where unbounded.
        unit: Unit of the estimate.
        min_samples: Images needed in each set it needs; fewer gives status "insufficient".
        min_patients: Patients needed in each real set it needs.
        deterministic: The same input and seed give the same bits.
        symmetric: train and synthetic may change places without changing the estimate.
        identity: The estimate for a set with itself; None where that is not one number.
        volumes: Takes volumes: where the audit is by volume (`--volumes`), it is given a row of features per volume
            and pixels [C, D, H, W]. Others are given the slices.
        citation: DOI or arXiv id of the method.
        title: Heading in the report.
        optional: Ran only when it is named in `--metrics`.
        mergeable: Results that sums of several sites can give, each with the name of the statistic that serves it;
            empty where the metric needs all rows in one place.
    """

    pillar: Pillar
    needs: tuple[str, ...] = ("train", "synthetic")
    results: tuple[str, ...] = ()
    spaces: tuple[str, ...] = ()
    spaces_option: str = ""
    together: bool = False
    direction: Direction = "none"
    range: tuple[float | None, float | None] = (None, None)
    unit: str = ""
    min_samples: int = 2
    min_patients: int = 1
    deterministic: bool = True
    citation: str = ""
    title: str = ""
    optional: bool = False
    symmetric: bool = False
    identity: float | None = None
    mergeable: tuple[tuple[str, str], ...] = ()
    volumes: bool = False

    @property
    def result_ids(self) -> tuple[str, ...]:
        """Ids without the feature space."""
        return self.results or (f"{self.pillar}.{self.name}",)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSpec(Spec):
    """A generator family or an adapter to somebody else's generator.

    Args:
        family: The kind of model.
        trainable: `medtrust train` can fit it.
        trust: What opening its artefact can do: "data" holds numbers alone, "graph" is computed by a fixed set of
            operations, "code" runs what came with it, so the host refuses it without `--allow-code`.
        target: What stands after the colon of `kind:…`: the path of a file or folder, or a text that the factory's
            `open` is handed as it is.
        network: It talks to a service, so the host refuses it under `--offline`.
    """

    family: Literal["gan", "vae", "diffusion", "hybrid", "conditional", "folder", "other"] = "other"
    trainable: bool = False
    trust: Literal["data", "graph", "code"] = "data"
    target: Literal["path", "text"] = "path"
    network: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainerSpec(Spec):
    """An explanation method; its factory names a function `(score, images) -> maps`, see `Explainer`.

    Args:
        needs: Sets it looks at beyond the images it is given.
        citation: DOI or arXiv id of the method.
        title: Heading in the report.
        optional: Ran only when it is named in `--metrics`.
    """

    needs: tuple[str, ...] = ("synthetic",)
    citation: str = ""
    title: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFormat(Spec):
    """A rendering of the report: a pure function (report dict, folder with the evidence) -> bytes."""

    filename: str
    media_type: str = "text/plain"
