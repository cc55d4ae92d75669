"""The Fréchet distance: closed forms, peers, degenerate input, and intervals."""

from __future__ import annotations

from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import torch

from medtrust import ops
from medtrust.errors import Insufficient
from medtrust.stats import fd_infinity, frechet, frechet_distance, frechet_distances, frechet_interval


@dataclass
class Moments:
    n: int
    mean: torch.Tensor
    cov: torch.Tensor

    @classmethod
    def of(cls, x: torch.Tensor) -> Moments:
        return cls(len(x), x.mean(0), torch.cov(x.T).reshape(x.shape[1], x.shape[1]))


def features(seed: int, n: int, d: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    mixing = np.random.default_rng(d).standard_normal((d, d)) / d**0.5  # one population per width
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.standard_normal((n, d)) @ mixing * scale + shift)


def reference(a: torch.Tensor, b: torch.Tensor) -> float:
    """The distance in 60 digits, by symmetric square roots."""
    with mpmath.workdps(60):

        def moments(x: torch.Tensor) -> tuple[mpmath.matrix, mpmath.matrix]:
            rows = mpmath.matrix(x.tolist())
            n, d = rows.rows, rows.cols
            mean = mpmath.matrix([sum(rows[i, j] for i in range(n)) / n for j in range(d)])
            centred = mpmath.matrix(n, d)
            for i in range(n):
                for j in range(d):
                    centred[i, j] = rows[i, j] - mean[j]
            return mean, centred.T * centred / (n - 1)

        def root(m: mpmath.matrix) -> mpmath.matrix:
            values, vectors = mpmath.eigsy(m)
            return vectors * mpmath.diag([mpmath.sqrt(max(v, 0)) for v in values]) * vectors.T

        mean_a, cov_a = moments(a)
        mean_b, cov_b = moments(b)
        half = root(cov_a)
        middle = half * cov_b * half
        cross = sum(mpmath.sqrt(max(v, 0)) for v in mpmath.eigsy((middle + middle.T) / 2, eigvals_only=True))
        gap = sum((x - y) ** 2 for x, y in zip(mean_a, mean_b, strict=True))
        trace = sum(cov_a[i, i] + cov_b[i, i] for i in range(cov_a.rows))
        return float(gap + trace - 2 * cross)


@pytest.mark.parametrize(("n", "m", "d"), [(30, 25, 7), (9, 40, 12), (6, 5, 11), (2, 2, 3), (13, 4, 1)])
def test_agrees_with_sixty_digits(n: int, m: int, d: int) -> None:
    """Whatever the shape, regular or singular, the distance has ten right digits, from rows and from moments."""
    a, b = features(n, n, d), features(m + 100, m, d, scale=1.3, shift=0.2)
    expected = reference(a, b)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(Moments.of(a), Moments.of(b)) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(a, Moments.of(b)) == pytest.approx(expected, rel=1e-6)


def test_one_dimension_is_the_closed_form() -> None:
    """In one dimension the distance is (Δμ)² + (Δσ)²."""
    a, b = features(1, 50, 1), features(2, 80, 1, scale=2.0, shift=1.0)
    expected = (a.mean() - b.mean()) ** 2 + (a.std() - b.std()) ** 2
    assert frechet_distance(a, b) == pytest.approx(float(expected), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(2, 5), (20, 90), (90, 20), (50, 50), (1, 3)])
def test_distance_to_itself_is_zero(n: int, d: int) -> None:
    """A set is at distance zero from itself, singular or not; one row is refused."""
    a = features(n, n, d)
    if n == 1:
        with pytest.raises(Insufficient, match="needs 2 samples"):
            frechet_distance(a, a)
        return
    assert 0 <= frechet_distance(a, a) < 1e-10
    assert 0 <= frechet_distance(a, a.flip(0)) < 1e-10
    assert 0 <= frechet_distance(Moments.of(a), Moments.of(a)) < 1e-6


