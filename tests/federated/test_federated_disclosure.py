"""What a site refuses to reveal, and the reason that it gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from federated_sites import WHY, federation, key_of, site_set, study_of, with_copies

from medtrust.errors import ConfigError, DataError, SafetyError
from medtrust.federated import SiteData, merge, site_statement
from medtrust.federated.ledger import Ledger
from medtrust.federated.noise import gaussian_sigma, secret_normal
from medtrust.federated.releasing import release
from medtrust.federated.site import deal


def made(rng, n=60, width=12):
    return rng.normal(size=(n, width))


def test_a_site_of_twenty_patients_reveals_nothing() -> None:
    rng = np.random.default_rng(0)
    sites = federation(rng, (10, 200))
    study = study_of(list(sites), made(rng))
    with pytest.raises(SafetyError, match="it has 20 patients, and the rule `patients` asks for 100"):
        site_statement(study, "site 0", sites["site 0"], key_of("site 0"))


def test_fewer_images_than_dimensions_reveal_no_covariance() -> None:
    """60 images in 64 dimensions: the rule and both numbers are named."""
    rng = np.random.default_rng(1)
    sites = federation(rng, (60,), width=80)
    study = study_of(list(sites), made(rng, 150, 80), dim=64)
    with pytest.raises(
        SafetyError, match=r"train: it has 60 images, and the rule `rows_per_dimension` asks for 2 x 64"
    ):
        site_statement(study, "site 0", sites["site 0"], key_of("site 0"))


def test_a_query_that_differs_by_one_patient_is_refused(tmp_path) -> None:
    """Subtracting the sums with and without a patient would reveal the patient; the same question again is answered."""
    rng = np.random.default_rng(2)
    rows = [made(rng, 200), made(rng, 200)]
    data = SiteData(site_set(rows[0], "t"), site_set(rows[1], "h"))
    fewer = SiteData(site_set(rows[0][:-1], "t"), data.holdout)
    study, again = (study_of(["Aachen"], made(np.random.default_rng(3)), seed=seed) for seed in (0, 1))
    key, book = key_of("Aachen"), tmp_path / "ledger"
    first = release(study, "Aachen", data, key, book)
    assert release(study, "Aachen", data, key, book).to_bytes() == first.to_bytes()
    for asked in (study, again):
        with pytest.raises(SafetyError, match=r"differs from what study .* was told by 1 patients, and the rule"):
            release(asked, "Aachen", fewer, key, book)
    assert len(Ledger(book).entries()) == 1
    assert "t-0" not in book.read_text()
    one_more = site_set(np.vstack([rows[0], made(rng, 25)]), "t")
    with pytest.raises(SafetyError, match="or a fold of it"):  # folds of 25 new patients differ by a few of them
        release(study, "Aachen", SiteData(one_more, data.holdout), key, book)


def test_too_many_studies_of_the_same_patients_are_refused(tmp_path) -> None:
    """Each seed's projection shows another side of the same patients; half of what the features hold is the limit."""
    rng = np.random.default_rng(4)
    sites = federation(rng, (100,), width=12)
    studies = [study_of(["site 0"], made(rng), seed=seed, fourier=32) for seed in range(10)]
    release(studies[0], "site 0", sites["site 0"], key_of("site 0"), tmp_path / "ledger")

    def ask_on() -> None:
        for study in studies[1:]:
            release(study, "site 0", sites["site 0"], key_of("site 0"), tmp_path / "ledger")

    with pytest.raises(SafetyError, match="more than half"):
        ask_on()


def test_a_damaged_ledger_stops_everything(tmp_path) -> None:
    rng = np.random.default_rng(5)
    sites = federation(rng, (120,))
    (tmp_path / "ledger").write_text("{")
    with pytest.raises(DataError, match="restore it"):
        release(study_of(["site 0"], made(rng)), "site 0", sites["site 0"], key_of("site 0"), tmp_path / "ledger")


def test_rules_are_lowered_in_words_only() -> None:
    """A study that lowers a rule says why, and its report says which."""
    rng = np.random.default_rng(6)
    with pytest.raises(ConfigError, match="the rules patients are below"):
        study_of(["site 0"], made(rng), rules={"patients": 30})
    sites = federation(rng, (60, 70))
    study = study_of(list(sites), made(rng), rules={"patients": 30, "fold_patients": 10, "lowered": WHY})
    report = merge(study, [site_statement(study, name, data, key_of(name)) for name, data in sites.items()])
    assert report.run["federated"]["rules"]["patients"] == 30
    assert any("lowered the rules patients, fold_patients" in line and WHY in line for line in report.limitations)


