"""Explain a user's classifier on a set of images, and write the report."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medtrust import __version__
from medtrust.classifier import Classifier, layers, load_classifier
from medtrust.errors import ConfigError, DataError
from medtrust.evidence import check_policy, illustrate
from medtrust.explaining import run_explainers
from medtrust.pseudonyms import Pseudonyms
from medtrust.seeding import DERIVATION, derive_seed
from medtrust.types import Intensity, Result, SetName, Target
from medtrust.writing import ensure_folder, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

    from medtrust.host import Host
    from medtrust.images import ImageSet
    from medtrust.progress import Progress
    from medtrust.report import TrustReport

__all__ = ["Inputs", "explain_classifier", "layers_of"]

BASELINES = 8
LEAST_USED = 0.05  # share of the declared range below which a network sees nothing


@dataclass(frozen=True, slots=True)
class Inputs:
    """Which images a classifier is explained on, and how they reach it.

    Args:
        images: A set in any form that `medtrust audit` takes.
        size: Height and width to bring images to; None for what the model asks for.
        span: What the declared range becomes at the model's input.
        role: What the images are: train, holdout or synthetic.
        most: Images to look at, evenly spread over the set.
        intensity: Declared range, where the files leave it open.
    """

    images: Path
    size: tuple[int, int] | None = None
    span: tuple[float, float] = (0.0, 1.0)
    role: SetName = "holdout"
    most: int = 64
    intensity: Intensity | None = None


def explain_classifier(
    model: Path,
    inputs: Inputs,
    *,
    out: Path,
    progress: Progress,
    explainers: Sequence[str] = ("hirescam",),
    label: int | None = None,
    layer: str = "",
    evidence: str = "none",
    seed: int = 0,
    allow_code: bool = False,
    host: Host | None = None,
) -> TrustReport:
    """Explain a classifier and write report.json and report.html.

    Args:
        model: .onnx or TorchScript.
        inputs: The images.
        out: Folder of the report.
        progress: Where to report.
        explainers: Names of explainers.
        label: Class to explain; None for the one predicted for each image.
        layer: Layer for class activation maps; empty for the last one with a map.
        evidence: none, blur or full.
        seed: Root seed.
        allow_code: Open TorchScript.
        host: A plugin host; a new one when not given.

    Returns:
        The report, not judged by any policy.

    Raises:
        MedtrustError: With a sentence that names the file or option and the remedy.
    """
    from medtrust.api import refuse_leaks, render_report, write_private
    from medtrust.host import build_host
    from medtrust.report import build_report
    from medtrust.weights import sha256_of

    policy = check_policy(evidence)
    host = host or build_host()
    chosen = [host.find("explainer", name) for name in dict.fromkeys(explainers)]
    classifier = load_classifier(model, allow_code=allow_code)
    opened, rows, pixels = _images(classifier, inputs, host)
    own = classifier.score(label, layer, pixels[:BASELINES])
    _check(own, pixels, model)
    target = Target(
        score=own,
        images=pixels,
        sources=tuple((opened.name, row) for row in rows),
        question="what speaks for " + ("the predicted class" if label is None else f"class {label}"),
        randomised=lambda s: classifier.score(label, layer, pixels[:BASELINES], derive_seed(s, "random")),
    )
    subject = Result(id="classifier.classifier", status="ok", target=target)
    results, failures, _ = run_explainers(chosen, [subject], host, level=0.95, seed=seed, progress=progress)
    place = ensure_folder(out)
    drawn, lookup = illustrate(results, {opened.name: opened}, opened.intensity, policy, place, Pseudonyms())
    report = build_report(
        run={
            "tool": {"name": "medtrust", "version": __version__},
            "seed": {"root": seed, "derivation": DERIVATION},
            "evidence": policy,
            "plugins": host.plugins(),
            "env": {"python": platform.python_version(), "torch": metadata.version("torch")},
        },
        subject={"name": model.name, "kind": "classifier", "sha256": sha256_of(model)},
        data={opened.name: opened.describe()},
        results=drawn,
        failures=[*host.failures, *failures],
    )
    outputs = render_report(report, place, ["html"], host)
    refuse_leaks(outputs, {opened.name: opened})
    write_private(place, lookup)
    for filename, content in outputs.items():
        write_atomically(place / filename, content)
    return report


def layers_of(model: Path, inputs: Inputs, *, allow_code: bool = False) -> dict[str, tuple[int, ...]]:
    """Layers of a classifier that class activation maps can look at, with the shape [K, h, w] of their maps."""
    from medtrust.host import build_host

    classifier = load_classifier(model, allow_code=allow_code)
    _, _, pixels = _images(classifier, replace(inputs, most=1), build_host())
    return layers(classifier.score(None), pixels)


def _images(classifier: Classifier, inputs: Inputs, host: Host) -> tuple[ImageSet, list[int], Tensor]:
    """Open the set and bring some of its images to the classifier's size and range."""
    import numpy as np
    import torch
    from torch.nn import functional

    from medtrust.images import normalise, open_set
    from medtrust.sources import readers_of

    opened = open_set(inputs.images, inputs.role, readers_of(host), intensity=inputs.intensity)
    rows = np.unique(np.linspace(0, len(opened) - 1, min(inputs.most, len(opened))).round().astype(int)).tolist()
    wanted = inputs.size or classifier.size
    parts: list[Any] = []
    for row in rows:
        record = opened[row]
        if record.pixels.ndim != 3:
            raise DataError(f"{record.name} is no [C, H, W] image")
        one = torch.from_numpy(np.ascontiguousarray(normalise(record.pixels, opened.intensity)))[None]
        if wanted and tuple(one.shape[-2:]) != wanted:
            one = functional.interpolate(one, size=wanted, mode="bilinear", antialias=True, align_corners=False)
        parts.append(one)
    if len({part.shape for part in parts}) > 1:
        raise DataError("the images differ in size or channels; add --size, or bring them to one number of channels")
    used = max(float(part.max() - part.min()) for part in parts)
    if used < LEAST_USED:
        raise DataError(
            f"the images use {used:.1%} of the declared range {opened.intensity.lo:g} to {opened.intensity.hi:g}: the "
            "model would see a flat field; declare what they span with --intensity LO:HI:UNIT"
        )
    return opened, rows, torch.cat(parts) * (inputs.span[1] - inputs.span[0]) + inputs.span[0]


def _check(score: Any, pixels: Tensor, model: Path) -> None:
    import torch

    try:
        with torch.no_grad():
            score(pixels[:1])
    except (RuntimeError, ValueError, IndexError) as error:
        shape = " x ".join(map(str, pixels.shape[1:]))
        text = " ".join(str(error).split())[:200]
        raise ConfigError(f"{model} cannot take images of {shape} ({text}); see --size") from error