def test_symmetric_and_blind_to_rotation_and_layout() -> None:
    """Swapping the sets, rotating the space, float32 or strided storage change nothing."""
    a, b = features(5, 40, 9), features(6, 33, 9, shift=0.5)
    here = frechet_distance(a, b)
    turn = torch.linalg.qr(features(7, 9, 9)).Q
    assert frechet_distance(b, a) == pytest.approx(here, rel=1e-12)
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(here, rel=1e-10)
    strided = torch.stack([a, a * 7], dim=2)[:, :, 0]
    assert not strided.is_contiguous()
    assert frechet_distance(strided, b) == pytest.approx(here, rel=1e-12)
    assert frechet_distance(a.float(), b.float()) == pytest.approx(here, rel=1e-5)


def test_constant_features_leave_the_gap_of_the_means() -> None:
    """Sets without spread are as far apart as their means, squared."""
    a, b = torch.zeros(6, 4), torch.full((9, 4), 0.5)
    assert frechet_distance(a, b) == pytest.approx(1.0)
    found = frechet_interval(a, b)
    assert found.interval.lo <= found.value <= found.interval.hi
    assert found.value == pytest.approx(1.0)


def test_refuses_with_a_reason() -> None:
    """NaN, infinity, unequal widths and single rows are refused with a sentence."""
    a = features(1, 10, 3)
    broken = a.clone()
    broken[4, 1] = torch.nan
    for bad in (broken, torch.full((3, 3), torch.inf), Moments(5, a.mean(0), torch.full((3, 3), torch.nan))):
        with pytest.raises(Insufficient, match="not finite"):
            frechet_distance(a, bad)
    with pytest.raises(ValueError, match="width 3 cannot be compared with features of width 2"):
        frechet_distance(a, a[:, :2])
    with pytest.raises(Insufficient, match="4 patients"):
        frechet_interval(a, a, ["x", "y", "z"] * 3 + ["x"])
    with pytest.raises(Insufficient, match="2 samples"):
        frechet_distance(Moments(1, a.mean(0), torch.eye(3)), a)


@pytest.mark.parametrize(("n", "d"), [(400, 48), (30, 64)])
def test_agrees_with_pytorch_fid_and_torch_fidelity(n: int, d: int) -> None:
    """On the same features the two usual packages give the same number."""
    fid_score = pytest.importorskip("pytorch_fid.fid_score", reason="pytorch-fid is not installed")
    metric_fid = pytest.importorskip(
        "torch_fidelity.metric_fid", reason="torch-fidelity is not installed (extra: peers)"
    )
    a, b = features(n, n, d), features(n + 1, n + 3, d, scale=1.2, shift=0.1)
    ours = frechet_distance(a, b)
    to = metric_fid.fid_features_to_statistics
    # Without a full-rank covariance both take roots of eigenvalues that are rounding: 1e-4 is what they reach.
    tolerance = 1e-6 if n > d else 1e-4
    theirs = metric_fid.fid_statistics_to_metric(to(a), to(b), verbose=False)
    assert ours == pytest.approx(theirs[metric_fid.KEY_METRIC_FID], rel=tolerance)
    x, y = a.numpy(), b.numpy()
    try:
        theirs = fid_score.calculate_frechet_distance(
            x.mean(0), np.cov(x, rowvar=False), y.mean(0), np.cov(y, rowvar=False)
        )
    except TypeError as error:
        pytest.skip(f"this SciPy no longer has the call that pytorch-fid makes: {error}")
    assert ours == pytest.approx(theirs, rel=tolerance)


def test_interval_holds_its_own_estimate_and_repeats_itself() -> None:
    """The interval contains the value, the same seed gives the same bits, and another seed other ones."""
    a, b = features(1, 120, 10), features(2, 90, 10, shift=0.3)
    found = frechet_interval(a, b, seed=3)
    assert found.extrapolated
    assert 0 <= found.interval.lo <= found.value <= found.interval.hi
    assert found == frechet_interval(a, b, seed=3)
    assert found != frechet_interval(a, b, seed=4)
    assert found.plug_in == frechet_distance(a, b)


