"""One call from image sets to a judged trust report: what the command line and `medtrust.audit` run."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs

from medtrust import __version__
from medtrust.config import did_you_mean
from medtrust.engine import run_plan
from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.evidence import check_policy, illustrate
from medtrust.explaining import run_explainers
from medtrust.guarding import account
from medtrust.planning import Plan, make_plan
from medtrust.progress import Progress, QuietProgress
from medtrust.pseudonyms import Pseudonyms
from medtrust.seeding import DERIVATION, derive_seed
from medtrust.types import Generator, Intensity, SetName
from medtrust.writing import ensure_folder, write_atomically

if TYPE_CHECKING:
    from medtrust.config import Config
    from medtrust.host import Host
    from medtrust.images import ImageSet, Slices
    from medtrust.report import TrustReport
    from medtrust.validity import SpaceCheck

__all__ = ["audit", "refuse_leaks", "render_report", "write_private"]

MOST_SUBGROUPS = 20
SHOWN_PACKAGES = ("medtrust", "torch", "numpy", "pluggy")


def audit(
    *,
    train: str | Path,
    synthetic: str | Path,
    holdout: str | Path | None = None,
    features: str | Sequence[str] = ("radiomics",),
    metrics: str | Sequence[str] = "all",
    subgroups: str | Sequence[str] = (),
    policy: str | Path = "research",
    baseline: str | Path | None = None,
    strict: bool = False,
    out: str | Path | None = None,
    formats: Sequence[str] = ("html",),
    evidence: str = "none",
    seed: int = 0,
    level: float = 0.95,
    metric_timeout: float | None = None,
    patients: str | None = None,
    intensity: Intensity | None = None,
    slices: Slices | None = None,
    volumes: str | None = None,
    n_synthetic: int | None = None,
    condition: str | None = None,
    weights: Mapping[str, Path] | None = None,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    config: Config | None = None,
    device: str = "cpu",
    precision: str = "fp32",
    engine: str = "local",
    ray_address: str | None = None,
    workers: int | None = None,
    batch_size: int = 64,
    offline: bool | None = None,
    allow_code: bool = False,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    host: Host | None = None,
) -> TrustReport:
    """Audit a generator: compare synthetic images with the real ones it was fitted on.

    Args:
        train: The real images that the generator was fitted on: folder, manifest.csv, npz, DICOM or NIfTI tree.
        synthetic: What the generator made, in the same forms, or a generator as `kind:path?option=value`.
        holdout: Real images from the same source, of other patients, never used to fit. Without it no copy test can
            be run, and the report says so.
        features: Feature spaces to compare in.
        metrics: Names; "all" stands for those that run unasked, "optional" for those that do not.
        subgroups: Columns of the manifests that hold each image's subgroup, such as sex or site; in that of
            synthetic it holds what the generator was asked for.
        policy: A policy file, or the name of a ready one: research, clinical-strict, ci-smoke.
        baseline: An earlier report.json that non-regression gates compare with.
        strict: A WARN exits 1.
        out: Folder for the report; None writes nothing and draws no evidence.
        formats: Renderings to write beside report.json.
        evidence: none, blur or full: which pictures may leave.
        seed: Root seed; the same call twice gives the same bytes.
        level: Confidence level of every interval.
        metric_timeout: Seconds that one metric or explainer may take; one that takes longer becomes an error row.
        patients: Regular expression that finds the patient in a file's path.
        intensity: Declared range, where the files leave it open.
        slices: Which slices of volumes to look at, the same in every set; see `medtrust.images.parse_slices`.
        volumes: Compare volumes instead of slices: "mean" or "mean-sd" says how the features of a volume are made of
            those of its slices.
        n_synthetic: How many images to draw from a generator; as many as train has when not given.
        condition: What to ask a generator for: `medtrust.conditions.read_conditions` says how it is written.
        weights: Weight files by name.
        options: Options by plugin name, handed to its metrics.
        config: Settings with their origins: told to plugins, kept in run.json; its plugin tables are the options when
            none are given.
        device: cpu or cuda.
        precision: fp32 or bf16, for feature spaces that run a network; docs/features.md says what bf16 changes.
        engine: local or ray: who decodes images, extracts features and searches neighbours. It changes no byte of the
            report; see docs/scale.md.
        ray_address: HOST:PORT of a running Ray cluster; a private one is started on this machine when not given.
        workers: Decoding threads of local, worker processes of ray.
        batch_size: Images per extraction batch.
        offline: Never open a socket; true by default under CI.
        allow_code: A generator's artefact may bring code and have it run, in a process with limits.
        cache: Folder of the feature store.
        progress: Where to report progress; silent when not given.
        host: A plugin host; a new one when not given.

    Returns:
        The judged report; it has been written to `out` when that was given.

    Raises:
        MedtrustError: With a sentence that names the file, plugin or option and the remedy.
    """
    from medtrust import gate
    from medtrust.cache import FeatureStore
    from medtrust.host import build_host
    from medtrust.images import common_intensity
    from medtrust.inputs import by_image, by_volume, check_volume_features, describe_volumes
    from medtrust.inspection import Observation, hold_against
    from medtrust.report import build_report
    from medtrust.scaling import make_engine
    from medtrust.sources import open_source
    from medtrust.spaces import openings
    from medtrust.validity import check_spaces

    clock = _Clock()
    progress = progress or QuietProgress()
    host = host or build_host()
    if config is not None:
        host.fire("medtrust_configure", config=config)
        options = options or {plugin["name"]: config.plugin_options(plugin["name"]) for plugin in host.plugins()}
    shown = check_policy(evidence)
    how = check_volume_features(volumes)
    rules = gate.load_policy(policy)
    before = gate.baseline_for(rules, baseline)
    features = [features] if isinstance(features, str) else list(features)
    asked = gate.demands(rules)
    columns = [subgroups] if isinstance(subgroups, str) else list(subgroups)
    plan = make_plan(
        host,
        metrics=metrics,
        features=features,
        seed=seed,
        level=level,
        options=options,
        demands=asked,
        subgroups=columns,
        timeout=metric_timeout,
    )
    place = ensure_folder(Path(out)) if out is not None else None
    offline = bool(os.environ.get("CI")) if offline is None else offline
    cache_dir = Path(cache) if cache else Path(platformdirs.user_cache_dir("medtrust"))
    machine = make_engine(engine, address=ray_address, workers=workers, offline=offline, device=device)
    recipes = openings(
        plan.spaces, host, weights or {}, offline=offline, cache_dir=cache_dir, device=device, precision=precision
    )
    extractors = {name: recipe.open() for name, recipe in recipes.items()}

    clock.mark("plan")
    sets: dict[SetName, ImageSet] = {}
    subject: dict[str, Any] = {}
    generator: Generator | None = None
    seen = Observation()
    sources: dict[SetName, str | Path | None] = {"train": train, "holdout": holdout, "synthetic": synthetic}
    for name, source in sources.items():
        if source is None:
            continue
        sets[name], described, drawn = open_source(
            source,
            name,
            host,
            patients=patients,
            intensity=intensity,
            slices=slices,
            samples=(place or cache_dir) / "samples",
            n=n_synthetic or len(sets.get("train", ())),
            condition=condition if name == "synthetic" else None,
            seed=derive_seed(seed, "sample"),
            device=device,
            progress=progress,
            watch=seen,
            allow_code=allow_code,
            offline=offline,
        )
        if name == "synthetic":
            subject, generator = described, drawn
    declared = common_intensity(list(sets.values()))
    _refuse_shared_patients(sets)
    _check_subgroups(sets, columns)
    clock.mark("open")

    store = FeatureStore(cache_dir / "features")
    with machine:
        surveys = {
            name: machine.survey(images, extractors, recipes, declared, store, batch_size=batch_size, progress=progress)
            for name, images in sets.items()
        }
        clock.mark("features")
        given = by_image(sets, surveys, extractors, declared)
        whole = by_volume(sets, surveys, extractors, how) if how else None
        chosen = {name: extractors[name] for name in plan.judged_spaces}
        checks = check_spaces(
            sets["train"], surveys["train"].features, chosen, declared, store,
            seed=seed, batch_size=batch_size, progress=progress,
        )  # fmt: skip
        clock.mark("validity")
        validity = {name: check.selftest for name, check in checks.items()}
        with machine.searching():
            outcome = run_plan(
                plan,
                host,
                given.sets,
                given.features,
                declared,
                progress,
                embed=given.embed,
                generator=generator,
                validity=validity,
                volumes=whole,
            )
        clock.mark("metrics")
        facts_of_engine = machine.facts()
    maps, broken, spent = run_explainers(
        plan.explainers, outcome.results, host, level=level, seed=seed, progress=progress, timeout=metric_timeout
    )
    clock.mark("explanations")

    found = list(outcome.results)
    if generator is not None:
        found.append(hold_against(generator, seen, sets["train"], seed=derive_seed(seed, "sample")))
    results, lookup = illustrate([*found, *maps], sets, declared, shown, place, Pseudonyms())
    report = build_report(
        run=_run_facts(host, plan, extractors, checks, seed, shown, device),
        subject=subject,
        data=describe_volumes({name: images.describe() for name, images in sets.items()}, whole),
        results=results,
        failures=[*host.failures, *outcome.failures, *broken],
    )
    report = gate.judge(report, rules, baseline=before, strict=strict)
    host.fire("medtrust_after_report", report=report.to_dict())
    if place is not None:
        outputs = render_report(report, place, formats, host)
        clock.mark("report")
        facts = {
            "command": sys.argv,
            "started": clock.started,
            "settings": config.as_dict() if config else {},
            "engine": facts_of_engine,
            "seconds": {"stages": clock.stages, "metrics": {**outcome.seconds, **spent}},
            "plugins": account(
                ((job.contribution.source.label, job.ids[0]) for job in plan.jobs), outcome.seconds, outcome.usage
            ),
            "memory": {name: asdict(used) for name, used in outcome.usage.items()},
            "extracted": {name: dict(survey.extracted) for name, survey in surveys.items()},
        }
        if generator is not None:
            facts["generator"] = {"images": seen.images, "images_per_second": round(seen.rate, 3)}
        outputs = {"run.json": (json.dumps(facts, indent=2) + "\n").encode(), **outputs}
        refuse_leaks(outputs, sets)
        write_private(place, lookup)
        for filename, content in outputs.items():
            write_atomically(place / filename, content)
    return report


def render_report(report: TrustReport, folder: Path, formats: Sequence[str], host: Host) -> dict[str, bytes]:
    """Render a report; report.json, the truth, comes last.

    Args:
        report: A judged report.
        folder: Evidence pictures are read from here.
        formats: Names of report formats; json is always among them.
        host: Finds the formats.

    Returns:
        Content by file name.
    """
    chosen = [host.find("report_format", name) for name in dict.fromkeys([*formats, "json"])]
    chosen.sort(key=lambda c: c.spec.name == "json")
    plain = report.to_dict()
    return {c.spec.filename: host.load(c)(plain, folder) for c in chosen}


def refuse_leaks(outputs: Mapping[str, bytes], sets: Mapping[SetName, ImageSet]) -> None:
    """Search everything that is about to be written for names, identifiers and dates of the input.

    Raises:
        SafetyError: Something private would be disclosed; nothing has been written.
    """
    from medtrust.disclosure import Guard

    private: dict[str, str] = {}
    for images in sets.values():
        private.update(images.private_values)
    guard = Guard(private, public=sets["synthetic"].names if "synthetic" in sets else ())
    leaks = guard.search(outputs)
    if leaks:
        told = "; ".join(f"{leak.file} would show a {leak.kind}" for leak in leaks[:5])
        raise SafetyError(
            f"the report was not written, because it discloses private values of the input: {told}. A plugin, a label "
            "or an option has put them there; leave it out with --metrics, or rename what it names"
        )


@dataclass
class _Clock:
    """Seconds per stage, kept out of the report so that its bytes depend on the input alone."""

    stages: dict[str, float] = field(default_factory=dict)
    last: float = field(default_factory=time.perf_counter)
    started: str = field(default_factory=lambda: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    def mark(self, stage: str) -> None:
        now = time.perf_counter()
        self.stages[stage] = round(now - self.last, 3)
        self.last = now


def _refuse_shared_patients(sets: Mapping[SetName, ImageSet]) -> None:
    """A patient in both train and holdout would make every privacy number wrong, so it is an error."""
    if "holdout" not in sets or not (sets["train"].patients_known and sets["holdout"].patients_known):
        return
    shared = set(sets["train"].patients) & set(sets["holdout"].patients)
    if shared:
        example = sets["holdout"].names[[p in shared for p in sets["holdout"].patients].index(True)]
        raise DataError(
            f"{len(shared)} patients are in both train and holdout, for instance that of holdout/{example}; "
            "split by patient and run again"
        )


def _check_subgroups(sets: Mapping[SetName, ImageSet], columns: Sequence[str]) -> None:
    """Find a column that is misspelt, missing from a set, or no grouping at all before anything is computed."""
    from medtrust.inputs import shareable

    for column in columns:
        values: dict[str, set[str]] = {}
        known: set[str] = set()
        for name, images in sets.items():
            rows = [shareable(header.attributes) for header in images.headers]
            known |= {key for row in rows for key in row}
            values[name] = {row[column] for row in rows if row.get(column)}
        empty = [name for name, found in values.items() if not found]
        if empty:
            raise ConfigError(
                f"--subgroups {column}: no image of {' and '.join(empty)} has a value there"
                f"{did_you_mean(column, known)}; known columns: {', '.join(sorted(known)) or 'none'}. Each set's "
                "manifest.csv needs the column; in that of synthetic it holds what the generator was asked for"
            )
        everything = set().union(*values.values())
        if len(everything) > MOST_SUBGROUPS:
            raise ConfigError(
                f"--subgroups {column}: {len(everything)} different values are no subgroups; put them into at most "
                f"{MOST_SUBGROUPS} classes, such as ages by decade"
            )


def _run_facts(
    host: Host,
    plan: Plan,
    extractors: Mapping[str, Any],
    checks: Mapping[str, SpaceCheck],
    seed: int,
    evidence: str,
    device: str,
) -> dict[str, Any]:
    return {
        "tool": {"name": "medtrust", "version": __version__},
        "seed": {"root": seed, "derivation": DERIVATION},
        "level": plan.level,
        "device": device,
        "evidence": evidence,
        "features": {name: extractor.digest for name, extractor in extractors.items()},
        "spaces": {name: _space_facts(extractor, checks.get(name)) for name, extractor in extractors.items()},
        "plugins": host.plugins(),
        "env": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            **{name: metadata.version(name) for name in SHOWN_PACKAGES if name != "medtrust"},
        },
    }


def _space_facts(extractor: Any, check: SpaceCheck | None) -> dict[str, Any]:
    facts: dict[str, Any] = dict(getattr(extractor, "facts", {}))
    return facts | ({"validity": check.as_dict()} if check is not None else {})


def write_private(place: Path, lookup: Mapping[str, str]) -> None:
    """Keep the way back from pseudonyms to file names in a folder of its own that is not for sending."""
    folder = place / "private"
    if not lookup:
        shutil.rmtree(folder, ignore_errors=True)
        return
    lines = ["pseudonym,image"] + [f'{key},"{name.replace(chr(34), chr(34) * 2)}"' for key, name in lookup.items()]
    write_atomically(folder / "names.csv", ("\n".join(lines) + "\n").encode("utf-8", "surrogateescape"))
    write_atomically(folder / "README.txt", b"names.csv names real files. Keep it inside your institution.\n")
