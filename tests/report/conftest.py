"""Realistic reports: one that passes, one with planted copies that fails, one that cannot be decided."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medtrust.gate import judge, load_policy
from medtrust.report import TrustReport, build_report
from medtrust.types import (
    Estimate,
    Evidence,
    Interval,
    Null,
    Picture,
    PluginFailure,
    Resolution,
    Result,
    SelfTest,
    TestOutcome,
)

SPACE = "radiomics"


@cache
def tissue(seed: int, size: int = 48) -> np.ndarray:
    """Draw a smooth image that looks like a lesion: [H, W, 3] uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    angle, cx, cy = rng.uniform(0, np.pi), *rng.uniform(-0.25, 0.25, 2)
    u = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
    v = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
    radius = np.sqrt((u / rng.uniform(0.45, 0.7)) ** 2 + (v / rng.uniform(0.35, 0.6)) ** 2)
    radius = radius + 0.12 * np.sin(rng.integers(3, 7) * np.arctan2(v, u) + rng.uniform(0, 6))
    lesion = 1 / (1 + np.exp(9 * (radius - 0.8)))
    grain = rng.normal(0, 1, (size, size))
    for axis in (0, 1):
        grain = sum(np.roll(grain, k, axis) for k in range(-2, 3)) / 5
    skin = np.array([226, 178, 154]) + rng.normal(0, 8, 3)
    spot = np.array([118, 70, 54]) + rng.normal(0, 14, 3)
    image = skin + (spot - skin) * lesion[..., None] + 60 * grain[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def save(folder: Path, pixels: np.ndarray) -> tuple[str, str]:
    """Write a PNG the way the host does; returns path and digest."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    digest = hashlib.sha256(stream.getvalue()).hexdigest()
    path = f"evidence/{digest[:24]}.png"
    (folder / "evidence").mkdir(parents=True, exist_ok=True)
    (folder / path).write_bytes(stream.getvalue())
    return path, digest


def pair(folder: Path, rank: int, rho: float, copied: bool) -> Evidence:
    """One synthetic image beside its nearest real ones."""
    train, holdout = tissue(100 + rank), tissue(500 + rank)
    noise = np.random.default_rng(rank).normal(0, 4, train.shape)
    synthetic = np.clip(train + noise, 0, 255).astype(np.uint8) if copied else tissue(900 + rank)
    difference = np.abs(synthetic.astype(int) - train).astype(np.uint8)
    pictures = []
    for role, alt, pixels, sources, name in (
        ("synthetic", "synthetic image", synthetic, (("synthetic", 40 + rank),), f"sample-{40 + rank:06d}"),
        ("nearest train", "nearest training image", train, (("train", rank),), f"a91f{rank:02d}c07b3e"),
        ("nearest holdout", "nearest holdout image", holdout, (("holdout", rank),), f"77d0{rank:02d}51ff02"),
        ("difference", "absolute difference", difference, (("synthetic", 40 + rank), ("train", rank)), "difference"),
    ):
        path, digest = save(folder, pixels)
        pictures.append(Picture(role, alt, sources, None, role != "synthetic", name, path, digest))
    facts = {"ρ": rho, "distance to train": rho * 3.1, "distance to holdout": 2.84 + rank / 50, "conformal p": 0.0016}
    return Evidence("pair", f"sample-{40 + rank:06d} and its nearest real images", rank, facts, tuple(pictures))


def real_sets() -> dict:
    """Descriptions of the three sets."""
    common = {
        "patients_known": True,
        "modality": "XC",
        "bit_depth": 8,
        "intensity": {"lo": 0.0, "hi": 255.0, "unit": "level", "window": None},
        "spacing_mm": None,
    }
    return {
        name: {
            "n_images": n,
            "n_patients": patients,
            **common,
            "manifest_sha256": hashlib.sha256(name.encode()).hexdigest(),
        }
        for name, n, patients in (("train", 880, 600), ("holdout", 861, 600), ("synthetic", 700, None))
    }


RUN = {
    "tool": {"name": "medtrust", "version": "0.1.0"},
    "seed": {"root": 0, "derivation": "sha256(root ':' name ':' …)[:8] & (2**63 - 1)"},
    "level": 0.95,
    "device": "cpu",
    "evidence": "full",
    "features": {SPACE: hashlib.sha256(b"space").hexdigest()},
    "plugins": [
        {"name": "fidelity", "distribution": "medtrust", "version": "0.1.0", "status": "ok"},
        {"name": "privacy", "distribution": "medtrust", "version": "0.1.0", "status": "ok"},
    ],
    "env": {"python": "3.11.9", "machine": "x86_64", "torch": "2.15.0", "numpy": "2.3.4"},
}
SUBJECT = {
    "kind": "vae",
    "name": "conv-vae (32 px, 60 s)",
    "artifact": {"format": "safetensors", "sha256": hashlib.sha256(b"weights").hexdigest()},
    "sampling": {"n": 700, "seed": 4611686018427387904123 % 2**63},
}


def bounded(lo: float, hi: float, units: int = 600) -> Interval:
    """A 95 % interval by patients."""
    return Interval(lo, hi, 0.95, "patient bootstrap, 500 resamples", units)


def row(name: str, title: str, value: float, lo: float, hi: float, direction: str, null: float, **more) -> Result:
    """A result with interval and real-against-real null in the feature space."""
    pillar = name.partition(".")[0]
    return Result(
        estimate=Estimate(value, more.pop("unit", ""), direction),
        interval=bounded(lo, hi),
        null=Null("train against holdout, 600 patients each", null, bounded(null * 0.93, null * 1.06)),
        id=f"{name}[{SPACE}]" if more.pop("space", True) else name,
        pillar=pillar,
        title=title,
        metric=f"medtrust/{name.partition('.')[2]}",
        metric_version="1",
        features=SPACE,
        **more,
    )


def fidelity_and_diversity(blur: float = 0.0) -> list[Result]:
    """The rows of a generator that is blurry by `blur`."""
    fd, kid, precision, recall = 14.2 + 90 * blur, 0.0031 + blur / 20, 0.81 - blur, 0.66 - 0.6 * blur
    coverage, ssim = 0.87 - 0.4 * blur, 0.34 + blur / 4
    return [
        row(
            "fidelity.fd", "Fréchet distance", fd, 0.91 * fd, 1.1 * fd, "lower", 6.31,
            citation="Heusel et al. 2017, arXiv:1706.08500",
            resolution=Resolution(1.9, 0.8, "An increase below 1.9 could not have been seen with 600 patients."),
            facts={"FD∞": 0.93 * fd, "ratio": 6.31 / fd},
            notes=("Interval from Richardson extrapolation with a delete-half standard error, by patient.",),
        ),
        row("fidelity.kid", "Kernel distance (KID)", kid, 0.6 * kid, 1.4 * kid, "lower", 0.0002),
        row("fidelity.precision", "Precision", precision, precision - 0.04, precision + 0.04, "higher", 0.93),
        row("diversity.recall", "Recall", recall, recall - 0.05, recall + 0.04, "higher", 0.92),
        row("diversity.coverage", "Coverage", coverage, coverage - 0.03, coverage + 0.03, "higher", 0.97),
        row("diversity.ssim", "Mean SSIM between samples", ssim, ssim - 0.01, ssim + 0.02, "none", 0.29, space=False),
    ]  # fmt: skip


def privacy(p: float, folder: Path | None, copies: int = 0) -> list[Result]:
    """The rows of the privacy pillar, with `copies` planted."""
    evidence = tuple(pair(folder, i + 1, 0.06 + 0.02 * i, i < copies) for i in range(8)) if folder else ()
    copying = Result(
        estimate=Estimate(0.5 + min(0.5, copies / 40), "in train", "lower"),
        interval=Interval(0.31 + copies / 60, min(1.0, 0.69 + copies / 60), 0.95, "Clopper–Pearson", 20, "pair"),
        test=TestOutcome(10 + copies / 2, p, min(1.0, 2 * p), "privacy"),
        null=Null("share of train among the patients", 0.5),
        resolution=Resolution(0.016, 0.8, "Copies below 1.6 % of the samples would have gone unseen at this size."),
        selftest=SelfTest(
            "ok",
            "Planted copies at 2 % were found in 93 of 100 repetitions; copy-free sets raised 5 alarms.",
            auc=0.97,
            size=0.05,
            power=0.93,
        ),
        evidence=evidence,
        facts={"closest pairs": 20, "from train": 10 + copies // 2, "smallest K that can reject": 5},
        notes=("Exact when train and holdout are a random split of the same patients.",),
        id="privacy.cpm", pillar="privacy", title="Close-pair membership",
        metric="medtrust/cpm", metric_version="1", features="pixels",
    )  # fmt: skip
    counts = [
        Result(
            estimate=Estimate(n, "images", "lower"), id=f"privacy.{name}", pillar="privacy", title=title,
            metric=f"medtrust/{name}", metric_version="1", facts={"within train": 3, "train–holdout": 0},
        )
        for name, title, n in (
            ("duplicates", "Exact duplicates of training images", copies // 3),
            ("near_duplicates", "Near duplicates of training images", copies),
        )
    ]  # fmt: skip
    return [copying, *counts]


def finish(results: list[Result], data: dict, subject: dict = SUBJECT, failures: tuple = ()) -> TrustReport:
    """Assemble and judge by the demo policy."""
    report = build_report(run=RUN, subject=subject, data=data, results=results, failures=failures)
    return judge(report, load_policy("demo"))


def passing(folder: Path | None) -> TrustReport:
    """No copies."""
    return finish([*fidelity_and_diversity(), *privacy(0.41, folder)], real_sets())


def failing(folder: Path | None) -> TrustReport:
    """Six planted copies from a blurry generator."""
    return finish([*fidelity_and_diversity(0.45), *privacy(0.00002, folder, copies=6)], real_sets())


def undecided(folder: Path | None) -> TrustReport:
    """No holdout set, unknown patients, a metric that crashed and a plugin that does not load."""
    data = real_sets()
    del data["holdout"]
    data["train"] |= {"patients_known": False, "n_patients": 880}
    crash = "ValueError: cannot reshape array of size 3 into shape (2,2)"
    no_holdout = "needs a holdout set: real images of other patients that the generator never saw (--holdout)"
    about = {"metric": "medtrust/cpm", "metric_version": "1", "title": "Close-pair membership", "pillar": "privacy"}
    noise = {"metric": "acme/noise", "metric_version": "0.3", "title": "Noise spectrum", "pillar": "physics"}
    results = [
        *(replace(r, null=None) for r in fidelity_and_diversity(0.1)[:3]),
        Result(status="insufficient", reason=no_holdout, id="privacy.cpm", **about),
        *privacy(0.4, None)[1:],
        Result(status="error", reason=f"acme/noise failed: {crash}", id="physics.noise", **noise),
    ]
    remedy = "report it to the authors of acme-metrics, or leave noise out with --metrics"
    failures = (PluginFailure("acme", "acme-metrics 0.3", "run", crash, remedy),)
    return finish(results, data, {"kind": "folder", "name": "samples"}, failures)


CASES = {"pass": passing, "fail": failing, "undecided": undecided}


@pytest.fixture(params=sorted(CASES))
def case(request, tmp_path) -> tuple[str, TrustReport, Path]:
    """Each of the three reports with the folder of its evidence."""
    return request.param, CASES[request.param](tmp_path), tmp_path


@pytest.fixture
def failed(tmp_path) -> tuple[TrustReport, Path]:
    """The report with planted copies."""
    return failing(tmp_path), tmp_path


HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</style><script>alert(1)</script>",
    "\"><svg onload=alert(1)>' onmouseover='x",
    "=cmd|' /C calc'!A0",
    "{{ 7 * 7 }}{% raw %}",
    "a\x00b\x1b[31mc\u202egnp.exe\u2028d",
    "n" * 10_240,
    "javascript:alert(1)",
]


def hostile_report(text: str):
    picture = Picture(text, text, (("synthetic", 0),), None, False, text, text, "0" * 64)
    row = Result(
        estimate=Estimate(1.0, text, "lower"), id=f"privacy.{text}", pillar="privacy", title=text, metric=text,
        metric_version=text, features=text, citation=text, subgroup=text, notes=(text,), facts={text: text},
        evidence=(Evidence(text, text, 1, {text: text}, (picture,)),), resolution=Resolution(0.1, 0.8, text),
        selftest=SelfTest("ok", text),
    )  # fmt: skip
    stranger = Result(status="error", reason=text, id=text, pillar=text, title=text)
    data = {"train": {"n_images": 1, "modality": text, "intensity": {"lo": 0, "hi": 1, "unit": text}, text: text}}
    return build_report(
        run={"tool": {"name": "medtrust", "version": text}, text: text, "plugins": [{"name": text, text: text}, text]},
        subject={"name": text, "kind": text, text: text},
        data=data,
        results=[row, stranger],
        failures=[PluginFailure(text, text, "run", text, text)],
    )


@pytest.fixture(params=HOSTILE, ids=range(len(HOSTILE)))
def hostile(request) -> str:
    """A name that tries to be more than a name."""
    return request.param


@pytest.fixture
def report_of_names() -> Callable[[str], TrustReport]:
    """Builds a report in which every foreign text is the given one."""
    return hostile_report
