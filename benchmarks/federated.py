"""Federated against pooled, on real images and in simulations: do the numbers agree, and do the intervals hold?

    medtrust data get derm-patches            # prints the folder
    python benchmarks/federated.py equality FOLDER
    python benchmarks/federated.py coverage --repetitions 200
    python benchmarks/federated.py averages
    python benchmarks/federated.py membership

Each part writes its figures into benchmarks/results/federated.json. Equality: all patients are dealt to train, holdout
and a third part that stands for the generator, of which 2 % are replaced by edited copies of train images; train and
holdout are dealt to 2, 5 and 20 sites. Coverage: sites that differ, two images per patient or one, few folds. Averages:
the counter-example against averaging distances. Membership: what a covariance tells of a row that somebody holds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from medtrust import ops, stats
from medtrust.federated import Bank, SigningKey, SiteData, SiteSet, Statement, make_study, merge, site_statement
from medtrust.federated.copies import dealt_samples, views_of
from medtrust.federated.copy_rows import pooled_ranking
from medtrust.federated.pool import pool_statements
from medtrust.federated.reading import Reader
from medtrust.host import build_host
from medtrust.recipes import cache_folder
from medtrust.seeding import derive_seed
from medtrust.stats import edit_image
from medtrust.stats.embedding import pixel_embedding
from medtrust.stats.enrichment import EnrichmentTest
from medtrust.stats.kernel_sums import KernelSums
from medtrust.stats.linking import keep_one_of_linked
from medtrust.stats.sufficient import (
    EnrichmentCounts,
    Folds,
    FourierSums,
    Moments,
    StratifiedEnrichment,
    folded_frechet,
    folded_mmd,
    fourier_features,
)
from medtrust.types import FeatureMatrix

RESULTS = Path(__file__).parent / "results" / "federated.json"
COPIES, SEED = 0.02, 0


def key_of(site: str) -> SigningKey:
    return SigningKey(Ed25519PrivateKey.from_private_bytes((site.encode() + b"." * 32)[:32]))


def take(matrix: FeatureMatrix, rows: list[int]) -> FeatureMatrix:
    patients, digests = (tuple(each[i] for i in rows) for each in (matrix.patients, matrix.digests))
    return FeatureMatrix(matrix.values[rows], patients, digests, matrix.space, matrix.space_digest, matrix.names)


def joined(parts: list[FeatureMatrix]) -> FeatureMatrix:
    first = parts[0]
    patients = tuple(p for part in parts for p in part.patients)
    digests = tuple(d for part in parts for d in part.digests)
    values = torch.cat([part.values for part in parts])
    return FeatureMatrix(values, patients, digests, first.space, first.space_digest, first.names)


def equality(folder: Path) -> list[dict[str, Any]]:
    """Deal one data set to ever more sites and compare every number with that of all rows in one place."""
    reader = Reader(build_host(), cache_folder())
    images = reader.open(folder, "train", None)
    seen = reader.survey(images, reader.spaces(["radiomics", "pixels"]), images.intensity)
    rng = np.random.default_rng(SEED)
    patients = [sorted(set(images.patients))[i] for i in rng.permutation(len(set(images.patients)))]
    third = len(patients) // 3
    role = {p: ("train", "holdout", "synthetic")[min(2, at // third)] for at, p in enumerate(patients)}
    rows = {name: [i for i, p in enumerate(images.patients) if role[p] == name] for name in set(role.values())}
    made = {space: take(matrix, rows["synthetic"]) for space, matrix in seen.features.items()}
    made["pixels"] = planted(images, rows["train"], made["pixels"], rng)
    sample = rng.permutation(rows["train"] + rows["holdout"])[:200].tolist()
    edits = [edit_image(images[i].pixels, "jpeg", rng) for i in sample]
    bank = pixel_embedding(torch.from_numpy(np.stack(edits)), images.intensity)
    found = []
    for count in (2, 5, 20):
        names = [f"site {at:02d}" for at in range(count)]
        rules = {} if count < 20 else {
            "patients": 20, "fold_patients": 5, "rows_per_dimension": 1, "lowered": "twenty sites of public data"
        }  # fmt: skip
        study = make_study(
            f"{count} sites", sites={name: key_of(name).public for name in names}, synthetic=[made["radiomics"]],
            intensity=images.intensity, results=("fidelity.fd", "fidelity.mmd", "privacy.cpm", "privacy.ct"),
            copies=made["pixels"], copies_shape=(3, 32, 32), reveal="distances", dim=16, rules=rules,
        )  # fmt: skip
        own = {p: names[at % count] for at, p in enumerate(patients)}
        sites = {}
        for name in names:
            sets = [[i for i in rows[part] if own[images.patients[i]] == name] for part in ("train", "holdout")]
            parts = [
                SiteSet(
                    tuple(images.patients[i] for i in one), tuple(seen.digests[i] for i in one),
                    {space: take(matrix, one) for space, matrix in seen.features.items()},
                )
                for one in sets
            ]  # fmt: skip
            mine = set(sets[0] + sets[1])
            which = [at for at, i in enumerate(sample) if i in mine]
            sites[name] = SiteData(*parts, Bank(bank[which], tuple(images.patients[sample[at]] for at in which)))
        found.append({"sites": count, **compare(study, sites, made)})
        print(json.dumps(found[-1]), flush=True)
    return found


def planted(images: Any, train: list[int], pixels: FeatureMatrix, rng: np.random.Generator) -> FeatureMatrix:
    """Replace a share of the samples' copy features by those of edited train images."""
    values = pixels.values.clone()
    for place, row in zip(
        rng.permutation(len(values))[: round(COPIES * len(values))], rng.permutation(train), strict=False
    ):
        edited = edit_image(images[int(row)].pixels, "intensity", rng)
        values[int(place)] = pixel_embedding(torch.from_numpy(edited)[None], images.intensity)[0]
    digests = tuple(f"sample {i}" for i in range(len(values)))
    return FeatureMatrix(values, pixels.patients, digests, "pixels", pixels.space_digest)