def test_too_few_patients_give_a_bracket() -> None:
    """With more directions than half the patients the bias stays, so the plug-in and a lower bound are given."""
    a, b = features(1, 60, 90), features(2, 60, 90)
    found = frechet_interval(a, b)
    assert not found.extrapolated
    assert found.interval.lo < found.value == found.plug_in < found.interval.hi
    assert "bracket" in found.interval.method
    clustered = frechet_interval(features(3, 400, 30), features(4, 400, 30), [i // 10 for i in range(400)])
    assert not clustered.extrapolated
    assert clustered.interval.n_units == 40


def test_collinear_features_count_once() -> None:
    """A feature space whose columns repeat each other has the rank, and the interval, of its distinct columns."""
    a, b = features(1, 80, 6), features(2, 80, 6, shift=0.2)
    once, thrice = frechet_interval(a, b), frechet_interval(a.repeat(1, 3), b.repeat(1, 3))
    assert thrice.rank == once.rank == 6
    assert thrice.extrapolated
    assert thrice.value == pytest.approx(3 * once.value, rel=1e-8)


def test_a_gap_along_a_constant_feature_is_seen() -> None:
    """A feature that is constant in each set and differs between them enters the extrapolated distance exactly."""
    a, b = features(1, 100, 4), features(2, 100, 4)
    without = frechet_interval(a, b, seed=1)
    column = torch.ones(100, 1, dtype=torch.float64)
    found = frechet_interval(torch.cat([a, column], 1), torch.cat([b, 3 * column], 1), seed=1)
    assert found.plug_in == pytest.approx(without.plug_in + 4, rel=1e-12)
    assert found.value == pytest.approx(4, abs=3 * found.se)
    assert found.interval.lo > 3


def test_fd_infinity_removes_most_of_the_bias() -> None:
    """Between two samples of one population the extrapolated distance is a small share of the plug-in."""
    left = []
    for seed in range(8):
        a, b = features(seed, 300, 8), features(seed + 50, 300, 8)
        left.append(fd_infinity(a, b, seed=seed) / frechet_distance(a, b))
    assert abs(np.mean(left)) < 0.25
    with pytest.raises(Insufficient, match="4 samples"):
        fd_infinity(a[:3], b)


def test_factored_sets_and_moments_give_the_same() -> None:
    """A factor computed once, and moments streamed far from zero, give the distance of the rows."""
    generator = torch.Generator().manual_seed(91)
    a = 50 + torch.randn((900, 40), generator=generator, dtype=torch.float64)
    b = 50.1 + 1.1 * torch.randn((700, 40), generator=generator, dtype=torch.float64)
    direct = frechet_distance(a, b)
    factored = frechet.Factored.of(a)
    assert frechet_distance(factored, b) == direct
    assert frechet_distance(factored, frechet.Factored.of(b)) == direct
    moments = []
    for rows in (a, b):
        stream = ops.Moments(40)
        for batch in rows.float().split(64):
            stream.update(batch)
        moments.append(stream)
    assert frechet_distance(*moments) == pytest.approx(frechet_distance(a.float(), b.float()), abs=1e-7)


def test_groups_equal_single_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group has the number of a call of its own, bit for bit, and the reference is factored once."""
    generator = torch.Generator().manual_seed(93)
    reference = torch.randn((300, 12), generator=generator, dtype=torch.float64)
    groups = [torch.randn((n, 12), generator=generator) * (1 + n / 100) for n in (2, 5, 40, 400)]
    expected = [frechet_distance(reference, group) for group in groups]
    calls = []
    root = frechet._mean_and_root
    monkeypatch.setattr(frechet, "_mean_and_root", lambda x: calls.append(x) or root(x))
    assert frechet_distances(reference, (group for group in groups)) == expected
    assert [len(x) for x in calls] == [300, 2, 5, 40, 400]
    assert frechet_distances(frechet.Factored.of(ops.Moments(12).update(reference)), groups) == pytest.approx(
        expected, rel=1e-9
    )
    assert frechet_distances(reference, []) == []
    with pytest.raises(Insufficient, match="group 1: needs 2 samples"):
        frechet_distances(reference, [groups[0], groups[1][:1]])


def test_the_square_is_used_only_where_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eigenvalues of the square agree with singular values, and ill-conditioned products go to the latter."""
    generator = torch.Generator().manual_seed(92)
    a, b = (torch.randn((130, 60), generator=generator, dtype=torch.float64) for _ in range(2))
    for shrink in (1.0, 1e-9):
        x = a.clone()
        x[:, :5] *= shrink
        monkeypatch.setattr(frechet, "_SQUARED", 10**9)
        by_values = frechet_distance(x, b)
        monkeypatch.setattr(frechet, "_SQUARED", 1)
        assert frechet_distance(x, b) == pytest.approx(by_values, rel=1e-10)