def test_folds_keep_patients_together_and_hide_who_is_where() -> None:
    patients = tuple(f"p{i // 3}" for i in range(90))
    fold = deal(patients, 4, b"secret")
    assert all(len({fold[i] for i in range(90) if patients[i] == p}) == 1 for p in set(patients))
    sizes = [len({patients[i] for i in np.flatnonzero(fold == f)}) for f in range(4)]
    assert max(sizes) - min(sizes) <= 1
    assert (fold != deal(patients, 4, b"another")).any()


def test_rare_intensities_are_not_shown() -> None:
    """A pixel value that one patient alone has, such as metal, goes to its neighbours' bin."""
    rng = np.random.default_rng(7)
    sites = federation(rng, (120,))
    synthetic = made(rng)
    complete, asked = with_copies(sites, synthetic, rng)
    data = complete["site 0"]
    shares = torch.zeros_like(data.train.histograms)
    shares[:, 40:60] = 1 / 20
    shares[3] = 0
    shares[3, 127] = 1.0  # the implant
    data = replace(data, train=replace(data.train, histograms=shares))
    study = study_of(["site 0"], synthetic, **{**asked, "results": ("fidelity.intensity",)})
    said = site_statement(study, "site 0", data, key_of("site 0"))
    shown = said.arrays["intensity/train/histogram.shares"].sum(0)
    assert shown[127] == 0
    assert shown.sum() == pytest.approx(120)
    assert (shown > 0).sum() == 20
    assert said.arrays["intensity/train/histogram.moved"][0] == pytest.approx((127 - 59) * 255 / 128)


@pytest.mark.parametrize(
    ("epsilon", "delta", "peer"),
    [(0.1, 1e-6, 36.30469042621), (1.0, 1e-5, 3.730631634815), (4.0, 1e-6, 1.1935185871), (20.0, 1e-3, 0.2467218)],
)
def test_the_noise_is_calibrated_analytically(epsilon, delta, peer) -> None:
    """The loss of two Gaussians at distance Δ, integrated, spends δ; diffprivlib 0.6.6's GaussianAnalytic agrees."""
    from scipy.integrate import quad
    from scipy.stats import norm

    sigma = gaussian_sigma(epsilon, delta, 1.0)
    assert sigma == pytest.approx(peer, rel=1e-6)

    def lost(x):  # positive part of p - e^ε q
        return max(0.0, norm.pdf(x, 1.0, sigma) - np.exp(epsilon) * norm.pdf(x, 0.0, sigma))

    cut = epsilon * sigma**2 + 0.5
    spent = quad(lost, cut, cut + 12 * sigma, limit=200, epsabs=1e-15)[0]
    assert spent == pytest.approx(delta, rel=1e-4)
    classical = np.sqrt(2 * np.log(1.25 / delta)) / epsilon
    assert epsilon >= 1 or sigma < classical


def test_noise_is_normal_and_repeats_for_one_secret() -> None:
    draws = secret_normal(b"one", 20000)
    assert abs(draws.mean()) < 0.03
    assert abs(draws.std() - 1) < 0.02
    assert (secret_normal(b"one", 5) == draws[:5]).all()
    assert (secret_normal(b"two", 5) != draws[:5]).all()


def test_differential_privacy_reaches_the_report() -> None:
    """Noise on every sum, another one for other data, its bias printed; the distances stay near those without."""
    rng = np.random.default_rng(8)
    sites = federation(rng, (3000, 3000), width=4)
    synthetic = rng.normal(size=(800, 4)) + 0.8
    private = study_of(list(sites), synthetic, dim=4, folds=4, privacy={"epsilon": 8, "delta": 1e-5, "clip": 4.0})
    open_study = study_of(list(sites), synthetic, dim=4, folds=4)
    said = [site_statement(private, name, data, key_of(name)) for name, data in sites.items()]
    plain = [site_statement(open_study, name, data, key_of(name)) for name, data in sites.items()]
    assert said[0].to_bytes() == site_statement(private, "site 0", sites["site 0"], key_of("site 0")).to_bytes()
    noisy, clear = said[0].arrays["toy/train/moments.mean"], plain[0].arrays["toy/train/moments.mean"]
    assert 0 < np.abs(noisy - clear).max() < 0.5
    found, without = merge(private, said)["fidelity.fd[toy]"], merge(open_study, plain)["fidelity.fd[toy]"]
    assert found.estimate.value == pytest.approx(without.estimate.value, rel=0.25)
    assert "bias_of_noise" in found.facts
    assert any("ε = 8" in note for note in found.notes)
    assert merge(private, said)["fidelity.mmd[toy]"].interval is not None
    with pytest.raises(ConfigError, match="cannot be given with noise"):
        study_of(["a"], synthetic, dim=4, privacy={"epsilon": 8, "delta": 1e-5, "clip": 4.0},
                 **with_copies({}, synthetic, rng)[1])  # fmt: skip
