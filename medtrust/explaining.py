"""Run explainers on what metrics offer, and hold every explanation to its own tests before it is believed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from medtrust.engine import plugin_failure
from medtrust.errors import Insufficient
from medtrust.guarding import guarded
from medtrust.host import BrokenPluginError
from medtrust.seeding import derive_seed
from medtrust.types import (
    Attribution,
    Estimate,
    Evidence,
    Interval,
    Null,
    Picture,
    PluginFailure,
    Resolution,
    Result,
    SelfTest,
    Target,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from medtrust.host import Contribution, Host
    from medtrust.progress import Progress

__all__ = ["Marks", "assess", "attribute", "explain", "run_explainers", "seen"]

ASSESSED = 32  # images that an explanation is tested on
SHOWN = 6  # maps in the gallery
DRAWS = 5  # networks with fresh parameters
COMPARED = 16  # images whose maps by them are compared
PIXELS = 64 * 64 * ASSESSED  # about as many pixels as the removal test fills in
MOST_RESIDUAL = 0.1  # share of the score that a map which promises to add up may leave unexplained
MOST_ALIKE = 0.3  # rank correlation with the map of a network that knows nothing


@dataclass(frozen=True, slots=True)
class Marks:
    """What the tests of an explanation say.

    Args:
        gap: Removal gap per image, in standard deviations of the score.
        floor: The same for maps of the same values in random places.
        alike: Rank correlation with the maps of a network with random parameters, one per network; empty if not run.
        inside: Average precision on a planted artefact per image, less the best of the baselines; empty if not run.
        planted: Mean average precision, share of mass and pointing hits, of the map and of each baseline.
        residual: Unexplained share of the score, for methods that promise to add up.
    """

    gap: Any
    floor: Any
    alike: Any
    inside: Mapping[str, Any]
    planted: Mapping[str, float]
    residual: float | None


def run_explainers(
    chosen: Sequence[Contribution],
    results: Sequence[Result],
    host: Host,
    *,
    level: float,
    seed: int,
    progress: Progress,
    timeout: float | None = None,
) -> tuple[list[Result], list[PluginFailure], dict[str, float]]:
    """Run every explainer on every result that offers a target; a failure is one row.

    Args:
        chosen: The explainers.
        results: What the metrics answered.
        host: Loads the explainers.
        level: Confidence level.
        seed: Root seed.
        progress: Where to report.
        timeout: Seconds that one explainer may take; None for no limit.

    Returns:
        One result per explainer and target, failures, and seconds by result id.
    """
    targets = [(r, r.target) for r in results if r.target is not None and r.status == "ok" and not r.subgroup]
    rows: list[Result] = []
    failures: list[PluginFailure] = []
    seconds: dict[str, float] = {}
    jobs = [(c, r, t) for r, t in targets for c in chosen]
    if not jobs:
        return rows, failures, seconds
    with progress.stage("explanations", len(jobs)) as stage:
        for c, result, target in jobs:
            began = time.perf_counter()
            base = result.id.split(".", 1)[1]
            identity = {
                "id": f"explanation.{c.spec.name}[{base}]",
                "pillar": "explanation",
                "title": f"{c.spec.title or c.spec.name}: {target.question}",
                "metric": c.full_name,
                "metric_version": c.spec.version,
                "citation": c.spec.citation,
            }
            if c.status != "ok":
                row = Result(status="skipped", reason=c.status, **identity)
            else:
                try:
                    with guarded(timeout, f"{c.full_name} of {c.source.label}"):
                        own = derive_seed(seed, "explain", c.full_name, base)
                        row = explain(host.load(c), target, level=level, seed=own)
                except Insufficient as shortage:
                    row = Result(status="insufficient", reason=str(shortage))
                except BrokenPluginError as broken:
                    row, failure = Result(status="error", reason=str(broken)), broken.failure
                    failures.append(failure)
                except (Exception, SystemExit) as error:
                    failure = plugin_failure(c, error)
                    row = Result(status="error", reason=f"{c.full_name} failed: {failure.error}")
                    failures.append(failure)
                row = _identified(row, identity)
            rows.append(row)
            seconds[identity["id"]] = time.perf_counter() - began
            stage.advance()
    return rows, failures, seconds


def _identified(row: Result, identity: Mapping[str, str]) -> Result:
    return replace(row, **identity)  # type: ignore[arg-type]


def explain(explainer: Any, target: Target, *, level: float = 0.95, seed: int = 0) -> Result:
    """Explain a target, test the explanation, and draw it.

    Args:
        explainer: What an `ExplainerSpec` names.
        target: What to explain.
        level: Confidence level.
        seed: Seed of the tests.

    Returns:
        The removal gap with its interval and, as evidence, the maps. An explanation that fails one of its tests has
        the status "insufficient": its maps are shown, with the reason not to believe them.

    Raises:
        Insufficient: There is nothing to explain, or too few images to test the explanation on.
        TypeError: The explainer's answer is no map.
        ValueError: The map has another size than the images, or holds what is no number.
    """
    if target.nothing:
        raise Insufficient(target.nothing)
    marks, maps = assess(explainer, target, seed)
    gap, floor = _mean(marks.gap, level, "images"), _mean(marks.floor, level, "images")
    facts: dict[str, float | int | str | bool] = {"images": len(maps), "images_tested": len(marks.gap), **marks.planted}
    if marks.residual is not None:
        facts["share_unexplained"] = marks.residual
    problems, detail = [], []
    if gap.lo <= 0:
        problems.append(f"removing what it points at lowers the score no more than removing the rest ({_span(gap)})")
    if len(marks.alike):
        alike = _mean(marks.alike, level, "random networks")
        facts["correlation_with_random_network"] = _middle(marks.alike)
        detail.append(f"rank correlation with random networks {_middle(marks.alike):.2f} ({_span(alike)})")
        if abs(_middle(marks.alike)) > MOST_ALIKE:
            problems.append(f"networks with random parameters give much the same map ({detail[-1]})")
    if marks.inside and target.probe is not None:
        short = [name for name, gains in marks.inside.items() if _mean(gains, level, "images").lo <= 0]
        found = marks.planted["planted_average_precision"]
        detail.append(f"average precision {found:.2f} on a planted {target.probe.artefact}")
        if short:
            problems.append(f"a planted {target.probe.artefact} is not found better than by {' and '.join(short)} maps")
    if marks.residual is not None and marks.residual > MOST_RESIDUAL:
        problems.append(f"it leaves {marks.residual:.0%} of the score unexplained, more than {MOST_RESIDUAL:.0%}")
    whole = len(marks.alike) and marks.inside
    state: Any = "failed" if problems else "ok" if whole else "not_run"
    said = "; ".join([*problems, *detail]) or "no random network and no planted artefact were offered"
    evidence = _gallery(maps, target, bool(problems))
    if problems:
        return Result(
            status="insufficient",
            reason=f"INCONCLUSIVE, do not believe these maps: {'; '.join(problems)}",
            selftest=SelfTest("failed", said),
            evidence=evidence,
            facts=facts,
        )
    spread = float(marks.floor.std(ddof=1) / len(marks.floor) ** 0.5)
    from medtrust.stats import min_detectable

    reach = min_detectable(max(spread, 1e-9), level, len(marks.floor) - 1)
    return Result(
        estimate=Estimate(_middle(marks.gap), "SD of score", "higher"),
        interval=gap,
        null=Null("the same maps in random places", _middle(marks.floor), floor),
        resolution=Resolution(
            reach, 0.8, f"With {len(marks.gap)} images, a removal gap below {reach:.2g} cannot be told from 0."
        ),
        selftest=SelfTest(state, said),
        evidence=evidence,
        facts=facts,
    )  # fmt: skip


def attribute(explainer: Any, score: Any, images: Tensor) -> tuple[Tensor, float | None]:
    """Ask an explainer for maps and check what it answers.

    Returns:
        Maps [N, H, W] at least 0 (channels are added, what lowers the score becomes 0), and the unexplained share.

    Raises:
        TypeError: No tensor.
        ValueError: Another size than the images, or numbers that are not finite.
    """
    import torch

    answer = explainer(score, images.clone())
    residual = answer.residual if isinstance(answer, Attribution) else None
    maps = answer.maps if isinstance(answer, Attribution) else answer
    if not isinstance(maps, torch.Tensor):
        raise TypeError(f"an explainer must return a tensor or an Attribution, it returned a {type(maps).__name__}")
    if maps.ndim == 4:
        maps = maps.sum(1)
    wanted = (len(images), *images.shape[-2:])
    if tuple(maps.shape) != wanted:
        raise ValueError(f"the maps are {list(maps.shape)}, the images ask for {list(wanted)}")
    if not bool(maps.isfinite().all()):
        raise ValueError("the maps hold values that are not finite")
    return maps.detach().float().clamp_min(0), residual


def assess(explainer: Any, target: Target, seed: int = 0) -> tuple[Marks, Tensor]:
    """Mark an explanation: removal, random parameters, planted artefact, additivity.

    Args:
        explainer: What an `ExplainerSpec` names.
        target: What to explain.
        seed: Seed of the tests.

    Returns:
        The marks, and the maps of all images of the target, [N, H, W].

    Raises:
        Insufficient: Fewer than 8 images.
    """
    import numpy as np
    import torch

    from medtrust.stats import attribution as tests

    images = target.images
    few = min(len(images), ASSESSED, max(8, PIXELS // (images.shape[-1] * images.shape[-2])))
    if few < 8:
        raise Insufficient(f"an explanation is tested on 8 images at least, there are {few}")
    maps, residual = attribute(explainer, target.score, images)
    with torch.no_grad():
        known = [images] if target.score.baselines is None else [images, target.score.baselines]
        spread = float(torch.cat([target.score(part) for part in known]).double().std().clamp_min(1e-12))
    some = images[:few]
    gap = tests.road_gap(target.score, some, maps[:few], derive_seed(seed, "removal")) / spread
    moved = tests.random_maps(maps[:few], derive_seed(seed, "floor"))
    floor = tests.road_gap(target.score, some, moved, derive_seed(seed, "removal")) / spread
    alike = []
    if target.randomised is not None:
        for draw in range(DRAWS):
            fresh = target.randomised(derive_seed(seed, "parameters", draw))
            other, _ = attribute(explainer, fresh, some[:COMPARED])
            alike.append(float(tests.rank_correlation(maps[: len(other)], other).mean()))
    inside: dict[str, Any] = {}
    planted: dict[str, float] = {}
    if target.probe is not None:
        probe = target.probe
        found, _ = attribute(explainer, probe.score, probe.images)
        height, width = found.shape[1:]
        rivals = {
            "random": tests.random_maps(found, derive_seed(seed, "random")),
            "centred": tests.centre_map(height, width).expand_as(found),
            "edge": tests.edge_map(probe.images),
        }
        own = tests.average_precision(found, probe.masks)
        inside = {name: own - tests.average_precision(rival, probe.masks) for name, rival in rivals.items()}
        planted = {"planted_average_precision": float(own.mean())}
        planted |= {f"planted_average_precision_of_{name}": float(own.mean() - d.mean()) for name, d in inside.items()}
        planted["planted_share_of_mass"] = float(tests.mass_inside(found, probe.masks).mean())
        planted["planted_pointing_hits"] = float(tests.pointing_hit(found, probe.masks).mean())
    return Marks(gap, floor, np.array(alike), inside, planted, residual), maps


def seen(heat: torch.Tensor) -> str:
    """Say in words where a map [H, W] is high: what its picture's alternative text tells."""
    total = float(heat.sum())
    if total <= 0:
        return "the map is empty"
    height, width = heat.shape
    order = heat.flatten().sort(descending=True).values.cumsum(0)
    share = (int((order < 0.5 * total).sum()) + 1) / heat.numel()
    peak = int(heat.argmax())
    y, x = (peak // width + 0.5) / height, (peak % width + 0.5) / width
    up = ("top ", "", "bottom ")[min(2, int(3 * y))]
    side = ("left", "centre", "right")[min(2, int(3 * x))]
    return f"strongest at the {up}{side}, half of it on {share:.0%} of the image"


def _gallery(maps: Tensor, target: Target, doubtful: bool) -> tuple[Evidence, ...]:
    """The most telling images with their maps on one scale, then the mean map of all."""
    shown = maps[:SHOWN]
    top = float(shown.flatten(1).amax(1).median()) or 1.0
    warning = "failed its tests: " if doubtful else ""
    items = []
    with_scores = target.score(target.images[:SHOWN]).tolist()
    for rank, (source, heat, value) in enumerate(zip(target.sources, shown, with_scores, strict=False), start=1):
        words = f"{source[0]} image {source[1]}"
        pictures = (
            Picture("image", words, (source,)),
            Picture(
                "where",
                f"{warning}map over {words}: {seen(heat)}",
                (source,),
                heat=heat.numpy(),
                heat_top=top,
            ),
        )
        items.append(Evidence("heat map", target.question.capitalize(), rank, {"score": float(value)}, pictures))
    mean = maps.mean(0)
    mean_top = float(mean.max())
    if mean_top > 0:
        alt = f"{warning}mean map of {len(maps)} images: {seen(mean)}"
        picture = Picture("mean map", alt, heat=mean.numpy(), heat_top=mean_top)
        items.append(Evidence("mean map", f"Mean over {len(maps)} images", len(items) + 1, {}, (picture,)))
    return tuple(items)


def _mean(values: Any, level: float, unit: str) -> Interval:
    from medtrust.stats import t_quantile

    n = len(values)
    middle = float(values.mean())
    reach = t_quantile(level, n - 1) * float(values.std(ddof=1)) / n**0.5
    return Interval(middle - reach, middle + reach, level, f"t over {unit}", n, unit.removesuffix("s"))


def _middle(values: Any) -> float:
    return float(values.mean())


def _span(interval: Interval) -> str:
    return f"{interval.lo:.2g} to {interval.hi:.2g}"
