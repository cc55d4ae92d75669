"""Copy score and close-pair membership test: against brute force, for size, power and refusals."""

import numpy as np
import pytest
import torch

from medtrust.errors import DataError, Insufficient
from medtrust.stats.copying import Pool, copy_score, copy_test, rank_patients
from medtrust.types import FeatureMatrix


def mixture(rng, n, d=16, modes=6, spread=1.0):
    """Draw from one fixed Gaussian mixture; `spread` scales the within-mode standard deviation."""
    centres = np.random.default_rng(99).normal(0, 3, (modes, d))
    return torch.from_numpy(centres[rng.integers(modes, size=n)] + rng.normal(0, spread, (n, d)))


def matrix(values, patients):
    return FeatureMatrix(values.float(), tuple(map(str, patients)), ("",) * len(values), "test", "")


def brute_force(queries, reference, codes, exclude, views, neighbours=5):
    """Score by the definition, one query at a time."""
    versions = [reference, *views(reference)] if views else [reference]
    expected = []
    for i, query in enumerate(queries):
        distance = torch.stack([(version - query).norm(dim=1) for version in versions]).amin(0).numpy()
        nearest = {
            code: (distance[codes == code].min(), np.flatnonzero(codes == code)[distance[codes == code].argmin()])
            for code in set(codes.tolist())
            if exclude is None or code != exclude[i]
        }
        ranked = sorted((value, code, row) for code, (value, row) in nearest.items())
        scale = np.mean([value for value, _, _ in ranked[1 : neighbours + 1]])
        expected.append((ranked[0][1], ranked[0][2], ranked[0][0], ranked[0][0] / scale))
    return [np.array(column) for column in zip(*expected, strict=True)]


@pytest.mark.parametrize(
    ("m", "n", "patients", "seed"), [(7, 23, 23, 0), (11, 40, 9, 1), (1, 5, 2, 2), (1031, 33, 4, 3)]
)
@pytest.mark.parametrize("with_views", [False, True])
@pytest.mark.parametrize("with_exclude", [False, True])
def test_copy_score_equals_brute_force(m, n, patients, seed, with_views, with_exclude):
    """Matches and scores follow the definition for any sizes, patients, views and exclusions."""
    rng = np.random.default_rng(seed)
    if with_exclude:
        patients += 1
    codes = rng.permutation(np.r_[np.arange(patients), rng.integers(patients, size=max(0, n - patients))])
    queries = torch.from_numpy(rng.normal(size=(m, 6))).T.contiguous().T
    reference = torch.from_numpy(rng.normal(size=(len(codes), 6)))
    views = (lambda rows: [rows.flip(1), rows * 0.5]) if with_views else None
    exclude = rng.integers(patients, size=m) if with_exclude else None
    found = copy_score(queries, reference, codes, exclude=exclude, views=views)
    patient, row, distance, score = brute_force(queries, reference, codes, exclude, views)
    assert np.array_equal(found.patient, patient)
    assert np.array_equal(found.row, row)
    np.testing.assert_allclose(found.distance, distance, atol=1e-7)
    np.testing.assert_allclose(found.score, score, atol=1e-7)


def test_many_reference_rows_are_tiled_without_a_trace():
    """More rows than a tile holds, and one patient larger than a tile, give the brute-force answer."""
    rng = np.random.default_rng(4)
    codes = np.r_[np.zeros(2500, dtype=int), np.arange(1, 1800), rng.integers(1, 1800, 900)]
    reference = torch.from_numpy(rng.normal(size=(len(codes), 3)))
    queries = torch.from_numpy(rng.normal(size=(5, 3)))
    found = copy_score(queries, reference, codes)
    patient, row, distance, score = brute_force(queries, reference, codes, None, None)
    assert np.array_equal(found.patient, patient)
    assert np.array_equal(found.row, row)
    np.testing.assert_allclose(found.score, score, atol=1e-7)
    np.testing.assert_allclose(found.distance, distance, atol=1e-7)


def test_exact_copies_score_zero_and_constant_features_score_one():
    """A copy scores 0 to rounding; where everybody is equally near nothing is suspicious."""
    rng = np.random.default_rng(5)
    reference = torch.from_numpy(rng.normal(size=(30, 4))).float()
    assert copy_score(reference[3:8], reference, np.arange(30)).score.max() < 1e-6
    constant = torch.zeros(30, 4)
    assert copy_score(constant[:2], constant, np.arange(30)).score.tolist() == [1.0, 1.0]
    assert copy_score(reference[:0], reference, np.arange(30)).score.shape == (0,)


def test_patients_are_ranked_once_by_their_best_sample():
    """Of several samples near one patient only the most suspicious counts."""
    reference = torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    queries = torch.tensor([[10.5], [10.1], [19.0], [0.2]])
    ranked = rank_patients(copy_score(queries, reference, np.arange(4)))
    assert ranked.tolist() == [1, 3, 2]


def test_ties_between_train_and_holdout_are_broken_evenly():
    """Images that lie in both sets are matched to train as often as to holdout, whatever their position."""
    rng = np.random.default_rng(6)
    shared = torch.from_numpy(rng.normal(size=(40, 8)))
    share = np.mean([copy_test(shared, shared, shared, seed=seed, draws=99).in_train.mean() for seed in range(60)])
    assert share == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 2400))


