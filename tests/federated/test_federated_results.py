"""Every result that sums can give: pooled equals federated, and secure sums agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federated_sites import federation, key_of, study_of, with_copies

from medtrust import stats
from medtrust.errors import ConfigError
from medtrust.federated import Statement, from_sum, merge, site_statement
from medtrust.federated.copies import dealt_samples
from medtrust.federated.copy_rows import pooled_ranking
from medtrust.federated.pool import pool_statements
from medtrust.federated.study import RESULTS
from medtrust.report.schema import complaint
from medtrust.seeding import derive_seed
from medtrust.stats.enrichment import EnrichmentTest
from medtrust.stats.kernel_sums import KernelSums
from medtrust.stats.sufficient import (
    EnrichmentCounts,
    RankSum,
    StratifiedEnrichment,
    fourier_features,
    membership_auc,
    site_difference,
    van_elteren,
)

SIZES = (160, 170, 180)


def told(study, sites):
    said = [site_statement(study, name, data, key_of(name)) for name, data in sites.items()]
    return [Statement.from_bytes(one.to_bytes(), study) for one in said]


@pytest.fixture(scope="module")
def case():
    """Three sites of two images per patient, and a generator that copied 12 of their training patients."""
    rng = np.random.default_rng(11)
    sites = federation(rng, SIZES, gap=0.2, images_per_patient=2)
    synthetic = rng.normal(size=(240, 12))
    for at, data in enumerate(sites.values()):
        synthetic[4 * at : 4 * at + 4] = data.train.features["toy"].values[8:16:2].numpy() + 1e-3
    complete, asked = with_copies(sites, synthetic, rng)
    study = study_of(list(sites), synthetic, reveal="distances", **asked)
    statements = told(study, complete)
    return complete, synthetic, study, statements, merge(study, statements)


def rows_of(sites, part, study):
    space = study.spaces["toy"]
    rows = torch.cat([space.project(getattr(data, part).features["toy"].values) for data in sites.values()])
    return rows, [p for data in sites.values() for p in getattr(data, part).patients]


def test_the_report_is_an_ordinary_one(case) -> None:
    *_, report = case
    assert complaint(report.to_dict()) == ""
    ids = {row.id for row in report.results}
    assert {"fidelity.fd[toy]", "fidelity.mmd[toy]", "fidelity.intensity", "privacy.cpm", "privacy.ct"} <= ids
    for row in report.results:
        assert row.status == "ok", (row.id, row.reason)
        assert row.interval is not None
        assert row.null is not None
        assert row.resolution is not None or row.diagnostic
    assert {r.subgroup for r in report.results if r.id == "equity.site_fd_excess[toy]"} == {
        f"site=site {i}" for i in range(3)
    }


def test_kernel_distance_equals_that_of_all_rows(case) -> None:
    """The U-statistic over pairs of different patients, wherever they are."""
    sites, _, study, _, report = case
    space = study.spaces["toy"]
    waves = torch.from_numpy(space.frequencies)
    made = fourier_features(space.project(torch.from_numpy(space.synthetic)), waves)

    def exact(a, patients_a, b, patients_b):
        return KernelSums.of(a, b, patients_a, patients_b, lambda x, y: x @ y.T).estimate()

    (train, who), (holdout, others) = (rows_of(sites, part, study) for part in ("train", "holdout"))
    t, h = fourier_features(train, waves), fourier_features(holdout, waves)
    found = report["fidelity.mmd[toy]"]
    assert found.estimate.value == pytest.approx(exact(t, who, made, None), rel=1e-8, abs=1e-10)
    assert found.null.value == pytest.approx(exact(t, who, h, others), rel=1e-8, abs=1e-10)


def test_fourier_features_stand_for_the_gaussian_kernel() -> None:
    """Within the error of so many random frequencies, 1/√q, of the exact kernel."""
    rng = np.random.default_rng(2)
    rows = torch.from_numpy(rng.normal(size=(60, 5)))
    waves = torch.from_numpy(rng.normal(size=(20000, 5)) / 3.0)
    close = fourier_features(rows, waves)
    exact = stats.gaussian(3.0)(rows, rows)
    assert float((close @ close.T - exact).abs().max()) < 5 / 20000**0.5


def test_membership_equals_the_stratified_test_of_all_data(case) -> None:
    """The same test with every site's ranking computed in one place, to the last digit."""
    sites, synthetic, study, _statements, report = case
    counts = []
    for name, data in sites.items():
        outcome = stats.copy_test(
            data.train.features["copies"], data.holdout.features["copies"],
            torch.from_numpy(synthetic).float(), seed=derive_seed(study.seed, "copies", name), draws=99,
        )  # fmt: skip
        counts.append(EnrichmentCounts.of(outcome.in_train, outcome.test.n_train, outcome.test.n_holdout, 5))
    direct = StratifiedEnrichment(counts, derive_seed(study.seed, "copies"))()
    found = report["privacy.cpm"]
    assert found.test.p == pytest.approx(direct.p, abs=1e-12)
    assert found.test.statistic == pytest.approx(direct.statistic, rel=1e-12)
    assert found.test.p < 0.001
    assert found.selftest.size <= 0.15