def compare(study: Any, sites: dict[str, SiteData], made: dict[str, FeatureMatrix]) -> dict[str, Any]:
    said = [site_statement(study, name, data, key_of(name)) for name, data in sites.items()]
    told = [Statement.from_bytes(one.to_bytes(), study) for one in said]
    report = merge(study, told)
    space = study.spaces["radiomics"]
    everything = {
        part: joined([getattr(data, part).features["radiomics"] for data in sites.values()])
        for part in ("train", "holdout")
    }
    rows = {part: space.project(matrix.values) for part, matrix in everything.items()}
    synthetic = space.project(made["radiomics"].values)
    waves = torch.from_numpy(space.frequencies)
    fd, mmd = report["fidelity.fd[radiomics]"], report["fidelity.mmd[radiomics]"]
    kernel = {
        name: KernelSums.of(
            fourier_features(rows["train"], waves), fourier_features(other, waves),
            everything["train"].patients, who, inner_product,
        ).estimate()
        for name, other, who in (
            ("synthetic", synthetic, None), ("holdout", rows["holdout"], everything["holdout"].patients),
        )
    }  # fmt: skip
    counts = []
    pixels = made["pixels"].values
    for name, data in sites.items():
        train, holdout = (getattr(data, part).features["pixels"] for part in ("train", "holdout"))
        seed = derive_seed(study.seed, "copies", name)
        outcome = stats.copy_test(train, holdout, pixels, seed=seed, views=views_of(study), draws=99)
        counts.append(
            EnrichmentCounts.of(outcome.in_train, outcome.test.n_train, outcome.test.n_holdout, study.rules.cell)
        )
    direct = StratifiedEnrichment(counts, derive_seed(study.seed, "copies"))()
    both = [joined([getattr(d, part).features["pixels"] for d in sites.values()]) for part in ("train", "holdout")]
    pool = stats.copy_test(*both, pixels, seed=0, views=views_of(study), draws=99)
    ranked, n_train, n_holdout = pooled_ranking(pool_statements(study, told))
    cpm = report["privacy.cpm"]
    one = EnrichmentTest(n_train, n_holdout, derive_seed(study.seed, "copies"))(pool.in_train).p
    return {
        "patients": int(sum(d.train.units + d.holdout.units for d in sites.values())),
        "lowered": list(study.rules.below()),
        "fd": fd.facts["plug_in"],
        "fd_error": relative(fd.facts["plug_in"], stats.frechet_distance(rows["train"], synthetic)),
        "fd_null_error": relative(
            fd.facts["null_plug_in"], stats.frechet_distance(rows["train"], rows["holdout"])
        ),
        "fd_estimate": fd.estimate.value, "fd_interval": [fd.interval.lo, fd.interval.hi] if fd.interval else None,
        "mmd": mmd.estimate.value, "mmd_error": relative(mmd.estimate.value, kernel["synthetic"]),
        "mmd_null_error": abs(mmd.null.value - kernel["holdout"]),
        "cpm_p": cpm.test.p, "cpm_stratified_here_p": direct.p, "cpm_error": abs(cpm.test.statistic - direct.statistic),
        "cpm_one_pool_p": cpm.facts["p_of_one_pool"], "cpm_one_pool_here_p": one,
        "cpm_one_pool_same_ranking": bool(ranked.tolist() == pool.in_train.tolist()),
        "ct": report["privacy.ct"].estimate.value,
        "ct_error": abs(report["privacy.ct"].estimate.value - ranked_here(study, sites, pixels)),
        "ct_unstratified": unstratified(both, pixels),
        "bytes_per_site": max(len(one.to_bytes()) for one in said),
        "numbers_per_site": max(one.numbers for one in said),
    }  # fmt: skip


