"""Moments: pooled equals federated, whatever the split, and secure sums give the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from federated_sites import federation, key_of, study_of

from medtrust import stats
from medtrust.errors import ConfigError, DataError, Insufficient, SafetyError
from medtrust.federated import Statement, Study, from_sum, merge, pool_statements, site_statement
from medtrust.stats.sufficient import Folds, Moments, folded_frechet, jackknife


def statements_of(study, sites):
    return [site_statement(study, name, data, key_of(name)) for name, data in sites.items()]


def whole(study, sites, part):
    space = study.spaces["toy"]
    return torch.cat([space.project(getattr(data, part).features["toy"].values) for data in sites.values()])


@pytest.mark.parametrize("sizes", [(150, 171), (120, 131, 149, 160, 173)])
def test_pooled_equals_federated(sizes) -> None:
    """The distances of the merged report are those of all rows in one place, to 1e-8 of them."""
    rng = np.random.default_rng(len(sizes))
    sites = federation(rng, sizes, gap=0.3)
    study = study_of(list(sites), rng.normal(size=(211, 12)) * 1.1 + 0.2)
    report = merge(study, statements_of(study, sites)[::-1])
    made = study.spaces["toy"].project(torch.from_numpy(study.spaces["toy"].synthetic))
    found = report["fidelity.fd[toy]"]
    train, holdout = whole(study, sites, "train"), whole(study, sites, "holdout")
    assert found.facts["plug_in"] == pytest.approx(stats.frechet_distance(train, made), rel=1e-8)
    assert found.facts["null_plug_in"] == pytest.approx(stats.frechet_distance(train, holdout), rel=1e-8)
    assert found.interval.lo <= found.estimate.value <= found.interval.hi
    assert found.null.interval is not None
    assert found.resolution is not None
    assert report.data["train"]["n_patients"] == sum(sizes)


def test_the_order_of_statements_changes_no_byte() -> None:
    rng = np.random.default_rng(3)
    sites = federation(rng, (120, 130, 140))
    study = study_of(list(sites), rng.normal(size=(100, 12)))
    said = statements_of(study, sites)
    assert [one.sealed for one in said] == [one.sealed for one in statements_of(study, sites)]
    assert merge(study, said).to_dict() == merge(study, said[::-1]).to_dict()


def test_merging_moments_is_exact_far_from_the_origin() -> None:
    """Chan's rule keeps the digits that sums of squares would lose."""
    rows = torch.from_numpy(np.random.default_rng(0).normal(size=(301, 5)) + 1e6)
    parts = [Moments.of(part) for part in rows.split([1, 17, 100, 183])]
    joined, direct = Moments.merge(parts), Moments.of(rows)
    assert joined.n == 301
    torch.testing.assert_close(joined.mean, direct.mean, rtol=1e-14, atol=0)
    torch.testing.assert_close(joined.cov, torch.cov(rows.T), rtol=1e-7, atol=1e-9)


def test_secure_sums_give_the_same_distance() -> None:
    """Only the sum of the sites' vectors is merged; the distance is that of all rows."""
    rng = np.random.default_rng(8)
    sites = federation(rng, (140, 150, 160), gap=0.2)
    study = study_of(list(sites), rng.normal(size=(90, 12)), release="sums", folds=6)
    vectors = [one.summable() for one in statements_of(study, sites)]
    assert len({layout for layout, _ in vectors}) == 1
    pool = from_sum(study, vectors[0][0], sum(vector for _, vector in vectors), list(sites))
    report = merge(study, pool)
    made = study.spaces["toy"].project(torch.from_numpy(study.spaces["toy"].synthetic))
    expected = stats.frechet_distance(whole(study, sites, "train"), made)
    assert report["fidelity.fd[toy]"].facts["plug_in"] == pytest.approx(expected, rel=1e-8)
    assert report.run["federated"]["took_part"] == sorted(sites)
    with pytest.raises(DataError, match="only the sum"):
        merge(study, statements_of(study, sites))
    with pytest.raises(SafetyError, match="fewer than two sites"):
        from_sum(study, *vectors[0], ["site 0"])
    with pytest.raises(DataError, match="asks for"):
        from_sum(study, vectors[0][0], vectors[0][1][:-1], list(sites))