def test_distances_give_the_test_of_one_pool(case) -> None:
    """With reveal = "distances" the ranking is that of all patients in one pool, to the last patient."""
    sites, synthetic, study, statements, report = case
    joined = []
    for part in ("train", "holdout"):
        every = [getattr(data, part).features["copies"] for data in sites.values()]
        joined.append(
            type(every[0])(
                torch.cat([each.values for each in every]), tuple(p for each in every for p in each.patients),
                tuple(str(i) for i in range(sum(map(len, every)))), "copies", "x",
            )
        )  # fmt: skip
    outcome = stats.copy_test(*joined, torch.from_numpy(synthetic).float(), seed=0, draws=99)
    ranked, n_train, n_holdout = pooled_ranking(pool_statements(study, statements))
    assert (n_train, n_holdout) == (outcome.test.n_train, outcome.test.n_holdout)
    assert ranked.tolist() == outcome.in_train.tolist()
    seed = derive_seed(study.seed, "copies")
    assert report["privacy.cpm"].facts["p_of_one_pool"] == EnrichmentTest(n_train, n_holdout, seed)(outcome.in_train).p


def test_c_t_equals_the_stratified_test_of_all_data(case) -> None:
    sites, synthetic, study, statements, report = case
    own = dealt_samples(study, len(synthetic))
    made = torch.from_numpy(synthetic).float().double()
    sums = []
    for at, (name, data) in enumerate(sites.items()):
        train = data.train.features["copies"].values.double()
        said = next(one for one in statements if one.site == name)
        far = torch.cdist(made[own == at], train).min(1).values.numpy()
        holdout = torch.cdist(data.holdout.features["copies"].values.double(), train).min(1).values.numpy()
        # one image of each patient was compared: two per patient, so the site's U is one of these choices
        assert said.arrays["copies/ranks.n"].tolist() == [int((own == at).sum()), data.holdout.units]
        bounds = [RankSum.of(far, pick(holdout.reshape(-1, 2), axis=1)).u for pick in (np.max, np.min)]
        assert bounds[0] <= said.arrays["copies/ranks.u"][0] <= bounds[1]
        sums.append(RankSum(float(said.arrays["copies/ranks.u"][0]), *said.arrays["copies/ranks.n"].tolist()))
    assert report["privacy.ct"].estimate.value == pytest.approx(van_elteren(sums).z, rel=1e-12)


def test_van_elteren_is_standard_normal_without_copying() -> None:
    """Mean and spread over 400 repetitions at sites of very different scale, and power against one that copies."""
    rng = np.random.default_rng(5)
    null, copied = [], []
    for _ in range(400):
        scale = rng.lognormal(size=5)
        pairs = [(rng.gamma(4, s, 40), rng.gamma(4, s, 60)) for s in scale]
        null.append(van_elteren([RankSum.of(a, b) for a, b in pairs]).z)
        copied.append(van_elteren([RankSum.of(0.8 * a, b) for a, b in pairs]).z)
    assert abs(np.mean(null)) < 0.16
    assert 0.9 < np.std(null) < 1.1
    assert np.mean(np.array(copied) < -1.645) > 0.8


def test_stratified_enrichment_keeps_its_size() -> None:
    """Random labels at sites of different shares of train: rejection at 5 % stays there; copies are found."""
    rng = np.random.default_rng(6)
    sizes = ((60, 60), (90, 30), (40, 80))
    labels = [rng.permuted(np.tile(np.arange(t + h) < t, (600, 1)), axis=1) for t, h in sizes]
    first = [EnrichmentCounts.of(each[0], *size, 5) for each, size in zip(labels, sizes, strict=True)]
    test = StratifiedEnrichment(first, 0)
    hits = [np.cumsum(each, axis=1)[:, np.array(c.counts) - 1] for each, c in zip(labels, first, strict=True)]
    assert 0.03 < float((test.p_of(test.statistics(hits)) <= 0.05).mean()) < 0.075
    for each in labels:
        each[:, :4] = True
    hits = [np.cumsum(each, axis=1)[:, np.array(c.counts) - 1] for each, c in zip(labels, first, strict=True)]
    assert float((test.p_of(test.statistics(hits)) <= 0.05).mean()) > 0.7