def inner_product(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return x @ y.T


def ranked_here(study: Any, sites: dict[str, SiteData], pixels: torch.Tensor) -> float:
    """Van Elteren's statistic with every distance computed in one place and each pair counted by itself."""
    dealt = dealt_samples(study, len(pixels))
    above = variance = 0.0
    for at, (name, data) in enumerate(sites.items()):
        train, holdout = data.train.features["pixels"], data.holdout.features["pixels"]
        kept = keep_one_of_linked(train, holdout, study.seed, near=True)
        train, holdout = take(train, kept.train.tolist()), take(holdout, kept.holdout.tolist())
        secret = key_of(name).secret("copies")
        chosen: dict[str, tuple[bytes, int]] = {}
        for i, (patient, digest) in enumerate(zip(holdout.patients, holdout.digests, strict=True)):
            mark = (hashlib.sha256(secret + f"{digest}:{i}".encode()).digest(), i)
            chosen[patient] = min(mark, chosen.get(patient, mark))
        one = torch.cdist(pixels[torch.from_numpy(dealt == at)].double(), train.values.double()).min(1).values
        two = torch.cdist(holdout.values[[i for _, i in chosen.values()]].double(), train.values.double()).min(1).values
        pairs = (one[:, None] > two[None]).double().sum() + 0.5 * (one[:, None] == two[None]).double().sum()
        m, n = len(one), len(two)
        above += float(pairs - m * n / 2) / (m + n + 1)
        variance += m * n / (12 * (m + n + 1))
    return above / variance**0.5


def unstratified(both: list[FeatureMatrix], pixels: torch.Tensor) -> float:
    """C_T of all images in one pool, in one cell."""
    train, holdout = both
    far = [ops.nearest(each.double(), train.values.double(), 1).distances[:, 0] for each in (pixels, holdout.values)]
    return stats.copying_z(far[0], far[1], np.zeros(len(pixels)), np.zeros(len(holdout)), 1)[0]


def relative(found: float, exact: float) -> float:
    return abs(found - exact) / max(abs(exact), 1e-300)


CASES = ((3, 5, 100, 2, False), (2, 3, 80, 1, False), (5, 2, 60, 1, False), (6, 1, 120, 1, False), (5, 2, 60, 1, True))


def coverage(repetitions: int) -> list[dict[str, Any]]:
    """How often intervals of 95 % hold the truth of sites that differ in mean and spread."""
    rows = []
    for case in CASES:
        rows.append(covered(*case, repetitions))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def covered(sites: int, folds: int, patients: int, images: int, tails: bool, repetitions: int) -> dict[str, Any]:
    d = 8
    centres = np.random.default_rng(0).normal(size=(5, d)) * 0.4
    spreads = np.exp(np.random.default_rng(1).normal(size=(5, d)) * 0.15)
    rng = np.random.default_rng(2)
    waves = torch.from_numpy(rng.normal(size=(64, d)) / 3.0)

    def draw(at: int, n: int) -> torch.Tensor:
        base = rng.standard_t(5, (n, d)) / np.sqrt(5 / 3) if tails else rng.normal(size=(n, d))
        own = np.repeat(base, images, 0) * np.sqrt(0.5) + np.sqrt(0.5) * rng.normal(size=(n * images, d))
        return torch.from_numpy(own * spreads[at % 5] + centres[at % 5])

    def cut(kind: Any, per_row: Any) -> Folds[Any]:
        parts = []
        for at in range(sites):
            x = per_row(draw(at, patients))
            who = np.arange(len(x)) // images
            fold = who * folds // patients
            parts.append(tuple(kind.of(x[fold == f], who[fold == f].tolist()) for f in range(folds)))
        return Folds(tuple(parts), tuple(map(str, range(sites))))

    def wave(x: torch.Tensor) -> torch.Tensor:
        return fourier_features(x, waves)

    def same(x: torch.Tensor) -> torch.Tensor:
        return x

    truth = torch.cat([draw(at, 40_000) for at in range(sites)])
    middle = centres.mean(0) + 0.15
    other = torch.from_numpy(rng.normal(size=(400_000, d)) * 1.2 + middle)
    fd, gap = stats.frechet_distance(truth, other), wave(truth).mean(0) - wave(other).mean(0)
    truths = {"fd": fd, "fd_null": 0.0, "mmd": float(gap.square().sum()), "mmd_null": 0.0}
    hits, values = dict.fromkeys(truths, 0), []
    for _ in range(repetitions):
        s = torch.from_numpy(rng.normal(size=(300, d)) * 1.2 + middle)
        sm = Folds((tuple(Moments.of(s[f::20]) for f in range(20)),), ("s",))
        sf = Folds((tuple(FourierSums.of(wave(s[f::20])) for f in range(20)),), ("s",))
        t, h, tf, hf = cut(Moments, same), cut(Moments, same), cut(FourierSums, wave), cut(FourierSums, wave)
        answers = {
            "fd": folded_frechet(t, sm), "fd_null": folded_frechet(t, h),
            "mmd": folded_mmd(tf, sf), "mmd_null": folded_mmd(tf, hf),
        }  # fmt: skip
        values.append(answers["fd"].value)
        for name, answer in answers.items():
            hits[name] += answer.interval.lo <= truths[name] <= answer.interval.hi
    return {
        "sites": sites, "folds": folds, "patients": patients, "images": images, "heavy_tails": tails,
        "repetitions": repetitions, **{name: hit / repetitions for name, hit in hits.items()},
        "fd_truth": fd, "fd_mean": float(np.mean(values)),
    }  # fmt: skip


def averages() -> dict[str, float]:
    """Two generators, three sites of one scanner each: which one do averages prefer, and which one is right?"""
    rng = np.random.default_rng(0)
    centres = [np.array([x, 0.0, 0.0]) for x in (-4.0, 0.0, 4.0)]
    sites = [torch.from_numpy(rng.normal(size=(2000, 3)) + centre) for centre in centres]
    makers = {
        "faithful": torch.from_numpy(np.vstack([rng.normal(size=(2000, 3)) + centre for centre in centres])),
        "collapsed": torch.from_numpy(rng.normal(size=(6000, 3))),
    }
    everything = Moments.merge([Moments.of(site) for site in sites])
    out = {}
    for name, made in makers.items():
        out[f"{name}_average"] = float(np.mean([stats.frechet_distance(site, made) for site in sites]))
        out[f"{name}_pooled"] = stats.frechet_distance(everything, Moments.of(made))
    return out


def membership() -> list[dict[str, float]]:
    """How well mean and covariance tell a row that is in them from one that is not, by Mahalanobis distance."""
    rows, d = [], 64
    for ratio in (2, 4, 10, 40):
        rng = np.random.default_rng(ratio)
        x = torch.from_numpy(rng.normal(size=(ratio * d, d)))
        moments = Moments.of(x)
        inverse = torch.linalg.inv(moments.m2)
        inside, outside = (
            ((each - moments.mean) @ inverse * (each - moments.mean)).sum(1).numpy()
            for each in (x, torch.from_numpy(rng.normal(size=(4000, d))))
        )
        auc = float((inside[:, None] < outside[None]).mean())
        rows.append({"rows_per_dimension": ratio, "auc": auc})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("equality", "coverage", "averages", "membership"))
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--repetitions", type=int, default=200)
    given = parser.parse_args()
    parts = {
        "equality": lambda: equality(given.folder), "coverage": lambda: coverage(given.repetitions),
        "averages": averages, "membership": membership,
    }  # fmt: skip
    found = parts[given.part]()
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps({**known, given.part: found}, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