def test_a_study_of_statements_is_not_added_up() -> None:
    rng = np.random.default_rng(9)
    sites = federation(rng, (140, 150))
    study = study_of(list(sites), rng.normal(size=(90, 12)))
    with pytest.raises(ConfigError, match="release"):
        statements_of(study, sites)[0].summable()


def test_statements_and_studies_survive_their_bytes() -> None:
    rng = np.random.default_rng(4)
    sites = federation(rng, (120, 130))
    study = study_of(list(sites), rng.normal(size=(50, 12)))
    again = Study.from_bytes(study.to_bytes())
    assert again.digest == study.digest
    said = statements_of(study, sites)[0]
    back = Statement.from_bytes(said.to_bytes(), again)
    assert back.facts == said.facts
    assert all(np.array_equal(back.arrays[name], array) for name, array in said.arrays.items())


def test_what_was_changed_on_the_way_is_refused_by_name() -> None:
    """A wrong key, another study, a changed byte, a cut file and garbage: each is named, none is parsed."""
    rng = np.random.default_rng(5)
    sites = federation(rng, (120, 130))
    synthetic = rng.normal(size=(50, 12))
    study, other = study_of(list(sites), synthetic), study_of(list(sites), synthetic, seed=1)
    good = site_statement(study, "site 0", sites["site 0"], key_of("site 0")).to_bytes()
    with pytest.raises(ConfigError, match="does not name this key"):
        site_statement(study, "site 0", sites["site 0"], key_of("site 1"))
    with pytest.raises(SafetyError, match="'site 0' was refused: it belongs to another study"):
        Statement.from_bytes(good, other)
    forged = good.replace(b'"site":"site 0"', b'"site":"site 1"', 1)
    with pytest.raises(SafetyError, match="'site 1' was refused: its signature"):
        Statement.from_bytes(forged, study)
    for broken in (good[:-1], good + b"\0", good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]):
        with pytest.raises(SafetyError, match="'site 0' was refused: its content was changed"):
            Statement.from_bytes(broken, study)
    for garbage in (b"", b"\x80\x04.", good[:30], rng.bytes(5000), good[:16] + b"\xff\xff\xff\xff" + good[20:]):
        with pytest.raises(SafetyError):
            Statement.from_bytes(garbage, study)
    twice = [Statement.from_bytes(good, study)] * 2
    with pytest.raises(SafetyError, match="two statements"):
        pool_statements(study, twice)


def test_a_study_whose_projection_was_chosen_is_refused() -> None:
    """A projection that the seed does not give could pick one patient's direction."""
    rng = np.random.default_rng(6)
    study = study_of(["site 0"], rng.normal(size=(50, 12)))
    chosen = study.arrays["toy/projection"].copy()
    chosen[0] = -chosen[0]
    with pytest.raises(SafetyError, match="not what its seed"):
        Study.from_bytes(Study(study.header, {**study.arrays, "toy/projection": chosen}).to_bytes())


def test_an_interval_needs_folds_or_sites() -> None:
    rng = np.random.default_rng(7)
    one = Folds(((Moments.of(torch.from_numpy(rng.normal(size=(30, 3)))),),) * 4, tuple("abcd"))
    with pytest.raises(Insufficient, match="too few sites"):
        folded_frechet(one, one)
    five = Folds(tuple((Moments.of(torch.from_numpy(rng.normal(size=(30, 3)))),) for _ in range(5)), tuple("abcde"))
    assert jackknife((five,), lambda parts: (float(Moments.merge(parts).mean[0]),)).by == "site"