@pytest.mark.parametrize("tails", [False, True])
def test_site_differences_have_their_size_and_power(tails) -> None:
    """Rejections at 5 % of 300 repetitions without differences, and of a shift at the resolution."""
    rng = np.random.default_rng(7)

    def means(shift):
        sites = []
        for _ in range(4):
            rows = rng.standard_t(4, size=(5, 30, 6)) if tails else rng.normal(size=(5, 30, 6))
            rows = rows * np.array([3, 2, 1, 1, 0.5, 0.2]) + shift * rng.normal(size=6)
            sites.append([(30, torch.from_numpy(fold.mean(0))) for fold in rows])
        return sites

    null = [site_difference(means(0.0)) for _ in range(300)]
    assert 0.02 < np.mean([one.p <= 0.05 for one in null]) < 0.09
    assert abs(np.mean([one.value for one in null])) < 0.05
    covered = [one.interval[0] <= 0 for one in null]
    assert np.mean(covered) > 0.93
    assert np.mean([site_difference(means(0.5)).p <= 0.05 for _ in range(100)]) > 0.6


def test_secure_sums_carry_every_result(case) -> None:
    """Distances as in the open study; the copy test by Fisher's combination."""
    sites, synthetic, *_ = case
    _, asked = with_copies(sites, synthetic, np.random.default_rng(12))
    asked["results"] = [name for name in RESULTS if name not in ("fidelity.precision", "fidelity.density")]
    study = study_of(list(sites), synthetic, release="sums", folds=5, **asked)
    vectors = [one.summable() for one in told(study, sites)]
    report = merge(study, from_sum(study, vectors[0][0], sum(v for _, v in vectors), list(sites)))
    assert complaint(report.to_dict()) == ""
    assert {row.id for row in report.results if row.status == "ok"} == {
        "fidelity.fd[toy]", "fidelity.mmd[toy]", "fidelity.intensity", "privacy.cpm", "privacy.ct",
    }  # fmt: skip
    train, who = rows_of(sites, "train", study)
    space = study.spaces["toy"]
    made = space.project(torch.from_numpy(space.synthetic))
    assert report["fidelity.fd[toy]"].facts["plug_in"] == pytest.approx(stats.frechet_distance(train, made), rel=1e-8)
    waves = torch.from_numpy(space.frequencies)
    exact = KernelSums.of(
        fourier_features(train, waves), fourier_features(made, waves), who, None, lambda x, y: x @ y.T
    ).estimate()
    assert report["fidelity.mmd[toy]"].estimate.value == pytest.approx(exact, rel=1e-7, abs=1e-10)
    assert report["privacy.cpm"].test.p < 0.01


def test_impossible_wishes_are_refused() -> None:
    rng = np.random.default_rng(1)
    synthetic = rng.normal(size=(50, 12))
    with pytest.raises(ConfigError, match="cannot be had from sums"):
        study_of(["a"], synthetic, results=("fidelity.kid",))
    with pytest.raises(ConfigError, match="copy features"):
        study_of(["a"], synthetic, results=("privacy.cpm",))


def test_precision_and_density_are_the_sites_own(case) -> None:
    """Each site's shares are those of `stats.manifold` on its rows; the merge is their mean by train patients."""
    sites, _, study, _, report = case
    space = study.spaces["toy"]
    made = space.project(torch.from_numpy(space.synthetic))
    shares = []
    for data in sites.values():
        real = space.project(data.train.features["toy"].values)
        found = stats.manifold(real, made, data.train.patients)
        shares.append((data.train.units, found.precision, found.density))
    weights = [units for units, _, _ in shares]
    for at, name in enumerate(("precision", "density"), 1):
        row = report[f"fidelity.{name}[toy]"]
        assert row.estimate.value == pytest.approx(np.average([s[at] for s in shares], weights=weights), rel=1e-12)
        assert row.interval.lo <= row.estimate.value <= row.interval.hi
        assert row.null.value > 0
        assert "approximate" in row.notes[0]
    with pytest.raises(ConfigError, match="leave prdc out"):
        study_of(["a"], np.zeros((50, 12)) + np.arange(50)[:, None], release="sums", results=("fidelity.precision",))


def test_the_report_says_how_well_members_can_be_told(case) -> None:
    """Each site's figure is that of its smallest fold, and one that tells much becomes a sentence."""
    _, _, study, statements, report = case
    told = report.run["federated"]["sites"]
    for said in statements:
        rows = min(said.facts["images"][name] // said.facts["folds"][name] for name in ("train", "holdout"))
        assert told[said.site]["membership_auc"] == round(membership_auc(rows, study.spaces["toy"].dim), 3)
    worst = max(about["membership_auc"] for about in told.values())
    assert any(f"area under the curve of {worst:.2f}" in line for line in report.limitations) == (worst > 0.6)