def test_ranking_does_not_look_at_labels():
    """Exchanging train and holdout keeps every score and turns every label over."""
    rng = np.random.default_rng(7)
    a, b, s = mixture(rng, 31), mixture(rng, 31), mixture(rng, 45)
    one, other = copy_test(a, b, s), copy_test(b, a, s)
    np.testing.assert_allclose(one.matches.score, other.matches.score, atol=1e-12)
    assert np.array_equal(one.in_train, ~other.in_train)


def test_same_seed_same_bytes():
    """The outcome depends on the input and the seed alone."""
    rng = np.random.default_rng(8)
    a, b, s = mixture(rng, 40), mixture(rng, 33), mixture(rng, 50)
    first, again = copy_test(a, b, s, seed=5), copy_test(a, b, s, seed=5)
    assert first.enrichment == again.enrichment
    assert first.matches.score.tobytes() == again.matches.score.tobytes()


def rejection_rate(make, repetitions, seed, **sizes):
    rng = np.random.default_rng(seed)
    rejected = 0
    for repetition in range(repetitions):
        train, holdout, synthetic = make(rng, **sizes)
        rejected += copy_test(train, holdout, synthetic, seed=repetition, draws=999).p <= 0.05
    return rejected / repetitions


def without_copies(rng, spread=1.0, n_train=60, n_holdout=60, m=80):
    return mixture(rng, n_train), mixture(rng, n_holdout), mixture(rng, m, spread=spread)


@pytest.mark.parametrize("spread", [1.0, 0.4, 1.8], ids=["fresh-real", "under-dispersed", "over-dispersed"])
@pytest.mark.parametrize(("n_train", "n_holdout"), [(60, 60), (90, 30)])
def test_size_holds_whatever_the_fidelity(spread, n_train, n_holdout):
    """Without copies the test rejects in about 5 % of audits, for faithful and unfaithful generators alike."""
    size = rejection_rate(without_copies, 120, 11, spread=spread, n_train=n_train, n_holdout=n_holdout)
    assert size <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)


def with_patients(rng, copies=0):
    """Three correlated images per patient."""
    people = mixture(rng, 90, spread=1.5).repeat_interleave(3, 0)
    values = people + torch.from_numpy(rng.normal(0, 0.4, people.shape))
    names = np.arange(90).repeat(3)
    synthetic = mixture(rng, 80, spread=1.5)
    if copies:
        originals = values[rng.choice(135, copies, replace=False)]
        synthetic[:copies] = originals + torch.from_numpy(rng.normal(0, 0.05, originals.shape))
    return matrix(values[:135], names[:135]), matrix(values[135:], names[135:]), synthetic.float()


def test_size_and_power_with_several_images_per_patient():
    """Correlated images of one patient neither inflate the size nor hide the copies."""
    assert rejection_rate(with_patients, 120, 12) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 120)
    assert rejection_rate(with_patients, 40, 13, copies=10) >= 0.9


def with_copies(rng, copies, n_train=300, n_holdout=300, m=350):
    train, holdout, synthetic = mixture(rng, n_train), mixture(rng, n_holdout), mixture(rng, m)
    originals = train[rng.choice(n_train, copies, replace=False)]
    synthetic[:copies] = originals + torch.from_numpy(rng.normal(0, 0.2, originals.shape))
    return train, holdout, synthetic


def test_power_at_two_percent_near_copies():
    """Seven near-copies among 350 samples are found in at least four of five audits."""
    assert rejection_rate(with_copies, 50, 14, copies=7) >= 0.8


def test_patients_on_both_sides_are_refused():
    """A patient in train and holdout breaks the null hypothesis, so it is an error."""
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(DataError, match="both train and holdout"):
        copy_test(matrix(values, "aabbcc"), matrix(values, "ddeeaf"), values)


def test_unusable_features_are_refused():
    """Non-finite features, different spaces and lonely patients are refused with a sentence."""
    values = torch.randn(6, 3, generator=torch.Generator().manual_seed(1))
    broken = values.clone()
    broken[2, 1] = float("nan")
    with pytest.raises(Insufficient, match="not finite"):
        copy_test(values, values + 1, broken)
    with pytest.raises(Insufficient, match="not finite"):
        copy_test(broken, values + 1, values)
    with pytest.raises(DataError, match="use one space"):
        copy_test(values, values[:, :2], values)
    with pytest.raises(Insufficient, match="two patients"):
        copy_score(values, values, np.zeros(6, dtype=int))
    with pytest.raises(Insufficient, match="both sides"):
        copy_test(values, values[:0], values)
    with pytest.raises(Insufficient, match="patients are ranked"):
        copy_test(values, values + 1, values[:0])


def test_pool_remembers_where_rows_come_from():
    """Every pooled row leads back to its set and row, and every code to one patient."""
    rng = np.random.default_rng(15)
    a, b = torch.from_numpy(rng.normal(size=(7, 2))), torch.from_numpy(rng.normal(size=(4, 2)))
    pool = Pool.of(matrix(a, "aabbccd"), matrix(b, "efgg"), seed=3)
    assert pool.in_train.sum() == 4
    assert len(pool.in_train) == 7
    for values, code, source in zip(pool.features, pool.codes, pool.source, strict=True):
        original = a[source] if source >= 0 else b[-1 - source]
        assert torch.equal(values, original.float())
        assert pool.in_train[code] == (source >= 0)
